"""From a policy's action to a joint command, through the kinematic limits: the same in simulation and on hardware.

An action term is a registered class with `target(action, last)` and its inverse `action(target, last)`, which tells a
learner what the limits left of its action. Both take and return (B, n) tensors. Terms move the arm; a gripper is added
to any of them by `params.gripper` of the ActionSpec (see WithGripper).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from robolearn.kinematics import Chain, damped_ik
from robolearn.limits import JointLimits, TargetState, limit_target
from robolearn.registry import claim
from robolearn.rotations import quat_apply, quat_conjugate
from robolearn.spec import ActionSpec, ControlMode, QuadrotorSpec, RobotSpec


class ActionTerm(Protocol):
    mode: ControlMode

    def __init__(self, spec: ActionSpec, robot: RobotSpec, device: torch.device | str): ...

    def target(self, action: Tensor, last: Tensor) -> Tensor:
        """Joint target (rad, m) or effort (N m, N) of the arm's joints from the last target."""
        ...

    def action(self, target: Tensor, last: Tensor) -> Tensor:
        """The action that would have given `target`."""
        ...


ACTIONS: dict[str, type[ActionTerm]] = {}


def action_term(name: str) -> Callable[[type], type]:
    """Register an action term under `name`, the `function` of an ActionSpec."""

    def add(cls: type) -> type:
        claim(ACTIONS, "action term", name, cls)
        return cls

    return add


class _Scaled:
    """`scale` (A,): what an action of one means."""

    def __init__(self, spec: ActionSpec, robot: RobotSpec, device: torch.device | str):
        self.scale = torch.tensor(spec.scale, device=device)


@action_term("joint_position_delta")
class JointPositionDelta(_Scaled):
    """Moves the joint set-points by scale * action (rad)."""

    mode: ControlMode = "position"

    def target(self, action: Tensor, last: Tensor) -> Tensor:
        return last + self.scale * action

    def action(self, target: Tensor, last: Tensor) -> Tensor:
        return (target - last) / self.scale


@action_term("joint_position")
class JointPosition:
    """Puts the joint set-points at default + scale * action (rad)."""

    mode: ControlMode = "position"

    def __init__(self, spec: ActionSpec, robot: RobotSpec, device: torch.device | str):
        self.scale = torch.tensor(spec.scale, device=device)
        self.centre = torch.tensor(robot.of("default_joint_pos", robot.arm_joints), device=device)

    def target(self, action: Tensor, last: Tensor) -> Tensor:
        return self.centre + self.scale * action

    def action(self, target: Tensor, last: Tensor) -> Tensor:
        return (target - self.centre) / self.scale


@action_term("ee_delta")
class EndEffectorDelta:
    """Moves the end effector's set-point by scale * action (3 metres, 3 rad as a rotation vector), by damped least
    squares at the last joint set-point. Along the axes of the base, or with the specification's frame `tool` along
    those of the end effector there. `params.damping` trades accuracy for calm near singularities."""

    mode: ControlMode = "position"

    def __init__(self, spec: ActionSpec, robot: RobotSpec, device: torch.device | str):
        self.scale = torch.tensor(spec.scale, device=device)
        self.chain = Chain(robot.urdf, robot.ee_link, robot.arm_joints, device)
        self.damping = float(spec.params.get("damping", 0.05))
        self.in_tool = spec.frame == "tool"
        self._jacobian, self._quat = torch.empty(0), torch.empty(0)

    def target(self, action: Tensor, last: Tensor) -> Tensor:
        pose, self._jacobian = self.chain.pose_and_jacobian(last)
        self._quat = pose[:, 3:]
        delta = self.scale * action
        return last + damped_ik(self._jacobian, _turned(delta, self._quat) if self.in_tool else delta, self.damping)

    def action(self, target: Tensor, last: Tensor) -> Tensor:
        delta = (self._jacobian @ (target - last)[..., None]).squeeze(-1)
        return (_turned(delta, quat_conjugate(self._quat)) if self.in_tool else delta) / self.scale


def _turned(delta: Tensor, quat: Tensor) -> Tensor:
    """Both halves of (B, 6)."""
    return torch.cat((quat_apply(quat, delta[:, :3]), quat_apply(quat, delta[:, 3:])), dim=1)


@action_term("joint_effort")
class JointEffort(_Scaled):
    """Applies scale * action (N m or N)."""

    mode: ControlMode = "effort"

    def target(self, action: Tensor, last: Tensor) -> Tensor:
        return self.scale * action

    def action(self, target: Tensor, last: Tensor) -> Tensor:
        return target / self.scale


@action_term("rotor_speed")
class RotorSpeed:
    """Rotor set-points: -1 stands still, +1 is a quadrotor's full speed (rad/s)."""

    mode: ControlMode = "velocity"

    def __init__(self, spec: ActionSpec, robot: RobotSpec, device: torch.device | str):
        self.half = 0.5 * quadrotor_of(spec, robot).max_speed_radps

    def target(self, action: Tensor, last: Tensor) -> Tensor:
        return self.half * (action + 1.0)

    def action(self, target: Tensor, last: Tensor) -> Tensor:
        return target / self.half - 1.0


@action_term("attitude")
class Attitude(_Scaled):
    """Roll, pitch (rad), yaw rate (rad/s) and collective thrust (N): scale * action, the thrust about the weight."""

    mode: ControlMode = "attitude"

    def __init__(self, spec: ActionSpec, robot: RobotSpec, device: torch.device | str):
        super().__init__(spec, robot, device)
        weight = 9.81 * quadrotor_of(spec, robot).mass_kg
        self.level = torch.tensor([0.0, 0.0, 0.0, weight], device=device)

    def target(self, action: Tensor, last: Tensor) -> Tensor:
        return self.level + self.scale * action

    def action(self, target: Tensor, last: Tensor) -> Tensor:
        return (target - self.level) / self.scale


def quadrotor_of(spec: ActionSpec, robot: RobotSpec) -> QuadrotorSpec:
    if robot.quadrotor is None:
        raise ValueError(f"'{spec.function}' is an action for quadrotors; {robot.name} is none")
    return robot.quadrotor


class WithGripper:
    """An arm's term beside a gripper, which is the action's last number: a position target between `closed` (-1) and
    `open` (+1), for each of `joints`; all three are lists in `params.gripper`, in rad or m. `scale` is the arm's."""

    mode: ControlMode = "position"

    def __init__(self, arm: ActionTerm, spec: ActionSpec, robot: RobotSpec, device: torch.device | str):
        given = spec.params["gripper"]
        self.joints, closed, opened = tuple(given["joints"]), given["closed"], given["open"]
        _check_gripper(spec, robot, arm.mode, self.joints, closed, opened)
        self.arm, self.n = arm, len(robot.arm_joints)
        self.centre = (torch.tensor(opened, device=device) + torch.tensor(closed, device=device)) / 2
        self.reach = (torch.tensor(opened, device=device) - torch.tensor(closed, device=device)) / 2

    def target(self, action: Tensor, last: Tensor) -> Tensor:
        arm = self.arm.target(action[:, :-1], last[:, : self.n])
        return torch.cat((arm, self.centre + self.reach * action[:, -1:]), dim=1)

    def action(self, target: Tensor, last: Tensor) -> Tensor:
        arm = self.arm.action(target[:, : self.n], last[:, : self.n])
        return torch.cat((arm, self.opening(target)), dim=1)

    def opening(self, target: Tensor) -> Tensor:
        """(B, 1) the action's last number."""
        return ((target[:, self.n :] - self.centre) / self.reach).mean(1, keepdim=True)


def _check_gripper(spec: ActionSpec, robot: RobotSpec, mode: ControlMode, joints: tuple[str, ...],
                   closed: list[float], opened: list[float]) -> None:  # fmt: skip
    if mode != "position":
        raise ValueError(f"'{spec.function}' commands efforts, a gripper positions: give the arm a position action")
    if spec.names[-1] != "gripper":
        raise ValueError(f"with params.gripper the action's last name must be 'gripper', got {spec.names}")
    foreign = set(joints) - set(robot.gripper_joints)
    if foreign or not joints:
        raise ValueError(f"{robot.name}'s gripper has the joints {robot.gripper_joints}, not {sorted(foreign)}")
    bounds = zip(joints, robot.of("lower", joints), robot.of("upper", joints), closed, opened, strict=True)
    for name, lower, upper, a, b in bounds:
        if a == b or not (lower <= a <= upper and lower <= b <= upper):
            raise ValueError(f"{name}: closed and open must differ and lie in [{lower}, {upper}], got {a}, {b}")


@dataclass(frozen=True)
class Command:
    """What goes to the low-level controllers of `Commander.joints` for one period."""

    target: Tensor  # (B, n) rad, m, N m or N, by `mode` of the term
    applied_action: Tensor  # (B, A)
    clipped: Tensor  # (B,) bool: some joint of the arm was limited (a gripper always closes at its own pace)
    wanted: Tensor  # (B, n) what the action asks for, before the limits


class Commander:
    """An action term behind the limits, with the set-points it has let through. `joints` are the ones it moves: the
    arm's, then the gripper's if the action has one. `rest` (A,) is the action of a robot that stays where it is."""

    def __init__(self, spec: ActionSpec, robot: RobotSpec, num_envs: int, dt: float, device: torch.device | str):
        self.term, self.joints = _term_of(spec, robot, device)
        self.mode = self.term.mode
        self.low, self.high, self.dt, self.n = spec.low, spec.high, dt, len(robot.arm_joints)
        self.rest = torch.tensor(spec.params.get("rest", [0.0] * spec.dim), device=device)
        self.limits = JointLimits.of(robot, self.joints, device)
        self.effort_limit = torch.tensor(robot.of("effort_limit", self.joints), device=device)
        rest = torch.tensor(robot.of("default_joint_pos", self.joints), device=device)
        self.last = TargetState.at(rest.expand(num_envs, -1))

    def __call__(self, action: Tensor) -> Command:
        """One period's command for action (B, A); non-finite entries count as zero, the rest is clamped."""
        action = torch.nan_to_num(action, nan=0.0).clamp(self.low, self.high)
        last = self.last.position
        wanted = self.term.target(action, last)
        if self.mode in ("velocity", "attitude"):  # of a quadrotor: bounded by the action's own bounds
            return Command(wanted, action, torch.zeros(len(action), dtype=torch.bool, device=action.device), wanted)
        if self.mode == "effort":
            effort = torch.minimum(torch.maximum(wanted, -self.effort_limit), self.effort_limit)
            return Command(effort, self.term.action(effort, last), (effort != wanted).any(1), wanted)
        self.last, clipped = limit_target(wanted, self.last, self.limits, self.dt)
        applied = self.term.action(self.last.position, last)
        return Command(self.last.position, applied, clipped[:, : self.n].any(1), wanted)

    def reset(self, mask: Tensor, joint_pos: Tensor) -> None:
        """The environments in mask (B,) rest at joint_pos (B, n), over `joints`."""
        self.last.reset(mask, joint_pos)


def _term_of(spec: ActionSpec, robot: RobotSpec, device: torch.device | str) -> tuple[ActionTerm, tuple[str, ...]]:
    """The term of a specification, and the joints that its targets are for."""
    if spec.function not in ACTIONS:
        raise KeyError(f"no action term '{spec.function}'; there are {', '.join(sorted(ACTIONS))}")
    if "gripper" not in spec.params:
        return ACTIONS[spec.function](spec, robot, device), robot.arm_joints
    arm = ACTIONS[spec.function](replace(spec, names=spec.names[:-1]), robot, device)
    both = WithGripper(arm, spec, robot, device)
    return both, robot.arm_joints + both.joints
