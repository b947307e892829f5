"""The end at the robot: acts with the newest weights, lets a person take over, and tells the learner every step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from robolearn.algos.off_policy import OffPolicy
from robolearn.distributed.actor import ActorLink
from robolearn.env import Env, Extras, Obs
from robolearn.errors import UserError
from robolearn.hil import steps
from robolearn.loops.interrupt import Interrupt

log = logging.getLogger(__name__)
AGAIN_S = 2.0
LATE_S = 0.02
"""A step that begins so long after its time counts as late."""


class Actor:
    """Of one environment. A learner that is gone is no fault: it acts on with the weights that it has, and what it
    tells waits in its journal."""

    def __init__(self, env: Env, algo: OffPolicy, link: ActorLink, speed: float = 1.0,
                 clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
                 interrupt: Interrupt | None = None):  # fmt: skip
        """`algo` is there for its policy and how it explores; `speed` is how much faster than real time a simulated
        world may go, 0 for as fast as it can. `interrupt` is one that others look at too: a robot's resets."""
        if env.num_envs != 1:
            raise ValueError(f"an actor has one environment, not {env.num_envs}; start several actors")
        self.env, self.algo, self.link = env, algo, link
        self.period_s = env.step_dt / speed if speed else 0.0
        self._clock, self._sleep = clock, sleep
        self.version, self._taken = 0, ("", 0)
        self.steps, self.late, self._due = 0, 0, 0.0
        self._interrupt = interrupt or Interrupt("this step")

    def run(self, most: int = 2**62) -> None:
        """Until it is interrupted, or so many steps were made."""
        with self._interrupt.watch():
            obs = self._begin()
            while obs is not None and self.steps < most and not self._interrupt.wanted:
                self._due += self.period_s
                obs = self.step(obs)
                self._wait()

    def _begin(self) -> Obs | None:
        """An episode's first frame, from when on its steps are due; None if it is interrupted while the robot cannot
        begin one."""
        while not self._interrupt.wanted:
            try:
                obs, _ = self.env.reset()
            except UserError as error:
                if not self._interrupt.wanted:
                    log.warning("no episode can begin: %s; it is tried again in %g s", error, AGAIN_S)
                    self._pause(AGAIN_S)
                continue
            self.link.send(steps.first(obs, self.algo.replay.frames))
            self._due = self._clock()
            return obs
        return None

    def _pause(self, seconds: float) -> None:
        """A robot's world listens meanwhile to the person, who may say that it can begin."""
        getattr(self.env, "listen", self._sleep)(seconds)

    @torch.no_grad()
    def step(self, obs: Obs) -> Obs | None:
        """The next frame, of the next episode where that was the last step of one."""
        self.take_weights()
        action = self.algo.propose(self.algo.here(obs)).to(self.env.device)
        after, reward, terminated, truncated, extras = self.env.step(action)
        keys = self.algo.replay.frames
        self.link.send(steps.step(action, reward, terminated, truncated, extras, keys, self.version))
        self._count(extras)
        if not bool(terminated | truncated):
            return after
        if extras.get("awaiting_reset"):
            return self._begin()
        self.link.send(steps.first(after, keys))
        return after

    def _count(self, extras: Extras) -> None:
        self.steps += 1
        self.late += extras.get("late_s", 0.0) > LATE_S  # a robot's world keeps the time itself

    def take_weights(self) -> None:
        """Those that have come since the last step, whole."""
        newest = self.link.newest_weights()
        if newest is not None and (newest.learner, newest.version) != self._taken:
            self.algo.policy.load_state_dict(newest.tensors)
            self._taken, self.version = (newest.learner, newest.version), newest.version

    def _wait(self) -> None:
        """Until the next step is due. One that is late by more than a period is not made up for."""
        if not self.period_s:
            return
        late_s = self._clock() - self._due
        if late_s < 0.0:
            self._sleep(-late_s)
        self.late += late_s > LATE_S
        self._due += late_s if late_s > self.period_s else 0.0
