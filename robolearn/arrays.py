"""One source for tensors and NumPy arrays, for what runs on thousands of environments and on one robot.

A call of NumPy on seven numbers takes a quarter of the time that torch's takes, and a guard makes a hundred of them
a millisecond; on a batch of thousands it is the other way round. Functions that take `Array` use operators, `.clip`
and what both libraries call the same, found by `namespace`.
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
