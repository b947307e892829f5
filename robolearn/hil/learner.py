"""The end that learns: from what actors tell as it comes, as often as its ratio allows, and after a kill from where its
last checkpoint was."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robolearn.algos.off_policy import OffPolicy
from robolearn.distributed.learner import LearnerServer
from robolearn.distributed.records import Record
from robolearn.errors import UserError
from robolearn.hil import steps
from robolearn.loops import checkpoint
from robolearn.loops.interrupt import Interrupt
from robolearn.loops.log import Display, Writer
from robolearn.loops.online import LearningDiverged

log = logging.getLogger(__name__)
SLICE = 4
"""Updates between two looks at what has come."""
RECENT = 20
"""Episodes, over which success and cycle time are shown."""
IDLE_S = 0.05


@dataclass
class Counters:
    seconds: float = 0.0
    """Of all processes that learned on the run."""
    episodes: int = 0
    version: int = 0
    """Of the weights that were published last."""
    positions: dict[str, int] = field(default_factory=dict)
    """Of each actor, the number of the record that was learned from last."""
    lanes: dict[str, int] = field(default_factory=dict)


@dataclass
class Ended:
    """An episode."""

    success: bool
    length: int
    human: int
    """Steps of the person's."""


class Learner:
    """Runs `algo` on the records of a server up to `total_steps`. Each actor has a lane of the replay."""

    def __init__(self, server: LearnerServer, algo: OffPolicy, total_steps: int, folder: Path,
                 publish_every: int = 50, checkpoint_every_s: float = 20.0,
                 state: dict[str, Any] | None = None):  # fmt: skip
        """`state` is of a checkpoint; weights are published every so many updates."""
        self.server, self.algo, self.total_steps, self.folder = server, algo, total_steps, folder
        self.publish_every, self.checkpoint_every_s = publish_every, checkpoint_every_s
        self.counters = Counters()
        self.recent: deque[Ended] = deque(maxlen=RECENT)
        self._now: dict[str, Ended] = {}
        self._stale, self._reported, self._published = deque[int](maxlen=500), 0, 0
        self._safe: dict[str, int] = {}
        """Positions of the checkpoint before the newest, which might be all there is to go on from."""
        if state is not None:
            self._restore(state)
        self._began, self._earlier_s, self._saved_at = time.monotonic(), self.counters.seconds, time.monotonic()
        self._reported = self.algo.env_steps
        self._records: queue.Queue[Record | Exception] = queue.Queue(2000)
        self._read_up_to = dict(self.counters.positions)
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._interrupt = Interrupt("what is under way")

    def run(self) -> None:
        """The last checkpoint is always written. The first Ctrl-C or SIGTERM ends it, by KeyboardInterrupt."""
        self._reader.start()
        writer = Writer(self.folder, self.algo.env_steps)
        self.publish()
        try:
            with self._interrupt.watch(), Display(self.total_steps, "learn", self.algo.env_steps) as display:
                while self.algo.env_steps < self.total_steps and not self._interrupt.wanted:
                    came = self._take(self._records.qsize() or 1)
                    made = self.algo.catch_up(SLICE)
                    if made:
                        self._after_updates()
                    if self.algo.env_steps - self._reported >= self.algo.cfg.report_steps:
                        self._report(writer)
                    display.update(min(self.algo.env_steps, self.total_steps), self.shown())
                    if came or made:
                        self._maybe_save()
                while self.algo.catch_up(SLICE) and not self._interrupt.wanted:
                    pass
                self.publish()
                self.save()
        finally:
            self._closing.set()
            writer.close()
        if self._interrupt.wanted:
            raise KeyboardInterrupt

    # --- what comes -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """In a thread of its own; what goes wrong there is raised where the records are wanted."""
        try:
            while not self._closing.is_set():
                for record in self.server.read(self._read_up_to, timeout_s=1.0):
                    self._read_up_to[record.actor] = record.sequence
                    while not self._closing.is_set() and not self._hand_over(record):
                        pass
        except Exception as error:
            self._hand_over(error)

    def _hand_over(self, what: Record | Exception) -> bool:
        try:
            self._records.put(what, timeout=0.2)
        except queue.Full:
            return False
        return True

    def _take(self, most: int) -> int:
        """So many records at most; how many there were. Waits a little for the first if nothing else is to do."""
        for taken in range(most):
            wait_s = IDLE_S if not self.algo.behind and not taken else 0.0
            try:
                record = self._records.get(timeout=wait_s) if wait_s else self._records.get_nowait()
            except queue.Empty:
                return taken
            if isinstance(record, Exception):
                raise record
            self.take(record)
            if self.algo.env_steps >= self.total_steps:
                return taken + 1
        return most

    def take(self, record: Record) -> None:
        """One record of an actor."""
        lane = self._lane(record.actor)
        if record.first:
            self.algo.begin(lane, steps.frame_of(record))
            self._now[record.actor] = Ended(False, 0, 0)
        else:
            step = steps.step_of(record)
            self.algo.receive(lane, step.action, step.reward, step.terminated, step.truncated, step.final_obs,
                              step.human)  # fmt: skip
            behind = self.counters.version - step.weights
            self._stale.append(max(0, behind))  # ahead: of weights that a kill took from this end
            self._note(record.actor, step)
        self.counters.positions[record.actor] = record.sequence

    def _lane(self, actor: str) -> int:
        lanes = self.counters.lanes
        if actor not in lanes:
            if len(lanes) == self.algo.num_envs:
                raise UserError(f"the learner was made for {len(lanes)} actors, {', '.join(lanes)}; {actor} is one too "
                                f"many: start it anew with actors={len(lanes) + 1}")  # fmt: skip
            lanes[actor] = len(lanes)
        return lanes[actor]

    def _note(self, actor: str, step: steps.Step) -> None:
        now = self._now.setdefault(actor, Ended(False, 0, 0))
        now.length, now.human = now.length + 1, now.human + bool(step.human)
        if step.done:
            now.success = step.success
            self.recent.append(now)
            self.counters.episodes += 1

    # --- what goes --------------------------------------------------------------------------------------------------

    def _after_updates(self) -> None:
        if self.algo.updates - self._published >= self.publish_every:
            self.publish()

    def publish(self) -> None:
        """To every actor; versions go on from those of the processes before."""
        self.counters.version += 1
        self._published = self.algo.updates
        self.server.publish(self.counters.version, self.algo.policy.state_dict(), self.algo.updates)

    def shown(self) -> dict[str, float]:
        """Of the last episodes: success, the share of the person's steps, and the length of those that succeeded; the
        updates a step, and by how many versions the actors' weights are behind."""
        recent, good = self.recent, [e.length for e in self.recent if e.success]
        steps_made = sum(e.length for e in recent)
        found = {"ratio": self.algo.updates / max(1, self.algo.env_steps - self.algo.cfg.warmup_steps)}
        if recent:
            found |= {"success": len(good) / len(recent), "intervened": sum(e.human for e in recent) / steps_made}
        if good:
            found["cycle_steps"] = sum(good) / len(good)
        if self._stale:
            found["stale"] = sum(self._stale) / len(self._stale)
        return found

    def _report(self, writer: Writer) -> None:
        learned = self.algo.update({}, self.algo.env_steps / self.total_steps)
        bad = {k: v for k, v in learned.items() if v != v}
        if bad:
            raise LearningDiverged(f"learning diverged at step {self.algo.env_steps} ({bad}); the checkpoint before "
                                   "stands. A smaller learning rate is the usual remedy")  # fmt: skip
        self._reported, self.counters.seconds = self.algo.env_steps, self._seconds()
        shown = {f"episode/{k}": v for k, v in self.shown().items()}
        learned = {f"learn/{k}": v for k, v in learned.items()}
        writer.write(self.algo.env_steps, shown | learned | {"time/seconds": self.counters.seconds})

    def _seconds(self) -> float:
        return self._earlier_s + time.monotonic() - self._began

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _maybe_save(self) -> None:
        if self.checkpoint_every_s and time.monotonic() - self._saved_at > self.checkpoint_every_s:
            self.save()

    def save(self) -> None:
        """Then what both checkpoints know leaves the journals."""
        self.counters.seconds = self._seconds()
        generator = {"state": self.algo.generator.get_state()}
        counters = vars(self.counters) | {"recent": [vars(e) for e in self.recent],
                                          "now": {k: vars(e) for k, e in self._now.items()}}  # fmt: skip
        state = {"algo": self.algo.state_dict(), "generator": generator, "counters": counters}
        checkpoint.write(self.folder / "checkpoints", self.algo.env_steps, state)
        self.server.forget(self._safe)
        self._safe, self._saved_at = dict(self.counters.positions), time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        self.algo.load_state_dict(state["algo"])
        self.algo.generator.set_state(state["generator"]["state"].cpu())
        counters = dict(state["counters"])
        self.recent.extend(Ended(**e) for e in counters.pop("recent", []))
        self._now = {k: Ended(**e) for k, e in counters.pop("now", {}).items()}
        self.counters = Counters(**counters)
        self._safe = dict(self.counters.positions)
