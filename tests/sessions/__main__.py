"""python -m tests.sessions FOLDER: make an environment for each list of packages, and export models in each."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def main() -> int:
    """Try the sessions that the command line asks for; return the exit status."""
    lists = {path.stem: path for path in sorted(HERE.glob("*.txt"))}
    parser = argparse.ArgumentParser(prog="python -m tests.sessions", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the environments are made, and found again")
    parser.add_argument("--only", choices=lists, action="append", help="one session; may be repeated")
    options = parser.parse_args()
    failed = [name for name in options.only or lists if not _tried(lists[name], options.folder.resolve() / name)]
    print(f"failed: {', '.join(failed)}" if failed else "all sessions passed")
    return bool(failed)


def _tried(packages: Path, folder: Path) -> bool:
    """Return whether all models of a session are exported with the library's own answers."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
        packages,
    ]
    subprocess.run(pip, check=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    print(f"{packages.stem}:", flush=True)
    trial: list[str | Path] = [python, "-W", "ignore", HERE / "trial.py"]
    return subprocess.run(trial, check=False, env=environment).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
