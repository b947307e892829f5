"""Peg, stack and press: what counts as success, by hand-placed objects, and what is drawn at a reset."""

import math
from dataclasses import replace

import pytest
import torch

from robolearn import config
from robolearn.observation import ObservationTerms
from robolearn.rotations import from_rpy, pose_inverse, pose_mul
from robolearn.state import SceneState
from sim.backends.mjcf import compile_scene
from sim.backends.mjlooks import MjLooks
from sim.env import SimEnv
from sim.randomize import Sensor
from sim.task import ActionState

config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
PEG_HALF_M, HOLE_TOP_M = 0.05, 0.04


def world(task, num_envs=1, engine="mujoco", **changes):
    return SimEnv(config.entry("task", task).config(**changes), config.entry("backend", engine).config(), num_envs)


def placed(env, **positions):
    """The env's scene with objects at these positions, upright and still; the robot as it is."""
    robot, scene = env.states()
    for name, at in positions.items():
        at = (*at, 0.0, 0.0, 0.0, 1.0) if len(at) == 3 else at
        scene.objects[name].pose = torch.tensor([at])
        scene.objects[name].vel = torch.zeros(1, 6)
    return robot, SceneState(scene.objects, scene.sensors)


@pytest.fixture(scope="module")
def peg():
    env = world("franka_peg_insert")
    env.reset()
    return env


@pytest.mark.parametrize(
    ("x_m", "end_m", "depth_m", "success"),
    [
        (0.0, 0.012, 0.028, True),
        (0.0, 0.016, 0.024, False),  # 2.5 cm are needed
        (0.0, 0.06, 0.0, False),
        (0.0015, 0.012, 0.028, True),  # 1 mm of play to each side, and 1 mm of the engine's give
        (0.0025, 0.012, 0.0, False),
        (0.07, 0.0, 0.0, False),  # as low as that, but beside the block
    ],
)
def test_depth_of_the_peg_by_hand(peg, x_m, end_m, depth_m, success):
    robot, scene = placed(peg, hole=(0.5, 0.0, 0.0), peg=(0.5 + x_m, 0.0, end_m + PEG_HALF_M))
    found = peg.task.metrics(robot, scene)
    assert float(found["depth_m"]) == pytest.approx(depth_m, abs=1e-5)
    assert bool(found["success"]) is success


def test_the_hole_is_where_the_block_is_turned_to(peg):
    """The block at a yaw of 90 degrees, the peg 2 mm off along the world's x: y of the hole."""
    turn = from_rpy(torch.tensor([[0.0, 0.0, math.pi / 2]]))[0].tolist()
    _, scene = placed(peg, hole=(0.5, 0.0, 0.0, *turn), peg=(0.502, 0.0, 0.2))
    end = peg.task._end(scene)[0]
    torch.testing.assert_close(end, torch.tensor([0.0, -0.002, 0.2 - PEG_HALF_M - 0.01]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", ["mujoco", "pybullet"])
def test_the_hand_holds_the_peg_from_the_start(engine):
    """A second of doing nothing: the peg has slipped by less than 2 mm, in both engines."""
    env = world("franka_peg_insert", 3, engine)
    env.reset(seed=2)
    zero = torch.zeros(3, 6)

    def held():
        robot, scene = env.states()
        return (scene.objects["peg"].pose[:, :3] - robot.ee_pose[:, :3]).clone()

    before = held()
    for _ in range(20):
        env.step(zero)
    assert (held() - before).norm(dim=1).max() < 0.002


@pytest.mark.parametrize("engine", ["mujoco", "pybullet"])
def test_a_peg_over_the_hole_falls_in_and_one_beside_it_does_not(engine):
    """Let go 1 mm over the block: 0.8 mm off it reaches the bottom (clearance 2 mm), 20 mm off it stands on top."""
    env = world("franka_peg_insert", 2, engine)
    env.reset()
    everyone, still = torch.ones(2, dtype=torch.bool), torch.zeros(2, 6)
    block = torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).expand(2, 7).clone()
    loose = block.clone()
    loose[:, 0] += torch.tensor([0.0008, 0.02])
    loose[:, 2] = HOLE_TOP_M + PEG_HALF_M + 0.001
    env.backend.write_pose("hole", block, still, everyone)
    env.backend.write_pose("peg", loose, still, everyone)
    env.backend.step(120)
    end = env.backend.pose("peg")[:, 2] - PEG_HALF_M
    assert float(end[0]) == pytest.approx(0.01, abs=0.001)
    assert float(end[1]) > HOLE_TOP_M - 0.002


def test_holes_and_grasps_are_drawn_within_their_ranges(peg):
    env = world("franka_peg_insert", 64)
    env.reset(seed=5)
    cfg, (robot, scene) = env.cfg, env.states()
    x, y = scene.objects["hole"].pose[:, :2].unbind(1)
    assert cfg.hole_x_m[0] <= x.min() < 0.45 and 0.55 < x.max() <= cfg.hole_x_m[1]
    assert cfg.hole_y_m[0] <= y.min() < -0.08 and 0.08 < y.max() <= cfg.hole_y_m[1]
    down = (robot.ee_pose[:, :3] - scene.objects["peg"].pose[:, :3]).norm(dim=1)
    assert cfg.grasp_m[0] - 1e-4 <= down.min() and down.max() <= math.hypot(cfg.grasp_m[1], cfg.slip_m[1]) + 1e-4


@pytest.mark.parametrize(
    ("at", "success"),
    [
        ((0.5, 0.1, 0.0825), True),
        ((0.515, 0.1, 0.0825), True),
        ((0.525, 0.1, 0.0825), False),  # more than 2 cm from the middle
        ((0.5, 0.1, 0.1025), False),  # 2 cm above
        ((0.5, 0.2, 0.0225), False),  # on the ground
    ],
)
def test_what_is_a_stack(at, success):
    env = world("franka_stack")
    env.reset()
    robot, scene = placed(env, base=(0.5, 0.1, 0.03), cube=at)
    assert bool(env.task.metrics(robot, scene)["success"]) is success
    scene.objects["cube"].vel = torch.tensor([[0.06, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert not env.task.metrics(robot, scene)["success"]  # it moves


def test_a_held_cube_is_no_stack():
    env = world("franka_stack")
    env.reset()
    robot, scene = env.states()
    hand = robot.ee_pose[0, :3].tolist()
    robot, scene = placed(env, cube=hand, base=(hand[0], hand[1], hand[2] - 0.0525))
    assert not env.task.metrics(robot, scene)["success"]


def test_a_part_counts_as_placed_before_it_can_count_as_pressed():
    """Pressed by the hand that still holds it: nothing. Let go: 1 for the place; pressed then: 1 more."""
    env = world("franka_two_part")
    env.reset()
    task, action = env.task, None
    _, scene = env.states()
    plate = scene.objects["plate"].pose[0]

    def rewards(travel_m, near=False):
        height = float(plate[2]) + travel_m + 0.02
        at = (float(plate[0]), float(plate[1]), height)
        robot, scene = placed(env, part=at, plate=(at[0], at[1], height - 0.02))
        scene.sensors = {"travel": torch.tensor([[travel_m]])}
        if near:
            robot.__dict__["ee_pose"] = torch.tensor([[*at, 1.0, 0.0, 0.0, 0.0]])
        task.was, task.placed = task.placed, task.placed | task._lies(robot.ee_pose, scene)
        given = {k: float(v) * env.step_dt for k, v in task.rewards(robot, scene, action).items()}
        return given, bool(task.metrics(robot, scene)["success"])

    assert rewards(-0.011, near=True) == ({"placed": 0.0, "pressed": 0.0}, False)
    assert rewards(-0.001) == ({"placed": pytest.approx(1.0), "pressed": 0.0}, False)
    assert rewards(-0.002) == ({"placed": 0.0, "pressed": 0.0}, False)
    assert rewards(-0.011, near=True) == ({"placed": 0.0, "pressed": pytest.approx(1.0)}, True)


def test_a_placed_part_is_rewarded_once_however_often_that_is_asked():
    """Set into the press beside a hand that is away; whoever asks for the rewards of a period again gets the same."""
    env = world("franka_two_part")
    env.reset()
    part = torch.tensor([[*env.cfg.press_m, 0.0705, 0.0, 0.0, 0.0, 1.0]])
    env.backend.write_pose("part", part, torch.zeros(1, 6), torch.ones(1, dtype=torch.bool))
    still, given = torch.tensor([[0.0] * 6 + [1.0]]), []
    for _ in range(3):
        _, reward, *_, extras = env.step(still)
        again = env.task.rewards(*env.states(), None)
        assert float(sum(again.values())) * env.step_dt == pytest.approx(float(reward))
        given.append(float(reward))
    assert given == [pytest.approx(1.0), 0.0, 0.0] and extras["episode"]["placed"] == 1.0
    env.reset()
    assert not env.task.placed


@pytest.mark.parametrize(("task", "best_per_s"), [("franka_peg_insert", 3.0), ("franka_stack", 3.5)])
def test_a_dense_reward_does_not_pay_for_putting_success_off(task, best_per_s):
    """It ends the episode of 10 s: it counts what the best place without it earns in 10 s."""
    env = world(task, reward="dense")
    env.reset()
    at = {"hole": (0.5, 0.0, 0.0), "peg": (0.5, 0.0, 0.062)}
    if task == "franka_stack":
        at = {"base": (0.5, 0.1, 0.03), "cube": (0.5, 0.1, 0.0825)}
    terms = env.task.rewards(*placed(env, **at), ActionState(*[torch.zeros(1, 7)] * 3))
    assert float(terms["success"]) * env.step_dt == pytest.approx(10.0 * best_per_s)
    sparse = world(task)
    assert float(sparse.task.rewards(*placed(env, **at), None)["success"]) * env.step_dt == pytest.approx(1.0)


@pytest.mark.parametrize("engine", ["mujoco", "pybullet"])
def test_the_press_gives_way_like_its_spring(engine):
    """A weight of 0.3 kg on 600 N/m: 4.9 mm."""
    env = world("franka_two_part", 1, engine)
    env.reset()
    everyone = torch.ones(1, dtype=torch.bool)
    part = torch.tensor([[*env.cfg.press_m, 0.07, 0.0, 0.0, 0.0, 1.0]])
    env.backend.write_pose("part", part, torch.zeros(1, 6), everyone)
    env.backend.apply_wrench("part", None, torch.tensor([[0.0, 0.0, -9.81 * (0.3 - 0.08), 0.0, 0.0, 0.0]]))
    env.backend.step(480)
    assert float(env.backend.joint_pos("press")) == pytest.approx(-9.81 * 0.3 / 600.0, abs=3e-4)


def test_cameras_take_the_place_of_poses():
    spec = config.build(config.entry("task", "franka_peg_insert").config(cameras=("front", "wrist"))).observation_spec()
    shown = [t.field.name for t in spec.terms("policy") if t.field.kind == "image"]
    assert shown == ["front", "wrist"]
    assert not [t for t in spec.terms("policy") if t.function.startswith("object_")]
    assert next(t.field.name for t in spec.terms("privileged")) == "peg_position_ee"


def seen(spec, robot, scene):
    """What each term of the policy says."""
    terms = spec.terms("policy")
    whole = ObservationTerms(spec, "cpu").frames(robot, scene, torch.zeros(1, 6))["policy"][0]
    return dict(zip([t.field.name for t in terms], whole.split([t.field.size for t in terms]), strict=True))


def test_without_own_commands_the_hole_is_seen_from_the_set_points_and_the_peg_from_the_hand(peg):
    """The set-points would have the hand turned, by a joint, from where it is."""
    spec = config.build(config.entry("task", "franka_peg_insert").config(own_commands=False)).observation_spec()
    robot, scene = peg.states()
    robot = replace(robot, joint_target=robot.joint_pos + 0.1 * (torch.arange(9) == 0))
    whole, without = seen(peg.observation_spec, robot, scene), seen(spec, robot, scene)
    assert whole.keys() - without.keys() == {"joint_target_error"}
    differ = {name for name, said in without.items() if not torch.allclose(said, whole[name], atol=1e-5)}
    assert differ == {"hole_position_ee", "hole_rotation_ee"}
    expected = pose_mul(pose_inverse(robot.ee_asked), scene.objects["hole"].pose)[0, :3]
    torch.testing.assert_close(without["hole_position_ee"], expected)


@pytest.mark.parametrize("task", ["franka_peg_insert", "franka_stack", "franka_two_part"])
def test_poses_that_are_not_observed_need_no_noise(task):
    """By default the noise of poses is set; with cameras it goes, and that of the joints stays."""
    entry = config.entry("task", task)
    for shown in ((), ("front",)):
        cfg = entry.config(cameras=shown)
        sensor = Sensor(config.build(cfg).observation_spec(), cfg.randomize, 1, torch.Generator())
        noisy = {float(std) for std in sensor.std.unique()}
        assert (len(cfg.randomize.observation_noise) > 1) is (not shown) and 0.0 < max(noisy) <= 0.0005 + 1e-9
        assert "joint_pos" in cfg.randomize.observation_noise
    cfg.randomize.observation_noise["hol"] = 0.1
    with pytest.raises(config.ConfigError, match="no term 'hol'"):
        Sensor(config.build(cfg).observation_spec(), cfg.randomize, 1, torch.Generator())


def test_every_box_of_a_socket_is_painted_alike():
    cfg = config.entry("task", "franka_peg_insert").config()
    scene = config.build(cfg).scene()
    model = compile_scene(scene, visual=True)
    looks, everyone = MjLooks(model, scene, 2), torch.ones(2, dtype=torch.bool)
    looks.put("tint.hole", torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4), everyone)
    looks.put("pattern.hole", torch.tensor([[1.0], [0.0]]), everyone)
    looks.dress(model, 0)
    boxes = [g for g in range(model.ngeom) if model.geom(g).name.startswith("hole/")]
    assert len(boxes) == 5
    assert (model.geom_rgba[boxes, :3] == [0.0, 0.0, 1.0]).all()
    assert (model.geom_matid[boxes] == model.material("checker/object").id).all()
    assert model.geom_rgba[model.geom("peg").id, 0] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("franka_peg_insert", {"clearance_m": 0.0}, "clearance_m must be positive"),
        ("franka_peg_insert", {"inserted_m": 0.04}, "inserted_m must be below"),
        ("franka_peg_insert", {"peg_m": (0.03, 0.09, 0.1)}, "hand's opening"),
        ("franka_peg_insert", {"reward": "shaped"}, "dense or sparse"),
        ("franka_stack", {"y_m": (0.0, 0.1)}, "y_m must be a range"),
        ("franka_two_part", {"pressed_m": 0.02}, "travel of 0.012"),
    ],
)
def test_wrong_settings_are_refused(task, changes, words):
    with pytest.raises(ValueError, match=words):
        config.entry("task", task).config(**changes)


def test_an_unknown_camera_is_refused():
    cfg = config.entry("task", "franka_stack").config(cameras=("top",))
    with pytest.raises(config.ConfigError, match="no camera 'top'"):
        config.build(cfg).scene()
