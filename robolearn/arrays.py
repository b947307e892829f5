"""One source for tensors and NumPy arrays, for what runs on thousands of environments and on one robot.

A call of NumPy on seven numbers takes a quarter of the time that torch's takes, and a guard makes a hundred of them
a millisecond; on a batch of thousands it is the other way round. Functions that take `Array` use operators, what both
libraries call the same (found by `namespace`), and the two below, of which each has a faster way of its own.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A Tensor or an ndarray; all of a call's are of one kind."""


def namespace(array: Array) -> Any:
    """The library, torch or numpy, whose functions take `array`. Importing torch is left to those who make tensors:
    it takes as long as all else that a robot's guard imports, three times over."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else np


def like(values: Any, example: Array) -> Array:
    """`values` as an array of the example's library, type and device."""
    xp = namespace(example)
    return np.asarray(values, dtype=example.dtype) if xp is np else xp.as_tensor(values).to(example)


def clip(array: Array, low: Array, high: Array) -> Array:
    """Within arrays of bounds; `high` wins where they cross."""
    xp = namespace(array)
    return np.minimum(np.maximum(array, low), high) if xp is np else xp.clamp(array, low, high)


def stack(arrays: tuple[Array, ...]) -> Array:
    """Along a new first axis."""
    xp = namespace(arrays[0])
    return np.array(arrays) if xp is np else xp.stack(arrays)
