"""One source for tensors and NumPy arrays, for what runs on thousands of environments and on one robot.

A call of NumPy on seven numbers takes a quarter of the time that torch's takes, and a guard makes a hundred of them
a millisecond; on a batch of thousands it is the other way round. Functions that take `Array` use operators, what both
libraries call the same (found by `namespace`), and the two below, of which each has a faster way of its own.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Any
"""A Tensor or an ndarray; all of a call's are of one kind."""


def namespace(array: Array) -> Any:
    """The library, torch or numpy, whose functions take `array`."""
    return torch if isinstance(array, Tensor) else np


def like(values: Any, example: Array) -> Array:
    """`values` as an array of the example's library, type and device."""
    if isinstance(example, Tensor):
        return torch.as_tensor(values).to(example)
    return np.asarray(values, dtype=example.dtype)


def clip(array: Array, low: Array, high: Array) -> Array:
    """Within arrays of bounds; `high` wins where they cross."""
    if isinstance(array, Tensor):
        return torch.clamp(array, low, high)
    return np.minimum(np.maximum(array, low), high)


def stack(arrays: tuple[Array, ...]) -> Array:
    """Along a new first axis."""
    return torch.stack(arrays) if isinstance(arrays[0], Tensor) else np.array(arrays)
