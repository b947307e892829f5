"""Balance a pole on a cart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robolearn.config import register
from robolearn.spec import ActionSpec, Field, ObservationSpec, TermSpec
from robolearn.state import RobotState, SceneState
from sim.experts import Expert
from sim.randomize import RandomizeCfg
from sim.scene import CameraCfg, RobotCfg, SceneCfg
from sim.task import ActionState, Task, TaskCfg


@dataclass
class CartpoleCfg(TaskCfg):
    name: str = "cartpole"
    episode_length_s: float = 5.0
    physics_dt_s: float = 1.0 / 120.0
    decimation: int = 4
    force_n: float = 20.0
    """What an action of one means."""
    max_angle_rad: float = 0.4
    max_position_m: float = 2.0
    weights: dict[str, float] = field(
        default_factory=lambda: {"alive": 1.0, "tilt": -1.0, "off_centre": -0.25, "speed": -0.005}
    )
    randomize: RandomizeCfg = field(default_factory=lambda: RandomizeCfg(initial_joint_pos=0.1, initial_joint_vel=0.1))


GAINS = (0.06, 0.16, 1.5, 0.5)
"""Of the expert: action per m, m/s, rad and rad/s."""
SIDE_M = 0.5


class CartpoleExpert(Expert):
    """Balances by state feedback, on the left or on the right of the middle. A person (noise 1) pushes unevenly."""

    strategies = ("left", "right")

    def __init__(self, num_envs: int, device: torch.device, noise: float, generator: torch.Generator):
        self.noise, self.generator = noise, generator
        self.strategy = torch.zeros(num_envs, dtype=torch.long, device=device)

    def reset(self, mask: Tensor) -> None:
        self.choose(mask, self.generator)

    def act(self, robot: RobotState, scene: SceneState) -> Tensor:
        (cart, pole), (speed, turn) = robot.joint_pos.unbind(1), robot.joint_vel.unbind(1)
        off = cart - SIDE_M * (2.0 * self.strategy - 1.0)
        push = sum(g * x for g, x in zip(GAINS, (off, speed, pole, turn), strict=True))
        uneven = 0.3 * self.noise * torch.randn(cart.shape, generator=self.generator, device=cart.device)
        return (push + uneven)[:, None].clamp(-1.0, 1.0)


@register("task", "cartpole", CartpoleCfg)
class Cartpole(Task):
    """## Description
    A cart of 1 kg on a rail balances a pole of 0.2 kg and 1 m; the action is a force of at most 20 N at 30 Hz.

    ## Randomisation
    Positions and velocities of both joints start uniformly within 0.1 (m, rad, and per second).

    ## Success
    The pole is still within 0.4 rad, and the cart within 2 m, after 5 s.
    """

    cfg: CartpoleCfg

    instruction = "balance the pole"

    def __init__(self, cfg: CartpoleCfg):
        super().__init__(cfg, robot="cartpole")

    def expert(self, num_envs: int, device: torch.device, noise: float, generator: torch.Generator) -> Expert:
        return CartpoleExpert(num_envs, device, noise, generator)

    def scene(self) -> SceneCfg:
        view = CameraCfg(eye_m=(0.0, 5.0, 1.8), target_m=(0.0, 0.0, 1.2), width=320, height=240)
        return SceneCfg({"robot": RobotCfg(self.robot)}, cameras={"view": view}, physics_dt_s=self.cfg.physics_dt_s)

    def observation_spec(self) -> ObservationSpec:
        both = {"joints": [0, 1]}
        return ObservationSpec(
            {
                "policy": (
                    TermSpec(Field("cart_position", (1,), "m"), "joint_pos", {"joints": [0], "offset": [0.0]}),
                    TermSpec(Field("pole_angle", (2,), "sin, cos"), "angle_sin_cos", {"joints": [1]}),
                    TermSpec(Field("velocities", (2,), "m/s, rad/s"), "joint_vel", both),
                )
            }
        )

    def action_spec(self) -> ActionSpec:
        return ActionSpec("joint_effort", ("slider",), "N", scale=(self.cfg.force_n,))

    def rewards(self, robot: RobotState, scene: SceneState, action: ActionState) -> dict[str, Tensor]:
        cart, pole = robot.joint_pos.unbind(1)
        return {
            "alive": torch.ones_like(cart),
            "tilt": pole**2,
            "off_centre": cart**2,
            "speed": (robot.joint_vel**2).sum(1),
        }

    def terminated(self, robot: RobotState, scene: SceneState) -> Tensor:
        return ~self._balanced(robot)

    def metrics(self, robot: RobotState, scene: SceneState) -> dict[str, Tensor]:
        return {"success": self._balanced(robot), "pole_angle_rad": robot.joint_pos[:, 1].abs()}

    def _balanced(self, robot: RobotState) -> Tensor:
        wrapped = torch.remainder(robot.joint_pos[:, 1] + math.pi, 2 * math.pi) - math.pi
        return (wrapped.abs() < self.cfg.max_angle_rad) & (robot.joint_pos[:, 0].abs() < self.cfg.max_position_m)
