"""A numbered payload in a file: its length (4 bytes), the CRC-32 of all else (4), the number (8), the payload.
Little-endian."""

from __future__ import annotations

import os
import struct
import zlib

MAGIC = b"RLJRNL\x00\x01"
HEADER = struct.Struct("<IIQ")
LIMIT = 1 << 30
"""Bytes of a payload; a longer one is taken for a corrupt length."""


class TornFrameError(Exception):
    """A frame is cut short or corrupt."""


def frame(number: int, payload: bytes) -> bytes:
    return HEADER.pack(len(payload), _checksum(number, payload), number) + payload


def _checksum(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<IQ", len(payload), number)))


def read_frame(descriptor: int, offset: int) -> tuple[int, bytes] | None:
    """Number and payload of the frame at `offset`; None at the file's end; TornFrameError if it is not whole."""
    header = os.pread(descriptor, HEADER.size, offset)
    if not header:
        return None
    if len(header) < HEADER.size:
        raise TornFrameError("a header is cut short")
    length, checksum, number = HEADER.unpack(header)
    if length > LIMIT:
        raise TornFrameError(f"a length of {length} bytes is corrupt")
    payload = os.pread(descriptor, length, offset + HEADER.size)
    if len(payload) < length:
        raise TornFrameError(f"{len(payload)} of {length} bytes are there")
    if _checksum(number, payload) != checksum:
        raise TornFrameError("a checksum differs")
    return number, payload
