"""MuJoCo-Warp against MuJoCo C, on a CPU. The first run compiles kernels for a minute or two."""

import pytest
import torch

from robolearn import config
from sim.backends.mujoco import MujocoCfg
from sim.env import SimEnv
from sim.randomize import RandomizeCfg
from sim.scene import Box, ContactSensorCfg, ObjectCfg, RobotCfg, SceneCfg

pytest.importorskip("mujoco_warp", reason="mujoco_warp is not installed (extra warp)")
pytestmark = pytest.mark.slow

config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
from sim.backends.mujoco_warp import CapacityError, MujocoWarp, MujocoWarpCfg  # noqa: E402

CPU = torch.device("cpu")
EVERYONE = torch.ones(2, dtype=torch.bool)


def cartpole(backend, num_envs=3, device="cpu", **randomize):
    task = config.entry("task", "cartpole").config(randomize=RandomizeCfg(initial_joint_pos=0.1, **randomize))
    return SimEnv(task, backend, num_envs, device, seed=3)


def states(env, periods=20):
    actions = torch.rand(periods, env.num_envs, 1, generator=torch.Generator().manual_seed(1)) * 2 - 1
    env.reset()
    out = []
    for action in actions:
        env.step(action)
        out.append(torch.cat((env.backend.joint_pos("robot"), env.backend.joint_vel("robot")), dim=1).clone())
    return torch.stack(out)


def cube_scene(**kinds):
    robot = RobotCfg(config.entry("robot", "cartpole").value, (0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    cube = ObjectCfg(Box((0.1, 0.1, 0.1)), mass_kg=0.5, pose=(0.0, 0.0, 0.05, 0.0, 0.0, 0.0, 1.0))
    return SceneCfg({"robot": robot}, {"cube": cube}, **kinds)


def world(scene, **sizes):
    return MujocoWarp(MujocoWarpCfg(**sizes), scene, 2, CPU, 0)


def test_cartpole_moves_as_in_mujoco():
    ours, theirs = states(cartpole(MujocoWarpCfg())), states(cartpole(MujocoCfg()))
    assert ours.abs().max() > 0.3  # something moved
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)  # 80 sub-steps in float32 against float64


def test_an_arm_moves_as_in_mujoco():
    """Meshes, gravity feed-forward, gains that act on positions, joint limits."""
    paths = []
    for backend in (MujocoWarpCfg(), MujocoCfg()):
        env = SimEnv(config.entry("task", "franka_reach").config(randomize=RandomizeCfg()), backend, 2)
        env.reset(seed=1)
        actions = torch.rand(15, 2, 7, generator=torch.Generator().manual_seed(2)) * 2 - 1
        paths.append(torch.stack([env.step(a) and env.backend.joint_pos("robot").clone() for a in actions]))
    assert (paths[1][-1] - paths[1][0]).abs().max() > 0.05
    torch.testing.assert_close(*paths, atol=1e-5, rtol=0)


def test_same_seed_same_rollout():
    assert torch.equal(states(cartpole(MujocoWarpCfg())), states(cartpole(MujocoWarpCfg())))


def test_randomised_parameters_act_as_in_mujoco():
    changes = {"mass": (0.5, 2.0), "inertia": (0.5, 2.0), "effort_limit": (0.2, 0.9)}
    ours, theirs = states(cartpole(MujocoWarpCfg(), **changes)), states(cartpole(MujocoCfg(), **changes))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert (ours - states(cartpole(MujocoWarpCfg()))).abs().max() > 0.1


def test_a_state_put_back_continues_bit_by_bit():
    env = cartpole(MujocoWarpCfg())
    env.reset()
    push = torch.full((3, 2), 5.0)
    env.backend.write_targets("robot", effort=push)
    env.backend.step(5)
    state = env.backend.get_state()
    env.backend.step(7)
    after = env.backend.get_state()
    env.backend.step(3)
    env.backend.set_state(state)
    env.backend.step(7)
    assert torch.equal(env.backend.get_state(), after)


def test_a_masked_write_leaves_the_others_alone():
    backend = world(cube_scene())
    backend.step(3)
    before = backend.get_state()
    only = torch.tensor([True, False])
    pose = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]]).expand(2, 7)
    backend.write_pose("cube", pose, torch.zeros(2, 6), only)
    assert torch.equal(backend.get_state()[1], before[1])
    assert torch.equal(backend.pose("cube")[0], pose[0])


def test_a_resting_cube_weighs_m_g_and_twice_that_with_twice_the_mass():
    sensors = {"under": ContactSensorCfg("cube")}
    backend = world(cube_scene(contact_sensors=sensors, randomized=(("cube", "mass"),)))
    backend.set_param("cube", "mass", torch.tensor([1.0, 2.0]), EVERYONE)
    backend.step(240)
    weight = torch.tensor([[0.0, 0.0, 0.5 * 9.81], [0.0, 0.0, 1.0 * 9.81]])
    torch.testing.assert_close(backend.contact_force("under"), weight, atol=0.05, rtol=0.0)


def test_a_wrench_at_the_centre_of_mass_accelerates_by_force_over_mass():
    backend = world(cube_scene(gravity_mps2=0.0, ground=False))
    wrench = torch.tensor([[1.0, -2.0, 3.0, 0.0, 0.0, 0.0]]).expand(2, 6)
    backend.apply_wrench("cube", None, wrench)
    backend.step(24)
    torch.testing.assert_close(backend.velocity("cube")[0, :3], wrench[0, :3] / 0.5 * 24 / 240, atol=1e-4, rtol=1e-4)


def test_too_few_constraints_are_refused_with_the_setting_to_change():
    backend = world(cube_scene(), constraints_per_env=4, check_every=1)
    with pytest.raises(CapacityError, match=r"set backend\.constraints_per_env=8"):
        backend.step(5)


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [False, True])
def test_a_gpu_moves_it_as_the_cpu_does(graph):
    on_gpu = cartpole(MujocoWarpCfg(cuda_graph=graph), device="cuda")
    on_cpu = cartpole(MujocoCfg())
    start = torch.tensor([[0.0, 0.1], [0.1, -0.1], [-0.2, 0.05]])
    for env in (on_gpu, on_cpu):
        env.reset()
        everyone = torch.ones(3, dtype=torch.bool, device=env.device)
        env.backend.write_joints("robot", start.to(env.device), torch.zeros(3, 2, device=env.device), everyone)
        for _ in range(8):
            env.step(torch.full((3, 1), 0.1, device=env.device))
    ours, theirs = (e.backend.joint_pos("robot").cpu() for e in (on_gpu, on_cpu))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
