"""Lift a cube to a random height."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robolearn.config import register
from robolearn.observation import height_error, object_position_ee, object_rotation_6d_ee
from robolearn.rotations import quat_apply
from robolearn.spec import ActionSpec, Field, ObservationSpec, TermSpec, columns
from robolearn.state import ObjectState, RobotState, SceneState
from sim.backends.base import Backend
from sim.experts import Expert, WaypointExpert
from sim.randomize import RandomizeCfg, Range, uniform
from sim.scene import Box, CameraCfg, FrameMarker, ObjectCfg, Param, RobotCfg, SceneCfg
from sim.task import ActionState, Task
from sim.tasks.manipulation.carry import pick
from sim.tasks.manipulation.franka import (
    FrankaCfg,
    arm_action,
    check_ranges,
    check_reward,
    demand_positive,
    nearness,
    success_worth,
)
from sim.tasks.manipulation.seen import cameras, own_terms, pictures

CUBE = "cube"
OWN = ("joint_target_error", "last_action")
ABSOLUTE = ("joint_pos", "joint_vel", "cube_position")
"""What `relative` replaces."""
UNSEEN = ("cube_position", "cube_position_ee", "cube_rotation_ee", "height_error")
"""What is in pictures, where there are `cameras`."""


@dataclass
class FrankaLiftCfg(FrankaCfg):
    name: str = "franka_lift"
    episode_length_s: float = 4.0
    action: str = "ee_delta"
    """Or joint_position_delta, or joint_position (about the default posture)."""
    ee_step_m: float = 0.025
    ee_step_rad: float = 0.05
    cube_size_m: float = 0.05
    cube_mass_kg: Range = (0.05, 0.2)
    """Drawn at each reset, as everything below that is a range."""
    cube_friction: Range = (0.6, 1.2)
    cube_x_m: Range = (0.4, 0.6)
    cube_y_m: Range = (-0.2, 0.2)
    cube_yaw_rad: Range = (-math.pi / 4, math.pi / 4)
    """A quarter turn is every yaw of a cube: its sides look alike."""
    height_m: Range = (0.12, 0.35)
    """Of the cube's centre above the ground."""
    workspace_m: Range = (0.2, 0.85)
    """The episode ends when the cube is closer to the base or further away."""
    reach_scale_m: float = 0.1
    height_scale_m: float = 0.05
    held_within_m: float = 0.025
    """The cube is between the fingers when its centre is this close to the grasp point."""
    squeeze_m: float = 0.003
    """A finger presses when its set-point is this far beyond it: times kp, its force."""
    success_height_m: float = 0.025
    success_speed_mps: float = 0.1
    reward: str = "dense"
    """Or sparse: success alone."""
    cameras: tuple[str, ...] = ()
    """front, wrist: pictures of them instead of the cube's pose; the commanded height instead of what is missing."""
    success_ends: bool = False
    """An episode ends with its success, which is then worth the same at once (see `success_worth`)."""
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "reach": 4.0,
            "hand_down": 0.5,
            "aligned": 0.5,
            "fingers": 0.5,
            "grasp": 2.0,
            "carry": 3.0,
            "lift": 12.0,
            "height": 4.0,
            "success": 4.0,
            "action_change": -0.02,
            "beyond_limits": -0.02,
            "joint_speed": -0.005,
            "strain": -1.0,
        }
    )
    randomize: RandomizeCfg = field(
        default_factory=lambda: RandomizeCfg(
            initial_joint_pos=0.05,
            observation_noise={
                "joint_pos": 0.001, "joint_vel": 0.01, "cube_position": 0.001, "cube_position_ee": 0.001,
                "cube_rotation_ee": 0.01, "height_error": 0.001,
            },
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("reach_scale_m", "height_scale_m", "held_within_m", "squeeze_m", "success_height_m")
        for name in ("cube_size_m", "success_speed_mps", *names):
            demand_positive(self, name)
        ranges = ("cube_mass_kg", "cube_friction", "cube_x_m", "cube_y_m", "cube_yaw_rad", "height_m")
        check_ranges(self, ranges, {"cube_mass_kg": 0.0, "cube_friction": 0.0, "height_m": self.cube_size_m / 2})
        if self.cube_size_m >= 0.08:
            raise ValueError(f"task.cube_size_m must be below 0.08, the hand's opening, got {self.cube_size_m}")
        near, far = self.workspace_m
        if not near < self.cube_x_m[0] <= math.hypot(self.cube_x_m[1], max(map(abs, self.cube_y_m))) < far:
            raise ValueError(f"task.workspace_m must hold the cubes of cube_x_m and cube_y_m, got {near}, {far}")
        check_reward(self, ("dense", "sparse"))
        for name in (ABSOLUTE[1:] if self.relative else ()) + (UNSEEN if self.cameras else ()):
            self.randomize.observation_noise.pop(name, None)
        if self.success_ends:
            self.weights = self.weights | {"success": success_worth(self) / self.step_dt_s}


@register("task", "franka_lift", FrankaLiftCfg)
class FrankaLift(Task):
    """## Description
    A cube of 5 cm lies on the ground in front of the arm, which has 4 s, at 20 Hz, to grasp it and to hold it at a
    commanded height. Actions move the grasp frame by differential IK (or the joint set-points), and open or close the
    hand, through Franka's limits. Observed are the joints, the cube's pose and the height that is missing;
    or the pictures of two cameras, and the height.

    ## Randomisation
    The cube's place (20 x 40 cm), its yaw over all a cube has, its mass 50 to 200 g and its friction 0.6 to 1.2; the
    height 12 to 35 cm; start posture +-0.05 rad a joint; sensor noise of 1 mrad, 10 mrad/s, 1 mm, 0.01 rad.

    ## Success
    At the end of the episode the cube's centre is within 2.5 cm of the height, between pressing fingers, and moves
    slower than 0.1 m/s.
    """

    cfg: FrankaLiftCfg

    def __init__(self, cfg: FrankaLiftCfg):
        super().__init__(cfg, robot="franka")
        self._arm = columns(self.robot.arm_ids)
        self._fingers = columns([self.robot.joint_names.index(n) for n in self.robot.gripper_joints])

    def scene(self) -> SceneCfg:
        cfg, size = self.cfg, self.cfg.cube_size_m
        pose = (_middle(cfg.cube_x_m), _middle(cfg.cube_y_m), size / 2, 0.0, 0.0, 0.0, 1.0)
        mass, friction = _middle(cfg.cube_mass_kg), _middle(cfg.cube_friction)
        cube = ObjectCfg(Box((size, size, size)), mass_kg=mass, friction=friction, pose=pose)
        view = CameraCfg((1.25, -0.8, 0.6), (0.32, 0.0, 0.25), fov_deg=38.0, width=320, height=240)
        return SceneCfg(
            {"robot": RobotCfg(self.robot)},
            objects={CUBE: cube},
            cameras={"view": view, **cameras(cfg.cameras)},
            markers={"goal": FrameMarker()},
            physics_dt_s=cfg.physics_dt_s,
            randomized=tuple((CUBE, param) for param in self._ranges()),
        )

    def _ranges(self) -> dict[Param, Range]:
        """What of the cube varies, as scales of what it is built with."""
        ranges: dict[Param, Range] = {"mass": self.cfg.cube_mass_kg, "friction": self.cfg.cube_friction}
        return {p: (r[0] / _middle(r), r[1] / _middle(r)) for p, r in ranges.items() if r[0] < r[1]}

    def observation_spec(self) -> ObservationSpec:
        joints = list(range(self.robot.dof))
        rest, n = list(self.robot.default_joint_pos), len(joints)
        seen_from = {"name": CUBE} if self.cfg.own_commands else {"name": CUBE, "asked": True}
        policy = [
            TermSpec(Field("joint_pos", (n,), "rad, m", "joint"), "joint_pos", {"joints": joints, "offset": rest}),
            TermSpec(Field("joint_vel", (n,), "rad/s, m/s", "joint"), "joint_vel", {"joints": joints}),
            TermSpec(Field("joint_target_error", (n,), "rad, m", "joint"), "joint_target_error", {"joints": joints}),
            TermSpec(Field("cube_position", (3,), "m", "base"), "object_position", {"name": CUBE}),
            TermSpec(Field("cube_position_ee", (3,), "m", "ee"), "object_position_ee", seen_from),
            TermSpec(Field("cube_rotation_ee", (6,), "", "ee"), "object_rotation_6d_ee", seen_from),
            TermSpec(Field("height_error", (1,), "m", "base"), "height_error", {"name": CUBE, "command": "height"}),
            TermSpec(Field("last_action", (self.action_spec().dim,)), "last_action", sensed=False),
        ]
        left_out = (() if self.cfg.own_commands else OWN) + (ABSOLUTE if self.cfg.relative else ())
        own = own_terms(self.robot) if self.cfg.relative else ()
        seen = own + tuple(t for t in policy if t.field.name not in left_out)
        if not self.cfg.cameras:
            return ObservationSpec({"policy": seen})
        told = TermSpec(Field("height", (1,), "m", "base"), "command", {"name": "height"})
        shown = (*(t for t in seen if t.field.name not in UNSEEN), told, *pictures(self.cfg.cameras))
        return ObservationSpec({"policy": shown, "privileged": tuple(t for t in seen if t.field.name in UNSEEN)})

    def action_spec(self) -> ActionSpec:
        return arm_action(self.cfg, self.robot, gripper=True)

    def setup(self, backend: Backend, generator: torch.Generator) -> None:
        self.goal = torch.zeros(backend.num_envs, 7, device=backend.device)
        self.goal[:, 2], self.goal[:, 6] = _middle(self.cfg.height_m), 1.0
        cfg = self.cfg
        ranges = torch.tensor((cfg.cube_x_m, cfg.cube_y_m, cfg.cube_yaw_rad, cfg.height_m), device=backend.device)
        self._low, self._span = ranges[:, 0], ranges[:, 1] - ranges[:, 0]

    def reset(self, backend: Backend, mask: Tensor, generator: torch.Generator) -> None:
        cfg, b = self.cfg, len(mask)
        for param, (low, high) in self._ranges().items():
            backend.set_param(CUBE, param, uniform((b,), low, high, generator), mask)
        drawn = torch.rand(b, 4, generator=generator, device=mask.device)
        x, y, yaw, height = torch.addcmul(self._low, drawn, self._span).unbind(1)
        zero, still = torch.zeros(b, device=mask.device), torch.zeros(b, 6, device=mask.device)
        turn = ((yaw / 2).sin(), (yaw / 2).cos())
        pose = torch.stack((x, y, zero + cfg.cube_size_m / 2, zero, zero, *turn), dim=1)
        backend.write_pose(CUBE, pose, still, mask)
        goal = torch.stack((x, y, height, zero, zero, *turn), dim=1)
        self.goal = torch.where(mask[:, None], goal, self.goal)
        backend.set_marker("goal", self.goal)

    def scene_state(self, backend: Backend) -> SceneState:
        """The robot's base is the world's origin, so the base frame is the world frame."""
        seen = torch.ones(backend.num_envs, dtype=torch.bool, device=backend.device)
        cube = ObjectState(backend.pose(CUBE), backend.velocity(CUBE), backend.time_s, seen)
        return SceneState({CUBE: cube}, commands={"height": self.goal[:, 2:3]})

    def rewards(self, robot: RobotState, scene: SceneState, action: ActionState) -> dict[str, Tensor]:
        cfg = self.cfg
        success = self.metrics(robot, scene)["success"].float()
        if cfg.reward == "sparse":
            return {"success": success}
        distance, missing = self._distance(robot, scene), self._missing(scene)
        held = self._held(robot, scene)
        risen = held * (1.0 - missing / self._way_up(scene)).clamp_min(0.0)
        down = quat_apply(robot.ee_pose[:, 3:], _DOWN.to(robot.ee_pose).expand(len(distance), 3))[:, 2]
        moves = slice(0, -1)  # of the arm; the hand closes at its own pace
        return {
            "reach": 1.0 / (1.0 + distance / cfg.reach_scale_m),
            "hand_down": down,
            "aligned": alignment(object_rotation_6d_ee(robot, scene, CUBE)),
            "fingers": torch.where(distance < cfg.held_within_m, -action.applied[:, -1], action.applied[:, -1]),
            "grasp": held.float(),
            "carry": risen * down,
            "lift": risen,
            "height": held * nearness(missing, cfg.height_scale_m),
            "success": success,
            "action_change": ((action.applied - action.previous) ** 2).sum(1),
            "beyond_limits": ((action.commanded - action.applied)[:, moves] ** 2).sum(1),
            "joint_speed": (robot.joint_vel**2).sum(1),
            "strain": ((robot.joint_target - robot.joint_pos)[:, self._arm] ** 2).sum(1),
        }

    def terminated(self, robot: RobotState, scene: SceneState) -> Tensor:
        near, far = self.cfg.workspace_m
        away = scene.objects[CUBE].pose[:, :2].norm(dim=1)
        out = (away < near) | (away > far)
        return out | self.metrics(robot, scene)["success"] if self.cfg.success_ends else out

    def metrics(self, robot: RobotState, scene: SceneState) -> dict[str, Tensor]:
        missing, held = self._missing(scene), self._held(robot, scene)
        speed = scene.objects[CUBE].vel[:, :3].norm(dim=1)
        there = (missing < self.cfg.success_height_m) & (speed < self.cfg.success_speed_mps)
        return {"success": held & there, "grasped": held, "height_error_m": missing, "cube_speed_mps": speed}

    def _distance(self, robot: RobotState, scene: SceneState) -> Tensor:
        """From the grasp point to the cube's centre, (B,) m."""
        return scene.once("distance", lambda: object_position_ee(robot, scene, CUBE).norm(dim=1))

    def _missing(self, scene: SceneState) -> Tensor:
        """Distance (B,) m to the commanded height, from either side."""
        return height_error(scene, CUBE, "height").abs().squeeze(1)

    def _way_up(self, scene: SceneState) -> Tensor:
        """From the ground to the commanded height, (B,) m."""
        return scene.commands["height"].squeeze(1) - self.cfg.cube_size_m / 2

    def _held(self, robot: RobotState, scene: SceneState) -> Tensor:
        """(B,) bool: the cube is between the fingers, and each presses on it."""
        return scene.once(
            "held", lambda: self._pressing(robot) & (self._distance(robot, scene) < self.cfg.held_within_m)
        )

    def _pressing(self, robot: RobotState) -> Tensor:
        fingers = self._fingers
        beyond = robot.joint_pos[:, fingers] - robot.joint_target[:, fingers]
        return (beyond > self.cfg.squeeze_m).all(1)

    def expert(self, num_envs: int, device: torch.device, noise: float, generator: torch.Generator) -> Expert:
        """`sides` and `turned`: its fingers on the one or the other pair of the cube's sides."""
        plans = {
            "sides": pick(CUBE, 0.0, "height", self._held),
            "turned": pick(CUBE, math.pi / 2, "height", self._held),
        }
        return WaypointExpert(plans, self.action_spec(), self.robot, num_envs, self.cfg.step_dt_s, device, noise,
                              generator)  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        return {"goal": self.goal}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.goal = state["goal"]


_DOWN = torch.tensor([0.0, 0.0, -1.0])


def alignment(rotation_6d: Tensor) -> Tensor:
    """One where the hand's fingers close on two faces of a cube (its rotation (B, 6) in the hand's frame), minus one
    on its edges: cos(4 yaw), from the cube's x axis across the hand's axis."""
    across = rotation_6d[:, 0] ** 2 / (rotation_6d[:, :2] ** 2).sum(1).clamp_min(1e-6)
    return 8.0 * across**2 - 8.0 * across + 1.0


def _middle(values: Range) -> float:
    return (values[0] + values[1]) / 2
