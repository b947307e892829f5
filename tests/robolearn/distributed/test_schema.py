"""The schema on the wire, and the module that protoc made of it."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robolearn.distributed.records import wire

ROOT = Path(__file__).resolve().parents[3]
PROTO = "robolearn/distributed/wire.proto"
PIN = re.search(r'"grpcio-tools==([\d.]+)"', (ROOT / "setup.py").read_text())


def test_the_committed_module_is_what_protoc_makes_of_the_schema(tmp_path):
    pytest.importorskip("grpc_tools")
    assert PIN is not None
    if importlib.metadata.version("grpcio-tools") != PIN[1]:
        pytest.skip(f"another protoc than that of grpcio-tools {PIN[1]}")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", PROTO]
    subprocess.run(command, cwd=ROOT, check=True)
    made = PROTO.replace(".proto", "_pb2.py")
    assert (tmp_path / made).read_text() == (ROOT / made).read_text(), f"do: {' '.join(command[1:4])} --python_out=."


def test_bytes_of_version_1_are_read_for_ever():
    """Written by hand from the encoding's rules: field number x 8 + wire type, then length or value."""
    tensor = b"\x0a\x01a" + b"\x12\x05uint8" + b"\x1a\x01\x02" + b"\x22\x02\x07\x09"
    number = b"\x0a\x06reward" + b"\x11" + b"\x00\x00\x00\x00\x00\x00\xf0\x3f"
    data = b"\x08\x05" + b"\x10\x02" + b"\x1a" + bytes([len(tensor)]) + tensor + b"\x22" + bytes([len(number)]) + number
    record = wire.Record.FromString(data)
    assert (record.sequence, record.kind, dict(record.numbers)) == (5, wire.KIND_STEP, {"reward": 1.0})
    (read,) = record.tensors
    assert (read.name, read.dtype, list(read.shape), read.data) == ("a", "uint8", [2], b"\x07\x09")
    assert record.SerializeToString() == data
    assert wire.FromActor.FromString(b"\x12\x02\x08\x05").record == b"\x08\x05"
    assert wire.FromLearner.FromString(b"\x10\x07").acknowledged == 7


def test_a_field_of_a_newer_end_is_passed_over():
    assert wire.Hello.FromString(b"\x08\x01" + b"\x7a\x03new").schema == 1


def test_torch_and_numpy_give_the_same_bytes():
    from robolearn.distributed.records import to_wire

    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3).T  # not contiguous
    (a,), (b,) = to_wire({"x": tensor}), to_wire({"x": tensor.numpy().astype(">f4")})
    assert a.data == b.data == b"".join(bytes.fromhex(h) for h in ("00000000", "00004040", "0000803f", "00008040",
                                                                   "00000040", "0000a040"))  # fmt: skip
    assert (a.dtype, list(a.shape)) == (b.dtype, list(b.shape)) == ("float32", [3, 2])
