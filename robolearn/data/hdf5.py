"""HDF5 of robomimic (https://robomimic.github.io, "Dataset Structure") and of Isaac Lab's recorder, which follows it.

    data                attributes: total, env_args (JSON)
    data/demo_0         attribute: num_samples
    data/demo_0/obs/*, actions, rewards, dones, states, and what else has a row a step
    mask/NAME           names of some demonstrations

| there | here |
|---|---|
| obs/NAME | observation.NAME; uint8 pictures (T, H, W, 3) observation.images.NAME |
| actions, rewards, dones | action, next.reward, next.done |
| states | states; a folder's a/b is a.b |
| initial_state (Isaac Lab), one row | initial_state, the same in each step |
| attribute success (Isaac Lab) | next.success, true in the last step of a success |
| env_args, mask/NAME | `about` of the set: env_args, masks (numbers of episodes) |

`next_obs` is the observation of the next step and is made again on export, where that of the last step is its own
observation: what robomimic had there is not kept. What else has no row a step is left out, and that is said.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data import layout
from robolearn.data.layout import DataError, Feature
from robolearn.data.read import Episodes
from robolearn.data.video import VideoCfg
from robolearn.data.write import Writer
from robolearn.optional import lazy

h5py = lazy("h5py", extra="data")
log = logging.getLogger(__name__)

NAMES = {"actions": "action", "rewards": "next.reward", "dones": "next.done"}
PICTURES, NUMBERS = "observation.images.", "observation."
INITIAL, SUCCESS = "initial_state", "next.success"
GYM = 2
"""robomimic's number of the kind of environment that asks for least; Isaac Lab's too."""


@dataclass(frozen=True)
class Style:
    """What the readers of a file want beside the columns that are there."""

    name: str
    next_obs: bool = False
    outcome: bool = False
    """rewards and dones, made up where there are none."""
    success: bool = False
    """next.success as an attribute only."""
    compression: str | None = None


ROBOMIMIC, ISAAC_LAB = (
    Style("robomimic", next_obs=True, outcome=True),
    Style("Isaac Lab", success=True, compression="gzip"),
)


def load(source: Path, target: Path, fps: float = 0.0, task: str = "", video: VideoCfg | None = None) -> int:
    """Append the demonstrations of a file to the set at `target`, which is made if it is not there; how many they are.
    `fps` 0: the control_freq in env_args. Raises DataError, naming the demonstration, for what does not fit."""
    with open_file(source) as file:
        if "data" not in file or not (names := _demos(file["data"])):
            raise DataError(f"{source} has no data/demo_0: it is not robomimic's HDF5")
        env_args = _env_args(file["data"], source)
        fps = fps or float((env_args.get("env_kwargs") or {}).get("control_freq") or 0.0)
        if not fps:
            raise DataError(f"{source} does not say its rate (env_args.env_kwargs.control_freq): give fps=")
        first = _columns(file["data"][names[0]], f"{source}, {names[0]}", said=True)
        masks = {k: [names.index(n) for n in _texts(v) if n in names] for k, v in file.get("mask", {}).items()}
        about = {"env_args": env_args, "masks": masks}
        if masks and (target / layout.INFO).exists() and layout.read_rows(target):
            said = f"{source} has masks ({', '.join(masks)}), which count its own demonstrations"
            raise DataError(f"{said}: give it a set of its own, not {target}")
        with Writer(target, fps, {k: feature_of(v) for k, v in first.items()}, about=about, video=video) as writer:
            for name in names:
                columns = _columns(file["data"][name], f"{source}, {name}")
                if columns.keys() != first.keys():
                    differ = sorted(columns.keys() ^ first.keys())
                    raise DataError(f"{source}, {name}: {', '.join(differ)} is not in every demonstration")
                append(writer, columns, task, f"{source}, {name}")
    return len(names)


def _env_args(data: Any, source: Path) -> dict[str, Any]:
    try:
        found = json.loads(data.attrs.get("env_args", "{}"))
    except ValueError as error:
        raise DataError(f"{source}: data's attribute env_args is no JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def open_file(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} is truncated or no HDF5: {error}") from None


def _demos(data: Any) -> list[str]:
    """By number: demo_10 after demo_9."""
    names = (n for n in data if n.startswith("demo_") and n.removeprefix("demo_").isdigit())
    return sorted(names, key=lambda n: int(n.removeprefix("demo_")))


def _texts(dataset: Any) -> list[str]:
    return [t.decode() if isinstance(t, bytes) else str(t) for t in dataset[()]]


def _columns(demo: Any, where: str, said: bool = False) -> dict[str, Any]:
    """Data sets with a row a step, by our name."""
    length = int(demo.attrs.get("num_samples", len(demo["actions"]) if "actions" in demo else 0))
    found: dict[str, Any] = {}
    for path, dataset in leaves(demo):
        if path.startswith("next_obs/"):
            continue
        if path.split("/")[0] == INITIAL and dataset.ndim and len(dataset) == 1 and dataset.dtype.kind in "biuf":
            found[_name(path, dataset)] = np.repeat(dataset[()], length, axis=0)
            continue
        if dataset.ndim == 0 or len(dataset) != length or dataset.dtype.kind not in "biuf":
            if said:
                log.warning("%s: %s (%s, %s) has no number a step and is left out", where, path, dataset.shape,
                            dataset.dtype)  # fmt: skip
            continue
        found[_name(path, dataset)] = dataset
    if not found:
        raise DataError(f"{where} has no data of {length} steps")
    if "success" in demo.attrs:
        found[SUCCESS] = (np.arange(length) == length - 1) & bool(demo.attrs["success"])
    return found


def leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in group.items():
        if isinstance(item, h5py.Dataset):
            yield prefix + name, item
        else:
            yield from leaves(item, f"{prefix}{name}/")


def _name(path: str, dataset: Any) -> str:
    if not path.startswith("obs/"):
        return NAMES.get(path, path.replace("/", "."))
    prefix = PICTURES if is_picture(dataset) else NUMBERS
    return prefix + path.removeprefix("obs/").replace("/", ".")


def is_picture(dataset: Any) -> bool:
    return bool(dataset.ndim == 4 and dataset.shape[-1] == 3 and dataset.dtype == np.uint8)


def feature_of(dataset: Any) -> Feature:
    dtype = "float32" if dataset.dtype == np.float16 else dataset.dtype.name
    return Feature("video" if is_picture(dataset) else dtype, tuple(dataset.shape[1:]) or (1,))


def append(writer: Writer, columns: Mapping[str, Any], task: str, where: str) -> None:
    """An episode of data sets or arrays (T, ...); an error says `where`."""
    arrays = {k: d[()] for k, d in columns.items()}
    writer.begin(task)
    try:
        for step in range(len(next(iter(arrays.values())))):
            writer.add({k: v[step] for k, v in arrays.items()})
    except DataError as error:
        writer.abandon()
        raise DataError(f"{where}: {error}") from None
    writer.end()


# --- export ---


def save(episodes: Episodes, target: Path, ids: Sequence[int] | None = None, style: Style = ROBOMIMIC) -> int:
    """Write demonstrations of the episodes `ids` (all of them if not given), numbered from 0; how many they are.
    The file appears whole. Raises DataError if there are no actions, and for a file that is there; actions outside
    [-1, 1] are said."""
    chosen = list(episodes.ids if ids is None else ids)
    demand_free(target)
    if "action" not in episodes.keys:
        raise DataError(f"{episodes.root} has no action: {style.name} needs one")
    if style == ROBOMIMIC and bool((episodes.column("action").abs() > 1.0).any()):
        log.warning("%s has actions outside [-1, 1], which robomimic expects: scale them first", episodes.root)
    part = target.with_name(target.name + ".part")
    try:
        with h5py.File(part, "w") as file:
            data, total = file.create_group("data"), 0
            for number, episode in enumerate(chosen):
                demo = data.create_group(f"demo_{number}")
                total += _write_demo(demo, episodes, episode, style)
            plain = {"env_name": episodes.info.robot or episodes.root.name, "type": GYM, "env_kwargs": {}}
            data.attrs["total"] = total
            data.attrs["env_args"] = json.dumps(episodes.info.about.get("env_args") or plain)
            for name, members in (episodes.info.about.get("masks") or {}).items():
                kept = [f"demo_{chosen.index(e)}".encode() for e in members if e in chosen]
                file[f"mask/{name}"] = np.array(kept, dtype="S")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return len(chosen)


def demand_free(target: Path) -> None:
    """Raises DataError for what is there already, or cannot be."""
    if target.exists():
        raise DataError(f"{target} exists already: choose another name")
    if not target.absolute().parent.is_dir():
        raise DataError(f"the folder of {target} does not exist")


def _write_demo(demo: Any, episodes: Episodes, episode: int, style: Style) -> int:
    length = episodes.length(episode)
    columns = {k: v.cpu().numpy() for k, v in episodes.episode(episode).items()}
    for key in episodes.info.videos:
        columns[key] = episodes.pictures(key, episode, range(length)).cpu().numpy()
    if style.outcome:
        columns.setdefault("next.reward", np.zeros(length, np.float32))
        columns.setdefault("next.done", np.arange(length) == length - 1)
    if style.success and SUCCESS in columns:
        demo.attrs["success"] = bool(columns.pop(SUCCESS).any())
    for key, values in columns.items():
        path = _path(key, key in episodes.info.videos)
        flat = key in ("next.reward", "next.done")
        kept = values.reshape(length) if flat else values[:1] if path.startswith(f"{INITIAL}/") else values
        demo.create_dataset(path, data=kept, compression=style.compression)
        if style.next_obs and path.startswith("obs/"):
            demo[f"next_{path}"] = np.concatenate((values[1:], values[-1:]))
    demo.attrs["num_samples"] = length
    return length


def _path(key: str, video: bool) -> str:
    """Where a column goes, below a demonstration."""
    if key.startswith(NUMBERS):
        return "obs/" + key.removeprefix(PICTURES if video else NUMBERS).replace(".", "/")
    theirs = {ours: name for name, ours in NAMES.items()}
    return theirs.get(key, key.replace(".", "/"))
