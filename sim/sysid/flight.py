"""A quadrotor's log, replayed in an engine.

A flight shows ratios only: thrust, inertia and drag over the mass. With the vehicle's weighed mass, `thrust` is sought;
without, the thrust is taken as specified and `mass` is sought.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robolearn import config
from robolearn.errors import ConfigError, unknown
from robolearn.rotations import from_rotation_vector, quat_apply, quat_conjugate, quat_mul, rotation_vector
from robolearn.spec import QuadrotorSpec, RobotSpec
from sim.backends.base import Backend, BackendCfg
from sim.backends.quadrotor import Quadrotor
from sim.scene import Param, RobotCfg, SceneCfg
from sim.sysid.fit import Parameter
from sim.sysid.log import Log

ENGINE: tuple[Param, ...] = (
    "mass", "inertia", "thrust", "reaction_torque", "spin_up", "spin_down", "drag", "sag", "link_delay",
)  # fmt: skip
HELD = ("sag", "drag")
"""Scales that may be given instead of being sought."""
MEASURED = ("position", "rotation", "velocity", "rates")


def parameters(spec: RobotSpec, weighed: bool, attitude: bool, held: dict[str, float]) -> tuple[Parameter, ...]:
    assert spec.quadrotor is not None
    delay = spec.quadrotor.firmware.link_delay_s if spec.quadrotor.firmware and attitude else 0.0
    unit = "x specified"
    sought = [
        Parameter("delay_s", "s", delay, 0.0, 0.06, 0.001),
        Parameter("thrust" if weighed else "mass", unit, 1.0, 0.6, 1.7, 0.01, log=True),
        Parameter("inertia", unit, 1.0, 0.25, 5.0, 0.01, log=True),
        Parameter("reaction_torque", unit, 1.0, 0.25, 4.0, 0.01, log=True),
        Parameter("spin_up", unit, 1.0, 0.15, 3.0, 0.01, log=True),
        Parameter("spin_down", unit, 1.0, 0.15, 3.0, 0.01, log=True),
    ]
    if "drag" not in held and max(spec.quadrotor.drag_kg) > 0.0:
        sought.append(Parameter("drag", unit, 1.0, 0.0, 5.0, 0.1))
    if attitude:
        sought += [Parameter(f"trim.{axis}", "rad", 0.0, -0.15, 0.15, 0.002) for axis in ("roll", "pitch")]
    return tuple(sought)


def scene(spec: RobotSpec, period_s: float) -> SceneCfg:
    """The vehicle alone; the firmware's step, or a shorter one that divides the log's period."""
    firmware = spec.quadrotor.firmware if spec.quadrotor else None
    longest = 1.0 / firmware.rate_hz if firmware else 0.002
    step = period_s / math.ceil(period_s / longest - 1e-6)
    declared = tuple(("robot", p) for p in ENGINE)
    return SceneCfg({"robot": RobotCfg(spec)}, physics_dt_s=step, ground=False, randomized=declared)


class FlightReplay:
    """Fulfils `fit.Replay`: position, rotation (as a vector, body frame), velocity and rates. A start is these, and
    what nobody measures: rotor speeds, and the integrals of the firmware where that flies."""

    tries = 4

    def __init__(self, log: Log, spec: RobotSpec, backend: BackendCfg, weighed_kg: float | None = None,
                 held: dict[str, float] | None = None, window_s: float = 0.6):  # fmt: skip
        assert spec.quadrotor is not None
        self.spec, self.vehicle, self.backend, self.period_s = spec, spec.quadrotor, backend, log.period_s
        self.attitude = "attitude_command" in log.columns
        self.held = dict.fromkeys(ENGINE, 1.0) | (held or {}) | {"link_delay": 0.0}  # the delay is ours, continuous
        for name, value in (held or {}).items():
            if name not in HELD:
                raise ConfigError(unknown("parameter to hold", name, list(HELD)))
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"hold.{name} must be a finite number of at least 0, got {value:g}")
        if weighed_kg is not None:
            _demand_weight(weighed_kg, self.vehicle)
            self.held["mass"] = weighed_kg / self.vehicle.mass_kg
        self.parameters = parameters(spec, weighed_kg is not None, self.attitude, held or {})
        at, self.rows = log.windows(window_s)
        self.first = torch.from_numpy(at)
        columns = {n: torch.from_numpy(v).float() for n, v in log.columns.items()}
        self.command = columns[log.command].double()
        self._aims, self._rates = torch.rad2deg(self.command.float()), torch.rad2deg(columns["rates"])
        self._angles = torch.rad2deg(torch.stack(roll_pitch(columns["rotation"]), dim=1))
        self.area = torch.cat((torch.zeros(1, 4), self.command.cumsum(0)))  # of the command, in periods
        self.measured = [torch.stack([columns[n][i : i + self.rows] for i in at]) for n in MEASURED]
        position, rotation, velocity, rates = self.measured
        turned = rotation_vector(quat_mul(quat_conjugate(rotation[:1, :1].expand_as(rotation)), rotation))
        self.signal = torch.cat((position, turned, velocity, rates), dim=2)
        self.channels = tuple(f"{n}.{axis}" for n in MEASURED for axis in "xyz")
        self.counted = torch.ones(self.rows, 12, dtype=torch.bool)
        self._modes = rotor_modes(self.vehicle)
        self.start_step, self.start_spread = start_scales(self.vehicle, self.attitude)
        if self.attitude and self.vehicle.firmware:
            rough = self._angles.diff(dim=0).diff(dim=0).std(0) / math.sqrt(6.0)
            walk = rough * self.period_s * math.sqrt(len(self.command))  # of the noise, summed up
            *_, widest = self.vehicle.firmware.rate
            self.start_spread[16:] = torch.cat((1.0 + 2.5 * walk, torch.full((3,), 0.5 * widest)))
        self._rotors = self._first_rotors()
        self._engines: dict[int, Backend] = {}

    def _first_rotors(self) -> Tensor:
        """(W, 4): a first-order lag of the commanded speeds, or hovering."""
        hover = torch.full((4,), self.vehicle.hover_speed_radps)
        if self.attitude:
            return hover.repeat(len(self.first), 1)
        speed, out = self.command[0], []
        for row in self.command:
            out.append(speed)
            speed = speed + (row - speed) * (1.0 - math.exp(-self.period_s / self.vehicle.spin_up_s))
        return torch.stack(out)[self.first].float()

    def _engine(self, num_envs: int) -> Backend:
        if num_envs not in self._engines:
            made = scene(self.spec, self.period_s)
            self._engines[num_envs] = config.build(
                self.backend, scene=made, num_envs=num_envs, device=torch.device("cpu"), seed=0
            )
        return self._engines[num_envs]

    def errors(self, theta: Tensor, offset: Tensor) -> Tensor:
        c, w = offset.shape[:2]
        engine = self._engine(c * w)
        values = {p.name: v.repeat_interleave(w) for p, v in zip(self.parameters, theta.unbind(1), strict=True)}
        put(engine, self.held | values)
        self._start(engine, offset.float(), self._areas(theta.float(), c))
        sub_steps = round(self.period_s / engine.scene.physics_dt_s)
        delay, first = values["delay_s"] / self.period_s, self.first.repeat(c)
        trim = trims(values, c * w)
        seen = [self._seen(engine)]
        for k in range(self.rows - 1):
            for j in range(sub_steps):
                begin = first + (k + j / sub_steps) - delay
                command(engine, self.attitude, self._mean(begin, 1.0 / sub_steps) + trim)
                engine.step(1)
            seen.append(self._seen(engine))
        return self._less(torch.stack(seen, dim=1).unflatten(0, (c, w)))

    def _mean(self, begin: Tensor, length: float) -> Tensor:
        """(B, 4): the command's mean over a stretch, in periods: smooth in the delay, as the command is not."""
        return (self._upto(begin + length) - self._upto(begin)) / length

    def _upto(self, at: Tensor) -> Tensor:
        row = at.floor().long().clamp(0, len(self.command) - 1)
        return self.area[row] + self.command[row] * (at - row)[:, None]

    def _areas(self, theta: Tensor, c: int) -> Tensor:
        """(C, W, 5): the firmware's integrals at the windows' starts, by its own law from what was commanded and
        measured until then; zero at the log's start. Those of the rates are a guess only: they see the noise, and the
        trim, twice integrated."""
        firmware = self.vehicle.firmware
        if not self.attitude or firmware is None:
            return torch.zeros(c, len(self.first), 5)
        values = dict(zip((p.name for p in self.parameters), theta.unbind(1), strict=True))
        trim, dt = torch.rad2deg(torch.stack((values["trim.roll"], values["trim.pitch"]), dim=1)), self.period_s
        (kp, ki, most), (*_, widest), (*_, yaw_most) = firmware.angle, firmware.rate, firmware.yaw_rate
        limit = torch.tensor([widest, widest, yaw_most])
        tilt, plain, turn, out = torch.zeros(c, 2), torch.zeros(2), torch.zeros(3), []
        for aim, angle, rate in zip(self._aims, self._angles, self._rates, strict=True):
            out.append(torch.cat((tilt, turn.expand(c, 3)), dim=1))
            error = aim[:2] + trim - angle
            tilt = (tilt + dt * error).clamp(-most, most)
            plain = (plain + dt * (aim[:2] - angle)).clamp(-most, most)
            wanted = torch.cat((kp * (aim[:2] - angle) + ki * plain, aim[2:3]))
            turn = (turn + dt * (wanted - rate)).clamp(-limit, limit)
        return torch.stack(out, dim=1)[:, self.first]

    def _start(self, engine: Backend, offset: Tensor, areas: Tensor) -> None:
        c, w = offset.shape[:2]
        moved = offset.flatten(0, 1)
        position, rotation, velocity, rates = (m[:, 0].repeat(c, 1) for m in self.measured)
        rotation = quat_mul(rotation, from_rotation_vector(moved[:, 3:6]))
        turning = quat_apply(rotation, rates + moved[:, 9:12])
        everyone = torch.ones(c * w, dtype=torch.bool)
        motion = torch.cat((velocity + moved[:, 6:9], turning), dim=1)
        rotors = (self._rotors.repeat(c, 1) + moved[:, 12:16] @ self._modes).clamp(0.0, self.vehicle.max_speed_radps)
        engine.write_joints("robot", torch.zeros_like(rotors), rotors, everyone)
        engine.write_pose("robot", torch.cat((position + moved[:, :3], rotation), dim=1), motion, everyone)
        if isinstance(engine, Quadrotor):
            engine.state[:, engine.kernels.CLOCK] = (self.first * self.period_s).repeat(c).float()
            if self.attitude:
                engine.memory[:, :5] = areas.flatten(0, 1) + moved[:, 16:]

    def _seen(self, engine: Backend) -> Tensor:
        """(B, 13): pose, velocity, rates in the body frame."""
        pose, velocity = engine.pose("robot"), engine.velocity("robot")
        rates = quat_apply(quat_conjugate(pose[:, 3:]), velocity[:, 3:])
        return torch.cat((pose, velocity[:, :3], rates), dim=1)

    def _less(self, seen: Tensor) -> Tensor:
        """Less what was measured, (C, W, L, 12)."""
        position, rotation, velocity, rates = self.measured
        back = quat_conjugate(rotation).expand(*seen.shape[:3], 4)
        turned = rotation_vector(quat_mul(back, seen[..., 3:7]))
        return torch.cat((seen[..., :3] - position, turned, seen[..., 7:10] - velocity, seen[..., 10:] - rates), dim=-1)

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()


def _demand_weight(weighed_kg: float, vehicle: QuadrotorSpec) -> None:
    if not 0.2 < weighed_kg / vehicle.mass_kg < 5.0:
        raise ConfigError(
            f"mass_kg={weighed_kg:g} is far from the {vehicle.mass_kg:g} kg that are specified; give kilograms"
        )


def roll_pitch(q: Tensor) -> tuple[Tensor, Tensor]:
    """Of the z-y-x Euler angles, rad."""
    x, y, z, w = q.unbind(-1)
    return torch.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)), (2 * (w * y - z * x)).clamp(-1, 1).asin()


def rotor_modes(vehicle: QuadrotorSpec) -> Tensor:
    """(4, rotors): changes of the speeds that lift, roll, pitch and yaw. Rotor by rotor, the tilt that one causes would
    drown its lift in a difference."""
    x, y = torch.tensor(vehicle.rotor_xy_m).sign().unbind(1)
    return torch.stack((torch.ones(4), y, -x, torch.tensor(vehicle.rotor_spin)))


def start_scales(vehicle: QuadrotorSpec, attitude: bool) -> tuple[Tensor, Tensor]:
    """Steps of the differences and spreads of a start: position, rotation, velocity, rates, rotors' modes, and the
    firmware's integrals (deg s, deg)."""
    hover = vehicle.hover_speed_radps
    steps = [0.01] * 3 + [0.003] * 3 + [0.02] * 6 + [0.005 * hover, 3e-5 * hover, 3e-5 * hover, 0.003 * hover]
    spreads = [1.0] * 3 + [0.5] * 3 + [2.0] * 3 + [5.0] * 3 + [0.15 * hover] * 4
    hidden = 5 * attitude
    return torch.tensor(steps + [0.2] * hidden), torch.tensor(spreads + [1.0] * hidden)


def trims(values: dict[str, Tensor], num_envs: int) -> Tensor:
    """(B, 4) added to an attitude command."""
    zero = torch.zeros(num_envs)
    return torch.stack((values.get("trim.roll", zero), values.get("trim.pitch", zero), zero, zero), dim=1)


def put(engine: Backend, values: dict[str, Tensor | float]) -> None:
    """Scales by name, (B,) or for all."""
    everyone = torch.ones(engine.num_envs, dtype=torch.bool)
    for param in ENGINE:
        scale = torch.as_tensor(values[param], dtype=torch.float32).expand(engine.num_envs)
        engine.set_param("robot", param, scale.clone(), everyone)


def command(engine: Backend, attitude: bool, value: Tensor) -> None:
    """(B, 4) for the next sub-step."""
    if attitude:
        engine.write_attitude("robot", value.float())
    else:
        engine.write_targets("robot", velocity=value.float())
