"""The MuJoCo backend: poses and pictures, saved states, and what it refuses."""

import dataclasses
import math

import mujoco
import numpy as np
import pytest
import torch
from mujoco_worlds import CARTPOLE, DT, FRANKA, UPRIGHT, cube, everyone, random_joints, seeded, world

from robolearn.config import ConfigError
from robolearn.kinematics import Chain
from robolearn.paths import resolve
from robolearn.rotations import from_rotation_vector, quat_mul, quat_to_matrix
from sim.backends.mujoco import Mujoco, MujocoCfg
from sim.scene import CameraCfg, Mesh, ObjectCfg, RobotCfg, SceneCfg, Sphere

# --- kinematics and pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [FRANKA, CARTPOLE], ids=["franka", "cartpole"])
def test_link_poses_are_those_of_the_chain(spec):
    base = (0.3, -0.2, 0.5, *from_rotation_vector(torch.tensor([0.2, -0.5, 0.9])).tolist())
    backend = world({"robot": RobotCfg(spec, base)}, num_envs=8)
    q = random_joints(spec, 8, seeded(5))
    backend.write_joints("robot", q, torch.zeros_like(q), everyone(backend))
    state = backend.get_state()
    names = [backend.model.body(b).name.partition("/")[2] for b in range(1, backend.model.nbody)]
    place, turn = torch.tensor(base[:3]), torch.tensor(base[3:]).expand(8, 4)
    for link in names:
        try:
            local = Chain(spec.urdf, link, spec.joint_names).pose(q)
        except ValueError:
            continue  # fixed to the base: no chain
        pose = backend.body_pose("robot", [link])[:, 0]
        expected = place + (quat_to_matrix(turn) @ local[:, :3, None]).squeeze(-1)
        torch.testing.assert_close(pose[:, :3], expected, atol=2e-6, rtol=0)
        turned = quat_mul(turn, local[:, 3:])
        torch.testing.assert_close((pose[:, 3:] * turned).sum(1).abs(), torch.ones(8), atol=2e-6, rtol=0)
    assert torch.equal(backend.get_state(), state)


def test_reading_poses_between_steps_does_not_change_the_rollout():
    read, unread = (world({"robot": RobotCfg(FRANKA)}, {"cube": cube()}, num_envs=3) for _ in range(2))
    for backend in (read, unread):
        rest = torch.tensor(FRANKA.default_joint_pos).expand(3, -1)
        backend.write_joints("robot", rest, torch.zeros(3, 9), everyone(backend))
        for _ in range(5):
            backend.write_targets("robot", rest + 0.1)
            backend.step(4)
            if backend is read:
                backend.body_pose("robot", ["panda_hand"])
                backend.jacobian("robot", "panda_hand")
    assert torch.equal(read.get_state(), unread.get_state())


def test_the_jacobian_is_the_engines():
    backend = world({"robot": RobotCfg(FRANKA)}, num_envs=1)
    q = random_joints(FRANKA, 1, seeded(6))
    backend.write_joints("robot", q, torch.zeros_like(q), everyone(backend))
    model, data, linear, angular = (
        backend.model,
        mujoco.MjData(backend.model),
        np.zeros((3, 9)),
        np.zeros((3, 9)),
    )
    data.qpos[:] = q[0].double().numpy()
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_jacBody(model, data, linear, angular, model.body("robot/panda_grasptarget").id)
    expected = torch.from_numpy(np.concatenate((linear, angular))).float()
    torch.testing.assert_close(backend.jacobian("robot", "panda_grasptarget")[0], expected, atol=1e-6, rtol=0.0)


def test_a_camera_sees_the_cube_where_its_environment_has_it():
    backend = world(
        objects={"cube": cube(rgba=(1.0, 0.0, 0.0, 1.0))},
        cameras={"view": CameraCfg((0.0, -1.0, 0.5), (0.0, 0.0, 0.05), width=64, height=48)},
    )
    pose = torch.tensor([[0.0, 0.0, 0.05, *UPRIGHT], [9.0, 0.0, 0.05, *UPRIGHT]])
    backend.write_pose("cube", pose, torch.zeros(2, 6), everyone(backend))
    before = backend.get_state()
    try:
        pictures = backend.render("view", [0, 1]).astype(int)
    except Exception as error:
        if type(error).__name__ != "RenderError":
            raise
        pytest.skip(f"no off-screen rendering here: {error}")
    finally:
        unchanged = torch.equal(backend.get_state(), before)
        backend.close()
    assert unchanged
    assert pictures.shape == (2, 48, 64, 3)
    red = (pictures[..., 0] - pictures[..., 1:].max(-1) > 60).sum(axis=(1, 2))
    assert red[0] > 20
    assert red[1] == 0


# --- state and errors ---------------------------------------------------------------------------------------


def test_a_state_with_pushes_fits_an_engine_that_never_pushed_and_back():
    pushed, fresh = (world(objects={"cube": cube()}) for _ in range(2))
    early = pushed.get_state()
    pushed.apply_wrench("cube", None, torch.tensor([[0.5, 0.0, 2.0, 0.0, 0.1, 0.0]]).expand(2, 6))
    pushed.step(7)
    late = pushed.get_state()
    fresh.set_state(late)
    torch.testing.assert_close(fresh.time_s, torch.full((2,), 7 * DT))
    for backend in (pushed, fresh):
        backend.step(9)
    assert torch.equal(fresh.get_state(), pushed.get_state())
    pushed.set_state(early)
    pushed.step(3)
    untouched = world(objects={"cube": cube()})
    untouched.step(3)
    assert torch.equal(pushed.pose("cube"), untouched.pose("cube"))


def test_a_masked_state_leaves_the_others_alone():
    backend = world(objects={"cube": cube(1.0)}, num_envs=3)
    first = backend.get_state()
    backend.step(5)
    second = backend.get_state()
    backend.set_state(first, torch.tensor([False, True, False]))
    assert torch.equal(backend.get_state()[[0, 2]], second[[0, 2]])
    assert torch.equal(backend.get_state()[1], first[1])


def test_a_foreign_state_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\) is not of this scene's 2 environments"):
        world().set_state(torch.zeros(2, 3, dtype=torch.float64))


def test_nothing_of_the_old_episode_is_left_after_a_write():
    backend = world({"robot": RobotCfg(CARTPOLE)})
    backend.write_targets("robot", effort=torch.full((2, 2), 7.0))
    backend.step(2)
    assert backend.joint_effort("robot")[:, 0].tolist() == [7.0, 7.0]
    backend.write_joints("robot", torch.zeros(2, 2), torch.zeros(2, 2), torch.tensor([True, False]))
    assert backend.joint_effort("robot")[:, 0].tolist() == [0.0, 7.0]
    backend.step(1)
    assert backend.joint_effort("robot")[:, 0].tolist() == [0.0, 7.0]


def test_a_written_pose_forgets_the_solvers_past():
    old, new = (world(objects={"cube": cube()}) for _ in range(2))
    turn = from_rotation_vector(torch.tensor([0.1, 0.02, 0.5])).tolist()
    deep, tipped = (torch.tensor([[0.1, 0.2, z, *turn]]).expand(2, 7) for z in (0.03, 0.05))
    old.write_pose("cube", deep, torch.zeros(2, 6), everyone(old))
    old.step(1)  # thrown out of the ground
    for backend in (old, new):
        backend.write_pose("cube", tipped, torch.zeros(2, 6), everyone(backend))
    assert torch.equal(old.get_state()[:, 1:], new.get_state()[:, 1:])  # all but the time


def test_velocities_beyond_reason_are_not_finite():
    backend = world({"robot": RobotCfg(CARTPOLE)}, num_envs=3)
    speed = torch.tensor([[0.0, 0.0], [math.nan, 0.0], [0.0, 1e7]])
    backend.write_joints("robot", torch.zeros(3, 2), speed, everyone(backend))
    assert backend.finite().tolist() == [True, False, False]


def test_a_gpu_is_refused_with_the_backend_to_use():
    with pytest.raises(ConfigError, match="use backend=mujoco_warp"):
        Mujoco(MujocoCfg(), SceneCfg({}), 1, torch.device("cuda"), 0)


def test_there_are_at_most_as_many_threads_as_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 3}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert [world(threads=n).threads for n in (0, 1, 2, 99999)] == [2, 1, 2, 2]


def test_negative_threads_are_refused():
    with pytest.raises(ConfigError, match=r"threads must be 0 .* got -1"):
        MujocoCfg(threads=-1)


def test_a_missing_mesh_is_named(tmp_path):
    urdf = tmp_path / "robot.urdf"
    urdf.write_text(
        '<robot name="r"><link name="base"/><link name="arm"><inertial><mass value="1"/>'
        '<inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial><collision><geometry>'
        '<mesh filename="meshes/none.stl"/></geometry></collision></link>'
        '<joint name="slider" type="prismatic">'
        '<parent link="base"/><child link="arm"/><axis xyz="1 0 0"/></joint></robot>'
    )
    spec = dataclasses.replace(CARTPOLE, urdf=str(urdf))
    with pytest.raises(ConfigError, match=r"robot\.urdf names a mesh that is not there: .*none\.stl"):
        world({"robot": RobotCfg(spec)})
    with pytest.raises(FileNotFoundError, match=r"none\.stl"):
        world(objects={"thing": ObjectCfg(Mesh(str(tmp_path / "none.stl")))})


def test_a_body_without_mass_is_named(tmp_path):
    urdf = tmp_path / "cartpole.urdf"
    urdf.write_text(resolve(CARTPOLE.urdf).read_text().replace('<mass value="0.2"/>', '<mass value="0"/>'))
    with pytest.raises(ConfigError, match=r"refuses the scene: .*mass and inertia of moving bodies.*robot/pole"):
        world({"robot": RobotCfg(dataclasses.replace(CARTPOLE, urdf=str(urdf)))})
    with pytest.raises(ValueError, match="a free object needs a positive mass, got 0"):
        ObjectCfg(Sphere(0.1), mass_kg=0.0)


def test_a_joint_that_the_urdf_lacks_is_named():
    spec = dataclasses.replace(CARTPOLE, joint_names=("slider", "elbow"))
    with pytest.raises(ConfigError, match=r"no joints \['elbow'\]; it has \['hinge', 'slider'\]"):
        world({"robot": RobotCfg(spec)})
