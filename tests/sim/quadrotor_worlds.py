"""A quadrotor in the air, as several test files build it, and a second model of it to compare with."""

from dataclasses import replace

import numpy as np
import torch

from robolearn.robots.crazyflie import CRAZYFLIE
from sim.backends.quadrotor import Quadrotor, QuadrotorCfg
from sim.scene import RobotCfg, SceneCfg

CPU = torch.device("cpu")
VEHICLE = replace(CRAZYFLIE.quadrotor, drag_kg=(0.0, 0.0), sag_per_s=0.0, sag_at_full_thrust=0.0)
"""Without drag and sag."""
HOVER = VEHICLE.hover_speed_radps
LEVEL = (0.0, 0.0, 0.0, 1.0)
TILTED = (0.3, -0.2, 0.5, 0.7874007874011811)
"""No two numbers alike: a mistaken order shows."""


def scene_of(vehicle=VEHICLE, dt=0.002, ground=False, **more):
    robot = replace(CRAZYFLIE, quadrotor=vehicle)
    return SceneCfg({"robot": RobotCfg(robot, (0.0, 0.0, 1.0, *LEVEL))}, physics_dt_s=dt, ground=ground, **more)


def fly(vehicle=VEHICLE, num_envs=1, dt=0.002, **more):
    return Quadrotor(QuadrotorCfg(), scene_of(vehicle, dt, **more), num_envs, CPU, 0)


def start(engine, position=(0.0, 0.0, 1.0), quat=LEVEL, linear=(0.0,) * 3, angular=(0.0,) * 3, rotors=0.0, mask=None):
    """Put the masked copies (all by default) somewhere; velocities are the world's."""
    b = engine.num_envs
    mask = torch.ones(b, dtype=torch.bool) if mask is None else mask
    speeds = torch.as_tensor(rotors, dtype=torch.float32).expand(b, 4)
    engine.write_joints("robot", torch.zeros(b, 4), speeds, mask)
    pose, velocity = torch.tensor([[*position, *quat]]), torch.tensor([[*linear, *angular]])
    engine.write_pose("robot", pose.expand(b, 7), velocity.expand(b, 6), mask)


def command(engine, speeds):
    rotors = torch.as_tensor(speeds, dtype=torch.float32).expand(engine.num_envs, 4)
    engine.write_targets("robot", velocity=rotors)


def rotation(q):
    """Matrix of a quaternion xyzw, by the sum over its generator."""
    x, y, z, w = q / np.linalg.norm(q)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * k + 2 * k @ k


class Reference:
    """Classical RK4 in float64 on all 17 numbers, rotors included; its own steps are `dt`."""

    def __init__(self, vehicle, dt, force=(0.0,) * 3, torque=(0.0,) * 3, gravity=9.81):
        self.vehicle, self.dt, self.gravity = vehicle, dt, gravity
        self.force, self.torque = np.array(force), np.array(torque)  # world frame
        self.arms = np.array([[x, y, 0.0] for x, y in vehicle.rotor_xy_m])
        self.inertia = np.diag(vehicle.inertia_kgm2)
        self.x = np.zeros(17)
        self.x[6] = 1.0

    def rate(self, x, target):
        v = self.vehicle
        q, w, rotors = x[3:7], x[10:13], x[13:]
        turn = rotation(q)
        a, b, c = v.thrust_curve
        lift = a + b * rotors + c * rotors**2
        air = -np.array([v.drag_kg[0], v.drag_kg[0], v.drag_kg[1]]) * rotors.sum() * (turn.T @ x[7:10])
        up = np.outer(lift, [0.0, 0.0, 1.0])
        torque = np.cross(self.arms, up).sum(0) + turn.T @ self.torque
        torque[2] += v.torque_per_thrust_m * np.dot(v.rotor_spin, lift)
        accel = (turn @ (up.sum(0) + air) + self.force) / v.mass_kg - [0.0, 0.0, self.gravity]
        spin = np.linalg.solve(self.inertia, torque - np.cross(w, self.inertia @ w))
        wx, wy, wz = w
        half = 0.5 * np.array([[0, wz, -wy, wx], [-wz, 0, wx, wy], [wy, -wx, 0, wz], [-wx, -wy, -wz, 0]])
        tau = np.where(target > rotors, v.spin_up_s, v.spin_down_s)
        return np.concatenate((x[7:10], half @ q, accel, spin, (target - rotors) / tau))

    def run(self, target, seconds):
        h = self.dt
        for _ in range(round(seconds / h)):
            k1 = self.rate(self.x, target)
            k2 = self.rate(self.x + h / 2 * k1, target)
            k3 = self.rate(self.x + h / 2 * k2, target)
            k4 = self.rate(self.x + h * k3, target)
            self.x = self.x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            self.x[3:7] /= np.linalg.norm(self.x[3:7])
        return self.x
