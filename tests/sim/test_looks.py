"""How the pictures of one environment are made to differ from another's, in MuJoCo and PyBullet."""

import dataclasses
import math

import pytest
import torch

pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from picture_worlds import CAMERAS, CUBE, ENGINES, FLOWERY, FRONT, B, pictures, push, worlds

from robolearn import config
from robolearn.errors import ConfigError
from robolearn.loops import checkpoint
from robolearn.rotations import quat_apply, quat_conjugate
from sim.cameras import optical_pose
from sim.looks import NEUTRAL, names
from sim.randomize import LooksCfg, RandomizeCfg
from sim.scene import Boxes, CameraCfg, ObjectCfg, RobotCfg, SceneCfg


@pytest.fixture
def make():
    """make(engine, looks=..., **task settings) -> a SimEnv, closed with the test."""
    with worlds() as build:
        yield build


@pytest.mark.parametrize("engine", ENGINES)
def test_looks_follow_the_seed_and_move_nothing(make, engine):
    first, again, other, off = (make(engine, seed=s, looks=FLOWERY if on else None) for s, on in
                                ((1, True), (1, True), (2, True), (1, False)))  # fmt: skip
    seen = [pictures(env.reset()[0])["front"] for env in (first, again, other, off)]
    assert torch.equal(seen[0], seen[1])
    for unlike in (seen[2], seen[3]):
        assert (seen[0] != unlike).flatten(1).float().mean(1).min() > 0.3
    assert torch.equal(first.backend.get_state(), off.backend.get_state())
    assert off.backend.looks() == {}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reset_changes_the_looks_of_its_environment_only(make, engine):
    env = make(engine, looks=FLOWERY)
    env.reset(seed=3)
    before = {k: v.clone() for k, v in env.backend.looks().items()}
    env.episode_limit_buf[2] = 1
    env.step(push(env))
    for name, look in env.backend.looks().items():
        changed = (look != before[name]).any(1).tolist()
        assert changed == [False, False, True, False], name


@pytest.mark.parametrize("engine", ENGINES)
def test_a_look_changes_masked_environments_and_neutral_ones_no_bit(make, engine):
    env = make(engine)
    env.reset(seed=3)
    backend, odd = env.backend, torch.tensor([False, True, False, True])
    plain = backend.images(["front", "riding"], range(B))
    for name in (n for those in names(backend.scene).values() for n in those):
        kind, _, of = name.partition(".")
        if kind not in backend.capabilities.looks:
            continue
        neutral = torch.tensor(NEUTRAL[kind]).expand(B, -1)
        strange = neutral + torch.tensor({"tint": [0.1, 0.9, 0.2, 0.8]}.get(kind, [1.0 if kind == "pattern" else 0.2]))
        backend.set_look(name, strange, odd)
        seen = backend.images(["front", "riding"], range(B))
        for camera, picture in seen.items():
            hit = (picture != plain[camera]).flatten(1).any(1).tolist()
            assert hit == ([False] * B if kind == "camera" and of != camera else odd.tolist()), (name, camera)
        backend.set_look(name, neutral, odd)
    assert all(torch.equal(v, plain[k]) for k, v in backend.images(["front", "riding"], range(B)).items())


@pytest.mark.parametrize("engine", ENGINES)
def test_tints_and_views_are_the_ones_that_were_asked_for(make, engine):
    env = make(engine, num_envs=2, cameras=("front",))
    env.reset(seed=3)
    backend, second = env.backend, torch.tensor([False, True])
    backend.set_look("tint.cube", torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, -1), second)
    red, blue = backend.images(["front"], range(2))["front"].float()
    was, now = red[..., 0] > 2.0 * red[..., 2] + 20.0, blue[..., 2] > 2.0 * blue[..., 0] + 20.0
    assert was.sum() > 5 and now.sum() > 5 and (was.float().mean() - now.float().mean()).abs() < 0.002

    place, (focal, *_) = optical_pose(backend, "front")[0], FRONT.intrinsics
    depth = quat_apply(quat_conjugate(place[3:]), torch.tensor(CUBE) - place[:3])[2].item()
    turn, step = math.radians(5.0), 0.1
    by_turn, by_step = focal * math.tan(turn), focal * step / depth
    before = torch.nonzero(now).float().mean(0)
    for number, size, expected in (  # rows, columns: what the camera does, the picture does the other way
        (3, turn, [by_turn, 0.0]), (4, turn, [0.0, -by_turn]), (0, step, [0.0, -by_step]), (1, step, [-by_step, 0.0]),
    ):  # fmt: skip
        numbers = torch.zeros(2, 7)
        numbers[1, number] = size
        backend.set_look("camera.front", numbers, second)
        moved = backend.images(["front"], [1])["front"][0].float()
        there = torch.nonzero(moved[..., 2] > 2.0 * moved[..., 0] + 20.0).float().mean(0)
        assert (there - before).tolist() == pytest.approx(expected, abs=1.0), number


@pytest.mark.parametrize("engine", ENGINES)
def test_a_dim_light_is_dim_and_a_turned_one_lights_other_sides(make, engine):
    """In MuJoCo it comes from -y: turned by half a turn, the cube's side that the camera (at +y) sees is brighter."""
    env = make(engine, num_envs=3, cameras=("front",))
    env.reset(seed=3)
    light = torch.tensor([[0.0] * 3 + [1.0] * 3, [0.0] * 3 + [0.2, 0.2, 0.4], [0.0, 0.0, math.pi] + [1.0] * 3])
    env.backend.set_look("light", light, torch.ones(3, dtype=torch.bool))
    plain, dim, turned = (env.backend.images(["front"], [k])["front"][0].float() for k in range(3))
    below = slice(36, None)  # ground: the sky has its own light
    factor = dim[below].mean((0, 1)) / plain[below].mean((0, 1))
    exact = engine == "mujoco"  # Bullet's ambient light takes the mean of the factors
    assert factor.tolist() == pytest.approx([0.2, 0.2, 0.4], abs=0.005 if exact else 0.1)
    assert factor[2] > factor[0] + 0.02
    cube = plain[..., 0] > 2.0 * plain[..., 1] + 20.0
    assert turned[cube][:, 0].mean() > 1.1 * plain[cube][:, 0].mean()


@pytest.mark.parametrize("engine", ENGINES)
def test_every_box_of_an_object_has_its_look(engine):
    """As the hole of franka_peg_insert, which is made of five."""
    pair = Boxes((((0.1,) * 3, (-0.15, 0.0, 0.0)), ((0.1,) * 3, (0.15, 0.0, 0.0))))
    thing = ObjectCfg(pair, fixed=True, pose=(0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0), rgba=(1.0, 0.0, 0.0, 1.0))
    front = CameraCfg((0.0, -1.0, 0.5), (0.0, 0.0, 0.5), fov_deg=45.0, width=48, height=32)
    cartpole = RobotCfg(config.entry("robot", "cartpole").value, (0.0, 3.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    scene = SceneCfg({"robot": cartpole}, {"pair": thing}, {"front": front})
    backend = config.build(ENGINES[engine], scene=scene, num_envs=1, device=torch.device("cpu"), seed=0)
    everyone = torch.ones(1, dtype=torch.bool)
    try:
        backend.set_look("tint.pair", torch.tensor([[0.0, 0.0, 1.0, 1.0]]), everyone)
        plain = backend.images(["front"], [0])["front"][0].float()
        blue = plain[..., 2] > 2.0 * plain[..., 0] + 20.0
        assert blue[:, :24].sum() > 10 and blue[:, 24:].sum() > 10
        assert not (plain[..., 0] > 2.0 * plain[..., 2] + 20.0).any()
        if "pattern" in backend.capabilities.looks:
            backend.set_look("pattern.pair", torch.ones(1, 1), everyone)
            other = (backend.images(["front"], [0])["front"][0].float() - plain).abs().max(-1).values > 10.0
            assert (other & blue)[:, :24].any() and (other & blue)[:, 24:].any()
    finally:
        backend.close()


def test_patterns_are_for_mujoco(make):
    env = make(looks=LooksCfg(patterns=1.0), cameras=("front",))
    env.reset(seed=3)
    assert set(env.backend.looks()) == {"pattern.cube", "pattern.ground"}
    assert env.backend.looks()["pattern.ground"].min() >= 1.0
    pytest.importorskip("pybullet", reason="PyBullet is not installed (extra bullet)")
    with pytest.raises(ConfigError, match=r"pybullet does not vary pattern \(randomize.looks\); use backend=mujoco"):
        make("pybullet", looks=LooksCfg(patterns=0.5))


@pytest.mark.parametrize(("setting", "value"), [("object_colour", 1.5), ("light_intensity", (1.0, 0.5)),
                                                ("camera_turn_rad", -0.1), ("patterns", math.nan)])  # fmt: skip
def test_looks_out_of_range_are_refused_by_name(setting, value):
    with pytest.raises((ConfigError, ValueError), match=f"looks.{setting} must be"):
        LooksCfg(**{setting: value})


def test_a_field_of_view_that_could_vanish_is_refused(make, monkeypatch):
    monkeypatch.setitem(CAMERAS, "front", dataclasses.replace(FRONT, fov_deg=20.0))
    make(cameras=("front",), looks=LooksCfg(camera_fov_deg=19.0))
    make(cameras=("riding",), looks=LooksCfg(camera_fov_deg=20.0))
    message = "looks.camera_fov_deg must be below 20 for camera 'front', whose fov_deg is 20, got 20"
    with pytest.raises(ConfigError, match=message):
        make(cameras=("front",), looks=LooksCfg(camera_fov_deg=20.0))


def test_a_look_of_nothing_and_of_another_shape_are_refused(make):
    backend, everyone = make(cameras=("front",)).backend, torch.ones(B, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"no look 'tint.cub'; did you mean tint.cube"):
        backend.set_look("tint.cub", torch.zeros(B, 4), everyone)
    with pytest.raises(ValueError, match=r"look 'light' is \(4, 6\), got \(4, 3\)"):
        backend.set_look("light", torch.zeros(B, 3), everyone)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_goes_on_from_a_checkpoint_to_the_bit_pictures_included(make, engine, tmp_path):
    randomize = RandomizeCfg(initial_joint_pos=0.1, observation_delay=(0, 2), observation_dropout=0.2)
    env, resumed = (make(engine, seed=s, looks=FLOWERY, randomize=randomize, episode_length_s=0.2) for s in (4, 5))
    env.reset()
    for _ in range(3):
        env.step(push(env))
    path = checkpoint.write(tmp_path, 1, env.state_dict())
    resumed.reset()
    resumed.load_state_dict(checkpoint.read(path))
    for _ in range(5):  # over the end of an episode
        obs, twin = env.step(push(env))[0], resumed.step(push(env))[0]
        assert all(torch.equal(obs[k], twin[k]) for k in obs) and "policy/riding" in obs


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_without_looks_takes_those_away_that_there_are(make, engine):
    fresh, used = (make(engine, num_envs=2, seed=4, looks=FLOWERY) for _ in range(2))
    before = fresh.state_dict()  # of a world that was never reset
    plain = fresh.backend.images(["front"], range(2))["front"]
    used.reset()
    used.load_state_dict(before)
    assert torch.equal(used.backend.images(["front"], range(2))["front"], plain)
    assert all(
        torch.equal(a, b) for a, b in zip(*(pictures(e.reset()[0]).values() for e in (fresh, used)), strict=True)
    )
