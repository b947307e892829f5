"""Viscous and Coulomb friction in an arm's joints, which are added and not scaled, in both engines."""

import pytest
import torch

from robolearn import config
from sim.scene import RobotCfg, SceneCfg

config.discover(["robolearn.robots", "sim.backends"])
FRANKA = config.entry("robot", "franka").value
DT, KP, KD = 1.0 / 240.0, 400.0, 60.0  # of the first joint, whose axis is vertical: gravity does not load it


@pytest.fixture(params=["mujoco", "pybullet"])
def arms(request):
    """Four arms at rest that may differ in their friction."""
    if request.param == "pybullet":
        pytest.importorskip("pybullet")
    declared = (("robot", "joint_damping"), ("robot", "joint_friction"))
    scene = SceneCfg({"robot": RobotCfg(FRANKA)}, physics_dt_s=DT, ground=False, randomized=declared)
    cfg = config.entry("backend", request.param).config()
    engine = config.build(cfg, scene=scene, num_envs=4, device=torch.device("cpu"), seed=0)
    rest = torch.tensor(FRANKA.default_joint_pos).expand(4, -1)
    engine.write_joints("robot", rest, torch.zeros_like(rest), torch.ones(4, dtype=torch.bool))
    yield engine
    engine.close()


def friction(engine, param, values):
    engine.set_param("robot", param, torch.tensor(values), torch.ones(4, dtype=torch.bool))


def errors(engine, target):
    return target[:, 0] - engine.joint_pos("robot")[:, 0]


def test_without_a_value_a_joint_is_as_built(arms):
    assert all((value == 0.0).all() for value in arms.params().values())


def test_a_joint_sticks_until_the_torque_exceeds_coulomb_friction(arms):
    friction(arms, "joint_friction", [0.0, 10.0, 20.0, 50.0])
    target = torch.tensor(FRANKA.default_joint_pos).repeat(4, 1)
    target[:, 0] += 0.1  # 40 N m
    arms.write_targets("robot", position=target)
    arms.step(8)
    arms.step(480)
    stuck_at = torch.tensor([0.0, 10.0 / KP, 20.0 / KP, 0.1])
    torch.testing.assert_close(errors(arms, target), stuck_at, rtol=0.0, atol=0.004)


def test_viscous_friction_lengthens_the_lag_of_a_moving_joint(arms):
    damping = [0.0, 3.0, 6.0, 9.0]
    friction(arms, "joint_damping", damping)
    speed, target = 0.2, torch.tensor(FRANKA.default_joint_pos).repeat(4, 1)
    for _ in range(40):
        target = target.clone()
        target[:, 0] += speed * 8 * DT
        arms.write_targets("robot", position=target)
        arms.step(8)
    lag = (KD + torch.tensor(damping)) * speed / KP
    torch.testing.assert_close(errors(arms, target), lag, rtol=0.03, atol=1e-4)
