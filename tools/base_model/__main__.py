"""`python -m tools.base_model --help`: the stages, each to be run once, in this order."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Runs one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("fetch", "vae", "denoiser", "pack", "pictures"))
    parser.add_argument("--folder", type=Path, default=Path("build/base_model"))
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    arguments = parser.parse_args()
    # Each stage imports what it needs: `fetch` must run before torch is installed.
    if arguments.stage == "fetch":
        from tools.base_model import emoji

        emoji.fetch(arguments.folder / "npm")
    elif arguments.stage == "vae":
        from tools.base_model import vae

        vae.train(arguments.folder, arguments.minutes, arguments.seed)
    elif arguments.stage == "denoiser":
        from tools.base_model import denoiser

        denoiser.train(arguments.folder, arguments.minutes, arguments.seed, arguments.resume)
    elif arguments.stage == "pack":
        from tools.base_model import pack

        pack.write_pipeline(arguments.folder)
    else:
        from tools.base_model import pack

        pack.write_pictures(arguments.folder)


if __name__ == "__main__":
    main()
