"""The geometric controller: signs by hand, what it can fly in both dynamics, bundles, and the command line."""

import json
import math
from dataclasses import replace

import pytest
import torch

from robolearn import bundle, config
from robolearn.cli import _world
from robolearn.cli.main import main
from robolearn.export import ExportError, export
from robolearn.loops.evaluate import run_episodes, summarize
from robolearn.policies.geometric import GAINS, GeometricPolicy, config_of
from robolearn.rotations import from_rpy, quat_to_matrix
from robolearn.spec import PolicySpec

_world.discover()
LEVEL = torch.eye(3)


def made(task="crazyflie_hover", gains=None, **changes):
    """A controller for a task, and its configuration."""
    cfg = config.entry("task", task).config(**changes)
    built = config.build(cfg)
    spec = PolicySpec(built.robot.name, 1.0 / cfg.step_dt_s, built.observation_spec(), built.action_spec())
    return GeometricPolicy(spec, config_of(built.robot.quadrotor, gains)), cfg


def seen(policy, rotation=LEVEL, **terms):
    """One observation: zero but for what is given."""
    out = torch.zeros(1, policy.spec.observation.dim("policy"))
    for name, value in {"rotation": rotation.flatten().tolist(), **terms}.items():
        out[0, policy.at[name]] = torch.tensor(value)
    return {"policy": out}


def scores(policy, cfg, engine="quadrotor", episodes=256, seed=7, **options):
    env = _world.make_env(cfg, config.entry("backend", engine).config(**options), episodes, "cpu", seed)
    try:
        return summarize(run_episodes(env, policy.act, episodes, reset=policy.reset))
    finally:
        env.close()


# --- signs -------------------------------------------------------------------------------------------------


def test_level_at_the_goal_it_commands_to_hover():
    attitude, _ = made(gains={"lift": 1.0})
    torch.testing.assert_close(attitude.act(seen(attitude)), torch.zeros(1, 4), atol=1e-6, rtol=0.0)
    rotors, _ = made("crazyflie_hover_rpm")
    hover = 2.0 * rotors.vehicle.hover_speed_radps / rotors.vehicle.max_speed_radps - 1.0
    torch.testing.assert_close(rotors.act(seen(rotors)), torch.full((1, 4), hover), atol=1e-4, rtol=0.0)


@pytest.mark.parametrize(
    ("terms", "action", "sign"),
    [
        ({"position_error": [0.1, 0.0, 0.0]}, "pitch", -1),  # too far ahead: lean back
        ({"position_error": [0.0, 0.1, 0.0]}, "roll", 1),  # too far left: roll right, which is positive
        ({"position_error": [0.0, 0.0, 0.1]}, "thrust", -1),
        ({"velocity": [0.3, 0.0, 0.0]}, "pitch", -1),
        ({"velocity": [0.0, 0.0, -0.3]}, "thrust", 1),
        ({"position_integral": [0.0, -0.1, 0.0]}, "roll", -1),
    ],
)
def test_attitudes_oppose_the_error(terms, action, sign):
    policy, _ = made(gains={"lift": 1.0})
    out = dict(zip(policy.spec.action.names, policy.act(seen(policy, **terms))[0].tolist(), strict=True))
    assert sign * out.pop(action) > 0.01
    assert sum(abs(v) for k, v in out.items() if k != "thrust") < 1e-6


def test_it_leans_by_the_acceleration_over_gravity_whatever_the_yaw():
    policy, _ = made("crazyflie_track", {"tilt": 1.0, "tilt_rate": 0.0, "ahead_s": 0.0})
    for yaw in (0.0, 0.7, math.pi / 2):
        rotation = quat_to_matrix(from_rpy(torch.tensor([0.0, 0.0, yaw])))
        roll, pitch, turn, _ = policy.act(seen(policy, rotation, acceleration=[2.0, 0.0, 0.0]))[0].tolist()
        lean = torch.tensor([2.0 * math.cos(yaw), -2.0 * math.sin(yaw)]) / 9.81
        assert math.tan(0.6 * pitch) == pytest.approx(lean[0].item(), abs=1e-4)
        assert math.tan(0.6 * roll) == pytest.approx(-lean[1].item() / math.hypot(1.0, lean[0]), abs=1e-4)
        assert turn * 2.0 == pytest.approx(max(-2.0, -GAINS["attitude"]["yaw"] * yaw), abs=1e-4)


def test_a_tilted_one_is_turned_back_by_its_rotors():
    """Rolled to the right (positive), the right rotors 1 and 2 must push more."""
    policy, _ = made("crazyflie_hover_rpm")
    rotation = quat_to_matrix(from_rpy(torch.tensor([0.4, 0.0, 0.0])))
    right_front, right_rear, left_rear, left_front = policy.act(seen(policy, rotation))[0].tolist()
    assert min(right_front, right_rear) > max(left_rear, left_front) + 0.1
    policy.reset(torch.ones(1, dtype=torch.bool))
    spun = policy.act(seen(policy, rates=[0.0, 0.0, 1.0]))[0].tolist()
    assert min(spun[0], spun[2]) > max(spun[1], spun[3])  # these react against a turn to the left


def test_acceleration_ahead_is_that_of_the_trajectory():
    """Of a circle: positions ahead, 0.1 s apart, as seen from a vehicle on it."""
    policy, _ = made("crazyflie_track")
    t = torch.arange(6) * 0.1
    place = torch.stack((torch.sin(2.0 * t), torch.cos(2.0 * t), 0.0 * t), dim=1)
    later = policy._later(-4.0 * place[:1], (place[1:] - place[0])[None])
    share = (policy.k_ahead_s / 0.2).clamp(max=1.0)
    expected = -4.0 * (place[0] + share * (place[2] - place[0]))
    torch.testing.assert_close(later[0], expected, atol=0.02, rtol=0.0)


def test_its_model_of_the_rotors_is_the_vehicles():
    pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
    policy, cfg = made("crazyflie_hover_rpm")
    env = _world.make_env(cfg, config.entry("backend", "quadrotor").config(), 8, "cpu", 0)
    obs, _ = env.reset()
    policy.reset(torch.ones(8, dtype=torch.bool))
    for _ in range(20):
        obs = env.step(policy.act(obs))[0]
    torch.testing.assert_close(policy._speeds, env.backend.joint_vel("robot"), rtol=1e-3, atol=1.0)
    policy.reset(torch.arange(8) == 3)
    assert policy._speeds[3].tolist() == pytest.approx([policy.vehicle.hover_speed_radps] * 4)
    assert (policy._speeds[2] - policy.vehicle.hover_speed_radps).abs().max() > 1.0
    assert (policy._area[3] == 0.0).all() and policy._area[2].abs().max() > 0.0


# --- flights -----------------------------------------------------------------------------------------------

FLIGHTS = [
    ("crazyflie_hover_rpm", {"action_history": 4}, 0.95, 0.05),
    ("crazyflie_hover", {}, 0.83, 0.05),
    ("crazyflie_track", {"trajectory": "figure_eight"}, 0.99, 0.06),
]


@pytest.mark.parametrize(("task", "changes", "success", "rms"), FLIGHTS)
def test_it_recovers_hovers_and_tracks(task, changes, success, rms):
    """Survival and RMS steady error (m) over 256 episodes with all of the task's randomisation."""
    pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
    policy, cfg = made(task, **changes)
    result = scores(policy, cfg)
    assert result["success"] >= success and result["steady_error_m"]["rms"] <= rms, result


@pytest.mark.parametrize(("task", "changes", "success", "rms"), FLIGHTS)
def test_it_does_so_in_bullet(task, changes, success, rms):
    pytest.importorskip("pybullet_data", reason="PyBullet is not installed (extra bullet)")
    policy, cfg = made(task, **changes)
    result = scores(policy, cfg, "pybullet", episodes=8)
    assert result["success"] >= success - 0.2 and result["steady_error_m"]["rms"] <= 1.4 * rms, result


# --- bundles, export, refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["crazyflie_hover", "crazyflie_hover_rpm"])
def test_it_survives_a_bundle(tmp_path, task):
    policy, _ = made(task, {"position": 4.5})
    robot = config.entry("robot", "crazyflie").value
    bundle.save(tmp_path / "b.zip", bundle.Bundle(policy, robot))
    loaded = bundle.load(tmp_path / "b.zip")
    loaded.require(robot, policy.spec)
    obs = {"policy": 0.3 * torch.randn(5, policy.spec.observation.dim("policy"))}
    assert loaded.policy.kind == "geometric" and loaded.policy.k_position[0].item() == 4.5
    assert torch.equal(loaded.policy.act(obs), policy.act(obs))


def test_by_attitude_it_can_be_exported_and_with_its_memory_it_is_refused(tmp_path):
    policy, _ = made()
    assert export(policy, tmp_path / "p.pt2", "torch") < 1e-5
    with pytest.raises(ExportError):
        export(made("crazyflie_hover_rpm")[0], tmp_path / "q.pt2", "torch")


def test_what_it_cannot_fly_is_refused():
    policy, _ = made()
    spec, about = policy.spec, policy.config
    with pytest.raises(ValueError, match="commands rotor_speed, attitude, not joint_effort"):
        GeometricPolicy(replace(spec, action=replace(spec.action, function="joint_effort")), about)
    blind = {"policy": tuple(t for t in spec.observation.terms("policy") if t.field.name != "rates")}
    with pytest.raises(ValueError, match="it has no rates"):
        GeometricPolicy(replace(spec, observation=replace(spec.observation, groups=blind)), about)
    with pytest.raises(ValueError, match=r"no gains \['postion'\]; there are position"):
        GeometricPolicy(spec, about | {"gains": {"postion": 1.0}})


# --- the command line --------------------------------------------------------------------------------------


def evaluated(capsys, tmp_path, *words):
    code = main(["evaluate", *words, f"json={tmp_path / 'scores.json'}"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return json.loads((tmp_path / "scores.json").read_text()), said.out


def test_it_is_evaluated_by_name(capsys, tmp_path):
    pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
    words = ("task=crazyflie_track", "policy=geometric", "episodes=16", "task.trajectory=circle", "task.variants=3")
    found, out = evaluated(capsys, tmp_path, *words, "task.randomize.mass=[1.0,1.0]")
    assert found["run"] == "geometric" and found["backend"] == "quadrotor" and found["episodes"] == 16
    assert "crazyflie_track on quadrotor, geometric" in out and "RMS of the successful" in out


@pytest.mark.parametrize("stored", [True, False], ids=["a run", "a bundle alone"])
def test_a_run_is_evaluated_on_another_case_of_its_task(capsys, tmp_path, stored):
    pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
    cfg, policy = _world.load_baseline("geometric", "crazyflie_hover", "", ["task.level_start=1.0"])
    packed = bundle.Bundle(policy, config.entry("robot", "crazyflie").value, config=config.to_plain(cfg))
    folder = tmp_path / "run"
    bundle.save(folder / "bundle" if stored else folder, packed)
    if stored:
        config.save(cfg, folder / "config.yaml")
    calm, _ = evaluated(capsys, tmp_path, f"run={folder}", "episodes=64")
    assert calm["success"] == 1.0 and calm["length"]["mean"] == 500
    changed, _ = evaluated(
        capsys, tmp_path, f"run={folder}", "episodes=64", "task.level_start=0", "task.episode_length_s=3",
        "task.randomize.disturbance_force_n=0.1",
    )  # fmt: skip
    assert changed["length"]["mean"] <= 300 and changed["steady_error_m"]["rms"] > 2 * calm["steady_error_m"]["rms"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=crazyflie_hover"], "task=crazyflie_hover: give run=RUN, or task=NAME and policy=geometric"),
        (["run=x", "task=cartpole", "policy=geometric"], "give run=RUN, or task=NAME and policy=geometric"),
        (["run=x", "noise=1"], "noise is of policy=expert; x has none"),
        (["task=crazyflie_hover", "policy=geometric", "noise=1"], "noise is of policy=expert; geometric has none"),
        (["task=crazyflie_hover", "policy=geometrc"], "no policy 'geometrc'; did you mean geometric?"),
        (["task=cartpole", "policy=geometric", "backend=mujoco"], "flies quadrotors, task cartpole is for cartpole"),
        (["task=crazyflie_hover", "policy=geometric", "task.levl=1"], "no key 'task.levl'"),
    ],
)
def test_mistakes_are_named(capsys, words, said):
    assert main(["evaluate", *words]) == 2
    assert said in capsys.readouterr().err
