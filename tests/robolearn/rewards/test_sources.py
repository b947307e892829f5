"""Every registered reward: the same verdict of a batch, an episode and live steps; kept and read again; relabelling."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reward_samples import LENGTH, SIZE, make

from robolearn import config
from robolearn.data import labels
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes
from robolearn.errors import ConfigError
from robolearn.rewards import bundle
from robolearn.rewards.base import Needs, RewardError, RewardSource, Transitions
from robolearn.rewards.classifier import ClassifierCfg
from robolearn.rewards.relabel import relabel, steps_of

pytest.importorskip("pyarrow")
pytest.importorskip("av")
config.discover(["robolearn.rewards"])
SHAPES = {"policy": (2,), "policy/front": (SIZE, SIZE, 3)}
SETTINGS = {"classifier": {"widths": (8, 8), "features": 8, "hidden": 16, "points": 4, "margin": 2, "threshold": 0.5}}


def build(name: str) -> RewardSource:
    torch.manual_seed(0)
    entry = config.entry("reward", name)
    assert entry.config is not None
    source = entry.value(entry.config(**SETTINGS.get(name, {})), SHAPES).eval()
    if name == "classifier":  # untrained: about half of all is success
        source.cfg = replace(source.cfg, at_start="warn", k=1, n=1)
        source.head[4].bias.data -= source.evidence({"policy/front": noise(64)}).median()
    return source


def noise(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    dark = torch.randint(20, 200, (n, 1, 1, 1), generator=generator)
    return (dark + torch.randint(0, 50, (n, SIZE, SIZE, 3), generator=generator)).to(torch.uint8)


def some(n: int) -> Transitions:
    success = torch.arange(n) % 3 == 2
    obs, after = ({"policy": torch.rand(n, 2), "policy/front": noise(n, seed)} for seed in (1, 2))
    return Transitions(after, success, obs, torch.zeros(n, 1), success, "make it bright")


def row(steps: Transitions, i: int) -> Transitions:
    obs, after = ({k: v[i : i + 1] for k, v in o.items()} for o in (steps.obs, steps.next_obs))
    assert steps.action is not None and steps.success is not None
    return replace(steps, obs=obs, next_obs=after, terminated=steps.terminated[i : i + 1],
                   action=steps.action[i : i + 1], success=steps.success[i : i + 1])  # fmt: skip


NAMES = config.names("reward")


def test_these_are_known() -> None:
    assert {"classifier", "sparse", "time_penalty"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_judged_alike_in_any_batch(name: str) -> None:
    source, steps = build(name), some(8)
    whole = source.judge(steps)
    assert whole.reward.shape == (8,) and whole.reward.dtype == torch.float32 and bool(whole.reward.isfinite().all())
    assert (whole.success is not None) == source.tells_success
    assert whole.reward.unique().numel() > 1
    for i in range(8):
        assert torch.allclose(source.judge(row(steps, i)).reward, whole.reward[i : i + 1])


@pytest.mark.parametrize("name", NAMES)
def test_live_steps_and_a_whole_episode_agree(name: str) -> None:
    source = build(name)
    steps = some(8)
    steps = replace(steps, obs={k: torch.cat((steps.obs[k][:1], v[:-1])) for k, v in steps.next_obs.items()})
    live = source.live(1)
    live.reset(torch.ones(1, dtype=torch.bool), {k: v[:1] for k, v in steps.obs.items()})
    one_by_one = torch.cat([live.step(row(steps, i)).reward for i in range(8)])
    assert torch.equal(one_by_one, source.episode(steps).reward)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_gives_the_same_verdicts(name: str, tmp_path: Path) -> None:
    source, steps = build(name), some(6)
    bundle.save(tmp_path / "reward", source, {"data": ["data/peg"]})
    again = bundle.load(tmp_path / "reward")
    assert type(again) is type(source) and again.digest == source.digest and again.needs == source.needs
    assert torch.equal(again.judge(steps).reward, source.judge(steps).reward)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_source_needs_is_enough(name: str) -> None:
    source, steps = build(name), some(4)
    needs = source.needs
    bare = Transitions(
        {k: v for k, v in steps.next_obs.items() if k in needs.observed}, steps.terminated,
        {k: v for k, v in steps.obs.items() if needs.before and k in needs.observed},
        steps.action if needs.action else None, steps.success if needs.success else None,
        steps.instruction if needs.instruction else "",
    )  # fmt: skip
    assert torch.equal(source.judge(bare).reward, source.judge(steps).reward)


def test_the_digest_is_of_settings_and_weights() -> None:
    source = build("classifier")
    before = source.digest
    assert build("classifier").digest == before
    source.cfg = replace(source.cfg, threshold=0.6)
    other = source.digest
    with torch.no_grad():
        source.head[4].bias += 1.0
    assert len({before, other, source.digest}) == 3


# --- bundles that are not right ----------------------------------------------------------------------------


def test_broken_bundles_are_refused_with_the_reason(tmp_path: Path) -> None:
    folder = bundle.save(tmp_path / "reward", build("classifier"))
    about = json.loads((folder / "reward.json").read_text())
    weights = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(weights[:-4])
    with pytest.raises(RewardError, match="truncated or was changed"):
        bundle.load(folder)
    (folder / "weights.safetensors").write_bytes(weights)
    cases = {
        "format 7; this version reads 1": about | {"format": 7},
        "no reward 'clasifier'; did you mean classifier": about | {"config": about["config"] | {"name": "clasifier"}},
        "changed by hand": about | {"config": about["config"] | {"threshold": 0.01}},
        "does not fit this version: no key 'colour'": about | {"config": about["config"] | {"colour": 1}},
        "is not ours": {"kind": "policy"},
    }
    for said, changed in cases.items():
        (folder / "reward.json").write_text(json.dumps(changed))
        with pytest.raises((RewardError, ConfigError), match=said):
            bundle.load(folder)
    with pytest.raises(RewardError, match=r"holds no reward.*robolearn reward train"):
        bundle.load(tmp_path / "nowhere")


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    source = build("classifier")
    torch.nn.init.constant_(source.head[4].bias, float("nan"))
    with pytest.raises(RewardError, match=r"not finite in head\.4\.bias"):
        bundle.save(tmp_path / "reward", source)
    assert not (tmp_path / "reward").exists()


# --- episodes on disk --------------------------------------------------------------------------------------


def files(root: Path) -> dict[Path, bytes]:
    return {p: hashlib.sha256(p.read_bytes()).digest() for p in root.rglob("*") if p.is_file()}


def test_sparse_and_time_penalty_by_hand(tmp_path: Path) -> None:
    """Episode 0 shows success from step 3 on: steps 2 to 5 led there."""
    root = make(tmp_path / "set", [3, None])
    before = files(root)
    for name, worth in (("sparse", [0, 0, 1, 1, 1, 1]), ("time_penalty", [-1, -1, 0, 0, 0, 0])):
        found = relabel(Episodes(root), build(name))
        assert [str(label) for label in found] == [f"{name}@1", f"{name}_success@1"]
        column = Episodes(root, {"next.reward": name}).column("next.reward")[:, 0]
        assert column.tolist() == worth + [min(worth)] * LENGTH and column.dtype == torch.float32
        assert Episodes(root).column(f"{name}_success")[:LENGTH, 0].tolist() == [False] * 2 + [True] * 4
        assert found[0].about["digest"] == build(name).digest
    assert {p: files(root)[p] for p in before} == before
    assert Episodes(root, {"r": "next.reward@0"}).column("r")[:3, 0].tolist() == [0.0, -1.0, -2.0]


def test_without_a_label_what_was_recorded_counts(tmp_path: Path) -> None:
    root = make(tmp_path / "set", [3, None], label=False)
    relabel(Episodes(root), build("sparse"), "told")
    assert Episodes(root).column("told")[:, 0].tolist() == [0, 0, 0, 0, 0, 1] + [0] * LENGTH


class Endless(RewardSource):
    """The whole episode counts: how many steps are to come. Breaks at an episode if told to."""

    needs = Needs(observed=("policy",), before=True, action=True, instruction=True)
    tells_success = False
    seen: list[int] = []
    breaks_at = -1.0

    def episode(self, steps: Transitions):
        from robolearn.rewards.base import Judgement

        assert steps.action is not None and steps.instruction == "make it bright"
        assert torch.equal(steps.next_obs["policy"][:-1], steps.obs["policy"][1:])
        assert steps.action.shape == (LENGTH, 1)
        Endless.seen.append(1)
        if len(Endless.seen) == Endless.breaks_at:
            raise KeyboardInterrupt
        return Judgement(torch.arange(len(steps.terminated), 0, -1.0), None)


def test_relabelling_goes_on_where_it_was_broken_off(tmp_path: Path) -> None:
    root = make(tmp_path / "set", [3, None, 2, None])
    source = Endless(config.entry("reward", "sparse").config(), {"policy": (2,)})  # type: ignore[misc]
    Endless.seen, Endless.breaks_at = [], 3
    with pytest.raises(KeyboardInterrupt):
        relabel(Episodes(root), source, "left")
    assert "left" not in labels.versions(root)
    Endless.breaks_at = -1
    assert relabel(Episodes(root), source, "left", stop=lambda: True) == []
    (label,) = relabel(Episodes(root), source, "left")
    assert len(Endless.seen) == 5 and str(label) == "left@1"  # two before, one broken, and the other two
    assert Episodes(root).column("left")[:LENGTH, 0].tolist() == [6, 5, 4, 3, 2, 1]
    assert not list((root / "labels").glob(".draft*"))
    assert str(relabel(Episodes(root), source, "left")[0]) == "left@2" and len(Endless.seen) == 9


def test_the_step_that_led_somewhere(tmp_path: Path) -> None:
    steps = steps_of(Episodes(make(tmp_path / "set", [3])), 0, Needs(("policy",), action=True, success=True))
    assert steps.next_obs["policy"][:, 0].tolist() == [1, 2, 3, 4, 5, 5]
    assert steps.terminated.tolist() == [False] * 5 + [True]
    assert steps.action is not None and steps.action[:, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    root = make(tmp_path / "set", [3])
    source = config.build(ClassifierCfg(threshold=0.5), shapes={"policy/front": (32, 32, 3)})
    with pytest.raises(DataError, match=r"does not fit the reward classifier.*\(24, 24, 3\).* != .*\(32, 32, 3\)"):
        relabel(Episodes(root), source)
    with pytest.raises(DataError, match="no observation 'policy/frnt'; did you mean policy/front"):
        relabel(Episodes(root), config.build(ClassifierCfg(), shapes={"policy/frnt": (24, 24, 3)}))
    with pytest.raises(ConfigError, match="no observation 'policy/wrist'; did you mean policy/front"):
        config.build(ClassifierCfg(observed=("policy/wrist",)), shapes=SHAPES)
    with pytest.raises(ConfigError, match="no camera to see success with"):
        config.build(ClassifierCfg(), shapes={"policy": (2,)})
    with pytest.raises(RewardError, match="the reward sparse reads `success`"):
        build("sparse").judge(replace(some(2), success=None))
    with pytest.raises(ConfigError, match="nothing to learn in the reward sparse"):
        type(build("sparse")).learned(build("sparse").cfg, [], 0, "cpu", lambda n, f: None)
    assert np.array_equal(labels.read(root, "success", 1)[1][0][:, 0], np.arange(LENGTH) >= 3)
