"""Full fine-tuning."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from surefoot.tuning import full
from surefoot.tuning.layers import TuningError
from tests.tiny_sd import build_tiny_pipeline


class Table(nn.Module):
    """Parameters that belong to no layer, as the modulation tables of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.ones(6, 4))
        self.gamma = nn.Parameter(torch.ones(4))


class RMSNorm(nn.Module):
    """A norm layer that torch knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


def test_every_parameter_of_a_real_network_is_trained_once_by_identity() -> None:
    pipeline = build_tiny_pipeline(seed=0)
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    for part in parts.values():
        part.requires_grad_(False)
    tuned = full.attach(parts)
    names = {
        f"{name}.{path}": parameter
        for name, part in parts.items()
        for path, parameter in part.named_parameters()
    }
    assert {trainable.name for trainable in tuned.trainables} == names.keys()
    assert len(tuned.trainables) == len(names)
    for trainable in tuned.trainables:
        assert trainable.parameter is names[trainable.name]
        assert trainable.parameter.requires_grad
        rms = trainable.parameter.detach().double().square().mean().sqrt().item()
        # What begins at zero, as these biases do, counts as what torch would have drawn.
        assert trainable.weight_rms == pytest.approx(rms) if rms else trainable.weight_rms >= 0
        assert (trainable.alpha, trainable.rank) == (1.0, 0)
    assert tuned.layers == ()
    assert tuned.adapters() == {}
    kinds = {trainable.name: trainable.kind for trainable in tuned.trainables}
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
    text = "text_encoder.embeddings"
    expected = {
        "unet.conv_in.weight": "weight",
        "unet.conv_in.bias": "bias",
        "unet.conv_norm_out.weight": "norm",
        "unet.conv_norm_out.bias": "norm",
        f"{block}.attn1.to_q.weight": "weight",
        f"{block}.norm1.bias": "norm",
        f"{block}.ff.net.0.proj.bias": "bias",
        f"{text}.token_embedding.weight": "embedding",
        f"{text}.position_embedding.weight": "embedding",
        "text_encoder.final_layer_norm.weight": "norm",
    }
    assert {name: kinds[name] for name in expected} == expected


def test_parameters_outside_known_layers_are_told_apart_by_dimensions() -> None:
    tuned = full.attach({"unet": nn.Sequential(Table(), RMSNorm())})
    assert {trainable.name: trainable.kind for trainable in tuned.trainables} == {
        "unet.0.scale_shift_table": "weight",
        "unet.0.gamma": "bias",
        "unet.1.weight": "norm",
    }


def test_a_half_precision_part_becomes_float32_in_place() -> None:
    part = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    tuned = full.attach({"unet": part})
    assert [t.parameter for t in tuned.trainables] == list(part.parameters())
    for name, tensor in part.state_dict().items():
        assert tensor.dtype == (torch.float32 if before[name].is_floating_point() else torch.int64)
        assert torch.equal(tensor.double(), before[name].double())


def test_a_shared_parameter_is_trained_once_across_layers_and_parts() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    tuned = full.attach({"a": nn.Sequential(first, second), "b": nn.Sequential(first)})
    assert [t.name for t in tuned.trainables] == ["a.0.weight", "a.0.bias", "a.1.bias"]


def test_parts_that_cannot_be_trained_in_full_are_named() -> None:
    quantised = nn.Module()
    quantised.weight = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(TuningError) as error:
        full.attach({"unet": quantised, "vae": nn.ReLU()})
    assert [line.split(" ")[0] for line in str(error.value).splitlines()] == ["unet", "vae"]
