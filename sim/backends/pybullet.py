"""PyBullet: an independent engine, to see whether what was learned in one holds in another.

One client an environment, in DIRECT mode, spread over worker processes. An environment of an arm takes some 35 MB,
so that dozens are sensible where MuJoCo runs thousands; an evaluation then runs more episodes in each. Every step
starts from the state rows alone, contact caches dropped, so that saved states continue to the bit, with contacts
too (`bullet_world`).

What cannot be as in MuJoCo: contacts are rigid, those of convex meshes have a margin of a millimetre, and Bullet
multiplies two bodies' coefficients of friction. The scene's rule (an object's counts, of two objects the larger)
holds for an object on ground and robots, and between two objects of which one has the lowest friction in the scene.
A robot against the ground or itself has the product of `bullet_plan._surface`, and where its friction is randomised
the factor counts against objects too.

Quadrotors are flown by `bullet_rotors`, in steps of Bullet of at most a millisecond: some 75 microseconds each on one
core, so that 5 s of flight take 0.4 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.config import ConfigError, register
from robolearn.loops.threads import usable_cores
from robolearn.optional import load
from robolearn.rotations import quat_apply, quat_conjugate
from sim.backends.base import Backend, BackendCfg, Capabilities, refuse_unstable
from sim.backends.bullet_plan import message, plan_of
from sim.backends.bullet_pool import Alone, Pool
from sim.backends.bullet_rotors import ATTITUDE, GYRO, LINK
from sim.backends.bullet_worker import EXPLODED
from sim.looks import KINDS, LookTable
from sim.scene import Param, SceneCfg, unchanged

LOOKS = KINDS - {"pattern"}
ROTORS = frozenset({"thrust", "reaction_torque", "spin_up", "spin_down", "drag", "sag", "link_delay"})


@dataclass
class PybulletCfg(BackendCfg):
    name: str = "pybullet"
    workers: int = 0
    """Processes; 0 is one a core, which is also the most."""
    alone: bool = False
    """No processes: the environments are stepped in this one."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 (one a core) or more, got {self.workers}")


@register("backend", "pybullet", PybulletCfg)
class Pybullet(Backend):
    capabilities = Capabilities(
        cameras=True,
        contact_sensors=True,
        randomized=frozenset(
            {"mass", "inertia", "friction", "kp", "kd", "effort_limit", "joint_damping", "joint_friction"}
        )
        | ROTORS,
        looks=LOOKS,
        quadrotors=True,
        evaluation_envs=32,
    )

    def __init__(self, cfg: PybulletCfg, scene: SceneCfg, num_envs: int, device: torch.device, seed: int):
        super().__init__(scene, num_envs, device, seed)
        _require_pybullet()
        plan = plan_of(scene)
        self.workers = min(cfg.workers or usable_cores(), usable_cores(), num_envs)
        self.pool = Alone(plan, num_envs) if cfg.alone else Pool(plan, num_envs, self.workers)
        self._at = self.pool.layout
        for name, inertia in self.pool.about["inertia"].items():
            try:
                refuse_unstable(scene.robots[name].spec, inertia, scene.physics_dt_s)
            except ConfigError:
                self.pool.close()
                raise
        self._rows = torch.from_numpy(self.pool.rows)
        for asset, param in scene.randomized:
            self._rows[:, self._at.params[f"{asset}.{param}"]] = unchanged(param)
        fixed: dict[str, Any] = {**scene.robots, **scene.objects}
        self._fixed = {n: torch.tensor(thing.pose).expand(num_envs, 7) for n, thing in fixed.items()}
        self._still = torch.zeros(num_envs, 6)
        self._markers: dict[str, Tensor] = {}
        self._looks = LookTable(scene, num_envs, LOOKS)
        self._refresh()

    def _refresh(self) -> None:
        self.time_s = self._rows[:, 0].float()

    # --- reading --------------------------------------------------------------------------------------------

    def joint_pos(self, asset: str) -> Tensor:
        return self._joints(asset)[0].float()

    def joint_vel(self, asset: str) -> Tensor:
        return self._joints(asset)[1].float()

    def _joints(self, asset: str) -> tuple[Tensor, ...]:
        """Views of positions and velocities, (B, J) float64."""
        return self._rows[:, self._at.joints[asset]].chunk(2, dim=1)

    def joint_effort(self, asset: str) -> Tensor:
        return self._rows[:, self._at.effort[asset]].float()

    def pose(self, asset: str) -> Tensor:
        if asset not in self._at.roots:
            return self._fixed[asset]
        return self._rows[:, self._at.roots[asset]][:, :7].float()

    def velocity(self, asset: str) -> Tensor:
        if asset not in self._at.roots:
            return self._still
        return self._rows[:, self._at.roots[asset]][:, 7:].float()

    def body_pose(self, asset: str, links: Sequence[str]) -> Tensor:
        self.pool.ask(message("links"))
        known = self.pool.plan.robots[asset].links
        poses = self._rows[:, self._at.links[asset]].unflatten(1, (-1, 7))
        return poses[:, [known.index(link) for link in links]].float()

    def contact_force(self, sensor: str) -> Tensor:
        """As of the last sub-step."""
        return self._rows[:, self._at.contact[sensor]].float()

    def finite(self) -> Tensor:
        return (self._rows[:, self._at.moving].abs() < EXPLODED).all(dim=1)

    # --- stepping -------------------------------------------------------------------------------------------

    def write_targets(self, asset: str, position: Tensor | None = None, velocity: Tensor | None = None,
                      effort: Tensor | None = None) -> None:  # fmt: skip
        if position is not None:
            self._rows[:, self._at.end[asset]] = position.double()
        for at, target in ((self._at.feed_velocity, velocity), (self._at.feed_effort, effort)):
            self._rows[:, at[asset]] = 0.0 if target is None else target.double()
        if asset in self._at.flight:
            if velocity is None:
                raise ValueError(f"{asset}'s rotors take velocities (rad/s), not positions or efforts")
            self._rows[:, self._at.flight[asset]][:, ATTITUDE] = 0.0

    def write_attitude(self, asset: str, command: Tensor) -> None:
        spec = self.scene.robots[asset].spec
        if spec.quadrotor is None or spec.quadrotor.firmware is None:
            raise ConfigError(f"{spec.name} has no firmware specified; command rotor_speed")
        self._rows[:, self._at.feed_effort[asset]] = command.double()
        self._rows[:, self._at.flight[asset]][:, ATTITUDE] = 1.0

    def apply_wrench(self, asset: str, link: str | None, wrench: Tensor) -> None:
        self._rows[:, self._at.wrench_on(f"{asset}/{link}" if link else asset)] = wrench.double()

    def step(self, n: int) -> None:
        self.roll(n)
        for name, end in self._at.end.items():
            self._rows[:, self._at.start[name]] = self._rows[:, end]
        self._refresh()

    def roll(self, n: int) -> None:
        """The engine's own call on the rows as they are, law included, which `step` is measured against."""
        self.pool.ask(message("step", n=n))

    def roll_bare(self, n: int) -> None:
        """`stepSimulation` and nothing else, from the rows' state, which is left as it is."""
        self.pool.ask(message("bare", n=n))

    # --- writing --------------------------------------------------------------------------------------------

    def write_joints(self, asset: str, position: Tensor, velocity: Tensor, mask: Tensor) -> None:
        at = self._at
        self._put(at.joints[asset], torch.cat((position, velocity), dim=1), mask)
        self._put(at.start[asset], position, mask)
        self._put(at.end[asset], position, mask)
        for feed in (at.feed_velocity, at.feed_effort):
            self._put(feed[asset], torch.zeros_like(position), mask)
        self._rows[:, at.measured] = self._rows[:, at.measured].masked_fill(mask[:, None], 0.0)
        if vehicle := self.scene.robots[asset].spec.quadrotor:  # its firmware starts anew, and is to hover
            flight = self._rows[:, at.flight[asset]]
            flight.masked_fill_(mask[:, None], 0.0)
            flight[mask, LINK.stop - 1] = 9.81 * vehicle.mass_kg

    def write_pose(self, asset: str, pose: Tensor, velocity: Tensor, mask: Tensor) -> None:
        self._put(self._at.roots[asset], torch.cat((pose, velocity), dim=1), mask)
        if asset in self._at.flight:  # no kick by the firmware's derivative in the first step
            rates = torch.rad2deg(quat_apply(quat_conjugate(pose[:, 3:]), velocity[:, 3:])).double()
            gyro = self._rows[:, self._at.flight[asset]][:, GYRO]
            gyro.copy_(torch.where(mask[:, None], rates, gyro))
        self._rows[:, self._at.measured] = self._rows[:, self._at.measured].masked_fill(mask[:, None], 0.0)

    def _put(self, columns: slice, value: Tensor, mask: Tensor) -> None:
        self._rows[:, columns] = torch.where(mask[:, None], value.double(), self._rows[:, columns])

    def get_state(self) -> Tensor:
        return self._rows[:, self._at.state].clone()

    def set_state(self, state: Tensor, mask: Tensor | None = None) -> None:
        mine = self._rows[:, self._at.state]
        if state.shape != mine.shape:
            raise ValueError(
                f"a state of shape {tuple(state.shape)} is not of this scene's {self.num_envs} environments"
            )
        self._rows[:, self._at.state] = state if mask is None else torch.where(mask[:, None], state, mine)
        self._refresh()

    def set_param(self, asset: str, param: Param, scale: Tensor, mask: Tensor) -> None:
        self._put(self._at.params[f"{asset}.{param}"], scale[:, None], mask)

    def params(self) -> dict[str, Tensor]:
        return {name: self._rows[:, at].squeeze(1).float() for name, at in self._at.params.items()}

    # --- pictures -------------------------------------------------------------------------------------------

    def set_marker(self, marker: str, pose: Tensor) -> None:
        self._markers[marker] = pose

    def set_look(self, name: str, values: Tensor, mask: Tensor) -> None:
        self._looks.put(name, values, mask)

    def looks(self) -> dict[str, Tensor]:
        return dict(self._looks.values)

    def render(self, camera: str, env_ids: Sequence[int], film: tuple[int, int] | None = None) -> np.ndarray:
        if camera not in self.scene.cameras:
            raise ValueError(f"no camera '{camera}'; the scene has {', '.join(self.scene.cameras) or 'none'}")
        cfg = self.scene.cameras[camera]
        height, width = film or (cfg.height, cfg.width)
        plan = plan_of(self.scene, visual=True)
        pictures = [
            self.pool.paint(
                plan, env=int(i), eye=cfg.eye_m, target=cfg.target_m, link=cfg.link, fov_deg=cfg.fov_deg,
                width=width, height=height, film=film is not None,
                markers={name: pose[i].tolist() for name, pose in self._markers.items()},
                look=self._looks.row(i), camera=camera,
            )
            for i in env_ids
        ]  # fmt: skip
        return np.stack([np.frombuffer(p, np.uint8).reshape(height, width, 3) for p in pictures])

    def close(self) -> None:
        self.pool.close()


def _require_pybullet() -> None:
    """Workers import it, this process does not: it would print."""
    from importlib.util import find_spec

    if find_spec("pybullet") is None:
        load("pybullet", "bullet")
