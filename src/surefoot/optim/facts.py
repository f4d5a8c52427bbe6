"""What an optimizer is, as far as plan, check and loop must know it. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from surefoot.config.optimizer import AdafactorConfig, AdamWConfig, OptimizerConfig
from surefoot.config.optimizer_libraries import (
    AdamW8bitConfig,
    AdanConfig,
    CameConfig,
    DAdaptationConfig,
    LionConfig,
    MuonConfig,
    NamedOptimizerConfig,
    ProdigyConfig,
    ProdigyPlusConfig,
    ScheduleFreeAdamWConfig,
    SoapConfig,
    StableAdamWConfig,
    averages_itself,
)

Package = Literal["", "pytorch_optimizer", "bitsandbytes", "prodigyplus"]

EXTRAS: dict[Package, str] = {
    "pytorch_optimizer": "optimizers",
    "bitsandbytes": "bitsandbytes",
    "prodigyplus": "prodigy-plus",
}
"""The extra of pyproject.toml that brings each package."""


@dataclass(frozen=True)
class OptimizerFacts:
    """What sets one optimizer apart.

    Attributes:
        package: What has to be importable; empty for torch's and surefoot's own.
        rate: `auto` is this times the customary rate of AdamW; unused where `finds_rate`.
        finds_rate: It finds its learning rate d; `lr` is a factor on that.
        averages: The trained weights are not those to show: an average of its own is.
        clips_itself: Clipping of gradients before it changes little, or hinders it.
    """

    package: Package = "pytorch_optimizer"
    rate: float = 1.0
    finds_rate: bool = False
    averages: bool = False
    clips_itself: bool = False


def facts_of(config: OptimizerConfig) -> OptimizerFacts:  # noqa: C901 - a row for each kind
    """The facts of an optimizer section."""
    match config:
        case AdafactorConfig():
            return OptimizerFacts("", clips_itself=True)
        case AdamWConfig():
            return OptimizerFacts("")
        case AdamW8bitConfig():
            return OptimizerFacts("bitsandbytes")
        case LionConfig():
            # Section 5 of the paper: 3 to 10 times less than AdamW.
            return OptimizerFacts(rate=0.2)
        case CameConfig():
            # The authors: 0.5 to 0.9 times AdamW's.
            return OptimizerFacts(rate=0.5, clips_itself=True)
        case StableAdamWConfig():
            return OptimizerFacts(clips_itself=True)
        case AdanConfig():
            # The authors: 5 to 10 times AdamW's.
            return OptimizerFacts(rate=5.0)
        case MuonConfig() | SoapConfig():
            return OptimizerFacts()
        case ProdigyConfig() | DAdaptationConfig():
            return OptimizerFacts(finds_rate=True)
        case ScheduleFreeAdamWConfig():
            # The authors: 1 to 10 times that of AdamW with a schedule.
            return OptimizerFacts(rate=3.0, averages=True)
        case ProdigyPlusConfig():
            return OptimizerFacts("prodigyplus", finds_rate=True, averages=True, clips_itself=True)
        case NamedOptimizerConfig():
            return OptimizerFacts(
                finds_rate=finds_rate(config.name),
                averages=averages_itself(config.model_dump()),
                clips_itself=config.name in ("AdaFactor", "CAME", "StableAdamW"),
            )
        case _:
            assert_never(config)


def finds_rate(name: str) -> bool:
    """Whether a class of pytorch-optimizer finds its learning rate."""
    return name == "Prodigy" or name.startswith("DAdapt")


REFUSED: dict[str, str] = {
    "AdaHessian": "second derivatives",
    "AdaLOMO": "the whole model",
    "AdamMini": "the whole model",
    "AliG": "a closure",
    "BSAM": "a closure",
    "Conda": "objects that no checkpoint can hold",
    "DeMo": "several processes",
    "DistributedMuon": "several processes",
    "LBFGS": "a closure",
    "LOMO": "the whole model",
    "LoRARite": "the factors of a LoRA in pairs",
    "MuonClip": "the attention's logits",
    "ScalableShampoo": "objects that no checkpoint can hold",
    "SophiaH": "second derivatives",
    "SpectralSphere": "matrices only",
}
"""Classes of pytorch-optimizer that need what a step here does not give, and what that is."""

GOES_ON_OTHERWISE = (
    "ASGD", "Alice", "DASH", "DAdaptSGD", "FlashAdamW", "Kron", "MADGRAD", "Magma", "Ranger21",
    "StableSPAM",
)  # fmt: skip
"""Classes of pytorch-optimizer that draw their own random numbers, or keep memory outside of state
and groups: an interrupted run does not end as an uninterrupted one would."""

MUONS = ("AdaGO", "AdaMuon", "Muon", "NorMuon")
"""Classes of pytorch-optimizer that want to be told which tensors are matrices."""
