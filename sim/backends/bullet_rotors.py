"""How a worker's quadrotors fly: rotors and firmware of a QuadrotorSpec in numpy, beside Bullet's rigid body.

Written apart from the kernels of sim/vehicles, so that one can be checked by the other. Each rotor's thrust is a force
where the rotor is. Bullet integrates by semi-implicit Euler, which is of first order: its steps are therefore at most
`bullet_plan.FLYING_STEP_S` long, whatever the task's are. Rotors turn within such a step as a first-order lag does,
exactly, and push with their speed in its middle. Firmware, link and battery go by the task's step. The ground is met by
the URDF's collision shape. No torch here.
"""

from __future__ import annotations

import math

import numpy as np

from robolearn.errors import ConfigError
from robolearn.optional import lazy
from robolearn.spec import FirmwareSpec, QuadrotorSpec
from sim.backends.bullet_plan import Layout, Plan
from sim.backends.bullet_world import BASE, World

pybullet = lazy("pybullet", extra="bullet")
FULL_COUNTS = 65535.0
CLOCK, ATTITUDE, LINK, AREAS, GYRO = slice(0, 1), slice(1, 2), slice(2, 6), slice(6, 11), slice(11, 14)
"""Columns of `Layout.flight`: seconds of flight; whether attitudes are commanded; the command that the firmware has;
its integrals of roll, pitch (deg s) and the three rates (deg); and the last rates (deg/s)."""


class RotorLaw:
    """Four thrusts, reactions and drag on the base of one robot in each world."""

    def __init__(self, worlds: list[World], rows: np.ndarray, layout: Layout, name: str, plan: Plan):
        spec = plan.robots[name].spec
        assert spec.quadrotor is not None
        self.worlds, self.rows, self.layout, self.name = worlds, rows, layout, name
        self.vehicle, self.dt, self.split = spec.quadrotor, plan.dt_s, plan.split
        self.body = [w.parts[name].body for w in worlds]
        self.arms = np.array([[x, y, 0.0] for x, y in self.vehicle.rotor_xy_m])
        self.spin = np.array(self.vehicle.rotor_spin)
        self.firmware = Firmware(self.vehicle, self.vehicle.firmware) if self.vehicle.firmware else None
        if worlds:
            _require_same_body(worlds[0], name, self.vehicle)

    def begin(self, live: list[int]) -> None:
        layout, name = self.layout, self.name
        self.live = live
        rows = self.rows[live]
        self.speeds = np.split(rows[:, layout.joints[name]], 2, axis=1)[1]
        self.root = rows[:, layout.roots[name]]
        self.flight = rows[:, layout.flight[name]]
        self.turn = matrices(self.root[:, 3:7])
        self.rotor_command = rows[:, layout.feed_velocity[name]].clip(0.0, self.vehicle.max_speed_radps)
        self.attitude_command = rows[:, layout.feed_effort[name]]
        self.lift, self.reaction, self.up, self.down, self.drag, self.sag, self.delay = (
            self._scale(rows, p)
            for p in ("thrust", "reaction_torque", "spin_up", "spin_down", "drag", "sag", "link_delay")
        )

    def _scale(self, rows: np.ndarray, param: str) -> np.ndarray:
        """(E, 1)."""
        at = self.layout.params.get(f"{self.name}.{param}")
        return np.ones((len(rows), 1)) if at is None else rows[:, at]

    def apply(self, k: int, n: int) -> None:
        if (k - 1) % self.split == 0:
            self._decide((k - 1) // self.split, n // self.split)
        h = self.dt / self.split
        middle = self._spun(0.5 * h)
        self._push(middle)
        self.speeds = self._spun(h)

    def _decide(self, step: int, steps: int) -> None:
        """Rotor set-points (E, 4) of one of the task's steps, 0 ... steps - 1 in its period."""
        flight = self.flight
        wanted = self.rotor_command
        if self.firmware is not None and flight[:, ATTITUDE].any():
            wait = np.minimum(np.floor(self.delay * self.firmware.spec.link_delay_s / self.dt + 1e-6), steps - 1)
            arrived = (step >= wait) & (flight[:, ATTITUDE] > 0.0)
            flight[:, LINK] = np.where(arrived, self.attitude_command, flight[:, LINK])
            by_firmware = self.firmware(flight, self.turn, self.root[:, 10:13], self.dt)
            wanted = np.where(flight[:, ATTITUDE] > 0.0, by_firmware, wanted)
        v = self.vehicle
        load = self._thrust(self.speeds).sum(1, keepdims=True) / v.full_thrust_n
        lost = self.sag * (v.sag_per_s * flight[:, CLOCK] + v.sag_at_full_thrust * load)
        self.target = np.minimum(wanted, v.max_speed_radps) * np.maximum(0.0, 1.0 - lost)
        flight[:, CLOCK] += self.dt

    def _spun(self, seconds: float) -> np.ndarray:
        """The rotor speeds so much later."""
        v, rising = self.vehicle, self.target > self.speeds
        constant = np.where(rising, v.spin_up_s * self.up, v.spin_down_s * self.down)
        return self.target + (self.speeds - self.target) * np.exp(-seconds / constant)

    def _thrust(self, speeds: np.ndarray) -> np.ndarray:
        """Nominal, N."""
        a, b, c = self.vehicle.thrust_curve
        return a + b * speeds + c * speeds**2

    def _push(self, speeds: np.ndarray) -> None:
        turn, v = self.turn, self.vehicle
        thrust = self.lift * self._thrust(speeds)
        z = turn[:, :, 2]
        along = np.array([v.drag_kg[0], v.drag_kg[0], v.drag_kg[1]])
        seen = np.einsum("eji,ej->ei", turn, self.root[:, 7:10])
        air = -self.drag * speeds.sum(1, keepdims=True) * np.einsum("eij,ej->ei", turn, along * seen)
        twist = self.reaction * v.torque_per_thrust_m * (thrust @ self.spin)[:, None] * z
        places = self.root[:, None, :3] + np.einsum("eij,rj->eri", turn, self.arms)
        forces = thrust[:, :, None] * z[:, None] + 0.25 * air[:, None]
        push, frame = pybullet.applyExternalForce, pybullet.WORLD_FRAME
        for row, i in enumerate(self.live):
            body, c = self.body[i], self.worlds[i].client
            for force, place in zip(forces[row].tolist(), places[row].tolist(), strict=True):
                push(body, BASE, force, place, frame, physicsClientId=c)
            pybullet.applyExternalTorque(body, BASE, twist[row].tolist(), frame, physicsClientId=c)

    def measure(self) -> None:
        for row, i in enumerate(self.live):
            world = self.worlds[i]
            self.root[row] = world._root(world.parts[self.name])
        self.turn = matrices(self.root[:, 3:7])

    def end(self) -> None:
        layout, name = self.layout, self.name
        self.rows[self.live, layout.joints[name]] = np.concatenate((np.zeros_like(self.speeds), self.speeds), axis=1)
        self.rows[self.live, layout.flight[name]] = self.flight


class Firmware:
    """The Crazyflie's cascade: PI of roll and pitch, PID of the rates, mixer for a cross; degrees and motor counts."""

    def __init__(self, vehicle: QuadrotorSpec, spec: FirmwareSpec):
        self.spec, self.curve = spec, vehicle.thrust_curve
        signs = np.sign(np.array(vehicle.rotor_xy_m))
        self.mixer = np.stack((0.5 * signs[:, 1], -0.5 * signs[:, 0], np.array(vehicle.rotor_spin)), axis=1)
        kp, ki, kd, limit = spec.rate
        yaw_kp, yaw_ki, yaw_limit = spec.yaw_rate
        self.kp, self.ki, self.kd = (np.array(g) for g in ((kp, kp, yaw_kp), (ki, ki, yaw_ki), (kd, kd, 0.0)))
        self.most = np.array([spec.angle[2], spec.angle[2], limit, limit, yaw_limit])

    def __call__(self, flight: np.ndarray, turn: np.ndarray, spin: np.ndarray, dt: float) -> np.ndarray:
        """Rotor set-points (E, 4), rad/s, for `flight`'s command at attitudes (E, 3, 3) and angular velocities (E, 3)
        of the world; the firmware's memory in `flight` goes on."""
        roll = np.arctan2(turn[:, 2, 1], turn[:, 2, 2])
        pitch = -np.arcsin(turn[:, 2, 0].clip(-1.0, 1.0))
        rates = np.degrees(np.einsum("eji,ej->ei", turn, spin))
        aim, areas, last = flight[:, LINK], flight[:, AREAS], flight[:, GYRO]
        counts = self._counts(aim[:, 3])[:, None]
        tilt = np.degrees(aim[:, :2] - np.stack((roll, pitch), axis=1))
        kp, ki, limit = self.spec.angle
        leaned = (areas[:, :2] + tilt * dt).clip(-limit, limit)
        wanted = np.concatenate((kp * tilt + ki * leaned, np.degrees(aim[:, 2:3])), axis=1)
        error = wanted - rates
        turned = (areas[:, 2:] + error * dt).clip(-self.most[2:], self.most[2:])
        effort = self.kp * error + self.ki * turned - self.kd * (rates - last) / dt
        motors = (counts + effort @ self.mixer.T).clip(0.0, FULL_COUNTS)
        runs = counts > 0.0
        flight[:, AREAS] = np.where(runs, np.concatenate((leaned, turned), axis=1), 0.0)
        flight[:, GYRO] = rates
        speeds = self.spec.speed_offset_radps + self.spec.speed_per_count_radps * motors
        return np.where(runs & (motors > 0.0), speeds, 0.0)

    def _counts(self, thrust: np.ndarray) -> np.ndarray:
        a, b, c = self.curve
        lift = np.maximum(0.0, thrust / 4.0 - a)
        speed = (np.sqrt(b * b + 4.0 * c * lift) - b) / (2.0 * c)
        counts: np.ndarray = (speed - self.spec.speed_offset_radps) / self.spec.speed_per_count_radps
        return counts.clip(0.0, FULL_COUNTS)


def matrices(quat: np.ndarray) -> np.ndarray:
    """(E, 3, 3) from (E, 4) xyzw."""
    u, w = quat[:, :3], quat[:, 3]
    cross = np.zeros((len(quat), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = u
    cross[:, [1, 2, 0], [2, 0, 1]] = -u
    outer = u[:, :, None] * u[:, None, :]
    square = (w * w - (u * u).sum(1))[:, None, None]
    return square * np.eye(3) + 2.0 * (outer + w[:, None, None] * cross)


def _require_same_body(world: World, name: str, vehicle: QuadrotorSpec) -> None:
    """ConfigError if the URDF's base is not the specification's rigid body."""
    part = world.parts[name]
    mass, inertia = part.dynamics[BASE][0], part.dynamics[BASE][2]
    pairs = [("mass", mass, vehicle.mass_kg)]
    pairs += [(f"inertia about {a}", i, j) for a, i, j in zip("xyz", inertia, vehicle.inertia_kgm2, strict=True)]
    for what, urdf, spec in pairs:
        if not math.isclose(urdf, spec, rel_tol=1e-3):
            raise ConfigError(f"{world.plan.robots[name].spec.urdf}: its {what} is {urdf:.4g}, the robot's {spec:.4g}")
