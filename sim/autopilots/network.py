"""A network of one's own, for programs whose ports are fixed."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

NEW_NETWORK = 0x40000000
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1


@contextmanager
def own_network() -> Iterator[str]:
    """Inside, this thread is in a new network namespace that holds nothing but a loopback interface; sockets opened and
    programs started inside stay there. Yields "" or, where this user may not make one, the reason: it is then the
    network of all. Linux only."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        yield f"no network namespaces here ({error.strerror})"
        return
    try:
        if libc.unshare(NEW_NETWORK):
            yield f"no network namespace may be made ({os.strerror(ctypes.get_errno())})"
            return
        try:
            _raise_loopback()
            yield ""
        finally:
            if libc.setns(before, NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "could not return to the network of all")
    finally:
        os.close(before)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, GET_FLAGS, asked), 16)
        fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh14x", b"lo", flags | UP))
