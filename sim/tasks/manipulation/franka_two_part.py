"""Put a part into a press, and press it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robolearn.config import register
from robolearn.kinematics import Chain
from robolearn.spec import ActionSpec, ObservationSpec, RobotSpec
from robolearn.state import ObjectState, RobotState, SceneState
from sim.backends.base import Backend
from sim.experts import Expert, Waypoint, WaypointExpert
from sim.randomize import RandomizeCfg, Range, uniform
from sim.scene import Box, ObjectCfg, RobotCfg, SceneCfg
from sim.task import ActionState, Task
from sim.tasks.manipulation.carry import level, over, pick, place
from sim.tasks.manipulation.franka import FINE_DT_S, FrankaCfg, arm_action, check_ranges, demand_positive
from sim.tasks.manipulation.seen import Seen, cameras, film, forget_noise_of_unseen, policy_terms

PART, PRESS, PLATE = "part", "press", "plate"
SEEN = (Seen(PART, rotation=True), Seen(PLATE), Seen(PART, frame=PLATE))
PART_M, PLATE_Z_M, SPRING_N_PER_M = (0.05, 0.05, 0.04), 0.05, 600.0
STATION = RobotSpec(
    name=PRESS,
    urdf="package://sim/assets/press/press.urdf",
    base_link="foot",
    ee_link="plate",
    joint_names=("travel",),
    lower=(-0.012,),
    upper=(0.0,),
    velocity_limit=(1.0,),
    acceleration_limit=(100.0,),
    jerk_limit=(1e5,),
    effort_limit=(50.0,),
    kp=(SPRING_N_PER_M,),
    kd=(15.0,),
    default_joint_pos=(0.0,),
    arm_joints=("travel",),
    gravity_compensation=True,
)
"""The press is a robot to the engine: a plate on a spring that holds itself up."""


@dataclass
class FrankaTwoPartCfg(FrankaCfg):
    name: str = "franka_two_part"
    episode_length_s: float = 12.0
    physics_dt_s: float = FINE_DT_S
    decimation: int = 24
    action: str = "ee_delta"
    """Or joint_position_delta, or joint_position (about the default posture); experts need ee_delta."""
    ee_step_m: float = 0.02
    ee_step_rad: float = 0.1
    press_m: tuple[float, float] = (0.55, 0.1)
    """Where the press stands."""
    part_x_m: Range = (0.4, 0.58)
    """Drawn at each reset, as everything below that is a range."""
    part_y_m: Range = (-0.2, -0.06)
    part_yaw_rad: Range = (-math.pi / 4, math.pi / 4)
    pressed_m: float = 0.01
    """How far the plate must give way."""
    clear_m: float = 0.05
    """The hand has let go when its grasp point is this far from the part's centre."""
    cameras: tuple[str, ...] = ()
    """front, wrist: pictures of them instead of the poses of part and plate."""
    randomize: RandomizeCfg = field(
        default_factory=lambda: RandomizeCfg(
            initial_joint_pos=0.05,
            observation_noise={"joint_pos": 0.0005, "part_position_ee": 0.0005, "plate_position_ee": 0.0005},
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        forget_noise_of_unseen(self, SEEN, self.cameras)
        for name in ("pressed_m", "clear_m"):
            demand_positive(self, name)
        check_ranges(self, ("part_x_m", "part_y_m", "part_yaw_rad"))
        if self.pressed_m >= -STATION.lower[0]:
            raise ValueError(f"task.pressed_m must be below the press's travel of {-STATION.lower[0]}, got "
                             f"{self.pressed_m}")  # fmt: skip


@register("task", "franka_two_part", FrankaTwoPartCfg)
class FrankaTwoPart(Task):
    """## Description
    A part of 5 x 5 x 4 cm lies in front of the arm, which has 12 s, at 20 Hz, to put it into the press beside it, to
    let go, and to press it down with the hand. Actions move the grasp frame by differential IK through Franka's limits,
    and open or close the hand. Observed are the joints and the poses of part and plate, or
    the pictures of two cameras. There are two rewards of 1: when the part is placed, and when it
    is pressed.

    ## Randomisation
    The part's place (18 x 14 cm) and yaw over all it has; start posture +-0.05 rad a joint; sensor noise of 0.5 mrad,
    0.5 mm.

    ## Success
    The part was placed in the press and let go, and the plate then gave way by 1 cm under it; the episode ends with it.
    It also ends, without, when the part is out of reach.
    """

    cfg: FrankaTwoPartCfg
    instruction = "put the part into the press and press it"

    def __init__(self, cfg: FrankaTwoPartCfg):
        super().__init__(cfg, robot="franka")

    def scene(self) -> SceneCfg:
        cfg = self.cfg
        part = ObjectCfg(Box(PART_M), 0.08, (0.5, -0.1, PART_M[2] / 2, *UPRIGHT), rgba=(0.85, 0.7, 0.2, 1.0))
        return SceneCfg(
            {"robot": RobotCfg(self.robot), PRESS: RobotCfg(STATION, (*cfg.press_m, 0.0, *UPRIGHT))},
            objects={PART: part},
            cameras={"view": film(), **cameras(cfg.cameras)},
            physics_dt_s=cfg.physics_dt_s,
        )

    def observation_spec(self) -> ObservationSpec:
        return policy_terms(self.cfg, self.robot, SEEN, self.cfg.cameras)

    def action_spec(self) -> ActionSpec:
        return arm_action(self.cfg, self.robot, gripper=True)

    def setup(self, backend: Backend, generator: torch.Generator) -> None:
        self.placed = torch.zeros(backend.num_envs, dtype=torch.bool, device=backend.device)
        """Whether it was, in this episode; `was` before this period."""
        self.was = self.placed
        self._chain = Chain(self.robot.urdf, self.robot.ee_link, self.robot.joint_names, backend.device)
        self._press = torch.tensor([*self.cfg.press_m, PLATE_Z_M, *UPRIGHT], device=backend.device)

    def reset(self, backend: Backend, mask: Tensor, generator: torch.Generator) -> None:
        cfg, b, device = self.cfg, len(mask), mask.device
        x, y, yaw = (uniform((b,), *r, generator) for r in (cfg.part_x_m, cfg.part_y_m, cfg.part_yaw_rad))
        position = torch.stack((x, y, torch.full_like(x, PART_M[2] / 2)), dim=1)
        backend.write_pose(PART, level(position, yaw), torch.zeros(b, 6, device=device), mask)
        rest = torch.zeros(b, 1, device=device)
        backend.write_joints(PRESS, rest, rest, mask)
        self.placed, self.was = self.placed & ~mask, self.was & ~mask

    def advance(self, backend: Backend) -> None:
        self.was = self.placed
        self.placed = self.was | self._lies(self._chain.pose(backend.joint_pos(self.asset)), self.scene_state(backend))

    def scene_state(self, backend: Backend) -> SceneState:
        """The robot's base is the world's origin, so the base frame is the world frame."""
        b, seen = backend.num_envs, torch.ones(backend.num_envs, dtype=torch.bool, device=backend.device)
        travel = backend.joint_pos(PRESS)
        plate = self._press.expand(b, 7).clone()
        plate[:, 2:3] += travel
        moves = torch.zeros(b, 6, device=backend.device)
        moves[:, 2:3] = backend.joint_vel(PRESS)
        things = {
            PART: ObjectState(backend.pose(PART), backend.velocity(PART), backend.time_s, seen),
            PLATE: ObjectState(plate, moves, backend.time_s, seen),
        }
        return SceneState(things, sensors={"travel": travel})

    def rewards(self, robot: RobotState, scene: SceneState, action: ActionState) -> dict[str, Tensor]:
        # A term counts per second: divided by the period, each event is 1 in all.
        per_s = 1.0 / self.cfg.step_dt_s
        return {"placed": (self.placed & ~self.was) * per_s, "pressed": self._pressed(scene) * per_s}

    def terminated(self, robot: RobotState, scene: SceneState) -> Tensor:
        away = scene.objects[PART].pose[:, :2].norm(dim=1)
        return self._pressed(scene) | (away > 0.85) | (away < 0.2)

    def metrics(self, robot: RobotState, scene: SceneState) -> dict[str, Tensor]:
        return {
            "success": self._pressed(scene), "placed": self.placed, "beside_error_m": self._beside(scene),
            "travel_m": -scene.sensors["travel"].squeeze(1),
        }  # fmt: skip

    def _beside(self, scene: SceneState) -> Tensor:
        """From the plate's middle to the part's, (B,) m."""
        return (scene.objects[PART].pose[:, :2] - self._press[:2]).norm(dim=1)

    def _in(self, scene: SceneState) -> Tensor:
        """(B,) bool: the part is inside the plate's rim, on its plate."""
        above = scene.objects[PART].pose[:, 2] - scene.objects[PLATE].pose[:, 2] - PART_M[2] / 2
        return (self._beside(scene) < 0.008) & (above.abs() < 0.004)

    def _lies(self, hand: Tensor, scene: SceneState) -> Tensor:
        """(B,) bool: and the grasp point (B, 7) is away, the plate up."""
        away = (scene.objects[PART].pose[:, :3] - hand[:, :3]).norm(dim=1) > self.cfg.clear_m
        return self._in(scene) & away & (scene.sensors["travel"].squeeze(1) > -0.005)

    def _pressed(self, scene: SceneState) -> Tensor:
        return self.placed & self._in(scene) & (scene.sensors["travel"].squeeze(1) < -self.cfg.pressed_m)

    def expert(self, num_envs: int, device: torch.device, noise: float, generator: torch.Generator) -> Expert:
        """`low`: straight over to the press; `arc`: high; `turned`: with a grasp of the part's other two sides."""
        gap = PART_M[2] / 2

        def plan(turn_rad: float, high_m: float) -> list[Waypoint]:
            top = gap + 0.008  # of the part, and what the fingers reach beyond the grasp point
            up = Waypoint(over(PART, 0.09, turn_rad), open=True, within_m=0.02, within_rad=0.5)
            close = Waypoint(over(PART, 0.09, turn_rad), within_m=0.02, within_rad=0.5, stay_s=0.3)
            touch = Waypoint(over(PART, top + 0.01, turn_rad), within_m=0.006, speed=0.7, error_m=0.004)
            press = Waypoint(over(PART, top - 0.03, turn_rad), within_m=0.001, speed=0.3, give_up_s=2.5, otherwise=0,
                             error_m=0.003)  # fmt: skip
            return [
                *pick(PART, turn_rad, PLATE_Z_M + high_m),
                *place(PART, PLATE, turn_rad, gap, high_m),
                up,
                close,
                touch,
                press,
            ]

        plans = {"low": plan(0.0, gap + 0.05), "arc": plan(0.0, gap + 0.12), "turned": plan(math.pi / 2, gap + 0.07)}
        return WaypointExpert(plans, self.action_spec(), self.robot, num_envs, self.cfg.step_dt_s, device, noise,
                              generator)  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        return {"placed": self.placed, "was": self.was}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.placed, self.was = state["placed"], state["was"]


UPRIGHT = (0.0, 0.0, 0.0, 1.0)
