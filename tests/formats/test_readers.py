"""Files that are written are merged by the programs that read them into the same weights."""

# diffusers exports lazily.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from lycoris.modules import get_module, make_module
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from surefoot.config.adapter_format import AdapterFormat
from surefoot.formats.adapter_file import open_adapter, write_adapter
from tests.formats.small_adapters import METADATA, Adapter, AdapterKind, adapter, weights
from tests.reference.merged_weights import merged
from tests.tiny_sd import build_tiny_pipeline

TOLERANCE = 1e-5  # relative; float32 sums in another order


def written(
    folder: Path, kind: AdapterKind, adapter_format: AdapterFormat, alpha: float | None = None
) -> tuple[Path, Adapter]:
    """A file, and what is in it; with one alpha for all layers if it is given."""
    path = folder / "adapter.safetensors"
    layers = adapter(kind, weights(), ranks=(2, 4) if alpha is None else (2,))
    if alpha is not None:
        same = {"alpha": torch.tensor(alpha, dtype=torch.float64)}
        layers = {name: leaves | same for name, leaves in layers.items()}
    write_adapter(path, layers.items(), adapter_format, METADATA)
    return path, layers


def found_weights(parts: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": module.weight.detach()
        for part, network in parts.items()
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def assert_merged(found: dict[str, Tensor], layers: Adapter) -> None:
    """Every weight is the merged one, and far from the one it was."""
    assert found.keys() == layers.keys()
    for path, weight in weights().items():
        expected = merged(weight, layers[path])
        difference = (found[path].double() - expected).norm() / expected.norm()
        assert difference < TOLERANCE, (path, float(difference))
        assert (expected - weight).norm() / expected.norm() > 1000 * TOLERANCE


@pytest.mark.parametrize(
    ("kind", "adapter_format", "alpha"),
    [
        ("lora", "diffusers", None),
        ("dora output", "diffusers", None),
        # diffusers 0.42 finds one alpha for all layers only, of those that kohya's files have.
        ("lora", "kohya", 3.0),
    ],
)
def test_diffusers_merges_the_same_weights(
    kind: AdapterKind, adapter_format: AdapterFormat, alpha: float | None, tmp_path: Path
) -> None:
    path, layers = written(tmp_path, kind, adapter_format, alpha)
    pipeline = build_tiny_pipeline(seed=0)
    pipeline.load_lora_weights(str(tmp_path), weight_name=path.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    found = found_weights({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})
    assert_merged(found, layers)


@pytest.mark.parametrize(
    ("kind", "alpha"),
    [
        ("lora", None),
        ("dora output", None),
        # LyCORIS 4.1 multiplies by alpha / rank twice when it merges LoHa, and takes no factors of
        # a LoKr this small.
        ("loha", 2.0),
        ("lokr whole", None),
    ],
)
def test_lycoris_merges_the_same_weights(
    kind: AdapterKind, alpha: float | None, tmp_path: Path
) -> None:
    path, layers = written(tmp_path, kind, "kohya", alpha)
    pipeline = build_tiny_pipeline(seed=0)
    # Not by its `create_network_from_weights`, which counts the time embedding of a UNet twice.
    tensors = load_file(path)
    parts: dict[str, nn.Module] = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    # LyCORIS knows CLIP by the names from before transformers 5.
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    modules = {
        f"{prefixes[part]}{name.replace('.', '_')}": module
        for part, network in parts.items()
        for name, module in network.named_modules()
    }
    names = {key.partition(".")[0] for key in tensors}
    assert len(names) == len(layers)
    for name in names:
        method, factors = get_module(tensors, name)
        make_module(method, factors, name, modules[name]).merge_to(1.0)
    assert_merged(found_weights(parts), layers)


@pytest.mark.parametrize("kind", ["lora", "dora output"])
def test_file_of_peft_has_the_effect_that_it_has_in_peft(kind: str, tmp_path: Path) -> None:
    unet = build_tiny_pipeline(seed=0).unet
    config = LoraConfig(
        r=2,
        lora_alpha=3,
        target_modules=["to_q", "to_out.0", "conv1"],
        alpha_pattern={"attn1.to_q": 5},
        rank_pattern={"conv1": 4},
        use_rslora=True,
        use_dora=kind != "lora",
        init_lora_weights=False,
    )
    model = get_peft_model(unet, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.3)
    model.save_pretrained(str(tmp_path))
    file = open_adapter(tmp_path / "adapter_model.safetensors")
    assert (file.format, file.family) == ("peft", "sd15")
    base = weights()
    theirs = found_weights({"unet": model.merge_and_unload()})
    assert len(file.layers) > 20
    for layer in file.layers:
        expected = merged(base[layer], file.read(layer))
        assert (theirs[layer].double() - expected).norm() / expected.norm() < TOLERANCE
        assert (base[layer].double() - expected).norm() / expected.norm() > 0.01


@pytest.mark.parametrize("kind", ["lora", "dora output"])
def test_file_with_the_settings_of_diffusers_has_the_effect_that_it_has_there(
    kind: str, tmp_path: Path
) -> None:
    pipeline = build_tiny_pipeline(seed=0)
    config = LoraConfig(
        r=2,
        lora_alpha=3,
        target_modules=["to_q", "to_out.0"],
        alpha_pattern={"attn1.to_q": 5},
        use_dora=kind != "lora",
        init_lora_weights=False,
    )
    pipeline.unet.add_adapter(config)
    unet_settings = config.to_dict() | {"target_modules": ["to_q", "to_out.0"]}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        unet_lora_adapter_metadata=unet_settings,
    )
    file = open_adapter(tmp_path / "pytorch_lora_weights.safetensors")
    assert file.format == "diffusers"
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    theirs = found_weights({"unet": pipeline.unet})
    assert len(file.layers) > 10
    for layer in file.layers:
        expected = merged(weights()[layer], file.read(layer))
        assert (theirs[layer].double() - expected).norm() / expected.norm() < TOLERANCE


def test_hashes_are_those_of_kohya(tmp_path: Path) -> None:
    layers = {
        f"unet.conv_in.{number}": {
            "lora_down": torch.randn(8, 20_000),
            "lora_up": torch.randn(16, 8),
            "alpha": torch.tensor(4.0, dtype=torch.float64),
        }
        for number in range(3)
    }
    path = tmp_path / "adapter.safetensors"
    metadata = {"ss_network_dim": "8", "ss_seed": "1", "surefoot_tuning": "lora"}
    write_adapter(path, layers.items(), "kohya", metadata)
    # As sd-scripts does it, from a file that has the tensors and the ss_ keys alone.
    kept = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    content = save(load_file(path), kept)
    header = 8 + int.from_bytes(content[:8], "little")
    assert len(content) > 0x110000
    with safe_open(path, "pt") as file:
        found = file.metadata()
    assert found["sshs_model_hash"] == hashlib.sha256(content[header:]).hexdigest()
    piece = hashlib.sha256(content[0x100000:0x110000]).hexdigest()
    assert found["sshs_legacy_hash"] == piece[:8]
