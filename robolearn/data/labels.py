"""Rewards, returns and labels beside the episodes: each labelling is a new small file, labels/NAME/v0001.parquet.

Nothing is ever written over: `reward@1` stays what it was when `reward@2` comes. `reward` alone is the newest one, and
`reward@0` what was recorded in the episodes. A labelling may leave episodes out; who reads one of these is told so.
This folder is ours: other readers of the format do not see it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data import layout
from robolearn.data.layout import DataError, Feature
from robolearn.errors import unknown

FOLDER = "labels"
RECORDED = 0
KEY = b"robolearn"


@dataclass(frozen=True)
class Label:
    """One version of one column, as its file says it."""

    name: str
    version: int
    feature: Feature
    about: dict[str, Any]
    """How it was made: model, prompt, code, what else is worth knowing."""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def write(root: Path, name: str, values: Mapping[int, np.ndarray], about: Mapping[str, Any] | None = None) -> Label:
    """Values (T,) or (T, ...) of each episode, for all of its T steps. Raises DataError, naming episode and step, for
    a length that is not the episode's and for what is not finite."""
    if not name or not all(c.isalnum() or c in "._-" for c in name) or name.startswith("."):
        raise DataError(f"a label's name has letters, digits, dots, dashes and underscores, got {name!r}")
    rows = layout.read_rows(root)
    arrays = {e: _checked(name, e, np.asarray(v), rows) for e, v in sorted(values.items())}
    kinds = {(a.dtype.name, a.shape[1:]) for a in arrays.values()}
    if len(kinds) != 1:
        raise DataError(f"label '{name}' needs values of one dtype and shape, got {sorted(map(str, kinds))}")
    ((dtype, shape),) = kinds
    feature = Feature(dtype, shape)
    steps = {e: np.arange(len(a)) for e, a in arrays.items()}
    table = layout.to_table({
        "episode_index": np.concatenate([np.full(len(s), e) for e, s in steps.items()]),
        "frame_index": np.concatenate(list(steps.values())),
        "value": np.concatenate(list(arrays.values())),
    })  # fmt: skip
    text = json.dumps({"dtype": dtype, "shape": shape, "about": dict(about or {})})
    version = _place(root, name, table.replace_schema_metadata({KEY: text.encode()}))
    return Label(name, version, feature, json.loads(text)["about"])


def _checked(name: str, episode: int, values: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    if not 0 <= episode < len(rows):
        raise DataError(f"label '{name}': there is no episode {episode}; there are {len(rows)}")
    if values.ndim == 0 or len(values) != rows[episode]["length"]:
        raise DataError(f"label '{name}', episode {episode}: {values.shape} values for {rows[episode]['length']} steps")
    if bad := layout.not_finite(values):
        raise DataError(f"label '{name}', episode {episode}, step {bad[0]}: {bad[1]}")
    return values if values.ndim > 1 else values[:, None]


def _place(root: Path, name: str, table: Any) -> int:
    """The version that it became; two that label at once get one each."""
    folder = root / FOLDER / name
    part = folder / f".{os.getpid()}.part"
    folder.mkdir(parents=True, exist_ok=True)
    layout.pq.write_table(table, str(part))
    layout.sync(part)
    version = max(versions(root).get(name, [RECORDED])) + 1
    while True:
        try:
            os.link(part, folder / f"v{version:04d}.parquet")
            break
        except FileExistsError:
            version += 1
    part.unlink()
    layout.sync(folder)
    return version


def versions(root: Path) -> dict[str, list[int]]:
    """Of every label, ascending."""
    found: dict[str, list[int]] = {}
    for path in sorted((root / FOLDER).glob("*/v*.parquet")):
        if path.stem[1:].isdigit():
            found.setdefault(path.parent.name, []).append(int(path.stem[1:]))
    return {name: sorted(numbers) for name, numbers in found.items()}


def find(root: Path, what: str) -> tuple[str, int]:
    """`reward@2`, or the newest of `reward`. Raises DataError, naming what there is, for an unknown one."""
    name, _, version = what.partition("@")
    there = versions(root)
    if version == str(RECORDED):
        return name, RECORDED
    if name not in there:
        raise DataError(unknown("label", name, sorted(there)))
    if not version:
        return name, there[name][-1]
    if not version.isdigit() or int(version) not in there[name]:
        raise DataError(f"label '{name}' has the versions {there[name]} (and 0, what was recorded), not '{version}'")
    return name, int(version)


def read(root: Path, name: str, version: int) -> tuple[Label, dict[int, np.ndarray]]:
    """The label and its values (T, ...) by episode. Raises DataError for a broken file."""
    path = root / FOLDER / name / f"v{version:04d}.parquet"
    table = layout.read_table(path)
    try:
        raw = json.loads(table.schema.metadata[KEY])
        label = Label(name, version, Feature(raw["dtype"], tuple(raw["shape"])), raw["about"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no label of ours: {error!r}") from None
    values = layout.to_numpy(table["value"], label.feature, str(path))
    episodes = table["episode_index"].to_numpy()
    ids, first = np.unique(episodes, return_index=True)
    return label, dict(zip(ids.tolist(), np.split(values, first[1:]), strict=True))
