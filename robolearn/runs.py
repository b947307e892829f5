"""Where trainings are kept, and how a run or its bundle is named: a path, or `last`."""

from __future__ import annotations

from pathlib import Path

from robolearn import bundle
from robolearn.bundle import Bundle
from robolearn.errors import ConfigError, unknown

RUNS = Path("runs")


def find_run(run: str) -> Path:
    """A run's folder: a path, or `last` for the newest under runs/. ConfigError with the nearest ones otherwise."""
    known = sorted(RUNS.glob("*/*/config.yaml"), key=lambda p: p.stat().st_mtime)
    if run == "last":
        if not known:
            raise ConfigError(f"there is no run under {RUNS.resolve()} yet; train one first")
        return known[-1].parent
    path = Path(run)
    if (path / "config.yaml").is_file():
        return path
    raise ConfigError(unknown("run", run, ["last", *(str(p.parent) for p in known[-10:])]))


def load_bundle(run: str) -> tuple[Path, Bundle]:
    """The folder of a run with its bundle, or a bundle's own path (a folder or a .zip) and the bundle."""
    path = Path(run)
    if (path / bundle.ABOUT).is_file() or (path.suffix == ".zip" and path.is_file()):
        return path, bundle.load(path)
    folder = find_run(run)
    if not (folder / "bundle").exists():
        raise ConfigError(f"{folder} has no bundle, its training is not finished: robolearn train resume={folder}")
    return folder, bundle.load(folder / "bundle")
