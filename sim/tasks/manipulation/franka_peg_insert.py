"""Insert a square peg into a square hole."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robolearn.config import register
from robolearn.kinematics import Chain
from robolearn.rotations import from_rotation_vector, from_rpy, pose_inverse, pose_mul, quat_apply
from robolearn.spec import ActionSpec, ObservationSpec, columns
from robolearn.state import ObjectState, RobotState, SceneState
from sim.backends.base import Backend
from sim.experts import Expert, Waypoint, WaypointExpert
from sim.randomize import RandomizeCfg, Range, uniform
from sim.scene import Box, Boxes, ObjectCfg, RobotCfg, SceneCfg
from sim.task import ActionState, Task
from sim.tasks.manipulation.carry import PoseOf
from sim.tasks.manipulation.franka import (
    FINE_DT_S,
    FrankaCfg,
    arm_action,
    check_ranges,
    check_reward,
    demand_positive,
    nearness,
    success_worth,
)
from sim.tasks.manipulation.seen import Seen, cameras, film, forget_noise_of_unseen, policy_terms

PEG, HOLE = "peg", "hole"
SEEN = (Seen(PEG, rotation=True, held=True), Seen(HOLE, rotation=True), Seen(PEG, frame=HOLE, rotation=True))
BLOCK_M, FLOOR_M = 0.1, 0.01
"""Edge of the block that has the hole, and what is left of it below the hole."""


@dataclass
class FrankaPegInsertCfg(FrankaCfg):
    name: str = "franka_peg_insert"
    episode_length_s: float = 10.0
    physics_dt_s: float = FINE_DT_S
    decimation: int = 24
    action: str = "ee_delta"
    """Or joint_position_delta, or joint_position (about the default posture); experts need ee_delta."""
    ee_step_m: float = 0.02
    ee_step_rad: float = 0.06
    clearance_m: float = 0.002
    """By how much the hole is wider than the peg."""
    peg_m: tuple[float, float, float] = (0.03, 0.03, 0.1)
    depth_m: float = 0.03
    """Of the hole."""
    inserted_m: float = 0.025
    """How deep the peg's end must be."""
    hole_x_m: Range = (0.42, 0.58)
    """Drawn at each reset, as everything below that is a range."""
    hole_y_m: Range = (-0.12, 0.12)
    hole_yaw_rad: Range = (-0.35, 0.35)
    grasp_m: Range = (0.02, 0.03)
    """From the grasp point down to the peg's centre."""
    slip_m: Range = (-0.004, 0.004)
    """Of the peg's centre across the fingers."""
    tilt_rad: Range = (-0.05, 0.05)
    """Of the peg about the line between the fingers."""
    cameras: tuple[str, ...] = ()
    """front, wrist: pictures of them instead of the poses of peg and hole."""
    reward: str = "sparse"
    """sparse: 1 at success; or dense."""
    weights: dict[str, float] = field(
        default_factory=lambda: {"near": 0.5, "aligned": 0.5, "depth": 2.0, "action_change": -0.02}
    )
    randomize: RandomizeCfg = field(
        default_factory=lambda: RandomizeCfg(
            initial_joint_pos=0.05, observation_noise={"joint_pos": 0.0005, "hole_position_ee": 0.0002}
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        forget_noise_of_unseen(self, SEEN, self.cameras)
        for name in ("clearance_m", "depth_m", "inserted_m"):
            demand_positive(self, name)
        names = ("hole_x_m", "hole_y_m", "hole_yaw_rad", "grasp_m", "slip_m", "tilt_rad")
        check_ranges(self, names)
        if min(self.peg_m) <= 0.0 or self.peg_m[1] >= 0.08 or max(self.peg_m[:2]) + self.clearance_m >= BLOCK_M:
            raise ValueError(f"task.peg_m must be above 0, its second edge below the hand's opening of 0.08, and "
                             f"thinner than the block, got {self.peg_m}")  # fmt: skip
        if not self.inserted_m < self.depth_m < self.peg_m[2]:
            raise ValueError(f"task.inserted_m must be below task.depth_m, and that below the peg's length, got "
                             f"{self.inserted_m}, {self.depth_m}")  # fmt: skip
        check_reward(self, ("dense", "sparse"))


@register("task", "franka_peg_insert", FrankaPegInsertCfg)
class FrankaPegInsert(Task):
    """## Description
    The hand holds a square peg of 3 cm; a block with a square hole stands before the arm, which has 10 s, at 20 Hz,
    to insert the peg. Actions move the grasp frame by differential IK through Franka's limits; the hand stays closed.
    Observed are the joints and the poses of peg and hole, or the pictures of two cameras.

    ## Randomisation
    The block's place (16 x 24 cm) and yaw (+-20 degrees); how the peg is held (+-4 mm, +-5 mm, +-3 degrees); start
    posture +-0.05 rad a joint; sensor noise of 0.5 mrad, 0.2 mm.

    ## Success
    The peg's end is 2.5 cm deep in the hole; the episode ends with it. It also ends, without, when the peg is lost.
    """

    cfg: FrankaPegInsertCfg
    instruction = "insert the peg into the hole"

    def __init__(self, cfg: FrankaPegInsertCfg):
        super().__init__(cfg, robot="franka")
        self._fingers = columns([self.robot.joint_names.index(n) for n in self.robot.gripper_joints])

    def rest(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The fingers are as far apart as the peg is thick, and pulled to."""
        arm = self.robot.default_joint_pos[: len(self.robot.arm_joints)]
        return arm + (self.cfg.peg_m[1] / 2,) * 2, arm + (0.0,) * 2

    def scene(self) -> SceneCfg:
        cfg = self.cfg
        peg = ObjectCfg(
            Box(cfg.peg_m), 0.05, (0.45, 0.0, 0.4, 0.0, 0.0, 0.0, 1.0), friction=1.0, rgba=(0.2, 0.4, 0.8, 1.0)
        )
        hole = ObjectCfg(
            _socket(cfg), 20.0, (0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0), friction=0.3, rgba=(0.85, 0.55, 0.25, 1.0)
        )
        return SceneCfg(
            {"robot": RobotCfg(self.robot)},
            objects={PEG: peg, HOLE: hole},
            cameras={"view": film(), **cameras(cfg.cameras)},
            physics_dt_s=cfg.physics_dt_s,
        )

    def observation_spec(self) -> ObservationSpec:
        return policy_terms(self.cfg, self.robot, SEEN, self.cfg.cameras)

    def action_spec(self) -> ActionSpec:
        return arm_action(self.cfg, self.robot)

    def setup(self, backend: Backend, generator: torch.Generator) -> None:
        self._chain = Chain(self.robot.urdf, self.robot.ee_link, self.robot.joint_names, backend.device)

    def reset(self, backend: Backend, mask: Tensor, generator: torch.Generator) -> None:
        cfg, b = self.cfg, len(mask)
        drawn = [uniform((b,), *r, generator) for r in (
            cfg.hole_x_m, cfg.hole_y_m, cfg.hole_yaw_rad, cfg.grasp_m, cfg.slip_m, cfg.tilt_rad
        )]  # fmt: skip
        x, y, yaw, grasp, slip, tilt = drawn
        zero, still = torch.zeros(b, device=mask.device), torch.zeros(b, 6, device=mask.device)
        place = torch.stack((x, y, zero), dim=1)
        hole = torch.cat((place, from_rpy(torch.stack((zero, zero, yaw), dim=1))), dim=1)
        backend.write_pose(HOLE, hole, still, mask)
        upright = from_rpy(torch.stack((zero + math.pi, tilt, zero), dim=1))  # the hand looks down, the peg up
        held = torch.cat((torch.stack((slip, zero, grasp), dim=1), upright), dim=1)
        hand = self._chain.pose(backend.joint_pos(self.asset))
        backend.write_pose(PEG, pose_mul(hand, held), still, mask)

    def scene_state(self, backend: Backend) -> SceneState:
        """The robot's base is the world's origin, so the base frame is the world frame."""
        seen = torch.ones(backend.num_envs, dtype=torch.bool, device=backend.device)
        things = {n: ObjectState(backend.pose(n), backend.velocity(n), backend.time_s, seen) for n in (PEG, HOLE)}
        return SceneState(things)

    def rewards(self, robot: RobotState, scene: SceneState, action: ActionState) -> dict[str, Tensor]:
        cfg = self.cfg
        # A term counts per second: divided by the period, success counts once.
        success = self._inserted(scene).float() * (success_worth(cfg) / cfg.step_dt_s)
        if cfg.reward == "sparse":
            return {"success": success}
        end, tilt = self._end(scene), self._tilt(scene)
        above = self._aside(scene) + (end[:, 2] - cfg.depth_m).clamp_min(0.0)
        return {
            "near": nearness(above, 0.1),
            "aligned": nearness(self._aside(scene), 0.01) * nearness(tilt, 0.2),
            "depth": self._depth(scene) / cfg.inserted_m,
            "action_change": ((action.applied - action.previous) ** 2).sum(1),
            "success": success,
        }

    def terminated(self, robot: RobotState, scene: SceneState) -> Tensor:
        lost = (scene.objects[PEG].pose[:, :3] - robot.ee_pose[:, :3]).norm(dim=1) > self.cfg.peg_m[2]
        return self._inserted(scene) | lost

    def metrics(self, robot: RobotState, scene: SceneState) -> dict[str, Tensor]:
        return {
            "success": self._inserted(scene), "depth_m": self._depth(scene), "aside_error_m": self._aside(scene),
            "tilt_rad": self._tilt(scene),
        }  # fmt: skip

    def _end(self, scene: SceneState) -> Tensor:
        """The peg's lower end in the hole's frame, whose origin is on the hole's floor; (B, 3) m."""

        def compute() -> Tensor:
            peg = pose_mul(pose_inverse(_hole_floor(scene)), scene.objects[PEG].pose)
            down = torch.tensor([0.0, 0.0, -self.cfg.peg_m[2] / 2], device=peg.device).expand(len(peg), 3)
            return peg[:, :3] + quat_apply(peg[:, 3:], down)

        return scene.once("end", compute)

    def _aside(self, scene: SceneState) -> Tensor:
        """Of the hole's axis, the larger of two directions, (B,) m."""
        return self._end(scene)[:, :2].abs().amax(1)

    def _depth(self, scene: SceneState) -> Tensor:
        """(B,) m of the peg's end below the block's top, where it is in the hole."""
        within = self._aside(scene) < self.cfg.clearance_m / 2 + 0.001
        return (self.cfg.depth_m - self._end(scene)[:, 2]).clamp_min(0.0) * within

    def _inserted(self, scene: SceneState) -> Tensor:
        return self._depth(scene) > self.cfg.inserted_m

    def _tilt(self, scene: SceneState) -> Tensor:
        """Angle between the peg's axis and the hole's, (B,) rad."""

        def up(name: str) -> Tensor:
            z = torch.tensor([0.0, 0.0, 1.0], device=scene.objects[name].pose.device)
            return quat_apply(scene.objects[name].pose[:, 3:], z.expand(len(scene.objects[name].pose), 3))

        return scene.once("tilt", lambda: (up(PEG) * up(HOLE)).sum(1).clamp(-1.0, 1.0).arccos())

    # --- the expert ------------------------------------------------------------------------------------------------

    def expert(self, num_envs: int, device: torch.device, noise: float, generator: torch.Generator) -> Expert:
        """`straight`: over the hole, and in. `search`: touches down beside the hole and slides over it. `tilt`: sets
        an edge into the hole and stands the peg up."""
        deep = (0.0, 0.0, -self.cfg.inserted_m - 0.004)

        def to(end_m: tuple[float, float, float], lean_rad: float = 0.0, **settings: Any) -> Waypoint:
            return Waypoint(self._peg_at(end_m, lean_rad), **({"within_rad": 0.03} | settings))

        over = to((0.0, 0.0, 0.04), within_m=0.01, within_rad=0.05, speed=0.7, error_m=0.006, free=True)
        straight = [
            over,
            to((0.0, 0.0, 0.006), within_m=0.001, within_rad=0.02, speed=0.5, give_up_s=1.5, error_m=0.0006),
            to(deep, within_m=0.001, speed=0.1, give_up_s=2.2, otherwise=0, error_m=0.0003),
        ]
        down = to(deep, within_m=0.001, speed=0.2, give_up_s=1.6, otherwise=0, error_m=0.0003)
        search = [
            over,
            to((0.012, 0.008, 0.004), within_m=0.004, speed=0.5, error_m=0.002),
            to((0.010, 0.006, -0.001), within_m=0.001, speed=0.3, give_up_s=0.4, error_m=0.001),
            to((-0.001, -0.001, -0.0015), within_m=0.0015, speed=0.15, give_up_s=1.0, error_m=0.0003),
            down,
        ]
        tilt = [
            over,
            to((-0.003, 0.0, 0.006), 0.09, within_m=0.003, speed=0.5, error_m=0.0006),
            to((-0.002, 0.0, -0.001), 0.09, within_m=0.0015, speed=0.25, give_up_s=0.5, error_m=0.0003),
            to((0.0, 0.0, -0.002), within_m=0.0015, speed=0.2, give_up_s=0.8, error_m=0.0003),
            down,
        ]
        plans = {"straight": straight, "search": search, "tilt": tilt}
        return WaypointExpert(plans, self.action_spec(), self.robot, num_envs, self.cfg.step_dt_s, device, noise,
                              generator)  # fmt: skip

    def _peg_at(self, end_m: tuple[float, float, float], lean_rad: float) -> PoseOf:
        """Where the end effector is when the peg's end is there in the hole's frame (z from the block's top), the peg
        leaning about the hole's y axis."""

        def pose(robot: RobotState, scene: SceneState) -> Tensor:
            peg, b = scene.objects[PEG].pose, len(scene.objects[PEG].pose)
            at = torch.tensor([*end_m[:2], end_m[2] + self.cfg.depth_m, 0.0, lean_rad, 0.0], device=peg.device)
            lean = from_rotation_vector(at[3:].expand(b, 3))
            up = torch.tensor([0.0, 0.0, self.cfg.peg_m[2] / 2], device=peg.device).expand(b, 3)
            goal = pose_mul(_hole_floor(scene), torch.cat((at[:3] + quat_apply(lean, up), lean), dim=1))
            held = pose_mul(pose_inverse(robot.ee_pose), peg)
            return pose_mul(goal, pose_inverse(held))

        return pose


def _hole_floor(scene: SceneState) -> Tensor:
    hole = scene.objects[HOLE].pose
    return torch.cat((hole[:, :2], hole[:, 2:3] + FLOOR_M, hole[:, 3:]), dim=1)


def _socket(cfg: FrankaPegInsertCfg) -> Boxes:
    """A block with its hole; the frame is at the middle of its underside."""
    across, along = cfg.peg_m[0] + cfg.clearance_m, cfg.peg_m[1] + cfg.clearance_m
    wide, long = (BLOCK_M - across) / 2, (BLOCK_M - along) / 2
    z = FLOOR_M + cfg.depth_m / 2
    return Boxes((
        ((BLOCK_M, BLOCK_M, FLOOR_M), (0.0, 0.0, FLOOR_M / 2)),
        ((wide, BLOCK_M, cfg.depth_m), ((across + wide) / 2, 0.0, z)),
        ((wide, BLOCK_M, cfg.depth_m), (-(across + wide) / 2, 0.0, z)),
        ((across, long, cfg.depth_m), (0.0, (along + long) / 2, z)),
        ((across, long, cfg.depth_m), (0.0, -(along + long) / 2, z)),
    ))  # fmt: skip
