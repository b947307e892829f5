"""A reward source in a folder: `reward.json` (what it is, and what it was made from) and `weights.safetensors`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from robolearn import config, registry
from robolearn.rewards.base import RewardError, RewardSource, weights_of

FORMAT = 1
ABOUT, WEIGHTS = "reward.json", "weights.safetensors"


def save(folder: Path, source: RewardSource, made_from: Mapping[str, Any] | None = None) -> Path:
    """Write, or replace: a kill in between leaves what `load` refuses. `made_from`: JSON for people. RewardError,
    naming the tensor, for weights that are not finite."""
    broken = [k for k, v in source.state_dict().items() if not v.isfinite().all()]
    if broken:
        raise RewardError(f"the reward is not finite in {', '.join(broken)}: nothing is written to {folder}")
    weights = weights_of(source)
    about = {
        "format": FORMAT, "digest": source.digest, "config": config.to_plain(source.cfg),
        "shapes": {k: list(v) for k, v in source.shapes.items()}, "made_from": dict(made_from or {}),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in ((WEIGHTS, weights), (ABOUT, json.dumps(about, indent=1).encode())):
        part = folder / f"{name}.part"
        part.write_bytes(data)
        part.replace(folder / name)
    return folder


def load(folder: Path, device: str = "cpu") -> RewardSource:
    """RewardError, with one clear reason, for what is no reward, is not whole, or is of another version."""
    folder = Path(folder)
    try:
        about, weights = json.loads((folder / ABOUT).read_text()), (folder / WEIGHTS).read_bytes()
        version, plain, shapes = about["format"], about["config"], about["shapes"]
        digest, name, expected = about["digest"], about["config"]["name"], about["weights_sha256"]
    except OSError as error:
        raise RewardError(f"{folder} holds no reward: {error}; make one with robolearn reward train") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RewardError(f"{folder} holds no reward: {ABOUT} is not ours ({error!r})") from None
    if version != FORMAT:
        raise RewardError(f"{folder} has reward format {version}; this version reads {FORMAT}")
    if hashlib.sha256(weights).hexdigest() != expected:
        raise RewardError(f"{folder}: {WEIGHTS} is truncated or was changed (its checksum differs)")
    registry.discover(("robolearn.rewards",))
    entry = registry.entry("reward", name)
    try:
        assert entry.config is not None
        source = entry.value(config.from_plain(entry.config, plain), {k: tuple(v) for k, v in shapes.items()})
        source.load_state_dict(load_tensors(weights))
    except (ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise RewardError(f"{folder} does not fit this version: {error}") from error
    if source.digest != digest:
        raise RewardError(
            f"{folder}: {ABOUT} was changed by hand (its digest differs): train it again, or save it anew"
        )
    return source.eval().to(device)
