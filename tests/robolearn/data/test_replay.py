"""Replays: returns by hand, and against a plain account of everything that happened, whatever the rings forgot."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from chunk_samples import chunk_spec, gaussian
from torch import Tensor

from robolearn.data.demonstrations import replay_of
from robolearn.data.layout import DataError
from robolearn.data.replay import Replay
from robolearn.errors import ConfigError
from robolearn.policies.chunked import ChunkedPolicy

SHAPES = {"policy": (3,), "policy/eye": (2, 2, 3)}
DTYPES = {"policy/eye": torch.uint8}
Where = tuple[int, int, int]
"""Lane, episode in the lane, step."""


def empty(capacity: int, lanes: int) -> Replay:
    return Replay(capacity, lanes, SHAPES, DTYPES, 1)


def frames(where: list[Where]) -> dict[str, Tensor]:
    """The vector says which frame it is; the picture is grey, of 50 e + t."""
    grey = torch.tensor([(50 * e + t) % 256 for _, e, t in where], dtype=torch.uint8)
    return {"policy": torch.tensor(where, dtype=torch.float32), "policy/eye": grey.view(-1, 1, 1, 1).repeat(1, 2, 2, 3)}


def bits(*values: bool) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


class Account:
    """Drives a replay with random streams, and keeps in plain Python what really happened."""

    def __init__(self, lanes: int, length: int, seed: int, cuts: float = 0.0, end: float = 0.2):
        self.replay, self.chance = empty(lanes * length, lanes), random.Random(seed)
        self.cuts, self.end = cuts, end
        self.now: list[Where] = [(lane, 0, 0) for lane in range(lanes)]
        self.seen: list[list[Where]] = [[w] for w in self.now]
        self.came: dict[Where, tuple[float, float, bool]] = {}
        """Action, reward and whether it terminated, of the frames that have an action."""
        self.replay.begin(frames(self.now))

    def step(self) -> None:
        if self.chance.random() < self.cuts:
            self.cut()
        n, draw = len(self.now), self.chance.random
        terminated = [draw() < self.end / 2 for _ in range(n)]
        done = [over or draw() < self.end / 2 for over in terminated]
        action, reward = [round(draw(), 3) for _ in range(n)], [round(draw(), 3) for _ in range(n)]
        for w, *what in zip(self.now, action, reward, terminated, strict=True):
            self.came[w] = tuple(what)
        final = [(lane, e, t + 1) for lane, e, t in self.now]
        self.now = [(lane, e + 1, 0) if over else (lane, e, t) for (lane, e, t), over in zip(final, done, strict=True)]
        for lane, (last, new) in enumerate(zip(final, self.now, strict=True)):
            self.seen[lane] += [last] if last == new else [last, new]
        ends = bits(*terminated), bits(*done) & ~bits(*terminated)
        self.replay.add(torch.tensor(action)[:, None], torch.tensor(reward), *ends, frames(final), frames(self.now))

    def cut(self) -> None:
        mask = [self.chance.random() < 0.5 for _ in self.now]
        self.replay.cut(bits(*mask))
        self.now = [
            (lane, e + 1, 0) if over else (lane, e, t) for (lane, e, t), over in zip(self.now, mask, strict=True)
        ]
        for lane in (lane for lane, over in enumerate(mask) if over):
            self.seen[lane].append(self.now[lane])
        self.replay.begin(frames(self.now), bits(*mask))

    def kept(self) -> set[Where]:
        """The transitions that the rings have not forgotten."""
        return {w for lane in self.seen for w in lane[-self.replay.length :] if w in self.came}

    def after(self, where: Where, steps: int, gamma: float) -> tuple[float, float, Where]:
        """Reward, discount and next frame, step by step."""
        (lane, e, t), total, k = where, 0.0, 0
        while k < steps and (lane, e, t + k) in self.came:
            _, reward, terminated = self.came[lane, e, t + k]
            total, k = total + gamma**k * reward, k + 1
            if terminated:
                return total, 0.0, (lane, e, t + k)
        return total, gamma**k, (lane, e, t + k)

    def check(self, rows: Tensor, steps: int, gamma: float = 0.9) -> None:
        found = self.replay.gather(rows, steps, gamma)
        where = [tuple(int(x) for x in row) for row in found["obs/policy"]]
        total, discount, following = zip(*(self.after(w, steps, gamma) for w in where), strict=True)
        assert torch.equal(found["next/policy"], torch.tensor(following, dtype=torch.float32))
        assert torch.equal(found["next/policy/eye"], frames(list(following))["policy/eye"])
        assert torch.equal(found["obs/policy/eye"], frames(where)["policy/eye"])
        torch.testing.assert_close(found["reward"], torch.tensor(total))
        torch.testing.assert_close(found["discount"], torch.tensor(discount))
        torch.testing.assert_close(found["action"][:, 0], torch.tensor([self.came[w][0] for w in where]))


# --- by hand -------------------------------------------------------------------------------------------------


def three_episodes() -> Replay:
    """Rewards 1, 2, 4 and a termination; 8, 16 and the clock; 32, still going on. Slots:
    0 to 2 and the final 3; 4, 5 and the final 6; 7 and the newest 8."""
    replay, where = empty(20, 1), (0, 0, 0)
    replay.begin(frames([where]))
    for reward, terminated, truncated in ((1, 0, 0), (2, 0, 0), (4, 1, 0), (8, 0, 0), (16, 0, 1), (32, 0, 0)):
        lane, e, t = where
        final, where = (lane, e, t + 1), (lane, e + 1, 0) if terminated or truncated else (lane, e, t + 1)
        given = torch.tensor([[0.1]]), torch.tensor([float(reward)]), bits(bool(terminated)), bits(bool(truncated))
        replay.add(*given, frames([final]), frames([where]))
    return replay


def test_three_step_returns_by_hand():
    """gamma = 0.5. A termination has no value after it; the clock's end has that of its final frame, (1, 2)."""
    found = three_episodes().gather(torch.tensor([0, 1, 2, 4, 5, 7]), 3, 0.5)
    assert found["reward"].tolist() == [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16, 32]
    assert found["discount"].tolist() == [0, 0, 0, 0.25, 0.5, 0.5]
    following = [[0, 0, 3], [0, 0, 3], [0, 0, 3], [0, 1, 2], [0, 1, 2], [0, 2, 1]]
    assert found["next/policy"].tolist() == following


def test_shorter_returns_by_hand():
    replay = three_episodes()
    one = replay.gather(torch.tensor([0, 2, 5, 7]), 1, 0.5)
    assert one["reward"].tolist() == [1, 4, 16, 32] and one["discount"].tolist() == [0.5, 0, 0.5, 0.5]
    assert one["next/policy"].tolist() == [[0, 0, 1], [0, 0, 3], [0, 1, 2], [0, 2, 1]]
    two = replay.gather(torch.tensor([0, 1]), 2, 0.5)
    assert two["reward"].tolist() == [1 + 1, 2 + 2] and two["discount"].tolist() == [0.25, 0]
    assert two["next/policy"].tolist() == [[0, 0, 2], [0, 0, 3]]


def test_no_frame_is_stored_twice():
    """Six transitions, two tails, and the newest frame; pictures as they came."""
    replay = three_episodes()
    assert len(replay) == 6 and int(replay.filled) == 6 + 2 + 1
    assert len({tuple(row) for row in replay.frames["policy"][:9].tolist()}) == 9
    assert replay.frames["policy/eye"].dtype == torch.uint8


# --- against the account -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_what_follows_is_what_followed_in_the_same_episode(seed):
    """Rings written over several times; every transition there is, and those that are drawn."""
    chance = random.Random(1000 + seed)
    lanes, length, steps = chance.randint(1, 5), chance.randint(3, 15), chance.randint(1, 5)
    account = Account(lanes, length, seed, cuts=0.2 * (seed % 2), end=chance.choice([0.05, 0.3, 0.8]))
    generator = torch.Generator().manual_seed(seed)
    for t in range(80):
        account.step()
        if t % 5 == 0:
            rows = account.replay.acted.nonzero().flatten()
            where = {tuple(int(x) for x in w) for w in account.replay.frames["policy"][rows]}
            assert where == account.kept() and len(account.replay) == len(where)
            account.check(rows, steps)
            drawn = account.replay.sample(32, generator, steps, 0.9)["obs/policy"]
            assert {tuple(int(x) for x in w) for w in drawn} <= account.kept()


@pytest.mark.parametrize("seed", range(4))
def test_slots_are_transitions_and_ends(seed):
    """While nothing is written over: one frame more for every episode that ended, and one where each goes on."""
    account = Account(3, 200, seed, cuts=0.2)
    for _ in range(60):
        account.step()
    episodes = sum(e + 1 for _, e, _ in account.now)
    assert int(account.replay.filled.sum()) == len(account.replay) + episodes
    assert len(account.replay) == 3 * 60 and int(account.replay.episodes) == episodes


def test_every_transition_is_as_likely_as_any_other():
    """Chi square of 100,000 draws, six deviations: lanes are filled unevenly, and some have begun anew."""
    account = Account(4, 40, 5, cuts=0.1, end=0.4)
    for _ in range(25):
        account.step()
    assert len(set(account.replay.filled.tolist())) > 1
    rows = account.replay.draw(100_000, torch.Generator().manual_seed(0))
    counts = rows.bincount(minlength=160)[account.replay.acted].double()
    assert int(counts.sum()) == 100_000 and len(counts) == len(account.replay)
    expected, freedom = 100_000 / len(counts), len(counts) - 1
    assert float(((counts - expected) ** 2 / expected).sum()) < freedom + 6 * (2 * freedom) ** 0.5


def test_what_is_drawn_is_a_transition_however_few_there_are():
    """After an episode of one step, one frame of three has an action."""
    replay = empty(12, 1)
    replay.begin(frames([(0, 0, 0)]))
    one = torch.ones(1)
    replay.add(one[:, None], one, bits(True), bits(False), frames([(0, 0, 1)]), frames([(0, 1, 0)]))
    rows = replay.draw(20_000, torch.Generator().manual_seed(0))
    assert rows.unique().tolist() == [0]


# --- whole episodes ------------------------------------------------------------------------------------------


def whole(replay: Replay, e: int, n: int, terminated: bool) -> None:
    """Rewards 1, 2, 3, ..., actions 0.1, 0.2, ..."""
    count = torch.arange(1.0, n + 1)
    ends = torch.arange(n) == (n - 1 if terminated else n)
    replay.add_episode(frames([(0, e, t) for t in range(n)]), count[:, None] / 10, count, ends)


def test_an_episode_that_terminated_is_known_to_its_end():
    replay = empty(20, 1)
    whole(replay, 0, 3, terminated=True)
    assert len(replay) == 3 and int(replay.filled) == 4
    found = replay.gather(torch.tensor([0, 1, 2]), 2, 0.5)
    assert found["reward"].tolist() == [1 + 1, 2 + 1.5, 3] and found["discount"].tolist() == [0.25, 0, 0]
    assert found["next/policy"][0].tolist() == [0, 0, 2]


def test_the_last_step_of_an_episode_that_was_cut_off_is_no_transition():
    """What it led to was not recorded."""
    replay = empty(20, 1)
    whole(replay, 0, 4, terminated=False)
    assert len(replay) == 3 and int(replay.filled) == 4
    found = replay.gather(torch.tensor([0, 1, 2]), 2, 0.5)
    assert found["reward"].tolist() == [1 + 1, 2 + 1.5, 3] and found["discount"].tolist() == [0.25, 0.25, 0.5]
    assert found["next/policy"].tolist() == [[0, 0, 2], [0, 0, 3], [0, 0, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_episodes_one_after_another_do_not_mix(seed):
    """Also where they are written over from the front."""
    chance, replay = random.Random(seed), empty(23, 1)
    for e in range(12):
        whole(replay, e, chance.randint(1, 7), chance.random() < 0.5)
        found = replay.gather(replay.acted.nonzero().flatten(), 3, 0.5)
        if not len(found["reward"]):
            continue
        assert torch.equal(found["obs/policy"][:, 1], found["next/policy"][:, 1])
        going_on = found["discount"] > 0
        ahead = (found["next/policy"] - found["obs/policy"])[going_on, 2]
        assert torch.equal(0.5**ahead, found["discount"][going_on])
        torch.testing.assert_close(found["action"][:, 0] * 10, found["obs/policy"][:, 2] + 1)
    assert int(replay.filled) == 23


def test_an_episode_longer_than_the_replay_is_refused():
    with pytest.raises(ConfigError, match="an episode of 20 steps does not fit a replay's lane of 20"):
        whole(empty(20, 1), 0, 20, terminated=True)


# --- demonstrations ------------------------------------------------------------------------------------------

LENGTHS = (9, 5, 14)


def recorded(root: Path):
    """Random episodes; all but the second terminate. What was applied is nine tenths of what was commanded."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
    from robolearn.data import contract, source
    from robolearn.data.write import Writer

    rng, spec = np.random.default_rng(0), chunk_spec(8, 4)
    columns = contract.features(spec)
    with Writer(root, spec.rate_hz, columns, robot=spec.robot, about=contract.about(spec, "peg")) as writer:
        for e, n in enumerate(LENGTHS):
            writer.begin("insert the peg")
            for t in range(n):
                step = {k: rng.uniform(-1, 1, f.shape).astype(f.dtype) for k, f in columns.items()}
                step |= {k: np.zeros(f.shape, f.dtype) for k, f in columns.items() if f.dtype == "bool"}
                step["action.applied"] = 0.9 * step["action"]
                step["next.terminated"][:] = t == n - 1 and e != 1
                writer.add(step)
            writer.end()
    return source.open_set(str(root), spec, "peg")


def lively() -> ChunkedPolicy:
    """A base whose actions differ."""
    torch.manual_seed(0)
    base = gaussian(chunk_spec(8, 4)).eval()
    torch.nn.init.normal_(base.mean[-1].weight, std=0.3)
    return base


@pytest.mark.parametrize("corrects", [False, True])
def test_demonstrations_become_transitions_of_what_was_applied(tmp_path, corrects):
    """Over a base, what had to be added to what it says there: base + scale * stored is the recorded action, its chunks
    begun anew in every episode."""
    episodes = recorded(tmp_path / "set")
    replay = Replay(60, 1, {"policy": (5 if corrects else 3,)}, {}, 2)
    replay_of(episodes, replay, chunk_spec(8, 4), lively() if corrects else None, 0.2)
    assert len(replay) == sum(LENGTHS) - 1  # the last step of the second was cut off
    at = 0
    for e, n in zip(episodes.ids, LENGTHS, strict=True):
        said, alone, known = episodes.episode(e), lively(), n - (e == 1)
        rows = slice(at, at + known)
        found, action = replay.frames["policy"][rows], replay.action[rows]
        torch.testing.assert_close(found[:, :3], said["observation.state"][:known])
        if corrects:
            base = torch.cat([alone.act({"policy": o[None]}) for o in said["observation.state"]])[:known]
            torch.testing.assert_close(found[:, 3:], base, rtol=0, atol=1e-5)
            assert float(base.std()) > 0.1
            action = base + 0.2 * action
        torch.testing.assert_close(action, said["action.applied"][:known], rtol=0, atol=1e-5)
        torch.testing.assert_close(replay.reward[rows], said["next.reward"].flatten()[:known])
        assert replay.terminated[rows].tolist() == [False] * (known - 1) + [e != 1]
        at += known + 1


def test_a_set_without_rewards_is_refused(tmp_path):
    episodes = recorded(tmp_path / "set")
    del episodes.info.features["next.reward"]
    with pytest.raises(DataError, match=r"has no next\.reward: record it with robolearn collect"):
        replay_of(episodes, empty(60, 1), chunk_spec(8, 4))


# --- checkpoints and refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 4, 60])
def test_a_replay_that_was_put_back_is_the_same(steps):
    """Empty, partly filled, and written over; the same is drawn, and what is added goes to the same places."""
    account = Account(3, 12, 1, cuts=0.1)
    for _ in range(steps):
        account.step()
    again = empty(36, 3)
    again.load_state_dict(copy.deepcopy(account.replay.state_dict()))
    for replay in (own := account.replay, again):
        one = torch.ones(3)
        replay.add(one[:, None], one, bits(True, False, False), bits(False, True, False), *[frames(account.now)] * 2)
    assert len(own) == len(again) > 0
    a, b = (r.sample(64, torch.Generator().manual_seed(2), 3, 0.9) for r in (own, again))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert all(torch.equal(x, y) for x, y in zip(own._all().values(), again._all().values(), strict=True))


def test_only_what_was_filled_is_saved():
    assert three_episodes().state_dict()["slots"]["policy"].shape == (1, 9, 3)


def test_a_replay_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the replay has \[1, 20\] lanes and slots, now it is \[2, 20\]"):
        empty(40, 2).load_state_dict(three_episodes().state_dict())


def test_a_replay_without_room_for_an_episode_is_refused():
    with pytest.raises(ConfigError, match="a replay of 11 frames for 4 environments holds no episode"):
        empty(11, 4)


def test_a_lane_that_has_not_begun_is_refused():
    replay, one = empty(20, 2), torch.ones(2)
    where = frames([(0, 0, 0), (1, 0, 0)])
    with pytest.raises(ValueError, match="a lane's episode has not begun"):
        replay.add(one[:, None], one, bits(False, False), bits(False, False), where, where)
    replay.begin(where)
    replay.cut(bits(False, True))
    with pytest.raises(ValueError, match="a lane's episode has not begun"):
        replay.add(one[:, None], one, bits(False, False), bits(False, False), where, where)
