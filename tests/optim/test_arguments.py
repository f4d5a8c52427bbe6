"""An optimizer section that cannot be built is told of before torch is loaded."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path

import pytest
from pytorch_optimizer.optimizer import OPTIMIZER_LIST

from surefoot.config.optimizer_libraries import (
    AdamW8bitConfig,
    Argument,
    LionConfig,
    NamedOptimizerConfig,
    ProdigyPlusConfig,
)
from surefoot.finding import Finding
from surefoot.optim import library
from surefoot.optim.arguments import optimizer_findings
from surefoot.wording import say
from tests.run_files import findings_in, surefoot, write_run


def only(name: str, **arguments: Argument) -> Finding:
    (finding,) = optimizer_findings(NamedOptimizerConfig(name=name, arguments=arguments))
    return finding


def test_list_and_signatures_read_from_source_are_those_of_the_library() -> None:
    assert list(library.class_sources()) == [kind.__name__ for kind in OPTIMIZER_LIST]
    swallowed = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    for kind in OPTIMIZER_LIST:
        parameters = inspect.signature(kind.__init__).parameters
        taken = {key: item for key, item in parameters.items() if item.kind not in swallowed}
        read = library.arguments_of(kind.__name__)
        run_decides = {"self", "params", "lr", "foreach", "maximize"}
        assert read.keys() == taken.keys() - run_decides, kind.__name__
        needed = {key for key in read if taken[key].default is inspect.Parameter.empty}
        assert {key for key, item in read.items() if item.required} == needed, kind.__name__


@pytest.mark.parametrize(
    ("finding", "code", "said"),
    [
        (only("adabelif"), "SF112", "did you mean `AdaBelief`? "),
        (only("LBFGS"), "SF113", "a closure"),
        (only("AdaHessian"), "SF113", "second derivatives"),
        (only("AdaBelief", beta=(0.9, 0.9)), "SF114", "did you mean `betas`? it takes: betas,"),
        (only("AdaBelief", scale_parameter=True), "SF114", "it takes: betas, weight_decay"),
        (only("AdaBelief", lr=1e-3), "SF114", "`lr`"),
        (only("AdaBelief", betas=0.9), "SF115", "it should be: a list in brackets"),
        (only("AdaBelief", rectify=1), "SF115", "it should be: true or false"),
        (only("AdaBelief", n_sma_threshold=2.5), "SF115", "it should be: a whole number"),
        (only("AdaBelief", eps="1e-8"), "SF115", "it should be: a number"),
        (only("Muon", ns_method="newton"), "SF115", '"gram_newton_schulz"'),
        (only("Ranger21"), "SF116", "`num_iterations`"),
    ],
)
def test_each_fault_is_one_sentence_with_what_would_do(
    finding: Finding, code: str, said: str
) -> None:
    assert (finding.code, finding.level) == (code, "error")
    words = say(finding)
    assert said in "\n".join([words.sentence, *words.helps])
    assert "\n" not in words.sentence


def test_arguments_that_fit_are_let_be() -> None:
    fitting = {"betas": (0.9, 0.95), "eps": 1, "rectify": True, "n_sma_threshold": 5}
    assert optimizer_findings(NamedOptimizerConfig(name="AdaBelief", arguments=fitting)) == []


@pytest.mark.parametrize(
    ("config", "extra"),
    [
        (LionConfig(), "optimizers"),
        (NamedOptimizerConfig(name="Nonsense"), "optimizers"),
        (AdamW8bitConfig(), "bitsandbytes"),
        (ProdigyPlusConfig(), "prodigy-plus"),
    ],
)
def test_missing_package_is_told_with_the_command_that_brings_it(
    config: LionConfig, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "find_spec", lambda _name: None)
    (finding,) = optimizer_findings(config)
    assert finding.code == "SF111"
    assert say(finding).helps == (f'install it: pip install "surefoot[{extra}]"',)


def test_every_package_named_is_the_one_that_is_installed() -> None:
    assert all(find_spec(name) for name in ("pytorch_optimizer", "bitsandbytes", "prodigyplus"))


def test_check_tells_of_every_argument_at_once(tmp_path: Path) -> None:
    optimizer = {"kind": "pytorch_optimizer", "name": "AdaBelief"}
    bad = {"arguments": {"beta": [0.9, 0.9], "eps": "small"}}
    result = surefoot("check", write_run(tmp_path, {"optimizer": optimizer | bad}), "--json")
    assert [(item["code"], item["values"]["key"]) for item in findings_in(result)] == [
        ("SF114", "beta"),
        ("SF115", "eps"),
    ]
    assert result.exit_code == 1


def test_name_of_a_class_elsewhere_is_refused(tmp_path: Path) -> None:
    optimizer = {"kind": "pytorch_optimizer", "name": "os.system"}
    result = surefoot("check", write_run(tmp_path, {"optimizer": optimizer}), "--json")
    assert [item["path"] for item in findings_in(result)] == ["optimizer.name"]
