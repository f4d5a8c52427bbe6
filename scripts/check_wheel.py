"""Checks that a built wheel is whole and works away from the repository.

`python scripts/check_wheel.py dist/surefoot-*.whl`. The wheel is installed into a bare venv that
borrows the dependencies of the running Python, so that torch is not downloaded once more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "surefoot"


def missing_files(wheel: Path) -> list[str]:
    """Names of package files and licences that the wheel lacks or holds in another state."""
    faults: list[str] = []
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for path in sorted(PACKAGE.rglob("*")):
            parts = path.relative_to(PACKAGE.parent).parts
            if path.is_dir() or "__pycache__" in parts or path.name.startswith("."):
                continue
            name = "/".join(parts)
            if name not in names:
                faults.append(f"{name} is missing")
            elif archive.read(name) != path.read_bytes():
                faults.append(f"{name} differs from the source")
    faults.extend(
        f"{licence} is missing"
        for licence in ("LICENSE", "NOTICE")
        if not any(name.endswith(f".dist-info/licenses/{licence}") for name in names)
    )
    return faults


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command without the repository on its path; its output.

    Raises:
        SystemExit: the command failed; its output is the message.
    """
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    # The borrowed folder is no site directory, but this one would bring its own .pth files.
    environment["PYTHONNOUSERSITE"] = "1"
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def try_installed(wheel: Path, folder: Path) -> str:
    """Installs the wheel into a new venv in `folder` and runs it; the version it reports.

    Raises:
        SystemExit: it does not install, does not run, or runs from elsewhere.
    """
    venv = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    python = venv / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    # Only now: pip would take the development copy next door for an older installation.
    site = "import sysconfig; print(sysconfig.get_path('purelib'))"
    installed_in = Path(run(python, "-c", site, cwd=folder).strip())
    borrowed = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (installed_in / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")

    where = "import surefoot; print(surefoot.__version__); print(surefoot.__file__)"
    version, origin = run(python, "-c", where, cwd=folder).splitlines()
    if not Path(origin).resolve().is_relative_to(installed_in.resolve()):
        raise SystemExit(f"surefoot came from {origin}, not from the wheel")
    if f"-{version}-" not in wheel.name:
        raise SystemExit(f"{wheel.name} says of itself that it is {version}")
    if "Usage" not in run(venv / "bin" / "surefoot", "--help", cwd=folder):
        raise SystemExit("surefoot --help prints no usage")
    return version


def main() -> None:
    """Checks the wheel named on the command line."""
    wheel = Path(sys.argv[1]).resolve()
    faults = missing_files(wheel)
    if faults:
        raise SystemExit(f"{wheel.name} is not whole:\n  " + "\n  ".join(faults))
    with tempfile.TemporaryDirectory() as folder:
        version = try_installed(wheel, Path(folder))
    print(f"{wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB) is whole and runs as {version}")


if __name__ == "__main__":
    main()
