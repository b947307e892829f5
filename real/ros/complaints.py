"""What the DDS library complains about, read back: it checks payloads itself and drops what is malformed.

It is told to trace its warnings into a file in memory. Here each sample that it dropped is counted for its topic, and
each kind of complaint is logged once. It would also print every one of them on stderr: thousands, of a broken peer.
"""

from __future__ import annotations

import ctypes as ct
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from cyclonedds.internal import DDS

log = logging.getLogger("ros.dds")
MALFORMED = re.compile(r"deserialization (?P<topic>\S+)/[^\s/]+ failed")
PACKET, PACKETS = "malformed packet received", "DDS's ports"
NUMBERS = re.compile(r"[0-9a-f]*\d[0-9a-f]*")
KINDS = 100  # remembered; later ones are not logged
ROOM = 2**20  # bytes, after which what has been read is freed
USUAL = 7  # fatal, error, warning: what it logs by default


class Complaints:
    def __init__(self) -> None:
        self.malformed: Counter[str] = Counter()
        """DDS topic -> samples dropped since the start."""
        self._kinds: set[str] = set()
        self._rest, self._at = b"", 0
        self._file = os.memfd_create("cyclonedds", os.MFD_CLOEXEC)

    @property
    def config(self) -> str:
        """For the domain's configuration."""
        return f"<Tracing><Category>warning</Category><OutputFile>/proc/self/fd/{self._file}</OutputFile></Tracing>"

    def poll(self) -> None:
        """Read what has come; costs a system call."""
        while data := os.pread(self._file, 65536, self._at):
            self._at += len(data)
            *lines, self._rest = (self._rest + data.lstrip(b"\0")).split(b"\n")
            for line in lines:
                self._line(line.decode(errors="replace"))
        if self._at > ROOM and self._rest == b"":
            os.ftruncate(self._file, 0)  # its writer goes on where it was; the part before takes no memory

    def _line(self, line: str) -> None:
        found, kind = MALFORMED.search(line), NUMBERS.sub("#", line)
        if found or PACKET in line:
            kind = found["topic"] if found else PACKETS
            self.malformed[kind] += 1
            line = f"a malformed message on {kind} was dropped; further ones are only counted"
        if kind not in self._kinds and len(self._kinds) < KINDS:
            self._kinds.add(kind)
            log.warning(line)

    def close(self) -> None:
        """To be called when the domain is gone."""
        os.close(self._file)


@contextmanager
def unprinted() -> Iterator[None]:
    """A domain that is created meanwhile prints no complaints for as long as it lives: it keeps the FILE that C calls
    stderr at this moment. Errors of the configuration are printed nevertheless. Only glibc lets stderr be assigned."""
    libc = ct.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    DDS._dll_handle.dds_set_log_mask(USUAL)  # before anything is assigned: it remembers stderr for errors here
    variable = ct.c_void_p.in_dll(libc, "stderr")
    kept, variable.value = variable.value, _nowhere()
    try:
        yield
    finally:
        variable.value = kept


@cache
def _nowhere() -> int:
    """A FILE that takes everything; one a process, never closed."""
    fopen = ct.CDLL(None).fopen
    fopen.restype = ct.c_void_p
    return fopen(b"/dev/null", b"w")
