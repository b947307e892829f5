"""Minari's HDF5 (https://minari.farama.org, "Dataset standards"): data/main_data.hdf5 and data/metadata.json.

| there | here |
|---|---|
| observations, T + 1 of them, one array | observation.state, and next.observation.state |
| observations of a Dict space, NAME | observation.NAME; uint8 pictures observation.images.NAME; and next.* of each |
| actions, rewards, terminations, truncations | action, next.reward, next.terminated, next.truncated |

A step here has its own next observation, so that the last one is kept: also that of a time-out, which a value target
needs. `infos` have no fixed length and are left out, which is said. Actions must be arrays (a Box or Discrete space).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data.hdf5 import NUMBERS, PICTURES, append, demand_free, feature_of, h5py, is_picture, leaves, open_file
from robolearn.data.layout import DataError, Feature
from robolearn.data.read import Episodes
from robolearn.data.video import VideoCfg
from robolearn.data.write import Writer

log = logging.getLogger(__name__)

NAMES = {"actions": "action", "rewards": "next.reward", "terminations": "next.terminated",
         "truncations": "next.truncated"}  # fmt: skip
FILE, METADATA, FLAT, NEXT = "main_data.hdf5", "metadata.json", "observation.state", "next."
VERSION = "0.5.0"
"""Of Minari, whose files we write."""
TEXTS = ("dataset_id", "algorithm_name", "author", "author_email", "code_permalink", "description", "env_spec")


def load(source: Path, target: Path, fps: float, task: str = "", video: VideoCfg | None = None) -> int:
    """Append the episodes of a Minari data set (its folder, or the `data` in it) to the set at `target`; how many they
    are. Raises DataError, naming the episode, for what does not fit."""
    folder = source / "data" if (source / "data").is_dir() else source
    if (folder / METADATA).exists() and not (folder / FILE).exists():
        raise DataError(f"{folder} has no {FILE}: of Minari's formats, hdf5 is read")
    about = _about(folder)
    if not fps:
        raise DataError(f"{source}: Minari does not say a rate: give fps=")
    with open_file(folder / FILE) as file:
        names = sorted((n for n in file if n.startswith("episode_")), key=lambda n: int(n.removeprefix("episode_")))
        if not names:
            raise DataError(f"{folder / FILE} has no episode_0: it is not Minari's HDF5")
        about["flat"] = isinstance(file[names[0]]["observations"], h5py.Dataset)
        if any(isinstance(file[n].get("infos"), h5py.Group) and len(file[n]["infos"]) for n in names):
            log.warning("%s: infos are left out", source)
        first = _columns(file[names[0]], f"{source}, {names[0]}")
        features = {k: feature_of(v) for k, v in first.items()}
        with Writer(target, fps, features, about={"minari": about}, video=video) as writer:
            for name in names:
                append(writer, _columns(file[name], f"{source}, {name}"), task, f"{source}, {name}")
    return len(names)


def _about(folder: Path) -> dict[str, Any]:
    try:
        raw = json.loads((folder / METADATA).read_text())
    except FileNotFoundError:
        raise DataError(f"{folder} has no {METADATA}: it is no Minari data set") from None
    except ValueError as error:
        raise DataError(f"{folder / METADATA} cannot be read: {error}") from None
    return {k: raw[k] for k in TEXTS if k in raw} | {"action_space": raw.get("action_space", "")}


def _columns(episode: Any, where: str) -> dict[str, np.ndarray]:
    lacking = [n for n in (*NAMES, "observations") if n not in episode]
    if lacking:
        raise DataError(f"{where} has no {', '.join(lacking)}")
    for name in NAMES:
        if not isinstance(episode[name], h5py.Dataset):
            raise DataError(f"{where}: {name} is of a composite space; arrays are read")
    found = {ours: episode[name][()] for name, ours in NAMES.items()}
    length, there = len(found["action"]), episode["observations"]
    parts = {FLAT: there} if isinstance(there, h5py.Dataset) else {_name(n, d): d for n, d in leaves(there)}
    for key, dataset in parts.items():
        values = dataset[()]
        if len(values) != length + 1 or values.dtype.kind not in "biuf":
            raise DataError(f"{where}: {key} has {len(values)} rows of {values.dtype}, not {length + 1} of numbers")
        found |= {key: values[:-1], NEXT + key: values[1:]}
    return found


def _name(path: str, dataset: Any) -> str:
    return (PICTURES if is_picture(dataset) else NUMBERS) + path.replace("/", ".")


# --- export ---


def save(episodes: Episodes, target: Path, ids: Sequence[int] | None = None) -> int:
    """Write the folder of a Minari data set, named as its id must be (`peg-v0`); how many episodes it has. What was
    observed after the last step is taken from next.*, or is the last observation again. Raises DataError for a set
    without actions, and for a folder that is there."""
    chosen = list(episodes.ids if ids is None else ids)
    if "action" not in episodes.keys:
        raise DataError(f"{episodes.root} has no action: Minari needs one")
    name, _, version = target.name.rpartition("-v")
    if not name or not version.isdigit():
        raise DataError(f"Minari wants names that end in -v and a number, as peg-v0; got {target.name}")
    demand_free(target)
    data = target.with_name(target.name + ".part") / "data"
    data.mkdir(parents=True, exist_ok=True)
    with h5py.File(data / FILE, "w") as file:
        steps = [_write(file, number, episodes, episode) for number, episode in enumerate(chosen)]
    about = episodes.info.about.get("minari") or {}
    metadata = {
        "total_episodes": len(chosen), "total_steps": sum(steps), "data_format": "hdf5", "jpeg_encoding": False,
        "observation_space": json.dumps(_observation_space(episodes)),
        "action_space": about.get("action_space") or json.dumps(_box(episodes.info.features["action"])),
        "minari_version": VERSION, "dataset_size": round((data / FILE).stat().st_size / 1e6, 1),
        **{k: about[k] for k in TEXTS if k in about}, "dataset_id": target.name,
    }  # fmt: skip
    (data / METADATA).write_text(json.dumps(metadata))
    data.parent.replace(target)
    return len(chosen)


def _write(file: Any, number: int, episodes: Episodes, episode: int) -> int:
    length = episodes.length(episode)
    group = file.create_group(f"episode_{number}")
    numbers = {k: v.cpu().numpy() for k, v in episodes.episode(episode).items()}
    last = np.arange(length) == length - 1
    ended = numbers.get("next.terminated", numbers.get("next.done", last)).reshape(length).astype(bool)
    scalars = {"rewards": numbers.get("next.reward", np.zeros(length)).reshape(length), "terminations": ended,
               "truncations": numbers.get("next.truncated", last & ~ended).reshape(length).astype(bool)}  # fmt: skip
    for name, values in {"actions": numbers["action"], **scalars}.items():
        group[name] = values
    for key, path in _observations(episodes).items():
        values = _values(episodes, numbers, key, episode, range(length))
        after = NEXT + key if NEXT + key in episodes.keys else key
        end = _values(episodes, numbers, after, episode, [length - 1])
        group[path] = np.concatenate((values, end))
    group.create_group("infos")
    group.attrs.update({"id": number, "total_steps": length})
    return length


def _values(episodes: Episodes, numbers: Mapping[str, np.ndarray], key: str, episode: int, steps: Sequence[int]) -> Any:
    return (
        episodes.pictures(key, episode, steps).cpu().numpy()
        if key in episodes.info.videos
        else numbers[key][list(steps)]
    )


def _observations(episodes: Episodes) -> dict[str, str]:
    """Where each observation goes, below an episode."""
    keys = [k for k in episodes.info.features if k.startswith(NUMBERS)]
    if keys == [FLAT] and (episodes.info.about.get("minari") or {}).get("flat", True):
        return {FLAT: "observations"}
    plain = {k: k.removeprefix(PICTURES if k in episodes.info.videos else NUMBERS) for k in keys}
    return {k: f"observations/{name.replace('.', '/')}" for k, name in plain.items()}


def _observation_space(episodes: Episodes) -> dict[str, Any]:
    """As Minari writes a Gymnasium space; without bounds where we know none."""
    tree: dict[str, Any] = {}
    for key, path in _observations(episodes).items():
        *folders, leaf = path.split("/")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {"type": "Dict", "subspaces": {}})["subspaces"]
        at[leaf] = _box(episodes.info.features[key])
    return tree.get("observations") or {"type": "Dict", "subspaces": {}}


def _box(feature: Feature) -> dict[str, Any]:
    dtype = np.dtype("uint8" if feature.video else feature.dtype)
    if dtype.kind in "iu":
        low, high = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    else:
        low, high = (0.0, 1.0) if dtype.kind == "b" else (-np.inf, np.inf)
    kind = "int8" if dtype.kind == "b" else dtype.name
    bounds = {n: np.full(feature.shape, v).astype(kind).tolist() for n, v in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": kind, "shape": list(feature.shape), **bounds}
