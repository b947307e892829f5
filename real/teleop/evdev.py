"""Linux input devices as files of events (Documentation/input/input.rst of the kernel): /dev/input/event*, read without
a package. A FIFO that carries another machine's events does as well; there is nothing to ask it for, so the ranges and
the state at rest of common drivers are assumed."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from real.teleop.base import RETRY_S, DeviceError, Host, Reading

FOLDER = Path("/dev/input")
EVENT = struct.Struct("@llHHi")
"""struct input_event: seconds, microseconds, type, code, value."""
AT_ONCE = 64
MOST = 4096
"""Events in one read of a device that floods: what remains is for the next."""
SYN, KEY, ABS = 0x00, 0x01, 0x03
SYN_REPORT, SYN_DROPPED = 0, 3
KEY_BYTES = 96
SLACK = 0.05
"""Share of its range that an axis may be beyond it."""


class Range(NamedTuple):
    low: int
    high: int
    flat: int = 0
    """About the middle: what the driver calls zero."""


def _request(number: int, size: int, write: bool = False) -> int:
    """The kernel's ioctl number of input devices."""
    return (1 if write else 2) << 30 | size << 16 | ord("E") << 8 | number


class EventFile:
    """The state of a device: `axes` by code as the driver counts, and the `keys` that are down."""

    def __init__(self, name: str, path: Path, assumed: Mapping[int, Range]):
        """`name` of the device in messages. Raises DeviceError."""
        self.name, self.path = name, path
        self.ranges, self.axes, self.keys = dict(assumed), dict[int, int](), set[int]()
        self._dropped = False
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError:
            raise DeviceError(
                f"{name}: {path} may not be read; sudo usermod -aG input $USER, then log in anew"
            ) from None
        except OSError as error:
            raise DeviceError(f"{name}: no device at {path} ({os.strerror(error.errno or 0)}); plug it in, or set "
                              f"{name}.path") from None  # fmt: skip
        try:
            self._ask()
        except DeviceError:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    # --- what the driver knows ------------------------------------------------------------------------------

    def _ioctl(self, number: int, size: int) -> bytes | None:
        """What it answers, or None where it is no input device."""
        answer = bytearray(size)
        try:
            fcntl.ioctl(self._fd, _request(number, size), answer, True)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL):
                return None
            raise self._gone(error) from None
        return bytes(answer)

    def _ask(self) -> None:
        """Ranges and state as they are now."""
        self.axes, self.keys = {}, set()
        for code in self.ranges:
            info = self._ioctl(0x40 + code, 24)
            if info is not None:
                value, low, high, _, flat, _ = struct.unpack("@6i", info)
                if low < high:
                    self.ranges[code], self.axes[code] = Range(low, high, flat), value
        self.keys = set(_bits(self._ioctl(0x18, KEY_BYTES) or b""))

    def title(self) -> str:
        return (self._ioctl(0x06, 256) or b"").split(b"\0")[0].decode(errors="replace")

    def has_key(self, code: int) -> bool:
        return code in _bits(self._ioctl(0x20 + KEY, KEY_BYTES) or b"")

    def grab(self) -> None:
        """No other program hears it from now on. Raises DeviceError if another one has it."""
        try:
            fcntl.ioctl(self._fd, _request(0x90, 4, write=True), 1)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise DeviceError(f"{self.name}: another program has grabbed {self.path}; end that one") from None
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise self._gone(error) from None

    # --- what it says ---------------------------------------------------------------------------------------

    def update(self) -> None:
        """Take in what has come. Raises DeviceError if it was unplugged or makes no sense."""
        for _ in range(MOST // AT_ONCE):
            try:
                data = os.read(self._fd, AT_ONCE * EVENT.size)
            except BlockingIOError:
                return
            except OSError as error:
                raise self._gone(error) from None
            if not data:
                raise DeviceError(f"{self.name}: {self.path} has ended; plug the device in again")
            if len(data) % EVENT.size:
                raise DeviceError(f"{self.name}: {self.path} sent {len(data)} bytes, no whole events of {EVENT.size}; "
                                  "is it an input device of this machine?")  # fmt: skip
            for _, _, kind, code, value in EVENT.iter_unpack(data):
                self._take(kind, code, value)

    def _take(self, kind: int, code: int, value: int) -> None:
        if kind == SYN:
            self._synchronise(code)
        elif self._dropped:
            return
        elif kind == KEY:
            if value not in (0, 1, 2):
                raise self._nonsense(f"key {code} is {value}, neither up, down nor repeated")
            (self.keys.add if value else self.keys.discard)(code)
        elif kind == ABS and code in self.ranges:
            low, high, _ = self.ranges[code]
            if not low - SLACK * (high - low) <= value <= high + SLACK * (high - low):
                raise self._nonsense(f"axis {code} is {value}, not within {low} and {high}")
            self.axes[code] = min(max(value, low), high)

    def _synchronise(self, code: int) -> None:
        """When the kernel has dropped events everything up to the next report is void, and is asked for anew."""
        if code == SYN_DROPPED:
            self._dropped = True
        elif code == SYN_REPORT and self._dropped:
            self._dropped = False
            self._ask()

    def centred(self, code: int) -> float:
        """-1 to 1 of a stick; 0 before it has said anything."""
        low, high, flat = self.ranges[code]
        if code not in self.axes:
            return 0.0
        middle, half = 0.5 * (low + high), 0.5 * (high - low)
        from_middle = self.axes[code] - middle
        return from_middle / half if abs(from_middle) > flat else 0.0

    def pressed(self, code: int) -> float:
        """0 to 1 of a trigger."""
        low, high, flat = self.ranges[code]
        travel = self.axes.get(code, low) - low
        return travel / (high - low) if travel > flat else 0.0

    def _gone(self, error: OSError) -> DeviceError:
        why = "was unplugged" if error.errno == errno.ENODEV else os.strerror(error.errno or 0)
        return DeviceError(f"{self.name}: {self.path} {why}; plug it in again")

    def _nonsense(self, what: str) -> DeviceError:
        return DeviceError(f"{self.name}: {self.path} makes no sense, {what}; is {self.name}.path the right device?")


def _bits(data: bytes) -> Iterator[int]:
    """Numbers of the bits that are set; the kernel's are longs of the machine."""
    longs = array.array("L")
    longs.frombytes(data)
    return (64 * k + b for k, word in enumerate(longs) for b in range(64) if word >> b & 1)


class EventDevice:
    """A device over one file, which is opened again, twice a second, when it was lost."""

    name = ""
    assumed: Mapping[int, Range] = {}

    def __init__(self, host: Host):
        self.host = host
        self._again_s, self._why = 0.0, ""
        self.file: EventFile | None = self.open()

    def open(self) -> EventFile:
        raise NotImplementedError

    def reading(self, file: EventFile, now_s: float) -> Reading:
        raise NotImplementedError

    def read(self) -> Reading:
        now_s = self.host.now_s()
        try:
            if self.file is None:
                if abs(now_s - self._again_s) < RETRY_S:
                    raise DeviceError(self._why)
                self._again_s = now_s
                self.file = self.open()
            self.file.update()
        except DeviceError as error:
            self._why = str(error)
            if self.file:
                self._again_s = now_s
            self.close()
            raise
        return self.reading(self.file, now_s)

    def close(self) -> None:
        if self.file:
            self.file.close()
            self.file = None


def find(name: str, key: int, assumed: Mapping[int, Range]) -> dict[Path, str]:
    """Input devices that have a key, with their titles; those that may not be read are left out."""
    found = {}
    for path in sorted(FOLDER.glob("event*")):
        try:
            file = EventFile(name, path, assumed)
        except DeviceError:
            continue
        if file.has_key(key):
            found[path] = file.title()
        file.close()
    return found
