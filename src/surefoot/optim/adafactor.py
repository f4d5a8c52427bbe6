"""Adafactor (Shazeer & Stern 2018, arXiv 1804.04235), with a scaling that is right for adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from itertools import chain
from typing import cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import StateDict

from surefoot.optim.adafactor_group import (
    AdafactorGroup,
    check_dtypes,
    check_layers,
    check_options,
    check_state,
    read_as_transformers,
    warn_of_zeros,
)
from surefoot.optim.rounding import Rounding
from surefoot.optim.scaling import ScaleParameter, StepScale, step_scale
from surefoot.optim.schedules import relative_rate
from surefoot.optim.stacks import Run, Stack, State, begin, build_stacks, is_sharded, runs
from surefoot.optim.stepping import step_runs
from surefoot.optim.update import Rule


class Adafactor(Optimizer):
    """Adafactor with transformers' options and meanings, and `scale_parameter="weight"`.

    Args:
        params: Tensors or parameter groups. A group may say what its tensors are: `kind` (a
            `TensorKind`, default `"weight"`), `weight_rms` and `fan_in` (one number a tensor: RMS
            of the frozen weight of its layer, and inputs of that) and `alpha` (of the LoRA); only
            `scale_parameter="weight"` asks.
            `surefoot.optim.parameter_groups` makes such groups of a model.
        lr: Learning rate; not used with `relative_step`.
        relative_step: Take `min(1e-2, 1/sqrt(t))` as the learning rate (paper, section 8).
        warmup_init: With `relative_step`, replace 1e-2 by `1e-6 * t`.
        scale_parameter: True multiplies each step by the tensor's own RMS, False does not,
            `"weight"` uses the layer that the tensor changes (`surefoot.optim.scaling`).
        clip_threshold: d of algorithm 4: an update with a larger RMS is scaled down to it.
        decay_rate: beta2 at step t is `1 - t**decay_rate`.
        beta1: Momentum over the updates, 0 for none. It averages the update itself; a learning
            rate of the past never enters.
        eps1: Added to each squared gradient; not 0, since a gradient of 0 would then give NaN.
        eps2: Floor under a tensor's own RMS.
        weight_decay: Decoupled; multiplied by the scaled learning rate.
        maximize: Ascend.
        rounding: How bfloat16 and float16 weights take an update smaller than their digits:
            `"stochastic"` (bfloat16 only), `"kahan"` (a second tensor of their dtype), `"nearest"`
            (most of it is lost).
        seed: Of stochastic rounding, which is a function of seed, step, tensor and element.

    Raises:
        ValueError: For a value out of its range, in whichever group; the message names it.

    Convolutions are factored as (out, in*kh*kw); vectors, and matrices of one row or column, are
    not factored. The state is float32. Tensors of one shape are stepped together. A gradient that
    is not finite leaves its weight and its moments as they are, while its step is counted;
    `refused` counts them.

    Tensors that are sharded along their first axis (DTensor, FSDP2) are stepped as whole ones, but
    for the order in which numbers are added up. Every process has to take each step then.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, object]],
        lr: float | Tensor | None = 1e-2,
        *,
        relative_step: bool = False,
        warmup_init: bool = False,
        scale_parameter: ScaleParameter = "weight",
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = 0.0,
        eps1: float = 1e-30,
        eps2: float = 1e-3,
        weight_decay: float = 0.0,
        maximize: bool = False,
        rounding: Rounding = "stochastic",
        seed: int = 0,
    ) -> None:
        self._forget_stacks()
        super().__init__(
            params,
            {
                "lr": lr,
                "relative_step": relative_step,
                "warmup_init": warmup_init,
                "scale_parameter": scale_parameter,
                "clip_threshold": clip_threshold,
                "decay_rate": decay_rate,
                "beta1": beta1,
                "eps1": eps1,
                "eps2": eps2,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "rounding": rounding,
                "seed": seed,
                "kind": "weight",
                "weight_rms": [],
                "fan_in": [],
                "alpha": 1.0,
            },
        )

    def add_param_group(self, param_group: dict[str, object]) -> None:
        """Adds a group of tensors; what it does not say is as for the others.

        Raises:
            ValueError: For a value out of its range; the group is not added then.
        """
        says_what_it_is = "kind" in param_group  # before torch adds the defaults to it
        super().add_param_group(param_group)
        try:
            group = cast(AdafactorGroup, self.param_groups[-1])
            read_as_transformers(self.param_groups[-1])
            check_options(group)
            check_layers(group)
            check_dtypes(group)
            if not says_what_it_is:
                warn_of_zeros(group)
        except ValueError:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Takes over what `state_dict` returned; the state stays fp32.

        Raises:
            ValueError: If it is the state of another optimizer, or of other groups.
        """
        check_state(state_dict)
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            # A version may have had fewer. Not all defaults: torch adds some of its own to them.
            for option in AdafactorGroup.__annotations__.keys() & self.defaults.keys():
                group.setdefault(option, self.defaults[option])
        # torch has cast each tensor of the state to its parameter's dtype, which rounds the second
        # moment of a bf16 parameter to 8 bits.
        indices = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        held = dict(zip(indices, parameters, strict=True))
        saved = cast(Mapping[int, Mapping[str, Tensor | int]], state_dict["state"])
        for index, state in saved.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    self.state[held[index]][key] = value.to(held[index].device, copy=True)
        self._forget_stacks()

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self._forget_stacks()

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes one step for every tensor that has a gradient.

        Raises:
            RuntimeError: If a gradient is sparse, or a tensor sharded in another way than FSDP2's.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._finite = {}
        for index in range(len(self.param_groups)):
            found: list[Run] = []
            for stack in self._stacks_of(index):
                found.extend(runs(stack, _gradients(stack.parameters)))
            group = cast(AdafactorGroup, self.param_groups[index])
            self._finite[index] = self._step_runs(group, found)
        self._step_sharded()
        return loss

    def _step_sharded(self) -> None:
        groups = [cast(AdafactorGroup, group) for group in self.param_groups]
        if not any(is_sharded(parameter) for group in groups for parameter in group["params"]):
            return
        # Here, since not every torch has what it imports.
        from surefoot.optim.sharded import ShardStep, next_step, step_sharded

        found: list[ShardStep] = []
        states = cast(MutableMapping[Tensor, State], self.state)
        position = 0
        for group in groups:
            check_layers(group)
            gradients = _gradients(group["params"])
            members = zip(group["params"], gradients, step_scales(group), strict=True)
            for place, (parameter, gradient, scale) in enumerate(members, start=position):
                if gradient is not None and is_sharded(parameter) and parameter.numel() > 0:
                    state, step = next_step(states, parameter)
                    told = (state, place, scale.floor, step, _rule(group, step))
                    found.append(ShardStep(parameter, gradient, *told))
            position += len(group["params"])
        self._finite[-1] = step_sharded(found)

    @torch.no_grad()
    def step_parameter(self, parameter: Tensor) -> None:
        """Takes one step for one tensor, which has a gradient; the others follow by themselves.

        Raises:
            KeyError: If the tensor is not one of this optimizer's.
            RuntimeError: If its gradient is sparse, or it is sharded.
        """
        if is_sharded(parameter):
            raise RuntimeError(
                "Adafactor steps sharded tensors (DTensor, FSDP2) together, not one by one within "
                "the backward pass; call step() after it"
            )
        index, stack, place = self._place_of(parameter)
        (gradient,) = _gradients([parameter])
        if gradient is not None:
            step = int(stack.states[place].get("step", 0)) + 1
            run = Run(stack, place, place + 1, [gradient], step)
            group = cast(AdafactorGroup, self.param_groups[index])
            self._finite[parameter] = self._step_runs(group, [run])

    def _place_of(self, parameter: Tensor) -> tuple[int, Stack, int]:
        """Group, stack and place in it; only the options of the group are compared each time."""
        known = self._places.get(parameter)
        if known is not None:
            group = cast(AdafactorGroup, self.param_groups[known[0]])
            if self._stacks[known[0]][0] == _stack_options(group):
                return known
        # All stacks first: making one forgets the places.
        found = [self._stacks_of(index) for index in range(len(self.param_groups))]
        for index, stacks in enumerate(found):
            for stack in stacks:
                for place, member in enumerate(stack.parameters):
                    self._places[member] = (index, stack, place)
        return self._places[parameter]

    def refused(self) -> int:
        """Tensors whose gradient was not finite in their last step; waits for the device."""
        return sum(int((~some).sum()) for found in self._finite.values() for some in found)

    def _forget_stacks(self) -> None:
        # Of each group: its options, its members, and the stacks that follow from both.
        self._stacks: dict[int, tuple[object, object, list[Stack]]] = {}
        self._places: dict[Tensor, tuple[int, Stack, int]] = {}
        # By group after `step`, with -1 for all sharded tensors; by tensor after `step_parameter`.
        self._finite: dict[int | Tensor, list[Tensor]] = {}

    def _stacks_of(self, index: int) -> list[Stack]:
        """The stacks of a group, made anew when what they hold has changed."""
        group = cast(AdafactorGroup, self.param_groups[index])
        parameters = group["params"]
        options = _stack_options(group)
        members = (
            [(id(tensor), tensor.dtype, tensor.device) for tensor in parameters],
            group["weight_rms"],
            group["fan_in"],
        )
        held = self._stacks.get(index)
        if held is None or held[:2] != (options, members):
            check_layers(group)
            states = cast(MutableMapping[Tensor, State], self.state)
            before = sum(len(earlier["params"]) for earlier in self.param_groups[:index])
            floors = [scale.floor for scale in step_scales(group)]
            stacks = build_stacks(parameters, floors, before, states)
            self._places = {}
            # The lists are copied: they may be edited in place.
            copied = (members[0], [*members[1]], [*members[2]])
            self._stacks[index] = held = (options, copied, stacks)
        return held[2]

    def _step_runs(self, group: AdafactorGroup, found: list[Run]) -> list[Tensor]:
        """Returns whose gradients were finite."""
        finite: list[Tensor] = []
        # Together; apart only if they have other steps behind them, which means other decays.
        for step in sorted({run.step for run in found}):
            rule = _rule(group, step)
            together = [run for run in found if run.step == step]
            for run in together:
                begin(run, rule)
            finite += step_runs(together, rule)
        return finite


def _rule(group: AdafactorGroup, step: int) -> Rule:
    """What the tensors of a group share at their step of this number."""
    rate = group["lr"]
    if group["relative_step"]:
        rate = relative_rate(step, warmup_init=group["warmup_init"])
    return Rule(
        new=float(step ** group["decay_rate"]),
        rate=rate,
        slope=_scale(group, 0.0, 0).slope,
        eps1=group["eps1"],
        clip_threshold=group["clip_threshold"],
        beta1=group["beta1"],
        weight_decay=group["weight_decay"],
        maximize=group["maximize"],
        rounding=group["rounding"],
        seed=group["seed"],
    )


def _stack_options(group: AdafactorGroup) -> tuple[object, ...]:
    """The options that the floors of a stack follow from."""
    return group["kind"], group["scale_parameter"], group["eps2"], group["alpha"]


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor | None]:
    found = [parameter.grad for parameter in parameters]
    for gradient in found:
        if gradient is not None and gradient.layout is not torch.strided:
            raise RuntimeError("Adafactor takes dense gradients only")
    return found


def step_scales(group: AdafactorGroup) -> list[StepScale]:
    """The step scale of each tensor of a group."""
    count = len(group["params"])
    sizes, fans = group["weight_rms"] or [0.0] * count, group["fan_in"] or [0] * count
    return [_scale(group, rms, fan_in) for rms, fan_in in zip(sizes, fans, strict=True)]


def _scale(group: AdafactorGroup, weight_rms: float, fan_in: int) -> StepScale:
    return step_scale(
        group["kind"],
        group["scale_parameter"],
        weight_rms=weight_rms,
        fan_in=fan_in,
        alpha=group["alpha"],
        eps2=group["eps2"],
    )
