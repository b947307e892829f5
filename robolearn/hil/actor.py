"""The end at the robot: acts with the newest weights, lets a person take over, and tells the learner every step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from robolearn.algos.off_policy import OffPolicy
from robolearn.distributed.actor import ActorLink
from robolearn.env import Env, Obs
from robolearn.hil import steps
from robolearn.loops.interrupt import Interrupt

log = logging.getLogger(__name__)
LATE_S = 0.02
"""A step that begins so long after its time counts as late."""


class Actor:
    """Of one environment. A learner that is gone is no fault: it acts on with the weights that it has, and what it
    tells waits in its journal."""

    def __init__(self, env: Env, algo: OffPolicy, link: ActorLink, speed: float = 1.0,
                 clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep):  # fmt: skip
        """`algo` is there for its policy and how it explores; `speed` is how much faster than real time a simulated
        world may go, 0 for as fast as it can."""
        if env.num_envs != 1:
            raise ValueError(f"an actor has one environment, not {env.num_envs}; start several actors")
        self.env, self.algo, self.link = env, algo, link
        self.period_s = env.step_dt / speed if speed else 0.0
        self._clock, self._sleep = clock, sleep
        self.version, self._taken = 0, ("", 0)
        self.steps, self.late = 0, 0
        self._interrupt = Interrupt("this step")

    def run(self, most: int = 2**62) -> None:
        """Until it is interrupted, or so many steps were made."""
        obs, _ = self.env.reset()
        self.link.send(steps.first(obs, self.algo.replay.frames))
        due = self._clock()
        with self._interrupt.watch():
            while self.steps < most and not self._interrupt.wanted:
                obs = self.step(obs)
                due = self._wait(due + self.period_s)

    @torch.no_grad()
    def step(self, obs: Obs) -> Obs:
        self.take_weights()
        action = self.algo.propose(self.algo.here(obs)).to(self.env.device)
        after, reward, terminated, truncated, extras = self.env.step(action)
        keys = self.algo.replay.frames
        self.link.send(steps.step(action, reward, terminated, truncated, extras, keys, self.version))
        self.steps += 1
        if bool(terminated | truncated):
            self.link.send(steps.first(after, keys))
        return after

    def take_weights(self) -> None:
        """Those that have come since the last step, whole."""
        newest = self.link.newest_weights()
        if newest is not None and (newest.learner, newest.version) != self._taken:
            self.algo.policy.load_state_dict(newest.tensors)
            self._taken, self.version = (newest.learner, newest.version), newest.version

    def _wait(self, due: float) -> float:
        """Until `due`; from when on the next period counts."""
        now = self._clock()
        if not self.period_s:
            return now
        if now < due:
            self._sleep(due - now)
            return due
        self.late += now - due > LATE_S
        return now if now - due > self.period_s else due
