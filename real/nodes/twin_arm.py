"""The twin's robot on an engine: joints that follow their set-points, a driver's watchdog, a gripper at its own pace,
what stands around it, and the force at the tool. No ROS."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from robolearn import config
from robolearn.errors import ConfigError
from robolearn.kinematics import Chain, damped_ik
from robolearn.paths import resolve
from robolearn.rotations import pose_difference, quat_apply, quat_conjugate, quat_mul
from robolearn.spec import RobotSpec
from robolearn.urdf import read_joints
from sim.scene import ContactSensorCfg, RobotCfg, SceneCfg

ROBOT = "robot"
IK_STEPS, IK_DAMPING = 10, 0.02
ROUNDING = 1e-4
"""rad, m: what a measured joint may lie beyond its end."""


def scene_of(robot: RobotSpec, task: str) -> SceneCfg:
    """The scene of a task, for this robot; an empty name is the robot alone. Raises ConfigError."""
    if not task:
        return SceneCfg({ROBOT: RobotCfg(robot)})
    config.discover(("sim.tasks",))
    cfg = config.entry("task", task).config
    scene = config.build(cfg()).scene() if cfg else SceneCfg({})
    has = next((r.spec.name for r in scene.robots.values()), "none")
    if list(scene.robots) != [ROBOT] or has != robot.name:
        raise ConfigError(f"the scene of {task} is of robot {has}, the site's is {robot.name}")
    return dataclasses.replace(scene, cameras={}, markers={}, contact_sensors={})


class Arm:
    """One robot on an engine, with its driver's watchdog."""

    def __init__(self, robot: RobotSpec, engine: str, dt: float, watchdog_s: float | None, task: str = "",
                 feels: bool = False):  # fmt: skip
        """`task`: whose objects stand around it. `feels`: `force` can be read."""
        config.discover(("sim.backends",))
        made = config.entry("backend", engine).config
        if made is None:
            raise ConfigError(f"engine {engine} has no configuration")
        self._felt = tool_links(robot) if feels else ()
        sensors = {link: ContactSensorCfg(f"{ROBOT}/{link}") for link in self._felt}
        scene = dataclasses.replace(scene_of(robot, task), physics_dt_s=dt, contact_sensors=sensors)
        cfg = made()
        if hasattr(cfg, "alone"):  # its processes are for many environments
            cfg.alone = True
        self.backend = config.build(cfg, scene=scene, num_envs=1, device=torch.device("cpu"), seed=0)
        self.objects = tuple(n for n, o in scene.objects.items() if not o.fixed)
        self.robot, self.dt, self.watchdog_s = robot, dt, watchdog_s
        self.chain = Chain(robot.urdf, robot.ee_link, robot.arm_joints)
        self._all = Chain(robot.urdf, robot.ee_link, robot.joint_names)
        self._arm = [robot.joint_names.index(n) for n in robot.arm_joints]
        self._fingers = [robot.joint_names.index(n) for n in robot.gripper_joints]
        self._pace = torch.tensor(robot.of("velocity_limit", robot.gripper_joints)) * dt
        self._ends = [torch.tensor(robot.of(n, robot.arm_joints)) for n in ("lower", "upper")]
        self._all_ends = [torch.tensor(robot.of(n, robot.joint_names)) for n in ("lower", "upper")]
        self.target = torch.tensor([robot.default_joint_pos])
        self._grip = self.target[0, self._fingers]
        self._everyone = torch.ones(1, dtype=torch.bool)
        self.stopped, self._heard_s = False, float("-inf")
        self.place(self.target[0])

    def can_stand(self, position: Tensor) -> bool:
        """Whether joints (J,) are numbers within their ends."""
        low, high = self._all_ends
        return bool(((position >= low - ROUNDING) & (position <= high + ROUNDING)).all())

    def place(self, position: Tensor) -> None:
        """At rest at joints (J,), whatever it did before."""
        self.target = position[None].clone()
        self._grip = self.target[0, self._fingers]
        self.backend.write_joints(ROBOT, self.target, torch.zeros_like(self.target), self._everyone)
        self.backend.forward()

    def put(self, name: str, pose: Tensor) -> None:
        """An object at rest at pose (7,) in the robot's base frame."""
        root = self.backend.pose(ROBOT)
        there = root[:, :3] + quat_apply(root[:, 3:], pose[None, :3])
        pose = torch.cat((there, quat_mul(root[:, 3:], pose[None, 3:])), dim=1)
        self.backend.write_pose(name, pose, torch.zeros(1, 6), self._everyone)
        self.backend.forward()

    def command(self, arm: Tensor, now_s: float) -> None:
        """Set-points (n,) for the arm's joints, cut off at the ends of these."""
        self._heard_s = now_s
        if not self.stopped:
            self.target[0, self._arm] = arm.clamp(*self._ends)

    def grip(self, first: float) -> None:
        """The gripper goes to this position of its first joint, at its own pace; its other joints mirror it."""
        self._grip = torch.full_like(self._grip, first)

    def inverse(self, pose: Tensor) -> Tensor:
        """Set-points (n,) of the arm that bring its tool to pose (7,) in the base frame, or near it, from where its
        set-points stand."""
        joints = self.target[:, self._arm]
        for _ in range(IK_STEPS):
            at, jacobian = self.chain.pose_and_jacobian(joints)
            joints = joints + damped_ik(jacobian, pose_difference(at, pose[None]), IK_DAMPING)
        return joints[0]

    def recover(self) -> None:
        """After the watchdog: it stands where it is, and listens again."""
        self.stopped, self._heard_s = False, float("-inf")

    def advance(self, now_s: float, steps: int) -> None:
        """Physics of so many periods. Commands that stay away for too long stop it where it is."""
        late = self.watchdog_s is not None and self._heard_s > float("-inf") and now_s - self._heard_s > self.watchdog_s
        if late and not self.stopped:
            self.stopped = True
            self.target[0, self._arm] = self.backend.joint_pos(ROBOT)[0, self._arm]
        for _ in range(steps):
            if self._fingers:
                now = self.target[0, self._fingers]
                self.target[0, self._fingers] = now + (self._grip - now).clamp(-self._pace, self._pace)
            self.backend.write_targets(ROBOT, position=self.target)
            self.backend.step(1)

    def joints(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position, velocity, effort, each (J,)."""
        b = self.backend
        position, velocity, effort = (f(ROBOT)[0].numpy() for f in (b.joint_pos, b.joint_vel, b.joint_effort))
        return position, velocity, effort

    def gripper(self) -> tuple[float, float]:
        """Position and speed of its first joint."""
        position, velocity, _ = self.joints()
        return float(position[self._fingers[0]]), float(velocity[self._fingers[0]])

    def pose_of(self, name: str) -> Tensor:
        """(7,) of an object in the robot's base frame."""
        root, pose = self.backend.pose(ROBOT), self.backend.pose(name)
        back = quat_conjugate(root[:, 3:])
        return torch.cat((quat_apply(back, pose[:, :3] - root[:, :3]), quat_mul(back, pose[:, 3:])), dim=1)[0]

    def force(self) -> Tensor:
        """(3,) N, the net contact force on all that hangs on the last joint, in the frame of the tool."""
        net = torch.stack([self.backend.contact_force(link)[0] for link in self._felt]).sum(0)
        root, tool = self.backend.pose(ROBOT)[:, 3:], self._all.pose(self.backend.joint_pos(ROBOT))[:, 3:]
        return quat_apply(quat_conjugate(quat_mul(root, tool)), net[None])[0]


def tool_links(robot: RobotSpec) -> tuple[str, ...]:
    """Links that the arm's last joint and the gripper's joints move."""
    moved = {*robot.arm_joints[-1:], *robot.gripper_joints}
    return tuple(j.child for j in read_joints(resolve(robot.urdf))[1] if j.name in moved)
