"""What is exported is loaded by diffusers with the same effect."""

# diffusers exports lazily.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from surefoot.formats.adapter_file import write_adapter
from surefoot.tuning import dora, lora
from surefoot.tuning.replacement import attach_adapters
from surefoot.tuning.targets import select_targets
from surefoot.tuning.trainable import Tuned
from tests.tiny_sd import build_tiny_pipeline

# float32 through a dozen layers, in another order of multiplications.
TOLERANCE = 1e-5

UNET_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_CONVOLUTIONS = ("conv_in", "proj_in", "conv1", "conv_shortcut", "downsamplers.0.conv")
UNET_REST = ("ff.net.0.proj", "ff.net.2", "time_embedding.linear_1", "time_emb_proj")
CLIP_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
CLIP_FEED_FORWARD = ("fc1", "fc2")


def outputs(pipeline: StableDiffusionPipeline) -> tuple[Tensor, Tensor]:
    """Caption embedding, and noise predicted for a latent under a fixed condition."""
    generator = torch.Generator().manual_seed(5)
    ids = pipeline.tokenizer(
        ["a red cat", "two dogs"], padding="max_length", return_tensors="pt"
    ).input_ids
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    condition = torch.randn(2, 77, 16, generator=generator)
    with torch.no_grad():
        return (
            pipeline.text_encoder(ids)[0],
            pipeline.unet(latents, torch.tensor([10, 900]), condition).sample,
        )


def targets_of(module: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    shapes = {
        name.removesuffix(".weight"): tuple(parameter.shape)
        for name, parameter in module.named_parameters()
        if name.endswith(".weight")
    }
    return select_targets(shapes, patterns)


def tuned_pipeline(
    kind: str, unet: Sequence[str], text_encoder: Sequence[str]
) -> tuple[StableDiffusionPipeline, Tuned]:
    """A pipeline whose adapters have visibly learned something; rank 3, alpha 2."""
    pipeline = build_tiny_pipeline(seed=0)
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    targets = {
        "unet": targets_of(pipeline.unet, unet),
        "text_encoder": targets_of(pipeline.text_encoder, text_encoder),
    }
    layer = {"lora": lora.LoraLayer, "dora": dora.DoraLayer}[kind]
    generator = torch.Generator().manual_seed(1)
    tuned = attach_adapters(layer, parts, targets, rank=3, alpha=2.0, generator=generator)
    with torch.no_grad():
        for trainable in tuned.trainables:
            if trainable.kind == "lora_up":
                trainable.parameter.normal_(std=0.1, generator=generator)
            if trainable.kind == "magnitude":
                trainable.parameter.mul_(
                    1 + 0.2 * torch.rand(trainable.parameter.shape, generator=generator)
                )
    return pipeline, tuned


def loaded_pipeline(tuned: Tuned, folder: Path) -> StableDiffusionPipeline:
    """A fresh pipeline of the same base that has loaded the exported file."""
    path = folder / "adapter.safetensors"
    layers = ((layer.path, layer.state()) for layer in tuned.layers)
    write_adapter(path, layers, "diffusers", {"made_by": "surefoot", "step": "1"})
    pipeline = build_tiny_pipeline(seed=0)
    pipeline.load_lora_weights(str(folder), weight_name=path.name)
    return pipeline


def adapted_modules(pipeline: StableDiffusionPipeline) -> int:
    return sum(
        isinstance(module, BaseTunerLayer)
        for part in (pipeline.unet, pipeline.text_encoder)
        for module in part.modules()
    )


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(
    ("unet", "text_encoder"),
    [
        (UNET_ATTENTION, ()),
        (UNET_CONVOLUTIONS, ()),
        ((*UNET_ATTENTION, *UNET_CONVOLUTIONS, *UNET_REST), (*CLIP_ATTENTION, *CLIP_FEED_FORWARD)),
        ((), CLIP_ATTENTION),
        (("to_q",), CLIP_FEED_FORWARD),
    ],
    ids=["attention", "convolutions", "everything", "text attention", "text feed forward"],
)
def test_diffusers_loads_an_exported_adapter_with_the_same_effect(
    kind: str, unet: Sequence[str], text_encoder: Sequence[str], tmp_path: Path
) -> None:
    tuned_model, tuned = tuned_pipeline(kind, unet, text_encoder)
    loaded = loaded_pipeline(tuned, tmp_path)
    assert adapted_modules(loaded) == len(tuned.layers) > 0
    parts = zip(
        ("text_encoder", "unet"),
        outputs(tuned_model),
        outputs(loaded),
        outputs(build_tiny_pipeline(seed=0)),
        strict=True,
    )
    for part, ours, theirs, base in parts:
        torch.testing.assert_close(theirs, ours, rtol=0, atol=TOLERANCE)
        # Without this, a loader that does nothing would pass on a model that was not tuned.
        moved = (ours - base).abs().max().item()
        assert (moved > 100 * TOLERANCE) == any(
            layer.path.startswith(f"{part}.") for layer in tuned.layers
        )


def test_no_adapter_of_the_exported_file_is_left_at_its_starting_value(tmp_path: Path) -> None:
    _, tuned = tuned_pipeline("dora", UNET_ATTENTION + UNET_CONVOLUTIONS, CLIP_ATTENTION)
    loaded = loaded_pipeline(tuned, tmp_path)
    for layer in tuned.layers:
        part, _, path = layer.path.partition(".")
        theirs = getattr(loaded, part).get_submodule(path)
        assert isinstance(theirs, PeftLoraLayer)
        (name,) = theirs.scaling
        weights = {
            kind: getattr(theirs, kind)[name].weight
            for kind in ("lora_A", "lora_B", "lora_magnitude_vector")
        }
        assert torch.equal(weights["lora_A"], layer.get_parameter("lora_down"))
        assert torch.equal(weights["lora_B"], layer.get_parameter("lora_up") * (2.0 / 3))
        magnitude = layer.get_parameter("magnitude")
        assert torch.equal(weights["lora_magnitude_vector"].flatten(), magnitude)
        assert theirs.scaling[name] == 1.0


def test_keys_and_shapes_are_those_of_diffusers(tmp_path: Path) -> None:
    alpha = torch.tensor(2.0, dtype=torch.float64)
    layers = {
        "unet.mid_block.to_q": {
            "lora_down": torch.ones(4, 6),
            "lora_up": torch.full((8, 4), 3.0),
            "alpha": alpha,
            "magnitude": torch.ones(8, 1),
        },
        "unet.conv_in": {
            "lora_down": torch.ones(2, 6, 3, 3),
            "lora_up": torch.ones(8, 2, 1, 1),
            "alpha": alpha,
            "magnitude": torch.ones(8, 1, 1, 1),
        },
        "text_encoder.encoder.layers.0.self_attn.q_proj": {
            "lora_down": torch.ones(4, 6),
            "lora_up": torch.ones(8, 4),
            "alpha": alpha,
        },
    }
    write_adapter(tmp_path / "adapter.safetensors", layers.items(), "diffusers", {})
    written = load_file(tmp_path / "adapter.safetensors")
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == {
        "unet.mid_block.to_q.lora_A.weight": (4, 6),
        "unet.mid_block.to_q.lora_B.weight": (8, 4),
        "unet.mid_block.to_q.lora_magnitude_vector.weight": (8,),
        "unet.conv_in.lora_A.weight": (2, 6, 3, 3),
        "unet.conv_in.lora_B.weight": (8, 2, 1, 1),
        "unet.conv_in.lora_magnitude_vector.weight": (1, 8, 1, 1),
        f"{text}.lora_A.weight": (4, 6),
        f"{text}.lora_B.weight": (8, 4),
    }
    expected = torch.full((8, 4), 1.5)
    assert torch.equal(written["unet.mid_block.to_q.lora_B.weight"], expected)
    assert torch.equal(layers["unet.mid_block.to_q"]["lora_up"], torch.full((8, 4), 3.0))
