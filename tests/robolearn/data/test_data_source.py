"""Training windows out of sets of episodes: borders by hand, pictures, workers, and data that mean something else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
from robolearn.data import contract, source
from robolearn.data.layout import DataError, Feature
from robolearn.data.read import Episodes
from robolearn.data.video import VideoCfg
from robolearn.data.write import Writer
from robolearn.errors import ConfigError
from robolearn.robots.franka import FRANKA
from robolearn.spec import ActionSpec, Field, ObservationSpec, PolicySpec, TermSpec

LENGTHS = (4, 1, 3)
ACTION = ActionSpec("joint_position_delta", FRANKA.arm_joints[:2], "rad", scale=(0.04, 0.04))


def spec_with(camera: bool = False) -> PolicySpec:
    terms = [TermSpec(Field("state", (2,)), "last_action")]
    if camera:
        terms += [TermSpec(Field("wrist", (16, 16, 3), kind="image", dtype="uint8"), "command")]
    return PolicySpec("franka", 20.0, ObservationSpec({"policy": tuple(terms), "critic": ()}), ACTION)


def make(root: Path, camera: bool = False, **given) -> Path:
    """Episode e at step t: state (e, t), action (10 e + t, 0), grey pictures of 40 e + 5 t; episode 1 fails."""
    spec = spec_with(camera)
    features = contract.features(spec)
    options = {"fps": 20, "robot": "franka", "about": contract.about(spec, "peg"), "video": VideoCfg("h264_lossless")}
    with Writer(root, features=features, **(options | given)) as writer:
        for e, length in enumerate(LENGTHS):
            writer.begin("insert the peg")
            for t in range(length):
                writer.add(_step(features, e, t, t == length - 1 and e != 1))
            writer.end()
    return root


def _step(features: dict[str, Feature], e: int, t: int, success: bool) -> dict[str, np.ndarray]:
    step = {k: np.zeros(f.shape, "uint8" if f.video else f.dtype) for k, f in features.items()}
    step["observation.state"][:] = e, t
    step["action"][0] = 10 * e + t
    step["next.success"][0] = success
    if "observation.images.wrist" in step:
        step["observation.images.wrist"][:] = 40 * e + 5 * t
    return step


def windows(root: Path, steps: int = 2, horizon: int = 3, camera: bool = False, **given) -> source.EpisodeWindows:
    spec = spec_with(camera)
    return source.EpisodeWindows(source.open_set(str(root), spec, "peg"), spec, steps, horizon, **given)


# --- windows -----------------------------------------------------------------------------------------------


def test_borders_by_hand(tmp_path):
    """Every step is a window: before the start the first observation is repeated, after the end the last action."""
    found = windows(make(tmp_path / "set"))
    assert len(found) == 8
    w = found.windows(torch.tensor([0, 2, 3, 4, 5]))
    assert w.keys() == {"observation.policy", "action", "mask"}
    assert w["observation.policy"].tolist() == [
        [[0, 0], [0, 0]], [[0, 1], [0, 2]], [[0, 2], [0, 3]], [[1, 0], [1, 0]], [[2, 0], [2, 0]],
    ]  # fmt: skip
    assert w["action"][..., 0].tolist() == [[0, 1, 2], [2, 3, 3], [3, 3, 3], [10, 10, 10], [20, 21, 22]]
    assert w["mask"].tolist() == [
        [True] * 3, [True, True, False], [True, False, False], [True, False, False], [True] * 3,
    ]  # fmt: skip
    assert w["action"].dtype == w["observation.policy"].dtype == torch.float32


def test_one_observation_and_a_long_horizon(tmp_path):
    w = windows(make(tmp_path / "set"), steps=1, horizon=9).windows(torch.tensor([1]))
    assert w["observation.policy"].tolist() == [[[0, 1]]]
    assert w["action"][0, :, 0].tolist() == [1, 2, 3, 3, 3, 3, 3, 3, 3]
    assert w["mask"].sum() == 3


def test_the_same_as_the_readers_windows(tmp_path):
    root = make(tmp_path / "set")
    found, episodes = windows(root, 3, 4), Episodes(root)
    where = [(e, t) for e, n in enumerate(LENGTHS) for t in range(n)]
    offsets = {"observation.state": range(-2, 1), "action": range(4)}
    values, masks = episodes.windows([e for e, _ in where], [t for _, t in where], offsets)
    w = found.windows(torch.arange(8))
    assert torch.equal(w["observation.policy"], values["observation.state"])
    assert torch.equal(w["action"], values["action"]) and torch.equal(w["mask"], masks["action"])


def test_statistics_are_of_what_is_learned_from(tmp_path):
    root = make(tmp_path / "set")
    spec = spec_with()
    episodes = source.open_set(str(root), spec, "peg", episodes=2, only_success=True)
    found = source.EpisodeWindows(episodes, spec, 2, 3)
    assert episodes.ids == [0, 2] and len(found) == 7
    stats = found.statistics()
    assert stats["action"]["max"].tolist() == [22, 0] and stats["action"]["min"].tolist() == [0, 0]
    assert stats["observation.policy"]["mean"].tolist() == pytest.approx([6 / 7, 9 / 7])
    assert found.windows(torch.tensor([4]))["observation.policy"].tolist() == [[[2, 0], [2, 0]]]


@pytest.mark.parametrize("preload", ["true", "false"])
def test_pictures_in_memory_and_decoded(tmp_path, preload):
    found = windows(make(tmp_path / "set", camera=True), camera=True, preload=preload)
    w = found.windows(torch.tensor([0, 6, 3]))
    pictures = w["observation.policy/wrist"]
    assert pictures.shape == (3, 2, 16, 16, 3) and pictures.dtype == torch.uint8
    assert pictures[..., 0, 0, 0].tolist() == [[0, 0], [80, 85], [10, 15]]
    assert found._in_memory == (preload == "true")
    assert not windows(tmp_path / "set", camera=True, limit_mb=0.001)._in_memory
    assert windows(tmp_path / "set", camera=True)._in_memory


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_the_windows_in_their_order(tmp_path, workers):
    found = windows(make(tmp_path / "set", camera=True), camera=True, preload="false", workers=workers)
    batches = [torch.tensor(b) for b in ([5, 1, 0], [7, 7, 2], [3, 4, 6], [0, 1, 2])]
    for numbers, given in zip(batches, found.stream(iter(batches)), strict=True):
        expected = found.windows(numbers)
        assert given.keys() == expected.keys()
        assert all(torch.equal(given[k], expected[k]) for k in expected)


# --- refusals ----------------------------------------------------------------------------------------------


def refused(root: Path, spec: PolicySpec, **given) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        source.open_set(str(root), spec, "peg", **given)
    return str(caught.value)


def test_other_rates_robots_terms_and_actions_are_refused_with_both(tmp_path):
    root, spec = make(tmp_path / "set"), spec_with()
    assert "does not fit peg (data != here): rate_hz: 20.0 != 30.0" in refused(root, replace(spec, rate_hz=30.0))
    assert "robot: 'franka' != 'ur5e'" in refused(root, replace(spec, robot="ur5e"))
    scaled = replace(spec, action=replace(ACTION, scale=(0.04, 0.1)))
    assert "action.scale.1: 0.04 != 0.1" in refused(root, scaled)
    absolute = replace(spec, action=replace(ACTION, function="joint_position"))
    assert "action.function: 'joint_position_delta' != 'joint_position'" in refused(root, absolute)
    speed = ObservationSpec({"policy": (TermSpec(Field("state", (2,)), "joint_vel"),)})
    assert "observation.groups.policy.0.function: 'last_action' != 'joint_vel'" in refused(
        root, replace(spec, observation=speed)
    )
    longer = ObservationSpec({"policy": (TermSpec(Field("state", (3,)), "last_action"),)})
    assert "observation.state: 'float32 (2,)' != 'float32 (3,)'" in refused(root, replace(spec, observation=longer))
    assert "no column 'observation.images.wrist'" in refused(root, spec_with(camera=True))


def test_chunks_and_other_groups_do_not_matter(tmp_path):
    spec = spec_with()
    chunks = replace(ACTION, horizon=16, execute=8)
    critic = ObservationSpec({**spec.observation.groups, "critic": spec.observation.terms("policy")})
    assert len(source.open_set(str(make(tmp_path / "set")), replace(spec, action=chunks, observation=critic))) == 3


def test_a_set_that_does_not_say_what_it_means_is_compared_by_shape(tmp_path, caplog):
    root = make(tmp_path / "set", about=None, robot=None)
    assert len(source.open_set(str(root), spec_with(), "peg")) == 3
    assert "does not say what its action means" in caplog.text
    broken = make(tmp_path / "broken", about={"action": {"function": 3}})
    assert "what meta/info.json says of action is not ours" in refused(broken, spec_with())


def test_another_task_is_reported(tmp_path, caplog):
    source.open_set(str(make(tmp_path / "set")), spec_with(), "stack")
    assert "was recorded in the task peg, not stack" in caplog.text


def test_a_missing_set_is_answered_with_the_command_that_makes_it(tmp_path):
    assert "make one with: robolearn collect task=peg policy=expert out=" in refused(tmp_path / "none", spec_with())
    with pytest.raises(ConfigError, match=r"missing: data.path=..., a set of episodes; make one with: robolearn col"):
        source.open_set("", spec_with(), "peg")


def test_too_few_episodes_are_counted(tmp_path):
    root = make(tmp_path / "set")
    assert "has 3 episodes, 4 are asked for" in refused(root, spec_with(), episodes=4)
    assert "has 2 successful episodes, 3 are asked for" in refused(root, spec_with(), episodes=3, only_success=True)


def test_not_a_number_is_named_with_episode_and_step(tmp_path, monkeypatch):
    from robolearn.data import layout

    root = make(tmp_path / "set")
    path = next(root.glob("data/*/*.parquet"))
    table = layout.read_table(path)
    broken = table["action"].to_pylist()
    broken[6][1] = float("nan")  # step 1 of episode 2
    at = table.schema.get_field_index("action")
    layout.pq.write_table(table.set_column(at, "action", layout.pa.array(broken, table["action"].type)), path)
    with pytest.raises(DataError, match=r"action: episode 2, step 1: element 1 is nan; `robolearn data check --repair"):
        windows(root)


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.preload: no choice 'yes'"):
        windows(make(tmp_path / "set"), preload="yes")
