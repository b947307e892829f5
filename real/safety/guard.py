"""The guard: what a proposal must pass before it moves an arm. A batch of one; numbers in, a decision out.

Time. Every call brings the time, on the clock of the stamps; the guard has none. A clock that goes back stops the arm
and forgets what was measured, as ages mean nothing then. After a long time without `command` the target rests where it
is: the driver has been standing there.

States. `idle`: nobody has authority. `holding`: a source has it, but no proposal is good now: the arm brakes as hard as
its limits allow and stands; the next good proposal goes on. `active`: it follows proposals. `stopped`: it brakes and
stands, nobody has authority, and only `take` starts it again; by a stale or far-off measurement, a clock, or proposals
that stay away. `fault`: the same, and only `reset` leaves it, towards `idle`; by `estop`, too much force, or a result
that is no number.

Authority. One source at a time; a source earlier in `sources` takes it from a later one, but never one person from
another (`people`). Its first target starts where the last command was, with its velocity, whoever gave it. A start from
rest needs a fresh measurement; where that is far from the last command (or there was none) the target starts at the
measured position. `release` leaves nobody in authority; with `hand_back` whom it was taken from has it again, and goes
on, or the arm is stopped as after any silence. Whatever else ends authority, or gives it to a third one, forgets them.

Proposals. Followed between `take` and the end of authority only, never one from before. The newest replaces those
before it; from where the reference is it goes in straight lines through the targets, each when it is due; targets whose
time has passed are skipped. It then stands at the last one, until `hold_after_s` after the last good proposal: no chunk
outlives that. Wrong joints, shapes, numbers or periods, stamps that are too old, from the future or not newer than the
last one: counted, refused, and as if never sent.

Measurements of an arm that is further than `reference_error_rad` beyond the ends of its joints are refused. They are
trusted while they are fresh and within twice that error of the target. Closer, the target
never moves more than that error away, and comes back at the velocity limit if the arm is pushed. Further, the arm does
not do what it is told (or the measurement is wrong, so nothing jumps to it): it is stopped, and at rest the guard says
nothing, lest a driver that starts again leaps to an old target.

Silence. Before the first `take` there is no target. After it there always is one, in every state: if the guard dies,
the driver's watchdog is meant to notice. But for an arm at rest without an owner that is further from its target than
just named, that is not heard of, or that comes back from there somewhere else (`BACK_RAD`): a driver that starts again
must not leap to an old target.

Limits. What is in conflict is settled by order: the later check wins (real.safety.checks). Position, velocity, the
tool's speed, the workspace's walls, the floor and the distance between links always hold, with the way to a standstill
foreseen; acceleration and jerk give way where the tool's speed or a blocked arm (reference error) demand it. A target
outside the box or under the floor is brought to the wall, with the orientation that was asked for: the arm slides along
it. A path that leaves the workspace all the same, or that brings links together, ends there. From outside a limit it
can only come back.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from real.safety.admission import Path, keep_joint_limits, slide_along_the_walls, stay_in_the_workspace
from real.safety.checks import STEP_CHECKS, Situation, Step
from real.safety.clearance import Body, Room
from real.safety.clips import Clip, Counters
from real.safety.limits import GuardLimits
from real.safety.proposals import Proposal, Timeline, due_times, read_targets
from robolearn.errors import ConfigError
from robolearn.limits import TargetState, chase
from robolearn.spec import RobotSpec
from robolearn.urdf import pose_of_frame

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]
State = Literal["idle", "active", "holding", "stopped", "fault"]
CLOCK_TOLERANCE_S = 0.001
GAP_S, GAP_PERIODS = 0.05, 10.0
FAR = 2.0
"""Times the reference error: what is further is not trusted."""
BACK_RAD = 0.05
"""An arm that was not heard of, and is further from the target than this, is somewhere else."""


@dataclass(frozen=True)
class Decision:
    target: Floats | None
    """(J,) rad for the driver, or None: publish nothing."""
    velocity: Floats | None
    """(J,) rad/s with which the target moves."""
    state: State
    reasons: tuple[str, ...]
    """Why it is in this state, and what was clipped in this period."""


class Answer(NamedTuple):
    ok: bool
    message: str


class Guard:
    def __init__(self, limits: GuardLimits, spec: RobotSpec, sources: tuple[str, ...], command_dt_s: float,
                 expects_wrench: bool = False, people: tuple[str, ...] = ()):  # fmt: skip
        """`sources` by falling priority; `people` are those that are a person. With `expects_wrench` nobody gets
        authority before a wrench was measured. Raises ConfigError for limits that are looser than the robot's."""
        if not sources or len(set(sources)) != len(sources):
            raise ConfigError(f"the guard needs sources with different names, got {sources}")
        if not 0.0 < command_dt_s < limits.hold_after_s:
            raise ConfigError(f"command_dt_s = {command_dt_s} must lie between 0 and {limits.hold_after_s}")
        limits.demand_fit(spec)
        self.limits, self.spec, self.sources, self.dt, self.people = limits, spec, sources, command_dt_s, people
        self.joints, self._expects_wrench = spec.arm_joints, expects_wrench
        self.state: State = "idle"
        self.owner: str | None = None
        self.waiting: str | None = None
        """From whom the owner took authority."""
        self.clips = Counters()
        self.body = Body(spec, limits.tool(), limits.floor_m, limits.clearance_m)
        self._joint_limits, self._error = limits.joints(), np.array(limits.reference_error_rad)
        self._ends = [np.array(spec.of(n, spec.arm_joints)) for n in ("lower", "upper")]
        self._reason, self._now_s, self._commanded_s = "", -math.inf, -math.inf
        self._last: TargetState | None = None
        self._room: Room | None = None  # of the last target, where it is known
        self._measured: Floats | None = None
        self._lost = False  # at rest, with no owner, and not heard of since
        self._timeline: Timeline | None = None
        self._measured_s = self._wrench_s = self._proposed_s = self._heard_s = -math.inf

    # --- what comes in --------------------------------------------------------------------------------------

    def observe(self, now_s: float, joint_pos: Any, joint_vel: Any, stamp_s: float, wrench: Any = None) -> bool:
        """Measured joints (J,) in the order of `joints`, rad and rad/s, and the wrench (6,) at the tool, N and N m,
        if it is of this moment. Whether the joints were accepted."""
        self._tick(now_s)
        numbers = _numbers(joint_pos, len(self.joints)), _numbers(joint_vel, len(self.joints))
        if numbers[0] is None or numbers[1] is None:
            return self._refuse("malformed", "joint state", 0.0, float(len(self.joints)))
        beyond = np.maximum(self._ends[0] - numbers[0], numbers[0] - self._ends[1]) - self._error
        if (beyond > 0.0).any():
            j = int(beyond.argmax())
            end = float(np.clip(numbers[0], *self._ends)[j])
            return self._refuse("malformed", self.joints[j], float(numbers[0][j]), end)
        if not self._timely("joint state", stamp_s, self._measured_s, self.limits.state_timeout_s):
            return False
        self._measured, self._measured_s = numbers[0][None], stamp_s
        if wrench is not None:
            self.observe_wrench(now_s, wrench, stamp_s)
        return True

    def observe_wrench(self, now_s: float, wrench: Any, stamp_s: float) -> bool:
        """Measured wrench (6,), N and N m. Once there was one they must go on, as fresh as the joints' state."""
        self._tick(now_s)
        numbers = _numbers(wrench, 6)
        if numbers is None:
            return self._refuse("malformed", "wrench", 0.0, 6.0)
        if not self._timely("wrench", stamp_s, self._wrench_s, self.limits.state_timeout_s):
            return False
        self._wrench_s = stamp_s
        force, torque = float(np.linalg.norm(numbers[:3])), float(np.linalg.norm(numbers[3:]))
        for what, value, limit in (("N", force, self.limits.force_n), ("N m", torque, self.limits.torque_nm)):
            if value > limit and self.owner is not None:
                self._end("fault", self._count(Clip("force_torque", what, value, limit)))
        return True

    def propose(self, source: str, now_s: float, proposal: Proposal) -> bool:
        """Whether it is followed from now on."""
        now_s = self._tick(now_s)
        if source != self.owner or self._last is None:
            return self._refuse("unauthorised", source, 0.0, 1.0)
        targets = read_targets(proposal, self.joints, self.limits.hold_after_s)
        if isinstance(targets, str):
            return self._refuse("malformed", f"{source}: {targets}", 0.0, 1.0)
        if not self._timely(source, proposal.stamp_s, self._proposed_s, self.limits.proposal_timeout_s):
            return False
        place = self._timeline.at(now_s)[0] if self._timeline is not None else self._last.position[0]
        due = due_times(len(targets), proposal.stamp_s, proposal.period_s, now_s)
        used = (due > now_s + 0.1 * proposal.period_s) & (due < now_s + self.limits.hold_after_s + proposal.period_s)
        path, beyond = slide_along_the_walls(Path(due[used], targets[used]), place, self.body)
        path, outside = stay_in_the_workspace(path, place, self.body)
        start = TargetState(place[None], self._last.velocity, self._last.acceleration)
        path, broken = keep_joint_limits(path, now_s, start, self._joint_limits, self.joints)
        for clip in (*beyond, *outside, *broken):
            self._count(clip)
        self._timeline = Timeline([now_s, *path.times.tolist()], np.concatenate((place[None], path.places)))
        self._proposed_s, self._heard_s = proposal.stamp_s, now_s
        self._enter("active", f"follows {source}")
        return True

    def refuse(self, source: str, why: str) -> bool:
        """Of a proposal that cannot even be read."""
        if source != self.owner:
            return self._refuse("unauthorised", source, 0.0, 1.0)
        return self._refuse("malformed", f"{source}: {why}", 0.0, 1.0)

    # --- authority ------------------------------------------------------------------------------------------

    def take(self, source: str) -> Answer:
        """Give authority to a source, from the next proposal on."""
        if source not in self.sources:
            return Answer(False, f"no source '{source}'; there are {', '.join(self.sources)}")
        if self.state == "fault":
            return Answer(False, f"fault ({self._reason}): reset first")
        if self.owner == source:
            return Answer(True, f"{source} has authority already")
        if self.owner is not None and self.sources.index(self.owner) < self.sources.index(source):
            return Answer(False, f"{self.owner} has authority, and priority over {source}")
        if self.owner in self.people and source in self.people:
            return Answer(False, f"{self.owner} has authority, a person as {source} is: they must let go first")
        late = self._stale(self._now_s)
        if late or self._measured is None:
            return Answer(False, f"not without a fresh measurement: {late or 'there was none yet'}")
        if self._last is None or self._far() or self._came_back_elsewhere():
            self._last, self._room, self._commanded_s = TargetState.at(self._measured), None, self._now_s
        self._lost = False
        self._give(source, self.owner)
        return Answer(True, f"{source} has authority")

    def _give(self, source: str, waiting: str | None) -> None:
        self.owner, self.waiting, self._timeline = source, waiting, None
        self._heard_s, self._proposed_s = self._now_s, -math.inf
        self._enter("holding", f"waits for {source}")

    def hand_back(self, source: str) -> Answer:
        """Give authority back to whom it was taken from, from their next proposal on; to nobody if it was nobody's."""
        back = self.waiting
        if source != self.owner or back is None:
            return self.release(source)
        self._give(back, None)
        return Answer(True, f"{back} has authority again")

    def release(self, source: str) -> Answer:
        """Give authority back; the arm brakes and stands. Who waits to get it back waits no more."""
        if source != self.owner:
            self.waiting = None if source == self.waiting else self.waiting
            return Answer(False, f"{source} has no authority; {self.owner or 'nobody'} has")
        self._end("idle", f"{source} released it")
        return Answer(True, "idle")

    def estop(self, reason: str = "emergency stop") -> Answer:
        """Brake and stand, until `reset`. From every state."""
        self._end("fault", reason)
        return Answer(True, reason)

    def reset(self) -> Answer:
        """Leave `fault` or `stopped` for `idle`; nothing moves until somebody takes authority."""
        if self.state not in ("fault", "stopped"):
            return Answer(True, f"nothing to reset: {self.state}")
        self._end("idle", f"reset after: {self._reason}")
        return Answer(True, "idle")

    # --- what goes out --------------------------------------------------------------------------------------

    def command(self, now_s: float) -> Decision:
        """The driver's next target. To be called every `command_dt_s`; called too early it repeats the last one."""
        now_s = self._tick(now_s)
        far, rested = self._far(), self._last is not None and not self._last.velocity.any()  # and the driver was told
        self._supervise(now_s, far)
        clips: list[Clip] = []
        if self._last is not None:
            elapsed = now_s - self._commanded_s
            if elapsed > max(GAP_S, GAP_PERIODS * self.dt):
                self._count(Clip("gap", "s without a command", elapsed, max(GAP_S, GAP_PERIODS * self.dt)))
                self._last, elapsed = TargetState.at(self._last.position), self.dt
            if elapsed > 0.1 * self.dt:
                clips = self._advance(now_s, min(elapsed, 2.0 * self.dt), far)
        reasons = (self._reason, *map(str, clips)) if self._reason else tuple(map(str, clips))
        if self._last is None or (rested and self.owner is None and self._is_silent(now_s, far)):
            return Decision(None, None, self.state, reasons)
        return Decision(self._last.position[0].copy(), self._last.velocity[0].copy(), self.state, reasons)

    def tool_pose(self, joint_pos: Floats) -> Floats:
        """(7,) m and quaternion xyzw in the base frame, of joints (J,): for drivers that are told poses."""
        return pose_of_frame(self.body.tool(joint_pos[None])[0])

    def _advance(self, now_s: float, dt: float, far: bool) -> list[Clip]:
        """Let the target move for a period."""
        assert self._last is not None
        trusted = None if self._measured is None or far or self._stale(now_s) else self._measured
        now = Situation(dt, self._last, self._joint_limits, self.body, trusted, self._error, self.joints, self._room)
        step, clips = self._wanted(now_s, dt), []
        for check in STEP_CHECKS:
            step, clipped = check(step, now)
            clips += clipped
        for clip in clips:
            self._count(clip)
        velocity = step.velocity
        if not np.isfinite(velocity).all():
            self._end("fault", "the command came out as no number")
            velocity = np.zeros_like(velocity)
        still = not velocity.any()
        self._room = (self._room if still else now.room_after(velocity)) if np.isfinite(velocity).all() else None
        self._last, self._commanded_s = self._last.moved(velocity, dt), now_s
        return clips

    def _wanted(self, now_s: float, dt: float) -> Step:
        assert self._last is not None
        brake = np.zeros_like(self._last.position)
        if self.state != "active" or self._timeline is None:
            return Step(brake, brake)
        place, rate = self._timeline.at(now_s)
        return Step(chase(place[None], rate[None], self._last, self._joint_limits, dt), brake)

    # --- states ---------------------------------------------------------------------------------------------

    def _supervise(self, now_s: float, far: bool) -> None:
        """End authority, or hold, for what has not come."""
        if self.owner is None:
            return
        late, silent = self._stale(now_s), now_s - self._heard_s
        if late:
            self._end("stopped", late)
        elif far:
            self._end("stopped", f"the arm is {self._distance():.3g} rad from its target")
        elif silent > self.limits.stop_after_s:
            self._end("stopped", f"no proposal of {self.owner} for {self.limits.stop_after_s} s")
        elif silent > self.limits.hold_after_s and self.state == "active":
            self._timeline = None
            self._enter("holding", f"no proposal of {self.owner} for {self.limits.hold_after_s} s")

    def _stale(self, now_s: float) -> str:
        """What is missing of the measurements, or nothing."""
        limit = self.limits.state_timeout_s
        for what, stamp_s in (("joint state", self._measured_s), ("wrench", self._wrench_s)):
            expected = what == "joint state" or self._expects_wrench or stamp_s > -math.inf
            if expected and now_s - stamp_s > limit:
                return f"the {what} is {now_s - stamp_s:.3g} s old, limit {limit} s"
        return ""

    def _distance(self) -> float:
        if self._last is None or self._measured is None:
            return 0.0
        return float(np.max(np.abs(self._last.position - self._measured)))

    def _is_silent(self, now_s: float, far: bool) -> bool:
        """At rest, with no owner: whether it says nothing, as the arm is not heard of, or somewhere else."""
        if now_s - self._measured_s > self.limits.state_timeout_s:
            self._lost = True
        elif not self._came_back_elsewhere():
            self._lost = False
        return far or self._lost

    def _came_back_elsewhere(self) -> bool:
        return self._lost and self._distance() > BACK_RAD

    def _far(self) -> bool:
        if self._last is None or self._measured is None:
            return False
        return bool((np.abs(self._last.position - self._measured) > FAR * self._error).any())

    def _end(self, state: State, reason: str) -> None:
        """Nobody has authority any more."""
        self.owner, self.waiting, self._timeline = None, None, None
        self._enter(state, reason)

    def _enter(self, state: State, reason: str) -> None:
        if state != self.state:
            log.log(logging.WARNING if state in ("stopped", "fault") else logging.INFO, "%s: %s", state, reason)
        self.state, self._reason = state, reason

    # --- time, and what is refused --------------------------------------------------------------------------

    def _tick(self, now_s: float) -> float:
        """The time, which never goes back by little; by more, everything that is known is of another clock."""
        if now_s < self._now_s - CLOCK_TOLERANCE_S:
            clip = self._count(Clip("clock", "s backwards", self._now_s - now_s, CLOCK_TOLERANCE_S))
            self._forget()
            self._commanded_s, self._now_s = now_s, now_s
            if self.owner is not None:
                self._end("stopped", clip)
        self._now_s = max(self._now_s, now_s)
        return self._now_s

    def _forget(self) -> None:
        self._measured, self._timeline = None, None
        self._measured_s = self._wrench_s = self._proposed_s = self._heard_s = -math.inf

    def _timely(self, what: str, stamp_s: float, last_s: float, oldest_s: float) -> bool:
        age = self._now_s - stamp_s
        if not age <= oldest_s:  # NaN too
            return self._refuse("stale", what, age, oldest_s)
        if age < -self.limits.future_s:
            return self._refuse("future", what, -age, self.limits.future_s)
        return stamp_s > last_s or self._refuse("repeated", what, stamp_s, last_s)

    def _refuse(self, kind: str, what: str, value: float, limit: float) -> bool:
        self._count(Clip(kind, what, value, limit))
        return False

    def _count(self, clip: Clip) -> str:
        self.clips.add(clip, self._now_s)
        return str(clip)


def _numbers(values: Any, count: int) -> Floats | None:
    """`count` finite numbers, or None."""
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.shape == (count,) and bool(np.isfinite(numbers).all()) else None
