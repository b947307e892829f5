"""The same three experiments in any engine: an arm's free motion, a resting cube's weight, a cube's way on friction.

An engine records in an interpreter of its own (`python -m sim.parity`), since engines' packages may clash, and leaves
a safetensors file; `checks` compares the files with each other and with mechanics, within `Tolerances`.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robolearn import config
from robolearn.robots.cartpole import CARTPOLE
from robolearn.spec import RobotSpec
from sim.backends.base import Backend
from sim.scene import Box, ContactSensorCfg, ObjectCfg, Pose, RobotCfg, SceneCfg

DT_S, SUB_STEPS = 1.0 / 240.0, 4
G_MPS2 = 9.81
RATE_HZ = 1.0 / (DT_S * SUB_STEPS)
MOTIONS, MOTION_S = 4, 4.0
CUBES_KG, REST_S, WEIGHED_S = (0.2, 1.0, 5.0), 2.0, 0.5
SLIDES, SLIDE_S = ((0.5, 0.2), (1.0, 0.4), (1.5, 0.6)), 1.5
"""Launch speed (m/s) and coefficient of friction of each."""
AWAY: Pose = (0.0, 50.0, 0.0, 0.0, 0.0, 0.0, 1.0)
Recording = dict[str, Tensor]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tolerances:
    """How far engines may be apart; what is measured is about half of these or less."""

    joint_pos: float = 1e-3
    """rad or m: the largest difference to the first engine, any joint, any time. Engines with the same law and the
    same (semi-implicit) Euler steps differ by rounding only."""
    joint_effort: float = 2e-3
    """Part of the joint's limit: root mean square of the difference."""
    weight: float = 0.01
    """Part of m g: the mean contact force of the last half second."""
    slide: float = 0.03
    """Part of v0^2 / (2 mu g): the distance. Time steps alone take mu g dt / v0 of it, 1.6 % here."""


@dataclass(frozen=True)
class Check:
    experiment: str
    engine: str
    what: str
    value: float
    limit: float
    unit: str

    @property
    def passed(self) -> bool:
        return self.value <= self.limit  # NaN is not


# --- recording -----------------------------------------------------------------------------------------------


def record(engine: str, robot: str, seed: int) -> Recording:
    """All three, (T, ...) each at 60 Hz. ConfigError for robots that fly."""
    spec: RobotSpec = config.entry("robot", robot).value
    if spec.quadrotor is not None:
        raise config.ConfigError(f"{robot} has no fixed base; parity drives robots through their joints")
    out: Recording = {}
    for name, experiment in (("free motion", free_motion), ("resting cubes", rest), ("sliding cubes", slide)):
        log.info("%s: %s", engine, name)
        out |= experiment(engine, spec, seed)
    return out


def _build(engine: str, scene: SceneCfg, num_envs: int) -> Backend:
    cls = config.entry("backend", engine).config
    assert cls is not None
    built: Backend = config.build(cls(), scene=scene, num_envs=num_envs, device=torch.device("cpu"), seed=0)
    return built


def free_motion(engine: str, spec: RobotSpec, seed: int) -> Recording:
    """Random smooth targets, a robot each, far from anything."""
    backend = _build(engine, SceneCfg({"robot": RobotCfg(spec)}, physics_dt_s=DT_S, ground=False), MOTIONS)
    targets, efforts = motions(spec, seed)
    start = torch.tensor(spec.default_joint_pos).expand(MOTIONS, -1)
    everyone = torch.ones(MOTIONS, dtype=torch.bool)
    backend.write_joints("robot", start, torch.zeros_like(start), everyone)
    seen: dict[str, list[Tensor]] = {"joint_pos": [], "joint_vel": [], "joint_effort": []}
    for target, effort in zip(targets, efforts, strict=True):
        backend.write_targets("robot", target, effort=effort)
        backend.step(SUB_STEPS)
        for name, values in seen.items():
            values.append(getattr(backend, name)("robot").clone())
    backend.close()
    return {"targets": targets} | {name: torch.stack(values) for name, values in seen.items()}


def motions(spec: RobotSpec, seed: int) -> tuple[Tensor, Tensor]:
    """Targets and efforts (T, MOTIONS, J): joints with gains follow sums of two sines inside their limits of
    position and half their limits of velocity; the others are pushed with up to a tenth of their effort."""
    generator = torch.Generator().manual_seed(seed)
    t = (torch.arange(round(MOTION_S * RATE_HZ)) + 1)[:, None, None, None] / RATE_HZ
    shape = (1, MOTIONS, spec.dof, 2)
    speed = math.tau * (0.2 + 0.6 * torch.rand(shape, generator=generator))
    phase = math.tau * torch.rand(shape, generator=generator)
    wave = (torch.sin(speed * t + phase) - torch.sin(phase)) * (speed * t / math.pi).clamp(max=1.0)
    rest, low, high = (torch.tensor(getattr(spec, n)) for n in ("default_joint_pos", "lower", "upper"))
    room = torch.minimum(rest - low, high - rest).clamp(0.0, 1.0) / 4.0
    room = torch.minimum(room, torch.tensor(spec.velocity_limit) / 20.0)
    targets = rest + (wave * room[:, None]).sum(-1)
    gains = torch.tensor(spec.kp) > 0.0
    push = 0.05 * torch.tensor(spec.effort_limit) * ~gains
    return targets, (torch.sin(speed * t + phase) * push[:, None]).sum(-1)


def rest(engine: str, spec: RobotSpec, seed: int) -> Recording:
    """The contact force (T, cubes, 3) of cubes that fall 5 mm and lie."""
    names = [f"cube{i}" for i in range(len(CUBES_KG))]
    cubes = {n: _box(0.1, 0.4 * i, m, drop=0.005) for i, (n, m) in enumerate(zip(names, CUBES_KG, strict=True))}
    sensors = {n: ContactSensorCfg(n) for n in names}
    backend = _build(engine, _scene(cubes, sensors), 1)
    force = []
    for _ in range(round(REST_S * RATE_HZ)):
        backend.step(SUB_STEPS)
        force.append(torch.stack([backend.contact_force(n)[0] for n in names]))
    backend.close()
    return {"contact_force": torch.stack(force)}


def slide(engine: str, spec: RobotSpec, seed: int) -> Recording:
    """The way (T, boxes) of flat boxes that were launched along x."""
    boxes = {f"box{i}": _box(0.04, 0.4 * i, 0.5, mu) for i, (_, mu) in enumerate(SLIDES)}
    backend = _build(engine, _scene(boxes), 1)
    backend.step(round(0.5 / DT_S))
    start = {name: backend.pose(name).clone() for name in boxes}
    for (name, pose), (speed, _) in zip(start.items(), SLIDES, strict=True):
        velocity = torch.tensor([[speed, 0.0, 0.0, 0.0, 0.0, 0.0]])
        backend.write_pose(name, pose, velocity, torch.tensor([True]))
    way = []
    for _ in range(round(SLIDE_S * RATE_HZ)):
        backend.step(SUB_STEPS)
        way.append(torch.stack([(backend.pose(name) - pose)[0, 0] for name, pose in start.items()]))
    backend.close()
    return {"way": torch.stack(way)}


def _scene(objects: dict[str, ObjectCfg], sensors: dict[str, ContactSensorCfg] | None = None) -> SceneCfg:
    idle = {"robot": RobotCfg(CARTPOLE, AWAY)}
    return SceneCfg(idle, objects, contact_sensors=sensors or {}, physics_dt_s=DT_S, gravity_mps2=G_MPS2)


def _box(height: float, y: float, mass: float, friction: float = 0.8, drop: float = 0.0) -> ObjectCfg:
    return ObjectCfg(Box((0.1, 0.1, height)), mass, (0.0, y, height / 2 + drop, 0.0, 0.0, 0.0, 1.0), friction=friction)


# --- comparing -----------------------------------------------------------------------------------------------


def checks(recordings: dict[str, Recording], spec: RobotSpec, limits: Tolerances) -> list[Check]:
    """Every engine against mechanics, and every engine but the first against the first."""
    found: list[Check] = []
    first, *others = recordings
    for engine in others:
        found += _free(recordings[first], recordings[engine], f"{first}, {engine}", spec, limits)
    for engine, seen in recordings.items():
        found += _weights(seen, engine, limits) + _ways(seen, engine, limits)
    return found


def _free(ours: Recording, theirs: Recording, engines: str, spec: RobotSpec, limits: Tolerances) -> list[Check]:
    """The worst joint of each kind."""
    apart = (ours["joint_pos"] - theirs["joint_pos"]).abs().amax((0, 1))
    effort = (ours["joint_effort"] - theirs["joint_effort"]).square().mean((0, 1)).sqrt()
    part = torch.where(torch.tensor(spec.effort_limit) > 0.0, effort / torch.tensor(spec.effort_limit), 0.0)
    place, push = int(apart.argmax()), int(part.argmax())
    return [
        Check("free motion", engines, f"largest difference of position, {spec.joint_names[place]}",
              float(apart[place]), limits.joint_pos, "rad or m"),
        Check("free motion", engines, f"difference of effort (rms), {spec.joint_names[push]}",
              float(part[push]), limits.joint_effort, "of its limit"),
    ]  # fmt: skip


def _weights(seen: Recording, engine: str, limits: Tolerances) -> list[Check]:
    last = seen["contact_force"][-round(WEIGHED_S * RATE_HZ) :].double().mean(0)
    found = []
    for force, mass in zip(last, CUBES_KG, strict=True):
        true = torch.tensor([0.0, 0.0, mass * G_MPS2])
        what = f"contact force of a resting cube of {mass:g} kg against m g = {mass * G_MPS2:.2f} N"
        found.append(Check("weight", engine, what, float((force - true).norm() / true[2]), limits.weight, "of m g"))
    return found


def way_m(speed: float, friction: float) -> float:
    """How far a body slides."""
    return speed**2 / (2.0 * friction * G_MPS2)


def _ways(seen: Recording, engine: str, limits: Tolerances) -> list[Check]:
    found = []
    for way, (speed, friction) in zip(seen["way"][-1].tolist(), SLIDES, strict=True):
        true = way_m(speed, friction)
        what = f"way of a box launched at {speed:g} m/s, friction {friction:g}, against {1e3 * true:.1f} mm"
        found.append(Check("sliding", engine, what, abs(way - true) / true, limits.slide, "of the way"))
    return found


# --- in an interpreter of its own ----------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    """Record one engine into a file; what the user got wrong goes to FILE.error as JSON."""
    from safetensors.torch import save_file

    from robolearn.errors import UserError

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("engine")
    parser.add_argument("robot")
    parser.add_argument("seed", type=int)
    parser.add_argument("file", type=Path)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config.discover(("robolearn.robots", "sim.backends"))
    try:
        recording = record(options.engine, options.robot, options.seed)
    except UserError as error:
        options.file.with_suffix(".error").write_text(json.dumps({"text": str(error), "code": error.exit_code}))
        raise SystemExit(error.exit_code) from error
    save_file({k: v.contiguous() for k, v in recording.items()}, options.file)


if __name__ == "__main__":
    main()
