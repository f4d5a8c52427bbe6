"""What parameter_groups finds out about networks of several makers."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from lycoris import create_lycoris
from peft import (
    IA3Config,
    LoraConfig,
    get_peft_model,
    inject_adapter_in_model,
)
from torch import nn
from transformers.pytorch_utils import Conv1D

from surefoot.engine.optimizer import group_by_kind
from surefoot.optim import Adafactor, parameter_groups
from surefoot.tuning import dora, full, lora
from surefoot.tuning.replacement import attach_adapters
from tests.optim.networks import (
    RELATIVE,
    described,
    ends,
    network,
    rms,
)
from tests.tiny_sd import build_tiny_pipeline

RANK, ALPHA = 4, 6.0


# Plain networks


def test_a_plain_network_is_told_apart_by_its_layers() -> None:
    model = network()
    found = described(parameter_groups(model))
    assert found.keys() == dict(model.named_parameters()).keys()
    assert {name: row[0] for name, row in found.items() if row[0] != "weight"} == {
        "table.weight": "embedding",
        "wide.bias": "bias",
        "norm.weight": "norm",
        "norm.bias": "norm",
        "conv.bias": "bias",
        "line.bias": "bias",
        "space.bias": "bias",
        "zero.bias": "bias",
        "gain": "bias",
    }
    for name in ("wide.weight", "conv.bias", "table.weight"):
        assert found[name][2] == pytest.approx(rms(model.get_parameter(name)), rel=RELATIVE)


def test_zero_initialised_layers_get_the_size_that_torch_would_have_drawn() -> None:
    found = described(parameter_groups(network()))
    usual = rms(nn.Linear(48, 4000).weight)
    assert found["zero.weight"][2] == pytest.approx(usual, rel=0.01)
    assert found["zero.bias"][2] == found["zero.weight"][2]
    # A tensor of no layer has no usual size.
    assert found["gain"][2] == 0


def test_what_is_frozen_is_left_out_and_what_is_shared_is_there_once() -> None:
    model = network()
    model.conv.requires_grad_(False)
    twin = nn.ModuleDict({"first": model, "second": model.wide})
    found = described(parameter_groups(twin))
    assert "first.wide.weight" in found
    assert not any(name.startswith("second") or "conv" in name for name in found)


def test_groups_do_not_depend_on_how_far_the_training_is() -> None:
    model = network()
    before = parameter_groups(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = parameter_groups(model)

    def shape(groups: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
        return [(group["kind"], [name for name, _ in group["params"]]) for group in groups]

    assert shape(after) == shape(before)


def test_full_tuning_and_parameter_groups_say_the_same() -> None:
    unet = build_tiny_pipeline(0).unet
    tuned = full.attach({"unet": unet})
    ours = described(group_by_kind(tuned.trainables))
    theirs = described(parameter_groups(nn.ModuleDict({"unet": unet})))
    zeros = {name for name, row in ours.items() if row[2] == 0}
    assert {name: row for name, row in theirs.items() if name not in zeros} == {
        name: row for name, row in ours.items() if name not in zeros
    }


# LoRA and DoRA: our own, PEFT's and LyCORIS's


def targets(unet: nn.Module) -> tuple[str, ...]:
    return tuple(
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and ("to_" in name or "conv1" in name)
    )


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_our_tunings_and_peft_get_the_same_groups(use_dora: bool) -> None:
    ours, theirs = (build_tiny_pipeline(0).unet for _ in range(2))
    paths = targets(ours)
    tuned = attach_adapters(
        dora.DoraLayer if use_dora else lora.LoraLayer,
        {"unet": ours},
        {"unet": paths},
        rank=RANK,
        alpha=ALPHA,
        generator=torch.Generator().manual_seed(0),
    )
    config = LoraConfig(
        r=RANK,
        lora_alpha=cast(int, ALPHA),
        target_modules=list(paths),
        use_dora=use_dora,
    )
    theirs.add_adapter(config)  # as diffusers does it
    built = described(group_by_kind(tuned.trainables))
    assert described(parameter_groups(nn.ModuleDict({"unet": ours}))) == built
    words = {
        "lora_A.default.weight": "lora_down",
        "lora_B.default.weight": "lora_up",
        "lora_magnitude_vector.default.weight": "magnitude",
    }
    found = {}
    for name, row in described(parameter_groups(theirs)).items():
        path, end = name.split(".lora_")
        found[f"unet.{path}.{words['lora_' + end]}"] = row
    assert found == built


def test_peft_in_a_loop_moves_as_our_own_tuning_does() -> None:
    torch.manual_seed(0)
    theirs = get_peft_model(
        cast(Any, network()), LoraConfig(r=RANK, lora_alpha=8, target_modules=["wide"])
    )
    ours = network()
    tuned = attach_adapters(
        lora.LoraLayer,
        {"m": ours},
        {"m": ("wide",)},
        rank=RANK,
        alpha=8.0,
        generator=torch.Generator().manual_seed(0),
    )
    pairs = [
        (parameter, next(p for n, p in theirs.named_parameters() if f".{name}." in n))
        for name, parameter in zip(
            ("lora_A", "lora_B"), [t.parameter for t in tuned.trainables], strict=True
        )
    ]
    with torch.no_grad():
        for mine, their in pairs:
            mine.copy_(their)
    first = Adafactor(group_by_kind(tuned.trainables), lr=1e-2)
    second = Adafactor(parameter_groups(theirs), lr=1e-2)
    start = [their.detach().clone() for _, their in pairs]
    for _ in range(5):
        x = torch.randn(3, 24)
        for model, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            cast(Any, model).wide(x).square().sum().backward()
            optimizer.step()
    for (mine, their), before in zip(pairs, start, strict=True):
        assert (their - before).abs().max() > 1e-3
        torch.testing.assert_close(mine, their, rtol=1e-4, atol=1e-6)


def test_rank_stabilised_lora_steps_by_the_scale_in_force() -> None:
    found = {}
    for use_rslora in (False, True):
        config = LoraConfig(r=16, lora_alpha=8, target_modules=["wide"], use_rslora=use_rslora)
        model = get_peft_model(cast(Any, network()), config)
        found[use_rslora] = ends(described(parameter_groups(model)), "lora_B.default.weight")
    # alpha / sqrt(r) is sqrt(r) times as large as alpha / r.
    assert found[True][1] == pytest.approx(found[False][1] * math.sqrt(16))
    assert found[False][1] == 8.0


def test_patterns_and_a_scale_set_afterwards_are_seen() -> None:
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["wide", "conv", "line", "space"],
        rank_pattern={"conv": 7},
        alpha_pattern={"conv": 3},
    )
    model = get_peft_model(cast(Any, network()), config)
    cast(Any, model).base_model.model.line.set_scale("default", 0.5)
    found = described(parameter_groups(model))
    alphas = {
        layer: ends(found, f"{layer}.lora_B.default.weight")[1]
        for layer in ("wide", "conv", "line", "space")
    }
    assert alphas == {"wide": 8.0, "conv": 3.0, "line": 4.0, "space": 8.0}
    for layer, weight in (("line", network().line.weight), ("space", network().space.weight)):
        row = ends(found, f"{layer}.lora_B.default.weight")
        assert row[2] == pytest.approx(rms(weight), rel=RELATIVE)


def test_only_the_adapter_in_training_counts_and_saved_modules_are_plain() -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["wide"], modules_to_save=["zero"])
    model = get_peft_model(cast(Any, network()), config)
    model.add_adapter("second", LoraConfig(r=2, lora_alpha=16, target_modules=["wide"]))
    first = described(parameter_groups(model))
    assert {name.split("model.")[-1]: row[0] for name, row in first.items()} == {
        "wide.lora_A.default.weight": "lora_down",
        "wide.lora_B.default.weight": "lora_up",
        "zero.modules_to_save.default.weight": "weight",
        "zero.modules_to_save.default.bias": "bias",
    }
    model.set_adapter("second")
    second = described(parameter_groups(model))
    assert {row[1] for row in second.values()} == {16.0}
    assert all(".second." in name for name in second)


def test_a_weight_stored_transposed_has_its_own_fan_in() -> None:
    model = nn.ModuleDict({"layer": Conv1D(10, 30)})  # 30 in, 10 out, stored (30, 10)
    with torch.no_grad():
        cast(Any, model["layer"]).weight.zero_()
    inject_adapter_in_model(
        LoraConfig(r=2, lora_alpha=2, target_modules=["layer"], fan_in_fan_out=True), model
    )
    row = ends(described(parameter_groups(model)), "lora_B.default.weight")
    assert row[2] == pytest.approx(1 / math.sqrt(3 * 30))


def test_a_layer_of_zeros_does_not_stop_its_adapter() -> None:
    model = get_peft_model(cast(Any, network()), LoraConfig(r=2, target_modules=["zero"]))
    row = ends(described(parameter_groups(model)), "lora_B.default.weight")
    assert row[2] == pytest.approx(1 / math.sqrt(3 * 48))


@pytest.mark.parametrize("use_dora", [False, True], ids=["locon", "dora"])
def test_lycoris_gets_what_peft_gets(use_dora: bool) -> None:
    ours = create_lycoris(
        network(), 1.0, linear_dim=RANK, linear_alpha=cast(int, ALPHA), dora_wd=use_dora
    )
    ours.apply_to()
    found = described(parameter_groups(ours))
    layers = ["wide", "conv", "line", "space", "zero"]
    config = LoraConfig(
        r=RANK, lora_alpha=cast(int, ALPHA), target_modules=layers, use_dora=use_dora
    )
    theirs = described(parameter_groups(get_peft_model(cast(Any, network()), config)))
    words = {
        "lora_down.weight": "lora_A.default.weight",
        "lora_up.weight": "lora_B.default.weight",
        "dora_scale": "lora_magnitude_vector.default.weight",
    }
    assert len(found) == len(theirs) == len(layers) * (3 if use_dora else 2)
    for name, row in found.items():
        layer, end = name.removeprefix("lycoris_").split(".", 1)
        assert row == ends(theirs, f"{layer}.{words[end]}")


# What quantised layers stand for


def test_a_4_bit_layer_is_measured_by_what_it_stands_for() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    plain = network().wide
    layer = bitsandbytes.nn.Linear4bit(24, 48, quant_type="nf4", compute_dtype=torch.float32)
    layer.load_state_dict(plain.state_dict())
    model = nn.ModuleDict({"wide": layer.to("cpu")})
    assert cast(Any, model["wide"]).weight.dtype == torch.uint8
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=2, target_modules=["wide"]), model)
    row = ends(described(parameter_groups(model)), "lora_B.default.weight")
    # Four bits keep a few per cent.
    assert row[2] == pytest.approx(rms(plain.weight), rel=0.05)


# What cannot be done is said in words


def test_a_frozen_network_is_refused() -> None:
    with pytest.raises(ValueError, match="requires_grad=False; unfreeze some"):
        parameter_groups(network().requires_grad_(False))


def test_tensors_without_numbers_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="weight and 1 more trained tensors are on the meta"):
        parameter_groups(model)
    adapted = nn.ModuleDict({"layer": nn.Linear(3, 3)})
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["layer"]), adapted)
    cast(Any, adapted["layer"]).base_layer.to("meta")
    with pytest.raises(ValueError, match="layer: the layer it changes has its weight on the meta"):
        parameter_groups(adapted)


def test_a_lora_that_let_go_of_its_layer_is_refused() -> None:
    class Lora(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lora_down = nn.Linear(4, 2, bias=False)
            self.lora_up = nn.Linear(2, 4, bias=False)

    with pytest.raises(ValueError, match=r"^net: the layer that this LoRA changes cannot be found"):
        parameter_groups(nn.ModuleDict({"net": Lora()}))


def test_a_weight_of_an_unknown_storage_is_refused() -> None:
    model = nn.ModuleDict({"layer": nn.Linear(4, 4)})
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["layer"]), model)
    base = cast(Any, model["layer"]).base_layer
    base.weight = nn.Parameter(base.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"holds torch\.int8 numbers.*load it unquantised"):
        parameter_groups(model)


def test_a_merged_adapter_is_refused() -> None:
    model = get_peft_model(cast(Any, network()), LoraConfig(r=2, target_modules=["wide"]))
    model.merge_adapter()
    with pytest.raises(ValueError, match=r"wide: adapter 'default' is merged.*unmerge_adapter"):
        parameter_groups(model)
    model.unmerge_adapter()
    assert len(parameter_groups(model)) == 2


def test_a_scale_of_zero_is_refused() -> None:
    model = get_peft_model(
        cast(Any, network()), LoraConfig(r=2, lora_alpha=0, target_modules=["wide"])
    )
    with pytest.raises(ValueError, match="wide: the scale of the adapter is 0"):
        parameter_groups(model)


def test_methods_without_a_rule_are_refused_briefly() -> None:
    model = nn.ModuleDict({f"layer{index}": nn.Linear(4, 4) for index in range(8)})
    inject_adapter_in_model(IA3Config(target_modules=list(model), feedforward_modules=[]), model)
    with pytest.raises(ValueError, match=r"trains ia3_l\.default, for which") as caught:
        parameter_groups(model)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert lines[-1] == "and 3 more like these"
