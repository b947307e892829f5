"""Bring a Franka's end effector to a random pose."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robolearn.config import ConfigError, register
from robolearn.kinematics import Chain
from robolearn.observation import pose_error
from robolearn.rotations import quat_apply
from robolearn.spec import ActionSpec, Field, ObservationSpec, TermSpec
from robolearn.state import RobotState, SceneState
from sim.backends.base import Backend
from sim.experts import Expert, Waypoint, WaypointExpert
from sim.randomize import RandomizeCfg
from sim.scene import CameraCfg, FrameMarker, RobotCfg, SceneCfg
from sim.task import ActionState, Task
from sim.tasks.manipulation.franka import FrankaCfg, arm_action, demand_positive, nearness

GOALS = 1 << 16


@dataclass
class FrankaReachCfg(FrankaCfg):
    name: str = "franka_reach"
    goal_spread_rad: float = 0.7
    """Goals are the poses of joint positions this far, uniformly, about the default posture: all are reachable."""
    goal_min_m: tuple[float, float, float] = (0.25, -0.45, 0.12)
    goal_max_m: tuple[float, float, float] = (0.70, 0.45, 0.75)
    goal_tilt_max_rad: float = 0.8
    """The hand's axis points at most this far away from straight down."""
    position_scale_m: float = 0.05
    rotation_scale_rad: float = 0.2
    success_position_m: float = 0.02
    success_rotation_rad: float = 0.2
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "position_error": -4.0,
            "position_near": 1.0,
            "rotation_error": -0.8,
            "rotation_near": 1.0,
            "action_change": -0.02,
            "beyond_limits": -0.2,
            "joint_speed": -0.005,
        }
    )
    randomize: RandomizeCfg = field(
        default_factory=lambda: RandomizeCfg(
            initial_joint_pos=0.1,
            observation_noise={"joint_pos": 0.001, "joint_vel": 0.01, "pose_error": 0.001},
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relative or not self.own_commands:
            raise ValueError(
                "task.relative and task.own_commands=false are for tasks with objects; "
                "the goal of franka_reach is told in the base frame"
            )
        for name in ("position_scale_m", "rotation_scale_rad"):
            demand_positive(self, name)


@register("task", "franka_reach", FrankaReachCfg)
class FrankaReach(Task):
    """## Description
    The arm starts near its default posture and has 3 s, at 20 Hz, to bring the grasp frame to a goal pose in its
    base frame. Actions move the joint set-points (or, by differential IK, the end effector's) through Franka's limits.

    ## Randomisation
    Start posture +-0.1 rad a joint; goal: the pose of random joint positions +-0.7 rad about the default, within a box
    in front of the robot, hand at most 0.8 rad from straight down; sensor noise of 1 mrad, 10 mrad/s, 1 mm.

    ## Success
    Within 2 cm and 0.2 rad of the goal at the end of the episode.
    """

    cfg: FrankaReachCfg

    def __init__(self, cfg: FrankaReachCfg):
        super().__init__(cfg, robot="franka")

    def scene(self) -> SceneCfg:
        view = CameraCfg((1.4, -0.85, 0.9), (0.27, 0.0, 0.36), fov_deg=38.0, width=320, height=240)
        return SceneCfg(
            {"robot": RobotCfg(self.robot)},
            cameras={"view": view},
            markers={"goal": FrameMarker()},
            physics_dt_s=self.cfg.physics_dt_s,
        )

    def observation_spec(self) -> ObservationSpec:
        arm = list(self.robot.arm_ids)
        rest = list(self.robot.of("default_joint_pos", self.robot.arm_joints))
        n = len(arm)
        policy = (
            TermSpec(Field("joint_pos", (n,), "rad", "joint"), "joint_pos", {"joints": arm, "offset": rest}),
            TermSpec(Field("joint_vel", (n,), "rad/s", "joint"), "joint_vel", {"joints": arm}),
            TermSpec(Field("joint_target_error", (n,), "rad", "joint"), "joint_target_error", {"joints": arm}),
            TermSpec(Field("pose_error", (6,), "m, rad", "base"), "pose_error", {"command": "goal"}),
            TermSpec(Field("last_action", (self.action_spec().dim,)), "last_action", sensed=False),
        )
        return ObservationSpec({"policy": policy})

    def action_spec(self) -> ActionSpec:
        return arm_action(self.cfg, self.robot)

    def setup(self, backend: Backend, generator: torch.Generator) -> None:
        self.goals = self._goal_table(torch.Generator(generator.device).manual_seed(0))  # the picks depend on the seed
        self.goal = self.goals[:1].expand(backend.num_envs, 7).clone()

    def _goal_table(self, generator: torch.Generator) -> Tensor:
        """(GOALS, 7) admissible poses; a reset then only picks a row."""
        cfg, device = self.cfg, generator.device
        chain = Chain(self.robot.urdf, self.robot.ee_link, self.robot.arm_joints, device)
        rest = torch.tensor(self.robot.of("default_joint_pos", self.robot.arm_joints), device=device)
        low = torch.tensor(self.robot.of("lower", self.robot.arm_joints), device=device)
        high = torch.tensor(self.robot.of("upper", self.robot.arm_joints), device=device)
        found: list[Tensor] = []
        for _ in range(100):
            spread = (torch.rand(GOALS, len(rest), generator=generator, device=device) * 2 - 1) * cfg.goal_spread_rad
            pose = chain.pose((rest + spread).clamp(low + 0.05, high - 0.05))
            found.append(pose[self._admissible(pose)])
            if sum(map(len, found)) >= GOALS:
                return torch.cat(found)[:GOALS]
        raise ConfigError("franka_reach: hardly any goal fits goal_min_m, goal_max_m and goal_tilt_max_rad; widen them")

    def _admissible(self, pose: Tensor) -> Tensor:
        low, high = torch.tensor(self.cfg.goal_min_m), torch.tensor(self.cfg.goal_max_m)
        inside = ((pose[:, :3] >= low.to(pose)) & (pose[:, :3] <= high.to(pose))).all(1)
        down = quat_apply(pose[:, 3:], torch.tensor([0.0, 0.0, 1.0]).to(pose).expand(len(pose), 3))[:, 2]
        return inside & (down < -torch.cos(torch.tensor(self.cfg.goal_tilt_max_rad)))

    def reset(self, backend: Backend, mask: Tensor, generator: torch.Generator) -> None:
        picked = torch.randint(len(self.goals), (len(mask),), generator=generator, device=mask.device)
        self.goal = torch.where(mask[:, None], self.goals[picked], self.goal)
        backend.set_marker("goal", self.goal)

    def scene_state(self, backend: Backend) -> SceneState:
        return SceneState(commands={"goal": self.goal})

    def rewards(self, robot: RobotState, scene: SceneState, action: ActionState) -> dict[str, Tensor]:
        metres, radians = self._errors(robot, scene)
        return {
            "position_error": metres,
            "position_near": nearness(metres, self.cfg.position_scale_m),
            "rotation_error": radians,
            "rotation_near": nearness(radians, self.cfg.rotation_scale_rad),
            "action_change": ((action.applied - action.previous) ** 2).sum(1),
            "beyond_limits": ((action.commanded - action.applied) ** 2).sum(1),
            "joint_speed": (robot.joint_vel**2).sum(1),
        }

    def terminated(self, robot: RobotState, scene: SceneState) -> Tensor:
        return torch.zeros(len(robot.joint_pos), dtype=torch.bool, device=robot.joint_pos.device)

    def metrics(self, robot: RobotState, scene: SceneState) -> dict[str, Tensor]:
        metres, radians = self._errors(robot, scene)
        success = (metres < self.cfg.success_position_m) & (radians < self.cfg.success_rotation_rad)
        return {"success": success, "position_error_m": metres, "rotation_error_rad": radians}

    def _errors(self, robot: RobotState, scene: SceneState) -> tuple[Tensor, Tensor]:
        """Distance (B,) m and angle (B,) rad to the goal."""
        error = pose_error(robot, scene, "goal")
        return error[:, :3].norm(dim=1), error[:, 3:].norm(dim=1)

    def expert(self, num_envs: int, device: torch.device, noise: float, generator: torch.Generator) -> Expert:
        """Straight to the goal; needs action=ee_delta."""
        there = Waypoint(lambda robot, scene: scene.commands["goal"], error_m=0.004, free=True)
        settings = self.action_spec(), self.robot, num_envs, self.cfg.step_dt_s, device, noise, generator
        return WaypointExpert({"straight": [there]}, *settings)

    def state_dict(self) -> dict[str, Tensor]:
        return {"goal": self.goal}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.goal = state["goal"]
