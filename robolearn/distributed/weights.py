"""A learner's weights as one message: whole, finite and of the agreed shapes, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robolearn.distributed.records import About, WireError, as_array, check_tensors, checksum, from_wire, to_wire, wire
from robolearn.distributed.service import MESSAGE_BYTES

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Weights:
    tensors: dict[str, Tensor]
    """On the CPU, for `load_state_dict`."""
    version: int
    step: int
    """How many updates the learner had made."""
    learner: str
    """Of each start of a learner another one: after a restart from a checkpoint, versions may come again."""
    received_s: float
    """By the actor's clock; its distance from now is the weights' age."""


def pack(tensors: Mapping[str, Any], version: int, step: int, learner: str, about: About) -> Any:
    """WireError, naming the tensor, for weights that no actor would take."""
    arrays = {k: as_array(v) for k, v in tensors.items()}
    check_tensors(arrays, about.weights, f"weights {version}")
    listed = to_wire(arrays)
    out = wire.Weights(learner=learner, version=version, step=step, tensors=listed, checksum=checksum(listed))
    if out.ByteSize() > MESSAGE_BYTES:
        raise WireError(f"weights {version} have {out.ByteSize()} bytes; a message has at most {MESSAGE_BYTES}")
    return out


def unpack(message: Any, about: About, now_s: float) -> Weights:
    """WireError, naming the tensor, for weights that are torn, not finite, or not those that `about` states."""
    import torch  # takes seconds, and a process that only sends records does without

    arrays = from_wire(message.tensors)
    check_tensors(arrays, about.weights, f"weights {message.version}")
    if checksum(message.tensors) != message.checksum:
        raise WireError(f"weights {message.version}: the checksum differs")
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    return Weights(tensors, message.version, message.step, message.learner, now_s)
