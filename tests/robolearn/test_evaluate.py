"""Scores: intervals against published values, and no favour for short episodes."""

import json

import pytest
import torch

from robolearn.errors import ConfigError
from robolearn.loops.evaluate import EpisodeLog, evaluate, run_episodes, summarize, table, wilson
from robolearn.policies.base import Policy


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)],
)
def test_wilson_against_newcombe_1998(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


class Uneven:
    """Environment 0 ends every step and fails, environment 1 ends every fourth step and succeeds."""

    num_envs = 2
    device = torch.device("cpu")

    def reset(self, seed=None):
        self.t = 0
        return {"policy": torch.zeros(2, 1)}, {}

    def step(self, action):
        self.t += 1
        done = torch.tensor([True, self.t % 4 == 0])
        episode = {"success": torch.tensor([0.0, 1.0]), "error_m": torch.tensor([0.3, 0.1])}
        no = torch.zeros(2, dtype=torch.bool)
        return {"policy": torch.zeros(2, 1)}, torch.zeros(2), done, no, {"episode": episode}


def test_each_environment_contributes_the_same_number_of_episodes():
    scores = evaluate(Uneven(), lambda obs: torch.zeros(2, 1), episodes=10)
    assert scores["episodes"] == 10
    assert scores["success"] == 0.5
    assert scores["error_m"]["mean"] == pytest.approx(0.2)


def test_summary_by_hand():
    rows = {"success": torch.tensor([1.0, 1.0, 0.0, 1.0]), "error_m": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    scores = summarize(rows)
    assert scores["success"] == 0.75
    assert scores["error_m"]["median"] == 2.5
    assert scores["error_m"]["standard_error"] == pytest.approx((5 / 3) ** 0.5 / 2)
    assert "75.0 %" in table(scores) and "error_m" in table(scores)


def test_the_root_mean_square_is_over_the_successful_episodes():
    rows = {"success": torch.tensor([1.0, 0.0, 1.0]), "error_m": torch.tensor([0.3, 9.0, 0.4])}
    scores = summarize(rows)
    assert scores["error_m"]["rms"] == pytest.approx((0.5 * (0.09 + 0.16)) ** 0.5)
    assert "RMS of the successful 0.3536" in table(scores)
    lost = summarize({"success": torch.zeros(2), "error_m": torch.ones(2)})
    assert lost["error_m"]["rms"] is None and "RMS" not in table(lost)


class Counter(Policy):
    """Commands how often it has acted since it was told to forget."""

    def reset(self, mask):
        self.count = torch.zeros(len(mask), 1).where(mask[:, None], getattr(self, "count", torch.zeros(1, 1)))

    def act(self, obs):
        self.count = self.count + 1.0
        return self.count


def test_a_recurrent_policy_forgets_where_an_episode_ends():
    """Environment 0 ends every period, environment 1 every fourth."""
    env, policy = Uneven(), Counter(None, {})
    seen, step = [], env.step
    env.step = lambda action: seen.append(action.flatten().tolist()) or step(action)
    policy.reset(torch.ones(2, dtype=torch.bool))
    policy.act({}), policy.act({})  # of an evaluation before
    run_episodes(env, policy.act, 4, reset=policy.reset)
    assert seen == [[1.0, c] for c in (1.0, 2.0, 3.0, 4.0)] * 2


def test_one_episode_has_no_standard_error_and_is_json():
    scores = summarize({"success": torch.ones(1), "error_m": torch.ones(1)})
    assert json.loads(json.dumps(scores, allow_nan=False))["error_m"]["standard_error"] is None


def test_the_quota_is_per_environment():
    log = EpisodeLog(2, 1, torch.device("cpu"))
    log.add({"success": torch.tensor([1.0, 0.0])}, torch.tensor([True, False]))
    log.add({"success": torch.tensor([0.0, 1.0])}, torch.tensor([True, False]))
    assert not log.complete
    log.add({"success": torch.tensor([0.0, 0.0])}, torch.tensor([True, True]))
    assert log.complete
    assert log.results()["success"].tolist() == [1.0, 0.0]


def test_a_tasks_expert_is_evaluated_like_a_policy(tmp_path, capsys):
    """With a film; who has no expert says so."""
    from robolearn.cli.evaluate import main

    scores, film = tmp_path / "scores.json", tmp_path / "film.mp4"
    words = ["task=cartpole", "policy=expert", "episodes=6", "task.episode_length_s=2"]
    assert main([*words, f"json={scores}", f"video={film}", "video_envs=1"]) == 0
    found = json.loads(scores.read_text())
    assert found["episodes"] == 6 and found["success"] == 1.0 and found["run"] == "expert"
    assert film.stat().st_size > 1000 and "100.0 %" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="crazyflie_hover has no scripted expert"):
        main(["task=crazyflie_hover", "policy=expert", "backend=quadrotor", "episodes=1"])
