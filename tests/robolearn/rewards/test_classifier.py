"""The success classifier: what it learns from, what it refuses, and what it does live."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reward_samples import LENGTH, SIZE, make, picture
from safetensors.torch import save_file

from robolearn.data.layout import DataError
from robolearn.data.read import Episodes
from robolearn.errors import ConfigError
from robolearn.nets.vision import ResNet
from robolearn.rewards import classifier_training, corrections, frames, relabel
from robolearn.rewards.base import RewardError, Transitions
from robolearn.rewards.classifier import Classifier, ClassifierCfg

pytest.importorskip("pyarrow")
pytest.importorskip("av")
CFG = ClassifierCfg(widths=(8, 8), features=8, hidden=16, points=4, margin=2, updates=60, batch=16, learning_rate=0.01)
FRONT = "policy/front"
STARTS = [3, 2, 4, 3, 2, None, None, 3]


def quiet(update: int, figures: dict[str, float]) -> None:
    assert set(figures) == {"loss", "accuracy"}


def learn(root: Path, **changes: Any) -> tuple[Classifier, dict[str, Any]]:
    found = Classifier.learned(replace(CFG, **changes), [Episodes(root)], 0, "cpu", quiet)
    assert isinstance(found[0], Classifier)
    return found[0], found[1]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, dict[str, Any], Path]:
    root = make(tmp_path_factory.mktemp("learned") / "set", STARTS)
    return *learn(root), root


# --- learning ----------------------------------------------------------------------------------------------


def test_it_learns_and_says_how_well(learned) -> None:
    """Bright or dark: nothing to be wrong about, on episodes that it has not seen."""
    made, figures, _ = learned
    held = figures["held_out"]
    assert held["precision"] == held["recall"] == 1.0 and held["calibration_error"] < 0.2
    assert CFG.least_threshold <= made.cfg.threshold < 1.0 and held["threshold"] == made.cfg.threshold
    assert held["frames"] == LENGTH * len(figures["episodes"]["held_out"])


def test_parts_share_no_episode_and_each_has_successes(learned) -> None:
    _, figures, root = learned
    parts = figures["episodes"]
    names = [name for part in frames.PARTS for name in parts[part]]
    assert sorted(names) == [f"{root}:{e}" for e in range(len(STARTS))]
    for part in frames.PARTS:
        assert any(STARTS[int(name.rpartition(":")[2])] is not None for name in parts[part])
    assert [len(parts[part]) for part in frames.PARTS] == [6, 1, 1]  # a fifth of 6, and of 2, rounded


def test_dividing_depends_on_the_seed_alone(learned) -> None:
    found = frames.load([Episodes(learned[2])], [FRONT])
    first = frames.divide(found, (0.2, 0.2), 1)
    assert first == frames.divide(found, (0.2, 0.2), 1)
    assert first != frames.divide(found, (0.2, 0.2), 2)
    rows = found.of(first["held_out"])
    assert set(found.episode[rows].tolist()) == set(first["held_out"])
    assert len(rows) == LENGTH * len(first["held_out"]) and found.step[rows].max() == LENGTH - 1


def test_the_same_seed_gives_the_same_classifier(learned) -> None:
    assert learn(learned[2])[0].digest == learned[0].digest


def test_probabilities_are_of_the_data_and_not_of_balanced_batches(tmp_path: Path) -> None:
    """One step of twelve shows success. A network that knows nothing says 1/2 of balanced batches: here 1/12."""
    made, _ = learn(make(tmp_path / "set", [5, None] * 5), updates=1, threshold=0.5)
    torch.nn.init.zeros_(made.head[4].weight), torch.nn.init.zeros_(made.head[4].bias)
    seen = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)
    assert made.probability({FRONT: seen}).item() == pytest.approx(1 / 12, abs=1e-4)


def test_the_state_is_read_where_it_is_asked_for(learned) -> None:
    made, _ = learn(learned[2], observed=(FRONT, "policy"), updates=2, threshold=0.5)
    assert made.shapes == {FRONT: (SIZE, SIZE, 3), "policy": (2,)}
    normalised = made.normalizers["policy"](torch.tensor([[0.0, 0.0], [5.0, 50.0]]))
    assert normalised.tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    alone, _ = learn(learned[2], observed=("policy",), updates=2, threshold=0.5)
    assert alone.pictures == [] and alone.probability({"policy": torch.zeros(3, 2)}).shape == (3,)


def test_pretrained_weights_stay_as_they_are(learned, tmp_path: Path) -> None:
    torch.manual_seed(7)
    given = ResNet((8, 8), 1).state_dict()
    save_file(given, tmp_path / "resnet.safetensors")
    made, _ = learn(learned[2], weights=str(tmp_path / "resnet.safetensors"), updates=3, threshold=0.5)
    there = made.cameras["policy:front"].backbone.state_dict()
    assert all(torch.equal(there[k], v) for k, v in given.items())


def test_crops_are_random_in_training_and_from_the_middle_after_it() -> None:
    torch.manual_seed(0)
    made = Classifier(replace(CFG, dropout=0.0), {FRONT: (SIZE, SIZE, 3)})
    seen = {FRONT: torch.randint(0, 255, (1, SIZE, SIZE, 3), dtype=torch.uint8)}
    generator = torch.Generator().manual_seed(0)
    made.train()
    assert made.logits(seen, generator) != made.logits(seen, generator)
    made.eval()
    assert made.logits(seen, generator) == made.logits(seen, generator)
    edge = {FRONT: seen[FRONT].clone()}
    edge[FRONT][:, :2] = 0  # what the crop leaves out
    assert made.logits(edge) == made.logits(seen)


def test_what_cannot_be_learned_from_is_refused(learned, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no label 'success': record with `robolearn reward record`"):
        learn(make(tmp_path / "unlabelled", STARTS, label=False))
    with pytest.raises(DataError, match="2 of 5 episodes show success; at least 3 are needed"):
        learn(make(tmp_path / "few", [3, 3, None, None, None]))
    with pytest.raises(RewardError, match="100 % of the steps to train with show success"):
        learn(make(tmp_path / "all", [0] * 5))
    with pytest.raises(RewardError, match=r"no threshold reaches a precision of 0\.95"):
        learn(make(tmp_path / "shuffled", STARTS), least_threshold=0.9999, updates=1)
    with pytest.raises(DataError, match="no observation 'policy/wrist'"):
        learn(learned[2], observed=("policy/wrist",))
    with pytest.raises(ConfigError, match="leaves nothing of a picture"):
        learn(learned[2], margin=12)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 5}, r"reward.k must be 1 to reward.n \(4\), got 5"),
        ({"at_start": "ignore"}, "reward.at_start: no choice 'ignore'"),
        ({"precision": 1.0}, "reward.precision must be at least 0 and below 1"),
        ({"choose_share": 0.6, "held_out_share": 0.4}, "leave no episode to train with"),
        ({"batch": 1}, "batch at least 2"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(CFG, **changes)


# --- corrections -------------------------------------------------------------------------------------------


def test_a_false_positive_is_in_the_next_training(tmp_path: Path) -> None:
    root = make(tmp_path / "set", STARTS)
    label = corrections.mark(Episodes(root), {0: {False: [3, 4]}, 5: {True: [5]}})
    assert label.version == 2 and label.about["marks"] == {"0": {"no": "3-4"}, "5": {"yes": "5"}}
    found = frames.load([Episodes(root)], [FRONT])
    assert found.versions == {str(root): 2}
    assert found.done[:LENGTH].tolist() == [False] * 5 + [True]
    assert found.done[5 * LENGTH : 6 * LENGTH].tolist() == [False] * 5 + [True]
    assert found.done[LENGTH : 2 * LENGTH].tolist() == [False] * 2 + [True] * 4  # as it was
    with pytest.raises(DataError, match="episode 0 has 6 steps, and no 6"):
        corrections.mark(Episodes(root), {0: {False: [6]}})
    corrections.mark(Episodes(make(tmp_path / "new", [3], label=False)), {0: {True: [4, 5]}})
    assert frames.label_of(Episodes(tmp_path / "new"))[0].tolist() == [False] * 4 + [True] * 2


# --- live --------------------------------------------------------------------------------------------------


class World:
    """Pictures that show success where they are told to."""

    def __init__(self) -> None:
        import numpy as np

        self.rng = np.random.default_rng(3)

    def obs(self, *done: bool) -> dict[str, torch.Tensor]:
        return {FRONT: torch.stack([torch.from_numpy(picture(d, self.rng)) for d in done])}

    def step(self, *done: bool) -> Transitions:
        return Transitions(self.obs(*done), torch.zeros(len(done), dtype=torch.bool))


def test_success_is_said_after_three_of_four_steps_and_forgotten_at_a_reset(learned) -> None:
    world, live = World(), learned[0].live(2)
    live.reset(torch.tensor([True, True]), world.obs(False, False))
    said = [live.step(world.step(*done)) for done in ((1, 0), (1, 1), (0, 1), (1, 1))]
    assert [s.success.tolist() for s in said] == [[False, False], [False, False], [False, False], [True, True]]
    assert said[-1].reward.tolist() == [1.0, 1.0] and said[0].reward.tolist() == [0.0, 0.0]
    live.reset(torch.tensor([False, True]), world.obs(True, False))
    assert live.step(world.step(True, True)).success.tolist() == [True, False]


def test_success_at_the_first_sight_is_refused(learned) -> None:
    world, live = World(), learned[0].live(2)
    with pytest.raises(RewardError, match=r"says success \(.*\) at the first sight of an episode, in environments 1"):
        live.reset(torch.tensor([True, True]), world.obs(False, True))
    assert not any(live.step(world.step(False, True)).success[1] for _ in range(6))  # and who goes on gets nothing
    live.reset(torch.tensor([True, False]), world.obs(False, True))  # environment 1 is not at its first sight


def test_or_it_is_warned_of_and_waited_for(learned, caplog: pytest.LogCaptureFixture) -> None:
    made = learned[0]
    warning = Classifier(replace(made.cfg, at_start="warn"), made.shapes)
    warning.load_state_dict(made.state_dict())
    world, live = World(), warning.live(1)
    with caplog.at_level(logging.WARNING):
        live.reset(torch.tensor([True]), world.obs(True))
    assert "at the first sight" in caplog.text and "Nothing is rewarded until it is gone" in caplog.text
    assert [bool(live.step(world.step(d)).success) for d in (1, 1, 1, 1, 0, 1, 1, 1)] == [False] * 7 + [True]


def test_a_covered_camera_is_no_success(learned) -> None:
    world, live = World(), learned[0].live(1)
    white = {FRONT: torch.full((1, SIZE, SIZE, 3), 250, dtype=torch.uint8)}
    with pytest.raises(RewardError, match="a camera of environment 0 shows one colour"):
        live.reset(torch.tensor([True]), white)
    live.reset(torch.tensor([True]), world.obs(False))
    always = Classifier(learned[0].cfg, learned[0].shapes)
    torch.nn.init.constant_(always.head[4].bias, 100.0)
    assert always.hits(world.obs(False)).tolist() == [True] and always.hits(white).tolist() == [False]
    assert learned[0].blank(white).tolist() == [True] and learned[0].blank(world.obs(True, False)).tolist() == [0, 0]


def test_an_untrained_one_is_not_used_live() -> None:
    with pytest.raises(RewardError, match="has no threshold: it is not trained"):
        Classifier(CFG, {FRONT: (SIZE, SIZE, 3)}).live(1)


def test_episodes_are_labelled_as_it_would_have_been_live(learned, tmp_path: Path) -> None:
    """Pictures show success from step 2 on, that is after step 1; three of four are there after step 3."""
    root = make(tmp_path / "set", [2, None, 0], seed=5)
    relabel.relabel(Episodes(root), learned[0])
    found = Episodes(root).column("classifier")[:, 0]
    assert found.tolist() == [0, 0, 0, 1, 1, 1] + [0] * 2 * LENGTH  # the third from the first sight on: nothing
    assert classifier_training.judged(learned[0], frames.load([Episodes(root)], [FRONT]), [0])["recall"] == 1.0
