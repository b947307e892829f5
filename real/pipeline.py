"""What SimEnv does around the physics, for one real robot: its state in, the policy's observation out; an action in,
set-points out. The same terms, memory and limits as in training; no ROS, no clock."""

from __future__ import annotations

import torch
from torch import Tensor

from robolearn.actions import Command, Commander, WithGripper
from robolearn.env import Obs
from robolearn.kinematics import Chain
from robolearn.limits import TargetState
from robolearn.observation import START, ObservationMemory, ObservationTerms, reads_start
from robolearn.spec import ObservationSpec, PolicySpec, RobotSpec
from robolearn.state import RobotState, SceneState

LATE_S, STILL_RAD = 0.02, 1e-3
"""How far behind its proposal a guard is that clips nothing: by the way there and back, and rounded corners."""
GROUP = "policy"
"""All that a robot observes: what else there is, is for learners."""
POSE_TERMS = ("pose_error", "ee_pose_relative")
"""Those whose `command` is a pose."""


class Pipeline:
    """Batch 1. `target` (1, J) are the set-points over all joints that were let through last."""

    def __init__(self, spec: PolicySpec, robot: RobotSpec):
        """Raises ValueError for a policy that needs what only a simulator knows."""
        seen = spec.observation
        if seen.privileged(GROUP):
            raise ValueError(f"the policy needs privileged observations {seen.privileged(GROUP)}: no robot has them")
        self.spec, self.robot, self.dt = spec, robot, 1.0 / spec.rate_hz
        self.observation = ObservationSpec(
            {GROUP: seen.terms(GROUP)}, {g: n for g, n in seen.history.items() if g == GROUP}
        )
        self.terms = ObservationTerms(self.observation, "cpu")
        self.memory = ObservationMemory(self.observation, 1, "cpu", self.dt)
        self.commander = Commander(spec.action, robot, 1, self.dt, "cpu")
        self.chain = None if robot.quadrotor else Chain(robot.urdf, robot.ee_link, robot.joint_names)
        self._driven = [robot.joint_names.index(n) for n in self.commander.joints]
        self._everyone = torch.ones(1, dtype=torch.bool)
        self.target = torch.tensor([robot.default_joint_pos])
        self.action = self.commander.rest[None]
        self._before = self.commander.last
        self._checked = False
        self._reads_start, self._start = reads_start(self.observation), torch.empty(0)

    def reset(self, target: Tensor) -> None:
        """An episode starts at rest at set-points `target` (J,), as the robot stands."""
        self.stand(target)
        self.memory.reset(self._everyone)
        self.action = self.commander.rest[None]
        self._start = torch.empty(0)

    def stand(self, target: Tensor) -> None:
        """The next command begins at rest at set-points `target` (J,); what was seen in this episode stays."""
        self.target = target[None].clone()
        self.commander.reset(self._everyone, self.target[:, self._driven])

    def state(self, stamp_s: float, position: Tensor, velocity: Tensor, effort: Tensor) -> RobotState:
        """Of measured joints, each (J,), in the order of the robot's joint names; the base is the world."""
        pose = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
        return RobotState(
            torch.tensor([stamp_s], dtype=torch.float64), position[None], velocity[None], effort[None], self.target,
            pose, torch.zeros(1, 6), self.chain,
        )  # fmt: skip

    def observe(self, robot: RobotState, scene: SceneState) -> Obs:
        """The policy's observation; call it once a period, for memory counts periods."""
        if self._reads_start:
            if not len(self._start):
                self._start = robot.ee_pose
            scene.commands[START] = self._start
        frames = self.terms.frames(robot, scene, self.action)
        if not self._checked:
            self.terms.check(frames)
            self._checked = True
        return self.memory.push(frames)

    def command(self, action: Tensor) -> Command:
        """One period's set-points for action (1, A), through the limits."""
        self._before = self.commander.last
        command = self.commander(action)
        self.action = command.applied_action
        self.target = self.target.index_copy(1, torch.tensor(self._driven), command.target)
        return command

    def gripper(self) -> float:
        """The last number of an action with a gripper, that would leave its set-points where they are."""
        term = self.commander.term
        assert isinstance(term, WithGripper)
        return float(term.opening(self.commander.last.position).clamp(-1.0, 1.0))

    def pause(self) -> None:
        """A period without a command: the guard brings the set-points to rest, and `follow` tells where, if that is
        not where they are."""
        self.commander.last = TargetState.at(self.commander.last.position)
        self._before = self.commander.last
        self.action = self.commander.rest[None]

    def follow(self, sent: Tensor) -> bool:
        """Where what was sent to the arm in the last period, (n,) rad, is not what `command` asked for, it counts as
        let through, as a clipped command does in simulation. Whether it was something else."""
        asked, before, n = self.commander.last, self._before, len(sent)
        slack = LATE_S * asked.velocity[0, :n].abs() + STILL_RAD
        if not ((sent - asked.position[0, :n]).abs() > slack).any():
            return False
        reached = torch.cat((sent[None], asked.position[:, n:]), dim=1)
        velocity = (reached - before.position) / self.dt
        self.commander.last = TargetState(reached, velocity, (velocity - before.velocity) / self.dt)
        self.action = self.commander.term.action(reached, before.position)
        self.target = self.target.index_copy(1, torch.tensor(self._driven), reached)
        return True

    @property
    def begun(self) -> Tensor:
        """(1, n) set-points of `joints` before the last command."""
        return self._before.position

    @property
    def joints(self) -> tuple[str, ...]:
        """Those that `command` moves."""
        return self.commander.joints


def poses_of(spec: ObservationSpec) -> tuple[str, ...]:
    """Names of the goals that a policy reads as poses; somebody has to set them."""
    found = dict.fromkeys(t.params["command"] for t in spec.terms(GROUP) if t.function in POSE_TERMS)
    return tuple(n for n in found if n != START)


def numbers_of(spec: ObservationSpec) -> dict[str, int]:
    """Names of the other goals, and how many numbers each has."""
    plain = {t.params["name"]: t.field.shape[0] for t in spec.terms(GROUP) if t.function == "command"}
    heights = {t.params["command"]: 1 for t in spec.terms(GROUP) if t.function == "height_error"}
    return {n: size for n, size in (plain | heights).items() if n not in poses_of(spec)}


def objects_of(spec: ObservationSpec) -> tuple[str, ...]:
    """Names of the objects whose pose a policy reads, which somebody has to see."""
    near = (t for t in spec.terms(GROUP) if t.function.startswith(("object_", "height_")))
    return tuple(dict.fromkeys(t.params[key] for t in near for key in ("name", "frame") if key in t.params))


def joints_read_by(spec: ObservationSpec) -> tuple[int, ...]:
    """Indices of the robot's joints that some term names."""
    return tuple(sorted({i for t in spec.terms(GROUP) for i in t.params.get("joints", ())}))
