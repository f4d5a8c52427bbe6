"""`surefoot schema`: what a run.toml can say, for editors."""

from __future__ import annotations

from surefoot.config.run import RunConfig
from surefoot.terminal import print_json


def schema() -> None:
    """Print the JSON Schema of run.toml, with the help of every key."""
    print_json(RunConfig.model_json_schema())
