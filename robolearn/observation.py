"""Observation terms, and the memory that stacks them: one code path for 4096 simulated robots and one real one.

A term is a registered pure function that takes, by name, what it needs of `robot` (RobotState), `scene` (SceneState)
and `action` (the last applied action, (B, A)), and its own parameters; it returns (B, n) or an image batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robolearn.registry import claim
from robolearn.rotations import pose_difference, quat_apply, quat_conjugate, quat_mul, quat_to_matrix
from robolearn.spec import ObservationSpec, TermSpec, columns
from robolearn.state import RobotState, SceneState

Columns = slice | list[int]
START = "start_pose"
"""The command that says where the end effector was when the episode began, (B, 7): whoever runs the world keeps it, and
nobody sets it."""
TERMS: dict[str, Callable[..., Tensor]] = {}


def term(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Register an observation term under its function's name."""
    claim(TERMS, "observation term", function.__name__, function)
    return function


@term
def joint_pos(robot: RobotState, joints: Columns, offset: Tensor) -> Tensor:
    """Positions of `joints` (indices) less `offset`, rad or m."""
    return robot.joint_pos[:, joints] - offset


@term
def joint_vel(robot: RobotState, joints: Columns) -> Tensor:
    return robot.joint_vel[:, joints]


@term
def joint_target_error(robot: RobotState, joints: Columns) -> Tensor:
    """Set-point less position: what the low-level controller is still working on."""
    return (robot.joint_target - robot.joint_pos)[:, joints]


@term
def joint_effort(robot: RobotState, joints: Columns) -> Tensor:
    return robot.joint_effort[:, joints]


@term
def angle_sin_cos(robot: RobotState, joints: Columns) -> Tensor:
    """Sines then cosines of unbounded joints."""
    angle = robot.joint_pos[:, joints]
    return torch.cat((torch.sin(angle), torch.cos(angle)), dim=-1)


@term
def ee_position(robot: RobotState) -> Tensor:
    return robot.ee_pose[:, :3]


@term
def ee_rotation_6d(robot: RobotState) -> Tensor:
    """First two columns of the rotation matrix (Zhou et al. 2019): continuous, unlike quaternions."""
    return _rotation_6d(robot.ee_pose[:, 3:])


def _rotation_6d(quat: Tensor) -> Tensor:
    return quat_to_matrix(quat)[..., :2].transpose(1, 2).flatten(1)


@term
def ee_velocity(robot: RobotState) -> Tensor:
    return robot.ee_vel


@term
def ee_velocity_ee(robot: RobotState) -> Tensor:
    """As `ee_velocity`, along the axes of the end effector."""
    back = quat_conjugate(robot.ee_pose[:, 3:])
    return torch.cat((quat_apply(back, robot.ee_vel[:, :3]), quat_apply(back, robot.ee_vel[:, 3:])), dim=1)


@term
def ee_pose_relative(robot: RobotState, scene: SceneState, command: str) -> Tensor:
    """(B, 9): the end effector's position (m) and rotation (as `ee_rotation_6d`) in the frame of the commanded pose,
    such as the one that the episode began in: the same wherever the robot starts."""
    frame = scene.commands[command]
    turn = quat_mul(quat_conjugate(frame[:, 3:]), robot.ee_pose[:, 3:])
    return torch.cat((_position_in(frame, robot.ee_pose), _rotation_6d(turn)), dim=1)


@term
def pose_error(robot: RobotState, scene: SceneState, command: str) -> Tensor:
    """From the end effector to the commanded pose: metres, then a rotation vector in rad; base frame."""
    return scene.once(("pose_error", command), lambda: pose_difference(robot.ee_pose, scene.commands[command]))


@term
def command(scene: SceneState, name: str) -> Tensor:
    return scene.commands[name]


@term
def position_error(robot: RobotState, scene: SceneState, command: str) -> Tensor:
    """Of the base against the commanded position, m, world frame."""
    return robot.root_pose[:, :3] - scene.commands[command][:, :3]


@term
def velocity_error(robot: RobotState, scene: SceneState, command: str) -> Tensor:
    """Of the base against the commanded velocity (elements 3 to 5 of the command), m/s, world frame."""
    return robot.root_vel[:, :3] - scene.commands[command][:, 3:6]


@term
def acceleration(scene: SceneState, command: str) -> Tensor:
    """The commanded one (elements 6 to 8 of the command), m/s2, world frame."""
    return scene.commands[command][:, 6:9]


@term
def preview(robot: RobotState, scene: SceneState, command: str, step_s: float = 0.1) -> Tensor:
    """Commanded positions (B, 3 n) as seen from the base, m, axes of the world. `step_s`, the time from each to the
    next and from now to the first, is for whoever sets the command."""
    ahead = scene.commands[command]
    return ahead - robot.root_pose[:, :3].repeat(1, ahead.shape[1] // 3)


@term
def base_rotation(robot: RobotState) -> Tensor:
    """Rotation matrix of the base, row by row."""
    return quat_to_matrix(robot.root_pose[:, 3:]).flatten(1)


@term
def base_velocity(robot: RobotState) -> Tensor:
    """m/s, world frame."""
    return robot.root_vel[:, :3]


@term
def base_rates(robot: RobotState) -> Tensor:
    """Angular velocity, rad/s, body frame: what a gyroscope reads."""
    return quat_apply(quat_conjugate(robot.root_pose[:, 3:]), robot.root_vel[:, 3:])


@term
def rotor_speed(robot: RobotState, full: float) -> Tensor:
    """As a share of `full` rad/s."""
    return robot.joint_vel / full


@term
def disturbance(scene: SceneState, force: float, torque: float) -> Tensor:
    """The force and torque (world frame) that act from outside, in units of `force` N and `torque` N m."""
    wrench = scene.sensors["disturbance"]
    return torch.cat((wrench[:, :3] / force, wrench[:, 3:] / torque), dim=1)


@term
def last_action(action: Tensor) -> Tensor:
    return action


@term
def object_position(scene: SceneState, name: str) -> Tensor:
    """In the base frame, m."""
    return scene.objects[name].pose[:, :3]


@term
def object_rotation_6d(scene: SceneState, name: str) -> Tensor:
    """In the base frame, as `ee_rotation_6d`."""
    return _rotation_6d(scene.objects[name].pose[:, 3:])


@term
def object_position_ee(robot: RobotState, scene: SceneState, name: str, asked: bool = False) -> Tensor:
    """From the end effector to the object's centre, m, in the end effector's frame; or, `asked`, from where the
    set-points would have it: actions go from there, and so may what they are learned from."""
    if asked:
        return _position_in(robot.ee_asked, scene.objects[name].pose)
    return scene.once(("object_position_ee", name), lambda: _position_in(robot.ee_pose, scene.objects[name].pose))


def _position_in(frame: Tensor, pose: Tensor) -> Tensor:
    return quat_apply(quat_conjugate(frame[:, 3:]), pose[:, :3] - frame[:, :3])


@term
def object_rotation_6d_ee(robot: RobotState, scene: SceneState, name: str, asked: bool = False) -> Tensor:
    """In the end effector's frame, as `ee_rotation_6d`; `asked` as of `object_position_ee`."""
    frame = robot.ee_asked if asked else robot.ee_pose
    return _rotation_6d(quat_mul(quat_conjugate(frame[:, 3:]), scene.objects[name].pose[:, 3:]))


@term
def object_position_in(scene: SceneState, name: str, frame: str) -> Tensor:
    """From the object `frame` to the object `name`, m, in the former's frame."""
    return _position_in(scene.objects[frame].pose, scene.objects[name].pose)


@term
def object_rotation_6d_in(scene: SceneState, name: str, frame: str) -> Tensor:
    """Of the object `name` in the frame of the object `frame`, as `ee_rotation_6d`."""
    outer = quat_conjugate(scene.objects[frame].pose[:, 3:])
    return _rotation_6d(quat_mul(outer, scene.objects[name].pose[:, 3:]))


@term
def point_cloud(scene: SceneState, sensor: str) -> Tensor:
    """(B, n, 3) m in the base frame: what `robolearn.pointcloud.cloud` made of that depth camera's picture."""
    return scene.sensors[sensor]


@term
def image(scene: SceneState, camera: str) -> Tensor:
    """(B, H, W, 3) uint8: the newest picture of that camera, rows from the top."""
    return scene.sensors[camera]


@term
def height_error(scene: SceneState, name: str, command: str) -> Tensor:
    """(B, 1) m: the commanded height, in the base frame, less that of the object's centre."""
    return scene.commands[command] - scene.objects[name].pose[:, 2:3]


def reads_start(spec: ObservationSpec) -> bool:
    """Whether some term needs START."""
    return any(t.params.get("command") == START for terms in spec.groups.values() for t in terms)


class ObservationTerms:
    """The terms of a specification, ready to be called on states of one device."""

    def __init__(self, spec: ObservationSpec, device: torch.device | str):
        self.spec = spec
        self._calls = {g: [_bind(t, device) for t in terms] for g, terms in spec.groups.items()}

    def frames(self, robot: RobotState, scene: SceneState, action: Tensor) -> dict[str, Tensor]:
        """One frame a group (B, n), and non-vector terms under `group/term`. Shapes are checked at the first call by
        `check`; a term shared by groups is computed once."""
        given = {"robot": robot, "scene": scene, "action": action}
        cache: dict[tuple[str, str], Tensor] = {}
        out: dict[str, Tensor] = {}
        for group, calls in self._calls.items():
            vectors = []
            for spec, function, wants, params in calls:
                key = (spec.function, repr(spec.params))
                if key not in cache:
                    cache[key] = function(**{w: given[w] for w in wants}, **params)
                if spec.field.kind == "vector":
                    vectors.append(cache[key])
                else:
                    out[f"{group}/{spec.field.name}"] = cache[key]
            if vectors:
                out[group] = torch.cat(vectors, dim=-1)
        return out

    def check(self, frames: dict[str, Tensor]) -> None:
        """Raise ValueError if a frame's shape is not what the specification says."""
        for key, shape in self.spec.shapes().items():
            expected = (self.spec.frame_dim(key),) if key in self.spec.groups else shape
            if tuple(frames[key].shape[1:]) != expected:
                raise ValueError(f"observation '{key}' has shape {tuple(frames[key].shape[1:])}, not {expected}")


def _bind(spec: TermSpec, device: torch.device | str) -> tuple[TermSpec, Callable[..., Tensor], list[str], dict]:
    if spec.function not in TERMS:
        raise KeyError(f"no observation term '{spec.function}'; there are {', '.join(sorted(TERMS))}")
    function = TERMS[spec.function]
    parameters = inspect.signature(function).parameters
    wants = [p for p in ("robot", "scene", "action") if p in parameters]
    unknown = set(spec.params) - set(parameters)
    if unknown:
        raise ValueError(f"term '{spec.function}' takes {list(parameters)}, not {sorted(unknown)}")
    return spec, function, wants, {k: _ready(v, device) for k, v in spec.params.items()}


def _ready(value: Any, device: torch.device | str) -> Any:
    """A parameter from JSON as terms want it: indices as columns, numbers as a tensor."""
    if isinstance(value, (list, tuple)) and all(type(v) is int for v in value):
        return columns(value)
    if isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value):
        return torch.tensor(value, device=device)
    return value


class ObservationMemory:
    """What is remembered of earlier periods: the terms' history and integrals, then the last `history` frames of each
    group's vector. The first frame after a reset fills every history and starts every integral at zero. Pictures pass
    through as they are: a policy that wants several keeps them itself. ValueError for a picture's term with a memory
    of its own."""

    def __init__(self, spec: ObservationSpec, num_envs: int, device: torch.device | str, dt: float):
        self.buffers: dict[str, Tensor] = {}
        for t in (t for terms in spec.groups.values() for t in terms if t.field.kind != "vector"):
            if t.history > 1 or t.integral_limit:
                raise ValueError(
                    f"term '{t.field.name}' is no vector: set its history to 1 and its integral_limit to 0"
                )
        self._terms = {g: [t for t in terms if t.field.kind == "vector"] for g, terms in spec.groups.items()}
        self._terms = {g: ts for g, ts in self._terms.items() if any(t.history > 1 or t.integral_limit for t in ts)}
        self._groups = [g for g, n in spec.history.items() if n > 1 and spec.frame_dim(g)]
        self.dt = dt
        for group in self._groups:
            n = spec.history[group]
            self.buffers[group] = torch.zeros(num_envs, n, spec.dim(group) // n, device=device)
        for group, terms in self._terms.items():
            for t in (t for t in terms if t.history > 1 or t.integral_limit):
                frames = 1 if t.integral_limit else t.history
                self.buffers[f"{group}/{t.field.name}"] = torch.zeros(num_envs, frames, t.field.size, device=device)
        self.fresh = torch.ones(num_envs, dtype=torch.bool, device=device)

    def reset(self, mask: Tensor) -> None:
        self.fresh = self.fresh | mask

    def push(self, frames: dict[str, Tensor], mask: Tensor | None = None) -> dict[str, Tensor]:
        """Append frames for the environments in mask (all by default); return the observation of all."""
        out = dict(frames)
        for group, terms in self._terms.items():
            parts = frames[group].split([t.field.size for t in terms], dim=1)
            pairs = zip(terms, parts, strict=True)
            out[group] = torch.cat([self._remembered(group, t, part, mask) for t, part in pairs], dim=1)
        for group in self._groups:
            out[group] = self._stacked(group, out[group], mask)
        self.fresh = torch.zeros_like(self.fresh) if mask is None else self.fresh & ~mask
        return out

    def _remembered(self, group: str, term: TermSpec, frame: Tensor, mask: Tensor | None) -> Tensor:
        key = f"{group}/{term.field.name}"
        if key not in self.buffers:
            return frame
        if not term.integral_limit:
            return self._stacked(key, frame, mask)
        limit, last = term.integral_limit, self.buffers[key]
        area = (last + self.dt * frame[:, None]).clamp(-limit, limit) * ~self.fresh[:, None, None]
        self.buffers[key] = area if mask is None else torch.where(mask[:, None, None], area, last)
        return self.buffers[key].flatten(1)

    def _stacked(self, key: str, frame: Tensor, mask: Tensor | None) -> Tensor:
        frame, buffer = frame[:, None], self.buffers[key]
        shifted = torch.cat((buffer[:, 1:], frame), dim=1)
        shifted = torch.where(self.fresh[:, None, None], frame.expand_as(shifted), shifted)
        self.buffers[key] = shifted if mask is None else torch.where(mask[:, None, None], shifted, buffer)
        return self.buffers[key].flatten(1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"fresh": self.fresh, **{f"buffer.{g.replace('/', '.')}": b for g, b in self.buffers.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.fresh = state["fresh"]
        self.buffers = {g: state[f"buffer.{g.replace('/', '.')}"] for g in self.buffers}
