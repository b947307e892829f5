"""Simulated people: when they take over, how late, for how long; the same by the same seed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from robolearn import config
from robolearn.errors import ConfigError
from robolearn.hil import simulated
from robolearn.hil.simulated import AdvantageCfg, AtRandomCfg, ComparingCfg, LateCfg, SimulatedPerson, WatchfulCfg

DT = 0.1
EXACT = {"noise": 0.0, "delay_s": 0.0, "hold_s": 0.0}


class One:
    """A hand that says how often it was asked since it began, in every environment."""

    def __init__(self, num_envs: int):
        self.asked, self.begun = torch.zeros(num_envs), []  # type: ignore[var-annotated]

    def reset(self, mask: Tensor) -> None:
        self.begun.append(mask.tolist())
        self.asked = self.asked * ~mask

    take_over = reset

    def act(self) -> Tensor:
        self.asked = self.asked + 1.0
        return self.asked[:, None].expand(-1, 2)


def person(cfg: Any, num_envs: int = 1, seed: int = 0, value: Any = None) -> SimulatedPerson:
    generator = torch.Generator().manual_seed(seed)
    given = {"num_envs": num_envs, "dt": DT, "device": torch.device("cpu"), "generator": generator, "value": value}
    made = config.build(cfg, hand=One(num_envs), **given)
    made.reset(torch.ones(num_envs, dtype=torch.bool))
    return made


def watched(who: SimulatedPerson, steps: int, num_envs: int = 1) -> Tensor:
    """(steps, B) bool: the person's steps, of a policy that proposes 0 and sees how many steps have passed."""
    return torch.stack([
        who.act({"policy": torch.full((num_envs, 1), float(t))}, torch.zeros(num_envs, 2))[0] for t in range(steps)
    ])  # fmt: skip


def drawn(acting: Tensor) -> str:
    return "".join("h" if bool(a) else "." for a in acting[:, 0])


@pytest.mark.parametrize(
    ("given", "timeline"),
    [
        (EXACT | {"patience_s": 0.3}, "...hhhhh"),
        (EXACT | {"patience_s": 0.3, "delay_s": 0.2}, ".....hhh"),
        (EXACT | {"patience_s": 0.0}, "hhhhhhhh"),
        (EXACT | {"patience_s": 2.0}, "........"),
    ],
)
def test_who_is_late_takes_over_after_patience_and_delay_and_stays(given: dict[str, float], timeline: str) -> None:
    assert drawn(watched(person(LateCfg(**given)), 8)) == timeline  # type: ignore[arg-type]


def test_a_reset_begins_anew_in_its_environments_alone() -> None:
    who = person(LateCfg(**EXACT | {"patience_s": 0.2}), num_envs=2)  # type: ignore[arg-type]
    assert watched(who, 3, 2).tolist() == [[False] * 2, [False] * 2, [True] * 2]
    who.reset(torch.tensor([True, False]))
    assert watched(who, 3, 2).tolist() == [[False, True], [False, True], [True, True]]


def test_the_hand_begins_where_it_takes_over() -> None:
    """What it planned for another scene is forgotten: its first action is the first."""
    who = person(LateCfg(**EXACT | {"patience_s": 0.2}))  # type: ignore[arg-type]
    found = [who.act({}, torch.zeros(1, 2))[1][0, 0].item() for _ in range(4)]
    assert found[2:] == [1.0, 2.0]
    assert who.hand.begun == [[True], [True]]  # type: ignore[attr-defined]


def test_a_wish_is_carried_out_though_it_has_passed() -> None:
    """Worth less by 1 at step 2 alone; decided with a delay of 0.3 s, held for 0.2 s."""

    def value(obs: dict[str, Tensor], action: Tensor) -> Tensor:
        return (obs["policy"][:, 0] == 2.0).float() * action[:, 0].clamp_max(1.0)

    cfg = ComparingCfg(delay_s=0.3, hold_s=0.2, margin=0.5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(simulated, "CERTAINTY", 1.0)
        assert drawn(watched(person(cfg, value=value), 10)) == ".....hh..."


def test_what_was_lost_adds_up() -> None:
    """0.1 a step: more than 0.35 after the fourth."""

    def value(obs: dict[str, Tensor], action: Tensor) -> Tensor:
        return 0.1 * action[:, 0].clamp_max(1.0)

    cfg = AdvantageCfg(delay_s=0.0, hold_s=0.2, margin=0.35)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(simulated, "CERTAINTY", 1.0)
        assert drawn(watched(person(cfg, value=value), 10)) == "...hh...hh"


def test_who_watches_takes_over_where_the_policy_goes_astray_until_it_does_not() -> None:
    """They would do 1, the policy does 0 four times, then 1: on the average over 0.3 s it is off by 1/3, 0.56, 0.70,
    0.80, 0.53, 0.36, 0.24."""
    who = person(WatchfulCfg(**EXACT | {"margin": 0.5}))  # type: ignore[arg-type]
    proposals = [0.0] * 4 + [1.0] * 4
    who.hand.act = lambda: torch.ones(1, 2)  # type: ignore[method-assign]
    acting = [who.act({}, torch.full((1, 2), p))[0] for p in proposals]
    assert drawn(torch.stack(acting)) == ".hhhhh.."


def test_who_watches_brings_an_episode_to_its_end_when_it_has_had_its_time() -> None:
    who = person(WatchfulCfg(**EXACT | {"patience_s": 0.3}))  # type: ignore[arg-type]
    who.hand.act = lambda: torch.ones(1, 2)  # type: ignore[method-assign]
    assert drawn(torch.stack([who.act({}, torch.ones(1, 2))[0] for _ in range(6)])) == "...hhh"


def test_who_has_watched_for_long_enough_leaves_the_policy_its_way_until_its_time_is_over() -> None:
    """They would do 1, it does 0. The time that they have watched runs on from one episode to the next."""
    who = person(WatchfulCfg(**EXACT | {"watch_s": 0.1, "trust_after_s": 0.4, "patience_s": 0.5}))  # type: ignore[arg-type]
    who.hand.act = lambda: torch.ones(1, 2)  # type: ignore[method-assign]
    assert drawn(watched(who, 3)) == "hhh"
    who.reset(torch.tensor([True]))
    assert drawn(watched(who, 7)) == "....." + "hh"


def test_who_watches_sees_the_scene_afresh_until_they_act() -> None:
    who = person(WatchfulCfg(**EXACT | {"margin": 0.5, "watch_s": 0.1}))  # type: ignore[arg-type]
    found = [who.act({}, torch.ones(1, 2))[1][0, 0].item() for _ in range(2)]
    found += [who.act({}, torch.zeros(1, 2))[1][0, 0].item() for _ in range(3)]
    assert found == [1.0, 1.0, 1.0, 2.0, 3.0]


def test_who_compares_needs_a_critic() -> None:
    with pytest.raises(ConfigError, match=r"person=margin compares actions: it needs person\.critic=RUN"):
        person(ComparingCfg())


@pytest.mark.parametrize(("share", "hold_s", "delay_s"), [(0.3, 0.5, 0.0), (0.3, 0.5, 0.3), (0.6, 1.0, 0.2)])
def test_at_random_the_share_of_steps_is_as_asked(share: float, hold_s: float, delay_s: float) -> None:
    who = person(AtRandomCfg(share=share, hold_s=hold_s, delay_s=delay_s), num_envs=200)
    found = float(watched(who, 400, 200)[50:].float().mean())
    assert found == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("cfg", [AtRandomCfg(), AtRandomCfg(share=0.6, delay_s=0.0)])
def test_the_same_seed_is_the_same_person(cfg: Any) -> None:
    one, same, other = (watched(person(cfg, 8, seed), 100, 8) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_person_tires() -> None:
    """After 0.4 s of interventions a delay of 0.2 s is twice that."""
    who = person(LateCfg(**EXACT | {"patience_s": 0.0, "delay_s": 0.2, "tired_after_s": 0.4}))  # type: ignore[arg-type]
    assert drawn(watched(who, 6)) == "..hhhh"
    who.reset(torch.tensor([True]))
    assert drawn(watched(who, 6)) == "....hh"


def test_a_person_who_was_put_back_goes_on_the_same() -> None:
    first, second = (person(AtRandomCfg(share=0.4), 4, seed) for seed in (0, 9))
    watched(first, 37, 4)
    second.load_state_dict(first.state_dict())
    assert torch.equal(watched(first, 100, 4), watched(second, 100, 4))


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (LateCfg, {"delay_s": -1.0}, "delay_s must be finite and at least 0"),
        (LateCfg, {"patience_s": math.nan}, "patience_s must be finite and at least 0"),
        (AtRandomCfg, {"share": 1.0}, r"share must be in \(0, 1\)"),
        (ComparingCfg, {"margin": -0.1}, "margin must be finite and at least 0"),
        (WatchfulCfg, {"margin": 0.0}, "margin must be finite and above 0"),
        (WatchfulCfg, {"watch_s": math.inf}, "watch_s must be finite and above 0"),
        (WatchfulCfg, {"patience_s": math.nan}, "patience_s must be at least 0"),
        (WatchfulCfg, {"trust_after_s": -1.0}, "trust_after_s must be at least 0"),
        (LateCfg, {"tired_after_s": 0.0}, "tired_after_s must be above 0"),
    ],
)
def test_a_person_that_cannot_be_is_refused(kind: Any, given: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**given)
