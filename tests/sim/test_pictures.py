"""Pictures as observations: MuJoCo and PyBullet, from state to tensor."""

import dataclasses

import pytest
import torch

pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from picture_worlds import CAMERAS, CUBE, EDGE, ENGINES, B, pictures, push, worlds

from robolearn import config
from robolearn.errors import ConfigError
from robolearn.rotations import quat_apply, quat_conjugate
from sim.backends.mjstudio import Sketcher
from sim.backends.mujoco import Mujoco, MujocoCfg
from sim.cameras import optical_pose
from sim.randomize import RandomizeCfg
from sim.scene import Box, CameraCfg, ObjectCfg, RobotCfg, SceneCfg


@pytest.fixture
def make():
    """make(engine, looks=..., **task settings) -> a SimEnv, closed with the test."""
    with worlds() as build:
        yield build


def watch(env, monkeypatch):
    """The environments of every call for pictures from now on."""
    calls, images = [], env.backend.images
    monkeypatch.setattr(env.backend, "images", lambda c, ids: calls.append((tuple(c), list(ids))) or images(c, ids))
    return calls


# --- in the environment -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_the_observation_is_what_the_camera_sees_of_that_state(make, engine):
    env = make(engine)
    obs, _ = env.reset(seed=3)
    for _ in range(2):
        for name, seen in pictures(obs).items():
            assert seen.dtype == torch.uint8 and seen.shape == (B, *env.observation_spec.shapes()[f"policy/{name}"])
            assert torch.equal(seen, torch.from_numpy(env.backend.render(name, range(B))))
            assert len({picture.numpy().tobytes() for picture in seen}) == B  # they stand differently
        obs = env.step(push(env))[0]


def test_only_what_ended_is_drawn_again_and_the_last_picture_stays(make, monkeypatch):
    env = make()
    env.reset(seed=3)
    env.episode_limit_buf[1] = 2
    env.step(push(env))
    calls = watch(env, monkeypatch)
    obs, _, _, truncated, extras = env.step(push(env))
    assert truncated.tolist() == [False, True, False, False]
    assert calls == [(("front", "riding"), [0, 1, 2, 3]), (("front", "riding"), [1])]
    for name, seen in pictures(obs).items():
        final = pictures(extras["final_obs"])[name]
        assert torch.equal(seen, torch.from_numpy(env.backend.render(name, range(B))))
        assert (seen != final).flatten(1).any(1).tolist() == [False, True, False, False]


def test_pictures_handed_out_do_not_change_later(make):
    env = make()
    obs, _ = env.reset(seed=3)
    copy = obs["policy/front"].clone()
    for _ in range(3):
        env.step(push(env))
    assert torch.equal(obs["policy/front"], copy)


def test_cameras_that_nobody_observes_are_not_drawn(make, monkeypatch):
    env = make(cameras=(), also=("riding",))
    calls = watch(env, monkeypatch)
    obs, _ = env.reset(seed=3)
    assert calls == [(("riding",), [0, 1, 2, 3])] and "critic/riding" in obs and "policy/front" not in obs
    blind = make(cameras=())
    calls = watch(blind, monkeypatch)
    blind.reset(seed=3)
    blind.step(push(blind))
    assert calls == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": ("frnt",)}, "no camera in the scene 'frnt'; did you mean front"),
        ({"size": (84, 84)}, r"camera 'front' must be an image of \(48, 64, 3\) uint8, it is image \(84, 84, 3\)"),
    ],
)
def test_cameras_that_do_not_fit_are_refused_at_the_build(make, changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_an_engine_without_cameras_is_refused_and_the_ones_with_are_named(make, monkeypatch):
    engine = config.entry("backend", "mujoco").value
    closed = []
    monkeypatch.setattr(engine, "capabilities", dataclasses.replace(engine.capabilities, cameras=False))
    monkeypatch.setattr(engine, "close", lambda self: closed.append(self))
    with pytest.raises(ConfigError, match="camera 'front' and backend mujoco has none; use backend=mujoco or"):
        make()
    assert len(closed) == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("camera", CAMERAS)
def test_a_red_cube_is_where_the_intrinsics_say(make, engine, camera):
    env = make(engine, num_envs=2)
    seen = pictures(env.reset(seed=5)[0])[camera]
    pose, (fx, fy, cx, cy) = optical_pose(env.backend, camera), CAMERAS[camera].intrinsics
    at = quat_apply(quat_conjugate(pose[:, 3:]), torch.tensor(CUBE) - pose[:, :3])
    for picture, (x, y, z) in zip(seen.float(), at.tolist(), strict=True):
        rows, columns = torch.nonzero(picture[..., 0] > 2.0 * picture[..., 1] + 20.0, as_tuple=True)
        assert len(rows) > 0.5 * (EDGE / z) ** 2 * fx * fy
        assert columns.float().mean() == pytest.approx(cx + fx * x / z, abs=1.0)
        assert rows.float().mean() == pytest.approx(cy + fy * y / z, abs=1.0)


@pytest.mark.parametrize(("eye_z", "target_z"), [(2.0, 0.0), (0.05, 2.0)])
def test_cameras_that_look_along_z_have_x_on_their_right_in_both_engines(make, monkeypatch, eye_z, target_z):
    """The cube is further than the camera along x, and less far along y."""
    cfg = CameraCfg((0.3, 0.28, eye_z), (0.3, 0.28, target_z), fov_deg=40.0, width=32, height=32)
    monkeypatch.setitem(CAMERAS, "front", cfg)
    for engine in ENGINES:
        picture = make(engine, num_envs=1, cameras=("front",)).reset(seed=5)[0]["policy/front"][0].float()
        rows, columns = torch.nonzero(picture[..., 0] > 2.0 * picture[..., 1] + 20.0, as_tuple=True)
        below = 1.0 if target_z == 0.0 else -1.0  # the picture's down is -y for a camera that looks down
        assert columns.float().mean() > 17.0 and below * (rows.float().mean() - 15.5) > 2.0, engine


# --- faster ones ---------------------------------------------------------------------------------------------


def arm_and_cube(num_envs):
    """Frankas in many postures, one camera in front of them and one in the hand."""
    front = CameraCfg((1.2, -0.7, 0.7), (0.3, 0.0, 0.4), fov_deg=40.0)
    held = CameraCfg((0.06, 0.0, 0.0), (0.03, 0.0, 0.2), fov_deg=70.0, width=60, height=40, link="robot/panda_hand")
    spec, cube = config.entry("robot", "franka").value, ObjectCfg(Box((0.05,) * 3), pose=(0.5, 0, 0.03, 0, 0, 0, 1))
    scene = SceneCfg({"robot": RobotCfg(spec)}, {"cube": cube}, {"front": front, "held": held})
    made = Mujoco(MujocoCfg(threads=1, picture_threads=2), scene, num_envs, torch.device("cpu"), 0)
    spread = 1.6 * torch.rand(num_envs, spec.dof, generator=torch.Generator().manual_seed(0)) - 0.8
    rest = torch.tensor(spec.default_joint_pos) + spread
    made.write_joints("robot", rest, torch.zeros_like(rest), torch.ones(num_envs, dtype=torch.bool))
    return made


def test_what_is_left_out_is_not_seen_and_threads_draw_alike(monkeypatch):
    fast, full = arm_and_cube(6), arm_and_cube(6)
    left_out, seen = [], Sketcher._seen

    def everything(self, camera):
        left_out.append(int((~seen(self, camera)).sum()))
        return seen(self, camera) | True

    try:
        pictures = fast.images(["front", "held"], range(6))
        monkeypatch.setattr(Sketcher, "_seen", everything)
        for name, picture in full.images(["front", "held"], range(6)).items():
            assert torch.equal(pictures[name], picture)
        assert max(left_out) > 10
        alone = torch.cat([fast.images(["held"], [i])["held"] for i in (5, 0, 3)])
        assert torch.equal(alone, pictures["held"][[5, 0, 3]])
    finally:
        fast.close()
        full.close()


def test_coarse_meshes_look_like_the_fine_ones():
    """Other pixels along the edges only: a coarse arm covers what the fine one does."""
    world = arm_and_cube(3)
    try:
        for i in range(3):
            coarse = world.render("front", [i])[0].astype(int)
            fine = world.painter.picture("front", world.physics_state(i), {}).astype(int)
            other = (abs(coarse - fine).max(-1) > 40).mean()
            assert 0.0 < other < 0.04
        assert world.studio._plain.mesh_facenum.sum() < 0.4 * world.painter.model.mesh_facenum.sum()
    finally:
        world.close()


# --- sensors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [True, False], ids=["with a vector", "pictures alone"])
def test_pictures_arrive_as_late_as_the_vector(make, vector):
    still = {"cameras": ("front",), "vector": vector}
    env, late = (make(randomize=RandomizeCfg(observation_delay=(d, d)), **still) for d in (0, 2))
    on_time, delayed = ([e.reset(seed=3)[0]] + [e.step(0.5 * push(e))[0] for _ in range(5)] for e in (env, late))
    for period in range(2, 6):
        assert torch.equal(delayed[period]["policy/front"], on_time[period - 2]["policy/front"])
        assert not torch.equal(delayed[period]["policy/front"], on_time[period]["policy/front"])
    assert torch.equal(delayed[1]["policy/front"], on_time[0]["policy/front"])  # the first one fills the line


def test_a_lost_measurement_loses_its_picture_too(make):
    env = make(randomize=RandomizeCfg(observation_dropout=0.5), cameras=("front",), num_envs=8)
    before, _ = env.reset(seed=3)
    kinds = set()
    for _ in range(4):
        obs, *_ = env.step(torch.ones(8, 1))
        same = [(obs[k] == before[k]).flatten(1).all(1) for k in ("policy", "policy/front")]
        assert torch.equal(*same)
        kinds |= set(same[0].tolist())
        before = obs
    assert kinds == {True, False}


def test_noise_on_a_picture_is_refused_and_the_engine_closed(make, monkeypatch):
    closed, close = [], Mujoco.close
    monkeypatch.setattr(Mujoco, "close", lambda self: closed.append(self) or close(self))
    with pytest.raises(ConfigError, match="observation_noise: no term 'front'; there is cart_position"):
        make(randomize=RandomizeCfg(observation_noise={"front": 1.0}))
    assert len(closed) == 1
