"""What becomes of the scene between two episodes of a robot, before its arm goes to its start."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from real.link import RobotError
from real.pipeline import Pipeline
from robolearn.bundle import Bundle
from robolearn.errors import ConfigError
from robolearn.spec import RobotSpec, stepwise

if TYPE_CHECKING:
    from real.env import RobotEnv

DONE = "reset"
"""The button by which a person says that the scene is as it should be."""
LOOK_S = 0.05
PATIENCE_S = 15.0
"""Of one wait for a person; then whoever wants an episode is told that there is none yet, and may end."""


class ResetPolicy(Protocol):
    pipelines: Sequence[Pipeline]
    """That it observes and proposes by."""

    def __call__(self, env: RobotEnv) -> None:
        """Raises RobotError where nothing can be reset."""
        ...


class Scripted:
    """Nothing: the arm goes to its start, and finds the scene as the episode has left it."""

    pipelines: Sequence[Pipeline] = ()

    def __call__(self, env: RobotEnv) -> None:
        pass


class ByPerson:
    """The arm goes out of the way, to its start, and stands there without authority until a person says that they are
    done. They may move it meanwhile by their device. Whatever goes wrong from then on, it does not move by itself
    before they have said so, once more if what they have allowed has failed."""

    pipelines: Sequence[Pipeline] = ()

    def __init__(self, patience_s: float = PATIENCE_S):
        self.patience_s = patience_s
        self._steps, self._allowed = -1, False
        """That had been made when it began to wait; whether the person has said since that they are done."""

    def __call__(self, env: RobotEnv) -> None:
        if self._steps != env.common_step_counter:
            self._steps = env.common_step_counter
            env.go()
            env.hold()
            env.forget(DONE)  # that has ended the episode
        elif self._allowed:
            env.forget(DONE)
        self._allowed = False
        env.say("waiting")
        self._wait(env)
        self._allowed = True

    def _wait(self, env: RobotEnv) -> None:
        until = time.monotonic() + self.patience_s
        while DONE not in env.serve(LOOK_S) or env.link.owner:
            if time.monotonic() > until:
                raise RobotError("nobody has said that the scene is reset: press `reset`, and let go of the device")


class Learned:
    """A policy undoes what was done: one that was trained backward, from ends to starts. It passes the same guard, and
    may be taken over; it is over when a person says so, or after `limit_s`."""

    def __init__(self, bundle: Bundle, robot: RobotSpec, limit_s: float):
        """Raises BundleError, naming what differs, for another robot's; ConfigError for no time at all."""
        bundle.require(robot)
        bundle.require_hardware()
        if not 0.0 < limit_s < float("inf"):
            raise ConfigError(f"a reset by a policy needs a time limit above 0, got {limit_s} s")
        self.policy, self.limit_s = bundle.policy.eval(), limit_s
        self.pipeline = Pipeline(stepwise(bundle.spec), robot)
        self.pipelines: Sequence[Pipeline] = (self.pipeline,)

    def __call__(self, env: RobotEnv) -> None:
        forward = env.link.pipeline
        env.link.use(self.pipeline)
        try:
            env.take()
            self._act(env)
        finally:
            env.link.use(forward)

    @torch.inference_mode()
    def _act(self, env: RobotEnv) -> None:
        link, pipeline = env.link, self.pipeline
        pipeline.reset(link.standing())
        self.policy.reset(torch.ones(1, dtype=torch.bool))
        env.forget(DONE)
        due, k, most = time.monotonic(), 0, max(1, round(self.limit_s / pipeline.dt))
        said: set[str] = set()
        while link.owner in env.people or (k < most and DONE not in said):  # who has taken over has to let go first
            if lack := link.lack():
                raise RobotError(f"the reset was broken off: {lack.text}")
            command = pipeline.command(self.policy.act(pipeline.observe(link.state(), link.scene())))
            env.send(command, due)
            said = env.serve(0.0)
            if link.owner not in (env.source, *env.people):
                raise RobotError(f"the reset was broken off; the guard is {link.guard_state}")
            if link.reference is not None:
                pipeline.follow(link.reference)
            due, k = max(due + pipeline.dt, time.monotonic()), k + 1
