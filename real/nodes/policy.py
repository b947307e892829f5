"""A trained policy at work: observations by the functions of training, set-points as proposals to the guard.

Topics below the robot's namespace: the robot's state; the goals that the policy reads, by name (`goal`:
geometry_msgs/PoseStamped, others std_msgs/Float64MultiArray, latched); objects as `objects/NAME`
(geometry_msgs/PoseStamped). A quadrotor's policy hovers where it is started, or flies the parameter `trajectory`
(figure_eight, circle; `size_m`, `period_s`) from there, until `goal` says where; `policy/goal` (nav_msgs/Odometry)
tells where it should be. Services (std_srvs/Trigger): `policy/start` takes authority from the guard and starts an
episode where the robot stands, `policy/stop` gives it back, `policy/reset` starts a new episode on the way.
`/diagnostics` once a second: rate, jitter, inference time, age of the state.

A policy that plans chunks of actions plans the next one in a thread, while the last one is run (real.planner says what
becomes of one that is late); with the parameter `blend` a chunk fades into the next one over so many periods. So does a
residual policy with its base's; its corrections are of the control loop.

A policy whose period is longer than the guard waits, as at 10 Hz, proposes its way in parts, several in a period.
It proposes from fresh states only, and stops for good when the guard takes its authority: the next start is yours.
While another source has it, it waits: handed back, it begins a new episode where the robot stands; released, it stops.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from real import ros
from real.connection import Trigger, shown
from real.flight.link import FlightLink, FlightPipeline
from real.link import Link
from real.nodes.report import OK, WARN, Report
from real.nodes.run import run
from real.pipeline import Pipeline
from real.planner import PlanError, Planner, worker
from real.site import FlightSite, Site, parameter, read_any_site
from real.spread import Spread
from robolearn import runs
from robolearn.actions import Command
from robolearn.errors import ConfigError
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.policies.residual import ResidualPolicy
from robolearn.spec import PolicySpec

SOURCE = "policy"
REPORT_S = 1.0
AGAIN_S = 0.2
"""After a refusal, where it shall start by itself."""


class PolicyNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("policy")
        self.site = read_any_site(self)
        where = parameter(self, "run", "")
        if not where:
            raise ConfigError("the policy node needs `run`: a run's folder, a bundle, or last")
        _, self.bundle = runs.load_bundle(where)
        self.bundle.require(self.site.robot)
        self.bundle.require_hardware()
        self.link = _link_of(self, self.site, self.bundle.spec)
        self.pipeline, self.policy = self.link.pipeline, self.bundle.policy
        self.dt, self._patience_s = self.pipeline.dt, self.link.patience_s
        self.planner = self._plan_beside()
        self.running = self.waiting = False
        self._start_when_ready = parameter(self, "start", False)
        self._asked_s = self._refused_s = -math.inf  # the guard, for authority, on the steady clock
        self.ages, self.thinking, self.periods = Spread(), Spread(), Spread()
        self.counts = {"proposals": 0, "clipped by the guard": 0}
        self._proposed = False  # in this episode
        self._part = -1  # of the period
        self._command: Command | None = None  # what is proposed in the rest of it
        self._warned = False  # of the times of planning
        self._began_s = self._last_tick = 0.0
        self._diagnostics = Report(self, self.site.profile.robot)
        for name, call in (("start", self.start), ("stop", self.stop), ("reset", self.reset)):
            self.create_service(Trigger, f"policy/{name}", partial(_answer, call))
        self.create_timer(self.link.proposal_s, self._tick)
        self.create_timer(REPORT_S, self._report)
        goals, objects = self.link.needed
        self.get_logger().info(
            f"{self.bundle.spec.robot}, {self.bundle.spec.rate_hz:g} Hz, goals {sorted(goals)}, "
            f"objects {sorted(objects)}; start with the service policy/start"
        )

    def _plan_beside(self) -> Planner | None:
        """For a policy that plans chunks, or whose base does; it has planned some when this returns, and so knows how
        long that takes."""
        blend = parameter(self, "blend", 0)
        if blend < 0:
            raise ConfigError(f"blend must not be negative, got {blend}")
        if not isinstance(self.policy, (ChunkedPolicy, ResidualPolicy)):
            return None
        planner = Planner(self.policy, self.dt, worker(), blend=blend)
        try:
            planner.warm_up()
        except PlanError as error:
            raise ConfigError(f"this policy cannot be run: {error}") from error
        self.get_logger().info(planner.told())
        return planner

    # --- authority ------------------------------------------------------------------------------------------

    def start(self) -> tuple[bool, str]:
        """Ask the guard for authority; the first proposal follows its answer."""
        self._check()
        if self.running:
            return True, "it is running"
        if time.monotonic() - self._asked_s < self._patience_s:
            return True, "asked the guard already"
        lack = self.link.lack()
        if lack:
            return False, lack.text
        if not self.link.take.service_is_ready():
            return False, "there is no guard"
        self._asked_s = time.monotonic()
        self.link.take.call_async(Trigger.Request()).add_done_callback(self._on_taken)
        return True, "asked the guard"

    def _on_taken(self, future: Any) -> None:
        answer, late = future.result(), time.monotonic() - self._asked_s > self._patience_s
        self._asked_s = -math.inf
        if self.running:
            return
        if answer is None or not answer.success:
            self._refused_s = time.monotonic()
            self.get_logger().warning(f"not started: {answer.message if answer else 'no answer of the guard'}")
            return
        if late:
            self.link.release.call_async(Trigger.Request())  # by now the guard may have taken it away again
            self.get_logger().warning("not started: told to stop, or the guard's answer came too late")
            return
        self.running, self._start_when_ready = True, False
        self.link.owner, self._began_s = SOURCE, time.monotonic()
        self.reset()
        self.get_logger().info("started")

    def stop(self) -> tuple[bool, str]:
        self._asked_s, self._start_when_ready = -math.inf, False
        if self.running:
            self._halt("stopped")
            self.link.release.call_async(Trigger.Request())
        return True, "stopped"

    def reset(self) -> tuple[bool, str]:
        """A new episode from where the guard's target stands; the robot, if that is somewhere else."""
        self.pipeline.reset(self.link.standing())
        self._proposed, self._part, self._command = False, -1, None
        if self.planner:
            self.planner.reset()
        else:
            self.policy.reset(torch.ones(1, dtype=torch.bool))
        return True, "a new episode"

    def _halt(self, why: str) -> None:
        self.running = self.waiting = False
        self.get_logger().info(why)

    def _check(self) -> None:
        """It runs on only as long as the guard speaks, and for it."""
        silent_s = min(self.link.silence_s(), time.monotonic() - self._began_s)
        if self.running and not self.link.owner:
            self._halt(f"the guard gave authority to nobody ({shown(self.link.guard_state)})")
        elif self.running and silent_s > self._patience_s:
            self._halt(f"the guard was silent for {silent_s:.2g} s")
        elif self.running and self.waiting != (self.link.owner != SOURCE):
            self.waiting = not self.waiting
            if not self.waiting:
                self.reset()
            what = "waits until it is handed back" if self.waiting else "goes on"
            self.get_logger().info(f"the guard gave authority to {shown(self.link.owner)}: {what}")

    # --- a period -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Once a proposal: of a slow policy, several in a period."""
        began = time.monotonic()
        self._check()
        if not self.running or self.waiting:
            self._last_tick, self._part = 0.0, -1
            if not self.running and self._start_when_ready and began - self._refused_s > AGAIN_S:
                self.start()
            return
        self._part = (self._part + 1) % self.link.parts
        if self._part:
            if self._command is not None and not self.link.lack():
                self.link.propose(self._command, self._part)
            return
        self._command = None
        if self._last_tick:
            self.periods.add(began - self._last_tick)
        self._last_tick = began
        if lack := self.link.lack():
            self.counts[lack.kind] = self.counts.get(lack.kind, 0) + 1
            return
        try:
            self._propose()
        except PlanError as error:
            self.get_logger().error(str(error))
            self.stop()
        self.thinking.add(time.monotonic() - began)

    @torch.inference_mode()
    def _propose(self) -> None:
        link, pipeline = self.link, self.pipeline
        self.ages.add(link.age_s())
        if self._proposed and link.reference is not None and pipeline.follow(link.reference):
            self.counts["clipped by the guard"] += 1
        obs = pipeline.observe(link.state(), link.scene())
        action = self.planner.act(obs) if self.planner else self.policy.act(obs)
        if action is None:
            if not self._proposed:  # a robot that moved when the episode began is being braked, and stands elsewhere
                pipeline.stand(link.standing())
            pipeline.pause()
            return
        self._command = command = pipeline.command(action)
        link.propose(command, self._part)
        self.counts["proposals"] += 1
        self._proposed = True

    def _report(self) -> None:
        warning = self.planner.warning(self._patience_s) if self.planner else ""
        if warning and not self._warned:
            self.get_logger().warning(warning)
        self._warned = bool(warning)
        spreads = {"period": self.periods, "inference": self.thinking, "state age": self.ages}
        figures: dict[str, object] = {f"{k}, ms": str(v) for k, v in spreads.items()}
        figures |= self.planner.figures() if self.planner else {}
        figures |= self.counts | self.link.reader.refused | self.link.goals.refused
        at_work = self.running and not self.waiting
        self._diagnostics(OK if at_work else WARN, "running" if at_work else "waits", figures)
        for spread in spreads.values():
            spread.clear()

    def close(self) -> None:
        if self.planner:
            self.planner.close()


def _link_of(node: Any, site: Site | FlightSite, spec: PolicySpec) -> Link | FlightLink:
    if isinstance(site, FlightSite):
        return FlightLink(node, site, FlightPipeline(spec, site.robot), SOURCE)
    return Link(node, site, Pipeline(spec, site.robot), SOURCE)


def _answer(call: Any, request: Any, response: Any) -> Any:
    response.success, response.message = call()
    return response


def main(args: Sequence[str] | None = None) -> int:
    return run(PolicyNode, args, on_time=True)


if __name__ == "__main__":
    raise SystemExit(main())
