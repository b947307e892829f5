"""Checkpoints that are whole or absent: one safetensors file each, never pickle.

A file is written beside its final name, synced and renamed, so a kill or a full disk leaves the one before it.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robolearn.errors import UserError

FORMAT = 1
SLASH = "|"
"""For the slash in a key, such as `policy/front`: slashes separate the keys of a path."""
log = logging.getLogger(__name__)


class CheckpointError(UserError):
    """No checkpoint could be read; the message says which were tried and why."""


def flatten(tree: dict[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Nested dictionaries -> tensors and JSON values by path."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{str(key).replace('/', SLASH)}"
        if isinstance(value, dict) and value:
            inner_tensors, inner_values = flatten(value, path + "/")
            tensors |= inner_tensors
            values |= inner_values
        elif isinstance(value, Tensor):
            whole = value.detach().contiguous()
            tensors[path] = whole.clone() if whole.data_ptr() == value.data_ptr() else whole
        else:
            values[path] = value
    return tensors, values


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = (part.replace(SLASH, "/") for part in path.split("/"))
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def write(folder: Path, step: int, tree: dict[str, Any], keep: int = 2) -> Path:
    """Write `step` and drop all but the newest `keep`. Raises OSError, having removed what was half written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step:012d}.safetensors"
    part = path.with_suffix(".part")
    tensors, values = flatten(tree)
    try:
        save_file(tensors, part, metadata={"format": str(FORMAT), "values": json.dumps(values)})
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise OSError(f"checkpoint {path} could not be written ({error}); the one before it stays") from error
    for old in sorted(folder.glob("*.safetensors"))[:-keep]:
        old.unlink()
    return path


def read(path: Path) -> dict[str, Any]:
    """One checkpoint. Raises CheckpointError if it is truncated or not ours."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != str(FORMAT):
                raise CheckpointError(f"{path} has checkpoint format {about.get('format')}, not {FORMAT}")
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
            return unflatten(tensors | json.loads(about["values"]))
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def read_newest(folder: Path) -> dict[str, Any]:
    """The newest readable checkpoint; unreadable newer ones are reported and passed over."""
    failures = []
    for path in sorted(folder.glob("*.safetensors"), reverse=True):
        try:
            return read(path)
        except CheckpointError as error:
            log.warning("%s; trying the one before it", error)
            failures.append(str(error))
    raise CheckpointError("; ".join(failures) or f"there is no checkpoint in {folder}")


def read_if_any(folder: Path) -> dict[str, Any] | None:
    """As `read_newest`; None where there was never a whole one: who was killed while writing the first begins anew."""
    return read_newest(folder) if any(folder.glob("*.safetensors")) else None
