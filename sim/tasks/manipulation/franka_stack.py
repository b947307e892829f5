"""Put a cube onto another."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robolearn.config import register
from robolearn.rotations import quat_apply
from robolearn.spec import ActionSpec, ObservationSpec
from robolearn.state import ObjectState, RobotState, SceneState
from sim.backends.base import Backend
from sim.experts import Expert, Waypoint, WaypointExpert
from sim.randomize import RandomizeCfg, Range, uniform
from sim.scene import Box, ObjectCfg, RobotCfg, SceneCfg
from sim.task import ActionState, Task
from sim.tasks.manipulation.carry import level, over, pick, place
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

CUBE, BASE = "cube", "base"
SEEN = (Seen(CUBE, rotation=True), Seen(BASE, rotation=True), Seen(CUBE, frame=BASE))


@dataclass
class FrankaStackCfg(FrankaCfg):
    name: str = "franka_stack"
    episode_length_s: float = 10.0
    physics_dt_s: float = FINE_DT_S
    decimation: int = 24
    action: str = "ee_delta"
    """Or joint_position_delta, or joint_position (about the default posture); experts need ee_delta."""
    ee_step_m: float = 0.02
    ee_step_rad: float = 0.1
    cube_size_m: float = 0.045
    base_size_m: float = 0.06
    x_m: Range = (0.42, 0.6)
    """Of either; drawn at each reset, as everything below that is a range."""
    y_m: Range = (0.06, 0.18)
    """Of either, to different sides."""
    yaw_rad: Range = (-math.pi / 4, math.pi / 4)
    beside_m: float = 0.02
    """The cube's centre from above the base's, at most, in a stack."""
    clear_m: float = 0.06
    """The hand has let go when its grasp point is this far from the cube's centre."""
    still_mps: float = 0.05
    cameras: tuple[str, ...] = ()
    """front, wrist: pictures of them instead of the poses of the cubes."""
    reward: str = "sparse"
    """sparse: 1 at success; or dense."""
    weights: dict[str, float] = field(
        default_factory=lambda: {"reach": 0.5, "lifted": 1.0, "over": 2.0, "action_change": -0.02}
    )
    randomize: RandomizeCfg = field(
        default_factory=lambda: RandomizeCfg(
            initial_joint_pos=0.05,
            observation_noise={"joint_pos": 0.0005, "cube_position_ee": 0.0005, "base_position_ee": 0.0005},
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        forget_noise_of_unseen(self, SEEN, self.cameras)
        for name in ("cube_size_m", "base_size_m", "beside_m", "clear_m", "still_mps"):
            demand_positive(self, name)
        apart = (self.cube_size_m + self.base_size_m) / math.sqrt(2.0) / 2.0
        check_ranges(self, ("x_m", "y_m", "yaw_rad"), {"y_m": apart})
        if self.cube_size_m >= 0.08:
            raise ValueError(f"task.cube_size_m must be below 0.08, the hand's opening, got {self.cube_size_m}")
        check_reward(self, ("dense", "sparse"))


@register("task", "franka_stack", FrankaStackCfg)
class FrankaStack(Task):
    """## Description
    A cube of 4.5 cm and one of 6 cm lie in front of the arm, which has 10 s, at 20 Hz, to put the smaller onto the
    larger and to let go. Actions move the grasp frame by differential IK through Franka's limits, and open or close the
    hand. Observed are the joints and the poses of both cubes, or the pictures of two cameras.

    ## Randomisation
    The places of both (18 x 12 cm each, to either side of the arm), their yaws over all a cube has; start posture
    +-0.05 rad a joint; sensor noise of 0.5 mrad, 0.5 mm.

    ## Success
    The cube lies still on the other, within 2 cm of its middle, and the hand is 6 cm away; the episode ends with it. It
    also ends, without, when a cube is out of reach.
    """

    cfg: FrankaStackCfg
    instruction = "put the small cube onto the large one"

    def __init__(self, cfg: FrankaStackCfg):
        super().__init__(cfg, robot="franka")

    def scene(self) -> SceneCfg:
        cfg = self.cfg
        small, large = cfg.cube_size_m, cfg.base_size_m
        cube = ObjectCfg(Box((small,) * 3), 0.08, (0.5, -0.1, small / 2, *UPRIGHT), rgba=(0.8, 0.25, 0.2, 1.0))
        base = ObjectCfg(Box((large,) * 3), 0.3, (0.5, 0.1, large / 2, *UPRIGHT), rgba=(0.25, 0.6, 0.35, 1.0))
        return SceneCfg(
            {"robot": RobotCfg(self.robot)},
            objects={CUBE: cube, BASE: base},
            cameras={"view": film(), **cameras(cfg.cameras)},
            physics_dt_s=cfg.physics_dt_s,
        )

    def observation_spec(self) -> ObservationSpec:
        return policy_terms(self.cfg, self.robot, SEEN, self.cfg.cameras)

    def action_spec(self) -> ActionSpec:
        return arm_action(self.cfg, self.robot, gripper=True)

    def reset(self, backend: Backend, mask: Tensor, generator: torch.Generator) -> None:
        cfg, b, device = self.cfg, len(mask), mask.device
        side = torch.where(torch.rand(b, generator=generator, device=device) < 0.5, 1.0, -1.0)
        still = torch.zeros(b, 6, device=device)
        for name, size, sign in ((CUBE, cfg.cube_size_m, side), (BASE, cfg.base_size_m, -side)):
            x, y, yaw = (uniform((b,), *r, generator) for r in (cfg.x_m, cfg.y_m, cfg.yaw_rad))
            position = torch.stack((x, sign * y, torch.full_like(x, size / 2)), dim=1)
            backend.write_pose(name, level(position, yaw), still, mask)

    def scene_state(self, backend: Backend) -> SceneState:
        """The robot's base is the world's origin, so the base frame is the world frame."""
        seen = torch.ones(backend.num_envs, dtype=torch.bool, device=backend.device)
        things = {n: ObjectState(backend.pose(n), backend.velocity(n), backend.time_s, seen) for n in (CUBE, BASE)}
        return SceneState(things)

    def rewards(self, robot: RobotState, scene: SceneState, action: ActionState) -> dict[str, Tensor]:
        cfg = self.cfg
        # A term counts per second: divided by the period, success counts once.
        success = self._stacked(robot, scene).float() * (success_worth(cfg) / cfg.step_dt_s)
        if cfg.reward == "sparse":
            return {"success": success}
        height = scene.objects[CUBE].pose[:, 2] - cfg.cube_size_m / 2
        return {
            "reach": nearness(self._away(robot, scene), 0.1),
            "lifted": (height / cfg.base_size_m).clamp(0.0, 1.0),
            "over": nearness(self._beside(scene), 0.1) * (height > 0.5 * cfg.base_size_m),
            "action_change": ((action.applied - action.previous) ** 2).sum(1),
            "success": success,
        }

    def terminated(self, robot: RobotState, scene: SceneState) -> Tensor:
        away = torch.stack([scene.objects[n].pose[:, :2].norm(dim=1) for n in (CUBE, BASE)])
        return self._stacked(robot, scene) | (away > 0.85).any(0) | (away < 0.2).any(0)

    def metrics(self, robot: RobotState, scene: SceneState) -> dict[str, Tensor]:
        return {
            "success": self._stacked(robot, scene), "beside_error_m": self._beside(scene),
            "height_error_m": self._above(scene).abs(), "cube_speed_mps": self._speed(scene),
        }  # fmt: skip

    def _away(self, robot: RobotState, scene: SceneState) -> Tensor:
        """From the grasp point to the cube's centre, (B,) m."""
        return (scene.objects[CUBE].pose[:, :3] - robot.ee_pose[:, :3]).norm(dim=1)

    def _beside(self, scene: SceneState) -> Tensor:
        """The horizontal distance of the two centres, (B,) m."""
        return (scene.objects[CUBE].pose[:, :2] - scene.objects[BASE].pose[:, :2]).norm(dim=1)

    def _above(self, scene: SceneState) -> Tensor:
        """The cube's centre above where it would lie on the base, (B,) m."""
        gap = (self.cfg.cube_size_m + self.cfg.base_size_m) / 2
        return scene.objects[CUBE].pose[:, 2] - scene.objects[BASE].pose[:, 2] - gap

    def _speed(self, scene: SceneState) -> Tensor:
        return scene.objects[CUBE].vel[:, :3].norm(dim=1)

    def _stacked(self, robot: RobotState, scene: SceneState) -> Tensor:
        """(B,) bool."""
        cfg = self.cfg
        level_up = quat_apply(
            scene.objects[BASE].pose[:, 3:], _UP.to(robot.joint_pos).expand(len(self._speed(scene)), 3)
        )
        upright = (level_up.abs().amax(1) > 0.95) & (scene.objects[BASE].pose[:, 2] < 0.6 * cfg.base_size_m)
        lies = (self._beside(scene) < cfg.beside_m) & (self._above(scene).abs() < 0.005)
        return lies & upright & (self._speed(scene) < cfg.still_mps) & (self._away(robot, scene) > cfg.clear_m)

    def expert(self, num_envs: int, device: torch.device, noise: float, generator: torch.Generator) -> Expert:
        """`low`: as low over the base as it can; `arc`: high; `turned`: with a grasp of the cube's other two sides."""
        cfg = self.cfg
        gap = (cfg.cube_size_m + cfg.base_size_m) / 2

        def plan(turn_rad: float, high_m: float) -> list[Waypoint]:
            up = Waypoint(
                over(CUBE, 0.12, turn_rad), open=True, within_m=0.02, within_rad=0.5, give_up_s=1.0, otherwise=0
            )
            return [*pick(CUBE, turn_rad, high_m + cfg.base_size_m / 2), *place(CUBE, BASE, turn_rad, gap, high_m), up]

        plans = {"low": plan(0.0, gap + 0.04), "arc": plan(0.0, gap + 0.12), "turned": plan(math.pi / 2, gap + 0.06)}
        return WaypointExpert(plans, self.action_spec(), self.robot, num_envs, cfg.step_dt_s, device, noise, generator)


UPRIGHT = (0.0, 0.0, 0.0, 1.0)
_UP = torch.tensor([0.0, 0.0, 1.0])
