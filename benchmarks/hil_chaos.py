"""Learning on a robot while its processes die: `python -m benchmarks.hil_chaos [FAULT ...] [times=20] [minutes=5]`.

Faults: `learner`, `actor`, `teleop` (kill -9 of each), `silent` (the joystick's messages stop while it has the arm).
`late`: how many steps of a robot at 10 Hz begin more than 20 ms late, with actor and learner beside twin, guard and
teleop node on whatever processors there are; no fault.

The arm is the twin (MuJoCo), a Franka, its guard at 250 Hz, the task that of experiment lift_hil without
demonstrations, the person a script that pushes the stick up and down. A time is from the signal, or the last message,
on this process's clock, until the guard is heard to follow nobody any more: from that tick on it brakes. Each fault
comes while the arm moves. Afterwards the learner's replay is compared with the actor's journal (`hil_books`): of what
was told, each transition must have been learned from once. The step under way when an actor died is told to nobody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.deploy_stack import Stack, median
from benchmarks.hil_books import compared
from real import ros
from real.connection import LATCHED, Numbers, String
from real.domain import own_domain
from real.listener import TrialError

log = logging.getLogger(__name__)
Joy = ros.interface("sensor_msgs/msg/Joy")
JOY_S, SWING_S, REST_EVERY, UP = 0.02, 1.0, 5, 4
GUARD_HZ = 250.0
"""Less than the profile's: two processors have trainings beside it."""
FAST_RADPS = 0.2
"""Of the fastest commanded joint when the fault comes."""
CALM_S, WATCHED_S = 0.3, 1.0
"""The guard has followed somebody for so long before a fault, and is watched for so long after one that is none."""
PATIENCE_S = 600.0
"""In which a process that was killed is back on a busy machine, the arm moves, and there are new steps."""
MORE = 40
"""Steps; of those that were made before a fault fewer were not in a checkpoint when it was over."""
WORDS = ["experiment=lift_hil", "data.path=", "site=franka", "person=nobody", "eval_episodes=0", "checkpoint_every_s=1",
         "algo.warmup_steps=50", "algo.capacity=100000", "total_steps=1000000"]  # fmt: skip


class Learning(Stack):
    """Twin, guard and teleop node, actor and learner, and a joystick."""

    def __init__(self, folder: Path):
        super().__init__(folder, "none", ("-p", "scene:=franka_lift", "-p", f"command_rate_hz:={GUARD_HZ}"))
        self.node.destroy_publisher(self.env)  # the actor is who proposes as env
        self.run, self.phases, self.owner, self.speaks, self.pushes = folder / "run", list[str](), "", True, False
        self._joy = self.node.create_publisher(Joy, "joy", 1)
        self._height = self.node.create_publisher(Numbers, "height", LATCHED)
        self._height.publish(Numbers(data=[0.2]))
        self.node.create_subscription(String, "env/phase", lambda m: self.phases.append(m.data), LATCHED)
        self.node.create_subscription(String, "guard/owner", lambda m: setattr(self, "owner", m.data), LATCHED)
        self.node.create_timer(JOY_S, self._speak)
        self.spoke_s = 0.0
        self.start("twin", "guard")
        self.begin_teleop()
        command = [sys.executable, "-m", "robolearn.cli.main", "hil", *WORDS, f"run_dir={self.run}"]
        with (folder / "hil.log").open("w") as out:
            self.processes["hil"] = subprocess.Popen(command, stdout=out, stderr=out)

    def _speak(self) -> None:
        if not self.speaks:
            return
        axes = [0.0] * 8
        pushes = self.pushes and self.phases[-1:] == ["running"]  # or no episode could begin
        if pushes and time.monotonic() // SWING_S % REST_EVERY:  # who was refused has to let go first
            axes[UP] = 1.0 if time.monotonic() // SWING_S % 2 else -1.0
        self._joy.publish(Joy(axes=axes, buttons=[0] * 11))
        self.spoke_s = time.monotonic()

    def begin_teleop(self) -> None:
        command = [sys.executable, "-m", "real.nodes.teleop", "--ros-args", *self.words, "-p", "devices:=[joy]",
                   "-p", "speed_mps:=0.5", "-p", "turn_radps:=1.0"]  # fmt: skip
        with (self.folder / "teleop.log").open("a") as out:
            self.processes["teleop"] = subprocess.Popen(command, stdout=out, stderr=out)

    def child(self, role: str) -> int:
        """Process number of the actor or the learner, as soon as there is one."""
        parent, found = self.processes["hil"].pid, list[int]()

        def look() -> bool:
            pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            with contextlib.suppress(OSError):  # just gone
                found[:] = [int(p) for p in pids if f"role={role}" in Path(f"/proc/{p}/cmdline").read_text()]
            return bool(found)

        self.wait(look, f"a process for the {role}")
        return found[0]

    def learned(self) -> int:
        """Steps, as the last checkpoint has them in its name."""
        return max((int(p.stem) for p in (self.run / "checkpoints").glob("*.safetensors")), default=0)

    def move(self, who: str) -> None:
        """The arm is moved by `env` or `teleop` in an episode that has begun, and for a while already."""
        self.speaks, self.pushes = True, who == "teleop"
        self.wait(lambda: self._moves(who), f"{who} moves the arm", PATIENCE_S)

    def _moves(self, who: str) -> bool:
        states = self.heard.states
        calm = not states or time.monotonic() - states[-1][0] > CALM_S
        running = self.phases[-1:] == ["running"]
        return running and calm and self.state == "active" and self.owner == who and self.speed() > FAST_RADPS

    def until_it_brakes(self, fault_s: float) -> float:
        def found() -> list[float]:
            return [at_s for at_s, state in self.heard.states if at_s > fault_s and state != "active"]

        self.wait(found, "the guard follows nobody", 10.0)
        return found()[0] - fault_s

    def close(self) -> None:
        """As Ctrl-C ends it, so that the last checkpoint is of all that came."""
        process = self.processes.pop("hil")
        process.send_signal(signal.SIGTERM)
        process.wait(60.0)


# --- one fault: seconds until the guard brakes, None where it must not ------------------------------------------


def learner(stack: Learning) -> float | None:
    stack.move("env")
    os.kill(stack.child("learner"), signal.SIGKILL)
    fault_s, episodes = time.monotonic(), len(stack.phases)
    stack.stay(WATCHED_S)
    states = [s for at, s in stack.heard.states if at > fault_s]
    if len(stack.phases) == episodes and set(states) - {"active"}:
        raise TrialError(f"the guard stopped the arm, though the learner alone was killed: {states}")
    return None


def actor(stack: Learning) -> float | None:
    stack.move("env")
    pid = stack.child("actor")
    fault_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return stack.until_it_brakes(fault_s)


def teleop(stack: Learning) -> float | None:
    stack.move("teleop")
    found = stack.until_it_brakes(stack.kill("teleop"))
    stack.processes.pop("teleop").wait()
    stack.pushes = False
    stack.begin_teleop()
    return found


def silent(stack: Learning) -> float | None:
    stack.move("teleop")
    stack.speaks = False
    found = stack.until_it_brakes(stack.spoke_s)
    stack.stay(WATCHED_S)
    return found


FAULTS: dict[str, Callable[[Learning], float | None]] = {
    "learner": learner, "actor": actor, "teleop": teleop, "silent": silent,
}  # fmt: skip
NAMES = {"learner": "kill -9 of the learner", "actor": "kill -9 of the actor", "teleop": "kill -9 of the teleop node",
         "silent": "device silent"}  # fmt: skip


def chaos(name: str, times: int) -> str:
    with tempfile.TemporaryDirectory() as folder, own_domain(None), Learning(Path(folder)) as stack:
        found, went_on = list[float](), 0
        for k in range(times):
            braked_s = FAULTS[name](stack)
            found += [] if braked_s is None else [braked_s]
            stack.speaks, stack.pushes, goal = True, False, stack.learned() + MORE
            stack.wait(lambda: stack.learned() > goal, "the learner learns from new steps", PATIENCE_S)  # noqa: B023
            went_on += 1
            log.info("%s: %d of %d", NAMES[name], k + 1, times)
            stack.clear()
        stack.close()
        books = compared(stack.run)
    cells = f"{1e3 * median(found):.0f} | {1e3 * max(found):.0f}" if found else "goes on | goes on"
    return f"| {NAMES[name]} | {times} | {cells} | {went_on} of {times} | {books} |"


def late(minutes: float) -> str:
    with tempfile.TemporaryDirectory() as folder, own_domain(None), Learning(Path(folder)) as stack:
        stack.move("env")
        stack.stay(60.0 * minutes)
        stack.close()
        said = (Path(folder) / "hil.log").read_text()
    steps, delayed = map(int, re.findall(r"made (\d+) steps, (\d+) of them late", said)[-1])
    load, cores = os.getloadavg()[1], os.cpu_count()
    return (f"{steps} steps at 10 Hz, {delayed} of them ({100 * delayed / steps:.2f} %) begun more than 20 ms late; "
            f"{cores} processors, load {load:.1f}")  # fmt: skip


def main(words: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no process of the stack is left behind
    given = {"times": "20", "minutes": "5"} | dict(w.split("=", 1) for w in words if "=" in w)
    parts = [w for w in words if "=" not in w] or [*FAULTS, "late"]
    if wrong := [*(set(parts) - {*FAULTS, "late"}), *(given.keys() - {"times", "minutes"})]:
        raise SystemExit(f"error: no '{wrong[0]}'; there are {', '.join(FAULTS)}, late, times=, minutes=")
    print(
        "| fault | n | the guard brakes, ms: median | max | training goes on | transitions |\n|---|---|---|---|---|---|"
    )
    for part in parts:
        print(late(float(given["minutes"])) if part == "late" else chaos(part, int(given["times"])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
