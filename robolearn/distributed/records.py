"""What goes over the wire and into the journals: named tensors and numbers, and the statement of what they are."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robolearn.errors import UserError, unknown
from robolearn.optional import lazy
from robolearn.spec import differences

wire = lazy("robolearn.distributed.wire_pb2", extra="distributed")
protobuf = lazy("google.protobuf.message", extra="distributed")

SCHEMA = 1
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""Of an actor: it becomes the name of a folder."""


class WireError(UserError, ValueError):
    """A record, weights or a handshake does not hold what both ends agreed on; the message names what differs."""


@dataclass(frozen=True)
class Field:
    """A tensor of a record, without a batch axis, or of the weights."""

    dtype: str
    shape: tuple[int, ...]
    first: bool = False
    """Also the first frame of an episode has it; otherwise steps only."""
    finite: bool = True
    """NaN and infinity are refused."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise WireError(f"a tensor's {unknown('dtype', self.dtype, DTYPES)}")


@dataclass(frozen=True)
class About:
    """What the two ends must agree on; each refuses the other if anything differs."""

    run: str
    specification: Mapping[str, Any]
    """Of robot, rate, observation, action: whatever JSON holds."""
    tensors: Mapping[str, Field]
    numbers: tuple[str, ...] = ()
    """Small finite numbers and flags: a step has all of them, a first frame some or none. Kept as float64."""
    weights: Mapping[str, Field] = field(default_factory=dict)

    def to_json(self) -> str:
        def fields(named: Mapping[str, Field]) -> dict[str, Any]:
            return {k: {"dtype": f.dtype, "shape": list(f.shape), "first": f.first, "finite": f.finite}
                    for k, f in named.items()}  # fmt: skip

        said = {"run": self.run, "specification": self.specification, "tensors": fields(self.tensors),
                "numbers": sorted(self.numbers), "weights": fields(self.weights)}  # fmt: skip
        return json.dumps(said, sort_keys=True)

    def require(self, theirs: str, who: str) -> None:
        """WireError, naming every difference, unless `theirs`, their `to_json`, says the same."""
        try:
            said = json.loads(theirs)
        except ValueError:
            raise WireError(f"{who} does not say what it is about: {theirs[:80]!r}") from None
        found = differences(_tuples(json.loads(self.to_json())), _tuples(said))
        if found:
            more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
            raise WireError(f"{who} is about something else (here != there): {'; '.join(found[:8])}{more}")


@dataclass(frozen=True)
class Record:
    """The first frame of an episode, or a step with all that came of it."""

    tensors: Mapping[str, Any]
    """Arrays or tensors, without a batch axis; what is read from a journal are arrays."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    first: bool = False
    actor: str = ""
    sequence: int = 0
    """Of the actor: 1, 2, 3, ...; given by its journal."""


def fields(tensors: Mapping[str, Any]) -> dict[str, Field]:
    """What weights (or an example of a record's tensors) are."""
    return {k: Field(as_array(v).dtype.name, tuple(as_array(v).shape)) for k, v in tensors.items()}


def encode(record: Record, about: About) -> bytes:
    """WireError, naming the tensor or number, if the record is not what `about` says."""
    arrays = {k: as_array(v) for k, v in record.tensors.items()}
    numbers = {k: float(v) for k, v in record.numbers.items()}
    _check(replace(record, tensors=arrays, numbers=numbers), about)
    kind = wire.KIND_FIRST if record.first else wire.KIND_STEP
    out = wire.Record(sequence=record.sequence, kind=kind, tensors=to_wire(arrays), numbers=numbers)
    return out.SerializeToString()


def decode(data: bytes, about: About, actor: str = "") -> Record:
    """WireError if it is not a record, or not what `about` says."""
    message = parse(wire.Record, data)
    if message.kind not in (wire.KIND_FIRST, wire.KIND_STEP):
        raise WireError(f"record {message.sequence} is of the unknown kind {message.kind}")
    record = Record(from_wire(message.tensors), dict(message.numbers), message.kind == wire.KIND_FIRST, actor,
                    message.sequence)  # fmt: skip
    _check(record, about)
    return record


def parse(kind: Any, data: bytes) -> Any:
    """A message of the schema; WireError if the bytes are none."""
    try:
        return kind.FromString(data)
    except protobuf.DecodeError as error:
        raise WireError(f"{len(data)} bytes are no {kind.DESCRIPTOR.name} of schema {SCHEMA}: {error}") from None


def to_wire(tensors: Mapping[str, Any]) -> list[Any]:
    return [_tensor(name, as_array(value)) for name, value in tensors.items()]


def from_wire(tensors: Iterable[Any]) -> dict[str, np.ndarray]:
    """Writable copies by name. WireError for a name that comes twice, a dtype not known, or data of another length."""
    out: dict[str, np.ndarray] = {}
    for tensor in tensors:
        if tensor.name in out:
            raise WireError(f"{tensor.name} comes twice")
        if tensor.dtype not in DTYPES:
            raise WireError(f"{tensor.name}: {unknown('dtype', tensor.dtype, DTYPES)}")
        dtype, shape = np.dtype(tensor.dtype).newbyteorder("<"), tuple(tensor.shape)
        if len(tensor.data) != math.prod(shape) * dtype.itemsize:
            raise WireError(f"{tensor.name} {tensor.dtype} {shape} has {len(tensor.data)} bytes: it is torn")
        out[tensor.name] = np.frombuffer(tensor.data, dtype).reshape(shape).astype(tensor.dtype)
    return out


def checksum(tensors: Iterable[Any]) -> int:
    """CRC-32 of the data of tensors of the wire, one after the other."""
    value = 0
    for tensor in tensors:
        value = zlib.crc32(tensor.data, value)
    return value


def check_tensors(arrays: Mapping[str, np.ndarray], expected: Mapping[str, Field], what: str) -> None:
    """WireError, naming the first tensor that is missing, not known, of another type or shape, or not finite."""
    for name in (*arrays, *expected):
        if name not in arrays:
            raise WireError(f"{what} lacks {name}")
        if name not in expected:
            raise WireError(f"{what}: {unknown('tensor', name, list(expected))}")
        array, want = arrays[name], expected[name]
        if (array.dtype.name, array.shape) != (want.dtype, want.shape):
            raise WireError(f"{what}: {name} is {array.dtype.name} {array.shape}, not {want.dtype} {want.shape}")
        if want.finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WireError(f"{what}: {name} is not finite")


def _tuples(value: Any) -> Any:
    """JSON with tuples for its lists, which `differences` compares element by element."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check(record: Record, about: About) -> None:
    what = f"record {record.sequence} ({'first frame' if record.first else 'step'})"
    expected = {k: f for k, f in about.tensors.items() if f.first} if record.first else about.tensors
    check_tensors(record.tensors, expected, what)
    for name, number in record.numbers.items():
        if name not in about.numbers:
            raise WireError(f"{what}: {unknown('number', name, about.numbers)}")
        if not math.isfinite(number):
            raise WireError(f"{what}: {name} is {number}")
    missing = [] if record.first else [n for n in about.numbers if n not in record.numbers]
    if missing:
        raise WireError(f"{what} lacks {', '.join(missing)}")


def _tensor(name: str, array: np.ndarray) -> Any:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return wire.Tensor(name=name, dtype=array.dtype.name, shape=array.shape, data=little.tobytes())


def as_array(value: Any) -> np.ndarray:
    """Of a tensor of any device too. WireError for a type that NumPy does not know, such as bfloat16."""
    try:
        return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    except TypeError as error:
        raise WireError(f"{error}; convert it to one of {', '.join(DTYPES)}") from None
