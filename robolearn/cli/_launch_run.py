"""Runs the processes of a launch: their output under their names, one signal for all, and an exit code.

Every process leads a group of its own, so that a Ctrl-C reaches it once, and its children with it. The end of one that
is required brings the rest down: SIGINT, then SIGTERM, then SIGKILL. Should this program be killed, the system sends
the SIGINT.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from robolearn.cli._launch_output import Output
from robolearn.cli._launch_plan import Process

ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STEPS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
PARTIAL_S = 0.5
"""An unfinished line is shown after this pause: a question has no end of line."""
LONGEST_LINE = PIPE_BYTES = 65536


@dataclass
class _Child:
    """A started process; `sent` counts how many of STEPS it got, `code` is None while it runs."""

    plan: Process
    popen: subprocess.Popen[bytes]
    pipe: int
    line: bytes = b""
    heard: float = 0.0
    sent: int = 0
    next_step: float = float("inf")
    code: int | None = None

    @property
    def pid(self) -> int:
        return self.popen.pid


@dataclass
class Launch:
    """The processes of one launch; `run` starts them and returns when none is left."""

    output: Output
    children: list[_Child] = field(default_factory=list)
    code: int = 0
    asked: list[int] = field(default_factory=list)

    def run(self, plans: list[Process]) -> int:
        """The exit code: of the first process that failed (128 + signal if by a signal), or of the signal we got."""
        with _signals(self.asked) as wake, selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            selector.register(self.output.broken, selectors.EVENT_READ)
            try:
                self._start(plans, selector)
                self.output.start()
                self._watch(selector)
            finally:
                self._end()
        return self.code or (128 + self.asked[0] if self.asked else 0)

    def _start(self, plans: list[Process], selector: selectors.BaseSelector) -> None:
        for plan in plans:
            try:
                child = _spawn(plan)
            except OSError as error:
                self.code = 126
                self.output.say(f"[{plan.name}] cannot start: {error}")
                self._stop("")
                break
            self.children.append(child)
            selector.register(child.pipe, selectors.EVENT_READ, child)
            self.output.say(f"[{plan.name}] started, process {child.pid}")

    def _watch(self, selector: selectors.BaseSelector) -> None:
        obeyed = 0
        while any(child.code is None for child in self.children):
            for key, _ in selector.select(self._pause()):
                if isinstance(key.data, _Child):
                    self._read(key.data, selector)
                elif not self._drained(key.fd):
                    selector.unregister(key.fd)
                    self._stop("the output has no reader any more")
            for child in self.children:
                self._look_after(child, selector)
            if len(self.asked) > obeyed:
                obeyed = len(self.asked)
                self._obey(obeyed)

    def _pause(self) -> float | None:
        """Seconds to the next thing that is due by the clock."""
        due = [c.next_step for c in self.children if c.code is None]
        due += [c.heard + PARTIAL_S for c in self.children if c.line]
        return max(0.0, min(due) - time.monotonic()) if due and min(due) < float("inf") else None

    @staticmethod
    def _drained(fd: int) -> bool:
        """False at the end of the pipe: the output is broken."""
        try:
            return bool(os.read(fd, 4096))
        except BlockingIOError:
            return True

    # --- output ------------------------------------------------------------------------------------------------

    def _read(self, child: _Child, selector: selectors.BaseSelector) -> None:
        try:
            data = os.read(child.pipe, PIPE_BYTES)
        except BlockingIOError:
            return
        if not data:
            selector.unregister(child.pipe)
            return
        *lines, child.line = (child.line + data).split(b"\n")
        for line in lines:
            self.output.line(child.plan.name, line)
        child.heard = time.monotonic()
        if len(child.line) > LONGEST_LINE:
            self._flush(child)

    def _flush(self, child: _Child) -> None:
        if child.line:
            self.output.line(child.plan.name, child.line)
            child.line = b""

    # --- life and death ----------------------------------------------------------------------------------------

    def _look_after(self, child: _Child, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        if child.line and now >= child.heard + PARTIAL_S:
            self._flush(child)
        if child.code is None:
            child.code = _ended(child.pid)
            if child.code is not None:
                self._bury(child, selector)
            elif now >= child.next_step:
                self._escalate(child)

    def _bury(self, child: _Child, selector: selectors.BaseSelector) -> None:
        """The last output of an ended process, and what its end means for the others. Its children end with it."""
        if child.pipe in selector.get_map():
            self._read(child, selector)  # once is enough: as much as a pipe holds
        self._flush(child)
        if child.pipe in selector.get_map():  # a child of its own holds the other end
            selector.unregister(child.pipe)
        _signal_group(child.pid, signal.SIGTERM)
        how = "finished" if child.code == 0 else _manner(child.code or 0)
        by_us = {-int(s) for s in STEPS[: min(child.sent, 2)]} | {128 + int(s) for s in STEPS[: min(child.sent, 2)]}
        if child.code == 0 or child.code in by_us:
            self.output.say(f"[{child.plan.name}] {how}")
        else:
            self.code = self.code or _exit_code(child.code or 0)
            self.output.say(f"[{child.plan.name}] died: {how}")
        if child.plan.required:
            self._stop(f"[{child.plan.name}] was required")

    def _stop(self, reason: str) -> None:
        """Begin to stop whatever still runs; the first call does it."""
        fresh = [child for child in self.children if child.code is None and not child.sent]
        if fresh and reason:
            self.output.say(f"{reason}: stopping the rest")
        for child in fresh:
            self._escalate(child)

    def _obey(self, count: int) -> None:
        """One signal stops all in order; each further one goes a step harder."""
        if count == 1:
            self._stop(f"got {signal.Signals(self.asked[0]).name}")
            return
        for child in self.children:
            if child.code is None and child.sent < min(count, len(STEPS)):
                self._escalate(child)

    def _escalate(self, child: _Child) -> None:
        step = STEPS[child.sent]
        if child.sent:
            self.output.say(f"[{child.plan.name}] still runs: {step.name}")
        _signal_group(child.pid, step)
        child.sent += 1
        waits = (child.plan.sigterm_after_s, child.plan.sigkill_after_s, float("inf"))
        child.next_step = time.monotonic() + waits[child.sent - 1]

    def _end(self) -> None:
        """No process of ours is left behind, whatever happened."""
        for child in self.children:
            _signal_group(child.pid, signal.SIGKILL)
            child.popen.wait()
            os.close(child.pipe)
        self.output.close(lambda: len(self.asked) > 1)


# --- processes ---------------------------------------------------------------------------------------------


def _spawn(plan: Process) -> _Child:
    reader, writer = os.pipe()
    try:
        popen = subprocess.Popen(
            plan.command,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            cwd=plan.cwd,
            env={"PYTHONUNBUFFERED": "1", **plan.env},
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    os.set_blocking(reader, False)
    return _Child(plan, popen, reader)


def die_with_parent() -> Callable[[], None] | None:
    """To be called in the child: SIGINT when this program dies, even by SIGKILL. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent, set_death_signal = ctypes.CDLL(None).prctl, os.getpid(), 1

    def ask() -> None:
        prctl(set_death_signal, int(signal.SIGINT))
        if os.getppid() != parent:  # it died before it was asked
            os._exit(1)

    return ask


def _ended(pid: int) -> int | None:
    """The exit code, negative for a signal, or None. The process stays a zombie: its number cannot be reused."""
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if status is None:
        return None
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left, or only zombies are
        os.killpg(pid, number)


def _manner(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _exit_code(code: int) -> int:
    return code if code > 0 else 128 - code


@contextlib.contextmanager
def _signals(asked: list[int]) -> Iterator[int]:
    """Collect the signals that ask for an end into `asked`; the yielded pipe is readable after each, and after the
    death of a child. A hang-up that the caller ignores (nohup) stays ignored."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.getsignal(number) for number in (*ASKED, signal.SIGCHLD)}
    for number in before:
        if number != signal.SIGHUP or before[number] is not signal.SIG_IGN:
            signal.signal(number, lambda got, _: asked.append(got) if got != signal.SIGCHLD else None)
    waker = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(waker)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
