"""A small run for the tests of actors and learner: what it is about, its records and weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robolearn.distributed.records import About, Field, Record

ABOUT = About(
    run="lift-7",
    specification={"robot": "franka", "rate_hz": 10.0, "observation": ["joint_pos"], "action": {"dim": 2}},
    tensors={
        "obs/policy": Field("float32", (3,), first=True),
        "obs/front": Field("uint8", (2, 2, 3), first=True),
        "action": Field("float32", (2,)),
        "proposed": Field("float32", (2,), finite=False),
    },
    numbers=("reward", "human"),
    weights={"actor.weight": Field("float32", (2, 3)), "count": Field("int64", ())},
)


def step(value: float) -> Record:
    """A step whose numbers all tell `value`."""
    observed = {"obs/policy": np.full(3, value, np.float32), "obs/front": np.full((2, 2, 3), value % 256, np.uint8)}
    done = {"action": np.full(2, value, np.float32), "proposed": np.full(2, np.nan, np.float32)}
    return Record(observed | done, {"reward": value, "human": True})


def first(value: float) -> Record:
    tensors = {k: v for k, v in step(value).tensors.items() if k.startswith("obs/")}
    return Record(tensors, first=True)


def weights(value: float) -> dict[str, np.ndarray]:
    return {"actor.weight": np.full((2, 3), value, np.float32), "count": np.array(7)}


def other(**changes: object) -> About:
    return replace(ABOUT, **changes)  # type: ignore[arg-type]
