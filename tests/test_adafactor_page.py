"""Every snippet of the page on using Adafactor elsewhere does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from surefoot.optim import Adafactor
from tests.tiny_sd import build_tiny_pipeline

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "use-adafactor-anywhere.md"
CHINESE = DOCS / "use-adafactor-anywhere.zh-CN.md"


def snippets(page: Path) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 8
    return found


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(6, 12)
        self.out = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.proj(x).relu())


def surroundings() -> dict[str, Any]:
    """What the page takes for granted."""
    torch.manual_seed(0)
    pipeline = build_tiny_pipeline(0)
    language = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=8)
    tokens = torch.arange(8)
    return {
        "model": Model(),
        "batches": [(torch.randn(4, 6), torch.randn(4, 2)) for _ in range(4)],
        "unet": pipeline.unet,
        "text_encoder": pipeline.text_encoder,
        "language_model": cast(Any, GPT2LMHeadModel)(language),
        "train_dataset": [{"input_ids": tokens, "labels": tokens}] * 8,
    }


# The page is written for a GPU; transformers pins memory and finds none.
@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
def test_the_snippets_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for snippet in snippets(PAGE):
        names |= surroundings()
        if "saved" in snippet:
            names["optimizer"] = Adafactor(names["model"].parameters())
        before = {key: names[key] for key in ("optimizer",) if key in names}
        exec(compile(snippet, str(PAGE), "exec"), names)
        made = getattr(names["optimizer"], "optimizer", names["optimizer"])
        assert isinstance(made, Adafactor), snippet
        assert "saved" in snippet or made is not before.get("optimizer")
        if "step()" in snippet or "train()" in snippet:
            assert len(made.state) == sum(len(group["params"]) for group in made.param_groups)
    assert (tmp_path / "checkpoint").is_dir()
    assert (tmp_path / "run.pt").is_file()


def test_both_languages_show_the_same_code() -> None:
    assert snippets(CHINESE) == snippets(PAGE)
