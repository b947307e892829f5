"""How soon the arm stands when the operator's page that has it is lost, with twin and guard as processes over DDS.

    python -m benchmarks.page_lost [times=20] [cases=browser_killed,...]

Chromium, or a plain client of the page's wire, has the arm and moves the tool at full speed; then all of its processes
are killed (its connection ends), or frozen (it stays, and says nothing more); or the page's node itself is killed.
Time starts at the last heartbeat that a client sent; for a browser and for the node, when the signal was sent. It ends
when this process takes the guard's first target that stands, and the guard's state.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.browser import Browser
from benchmarks.deploy_stack import Stack
from real.listener import TrialError

BEAT_S = 0.05
FAST_RADPS = 0.03
"""Of the fastest joint, when the page is lost."""
SPEAKS = ("KeyR", 1.0), ("KeyF", -1.0)
"""Up and down, in turn: the key, and the share of full speed."""


class Lost(NamedTuple):
    """Seconds after the loss."""

    rest_s: float
    state_s: float
    state: str


class Client:
    """A process that has the arm over the page's wire."""

    def __init__(self, address: str, up: float):
        words = [sys.executable, "-m", "benchmarks.page_lost", "client", address, str(up)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def lose(self, how: signal.Signals) -> Callable[[], float]:
        """Afterwards it knows when the last heartbeat was sent."""
        self.process.send_signal(how)
        return self._last_beat_s

    def _last_beat_s(self) -> float:
        self.process.kill()
        assert self.process.stdout is not None
        with self.process.stdout as said:
            return float(said.read().split()[-1])

    def take(self) -> None:
        """It does so by itself, again and again."""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Person:
    """A browser that has the arm."""

    def __init__(self, address: str, folder: Path, key: str):
        self.browser = Browser(f"http://{address}/", folder)
        until = time.monotonic() + 30.0
        while not self.browser.value("typeof state !== 'undefined' && !!state"):
            if time.monotonic() > until:
                raise TrialError("the page shows nothing")
            time.sleep(0.05)
        self.browser.press(key)

    def take(self) -> None:
        """By a click; again where a busy machine has let it be taken away."""
        self.browser.click("[data-do=take]")

    def lose(self, how: signal.Signals) -> Callable[[], float]:
        """Its last heartbeat was sent before the signal, by up to BEAT_S."""
        began = time.monotonic()
        self.browser.signal(how)
        return partial(float, began)

    def close(self) -> None:
        self.browser.kill()


def client(address: str, up: float) -> None:
    """Take the arm and move its tool; print when each heartbeat was sent."""
    from websockets.sync.client import connect

    with connect(f"ws://{address}/ws", origin=f"http://{address}") as line:  # type: ignore[arg-type]
        seen, began = 0, time.monotonic()
        for k in range(10**6):
            while (left := began + k * BEAT_S - time.monotonic()) > 0.0:
                try:
                    seen = json.loads(line.recv(timeout=left))["n"]
                except TimeoutError:
                    break
            if seen:
                line.send(json.dumps({"seen": seen, "twist": [0, 0, up, 0, 0, 0], "gripper": 0, "target": None}))
                sys.stdout.write(f"{time.monotonic():.6f}\n")
                sys.stdout.flush()
                if k % 10 == 9:  # again, where a busy machine has let it be taken away
                    line.send('{"do": "take"}')


def once(stack: Stack, address: str, case: str, k: int, folder: Path) -> Lost:
    who, _, how = case.partition("_")
    key, up = SPEAKS[k % 2]
    mover = Person(address, folder / f"browser{k}", key) if who == "browser" else Client(address, up)
    try:
        move(stack, mover)
        if who == "node":
            last_s: Callable[[], float] = partial(float, stack.kill("page"))
        else:
            last_s = mover.lose(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        stack.wait(lambda: stack.speed() == 0.0 and stack.state in ("idle", "stopped"), "it stands", 10.0)
        stack.stay(0.2)
        lost_s = last_s()
    finally:
        mover.close()
    moving = [t for t in stack.heard.targets if t.velocity.any()]
    rest = next(t for t in stack.heard.targets if t.at_s > moving[-1].at_s)
    state_s = next(at_s for at_s, state in stack.heard.states if at_s > lost_s)
    return Lost(rest.at_s - lost_s, state_s - lost_s, stack.state)


def move(stack: Stack, mover: Person | Client) -> None:
    """Until the tool has moved for a while."""
    until = time.monotonic() + 30.0
    while time.monotonic() < until:
        mover.take()
        stack.stay(1.0)
        if stack.state == "active" and stack.speed() > FAST_RADPS:
            return
    raise TrialError("the tool does not move")


CASES = ("browser_killed", "browser_frozen", "client_killed", "client_frozen", "node_killed")


def measure(stack: Stack, address: str, case: str, times: int, folder: Path) -> Iterator[Lost]:
    made, failed = 0, 0
    while made < times:
        stack.clear()
        try:
            yield once(stack, address, case, made + failed, folder / case)
            made += 1
        except TrialError as error:
            failed += 1
            print(f"{case}: again, {error}", flush=True)
            if failed > times:
                raise
        if case.startswith("node"):
            restart(stack, address)


def restart(stack: Stack, address: str) -> None:
    """The page's node; and the guard, which would take a second one for another node that proposes as page."""
    stack.processes.pop("page").wait(timeout=30.0)
    stack.end("guard")
    stack.start("guard")
    stack.start("page", words=["-p", f"address:={address}"])


@contextmanager
def page_stack(folder: Path, twin: Sequence[str] = (), page: Sequence[str] = ()) -> Iterator[tuple[Stack, str]]:
    """Twin, guard and page, with more words for the first and the last; and the page's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with Stack(folder, "", ["-p", "command_rate_hz:=200.0"]) as stack:
        stack.start("twin", words=twin)
        stack.start("guard")
        stack.start("page", words=["-p", f"address:={address}", *page])
        yield stack, address


def told(case: str, found: list[Lost]) -> str:
    def ms(values: list[float]) -> str:
        return f"p50 {1e3 * float(np.median(values)):.0f}, max {1e3 * max(values):.0f} ms"

    states = ", ".join(sorted({f.state for f in found}))
    rest, state = ms([f.rest_s for f in found]), ms([f.state_s for f in found])
    return f"{case}: {len(found)} times; at rest {rest}; the guard's state {state} ({states})"


def main(argv: list[str]) -> int:
    if argv[:1] == ["client"]:
        client(argv[1], float(argv[2]))
        return 0
    options = dict(word.split("=", 1) for word in argv)
    times = int(options.get("times", "20"))
    os.environ.setdefault("ROS_DOMAIN_ID", "88")
    with tempfile.TemporaryDirectory() as name, page_stack(Path(name)) as (stack, address):
        for case in options.get("cases", ",".join(CASES)).split(","):
            print(told(case, list(measure(stack, address, case, times, Path(name)))), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
