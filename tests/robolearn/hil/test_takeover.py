"""Take-over with hysteresis and debounce on drawn timelines, two devices, and the way back as a property."""

import itertools
import math
import random

import pytest
import torch

from robolearn.hil.takeover import Claim, Desk, HandBack, Takeover, TakeoverCfg

CFG = TakeoverCfg(above=0.2, above_s=0.1, below=0.1, below_s=0.3)
DT = 0.05


def ready(cfg=CFG):
    """One that has been seen at rest, at time 0."""
    takeover = Takeover(cfg)
    takeover(0.0, 0.0)
    return takeover


def timeline(deflections, takeover=None, pressed=()):
    """Held or not, as a string, at 0.05 s, 0.10 s ..."""
    takeover = takeover or ready()
    return "".join("X" if takeover(DT * k, d, k in pressed) else "." for k, d in enumerate(deflections, start=1))


def test_who_stays_above_the_upper_threshold_long_enough_takes_over_and_keeps_it_below_it():
    assert timeline([0.3, 0.3, 0.3, 0.15, 0.15, 0.15, 0.15, 0.15, 0.15, 0.15]) == "..XXXXXXXX"


def test_who_stays_below_the_lower_threshold_long_enough_has_let_go():
    assert timeline([0.3] * 3 + [0.05] * 8) == "..XXXXXXX.."
    assert timeline([0.3] * 3 + [0.05] * 6 + [0.15] + [0.05] * 7) == "..X" + "X" * 13 + "."


def test_a_knock_is_no_intervention():
    assert timeline([0.9, 0.9, 0.15, 0.9, 0.9, 0.0] * 3) == "." * 18


def test_a_thousandth_of_a_norm_never_decides():
    noise = random.Random(0)
    assert timeline([noise.uniform(0.0, 0.19) for _ in range(2000)]) == "." * 2000


def test_noise_about_either_threshold_changes_hands_no_more_often_than_its_times_allow():
    for seed in range(20):
        noise, takeover = random.Random(seed), ready()
        held = [takeover(0.01 * k, noise.choice([0.05, 0.15, 0.25, 0.5])) for k in range(1, 4000)]
        edges = [k for k in range(1, len(held)) if held[k] != held[k - 1]]
        spans = [(held[a], 0.01 * (b - a)) for a, b in itertools.pairwise(edges)]
        assert all(s >= (CFG.below_s if was_held else CFG.above_s) - 1e-9 for was_held, s in spans)


def test_a_button_takes_over_at_once_and_holds_as_long_as_it_is_pressed():
    assert timeline([0.0] * 14, pressed=range(2, 6)) == ".XXXXXXXXXX..."  # 0.30 s from 0.25 + 0.05 on


def test_what_is_deflected_from_the_start_counts_only_after_a_rest():
    takeover = Takeover(CFG)
    assert timeline([0.9] * 20, takeover, pressed=range(5, 9)) == "." * 20
    assert not takeover(1.1, 0.0) and not takeover(1.2, 0.9) and takeover(1.3, 0.9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_lets_go_and_needs_a_rest(bad):
    takeover = ready()
    assert timeline([0.9] * 3, takeover).endswith("X")
    assert not takeover(0.2, bad)
    assert not takeover(0.3, 0.9) and not takeover(0.9, 0.9, True)


def test_a_clock_that_goes_back_makes_nobody_patient():
    takeover = ready()
    assert not takeover(100.0, 0.9)
    assert not takeover(3.0, 0.9) and not takeover(3.05, 0.9) and takeover(3.1, 0.9)


@pytest.mark.parametrize(
    "wrong", [{"above": 0.1, "below": 0.1}, {"below": 0.0}, {"above": 1.0}, {"above_s": -1.0}, {"below_s": math.inf}]
)
def test_thresholds_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TakeoverCfg(**wrong)


# --- two devices --------------------------------------------------------------------------------------------


REST, PUSHED = Claim(0.0), Claim(0.9)


def desk():
    made = Desk(CFG, ("pad", "mouse"))
    made(0.0, {"pad": REST, "mouse": REST})
    return made


def test_the_first_device_keeps_authority_and_the_second_is_told_once():
    d = desk()
    d(0.1, {"pad": REST, "mouse": PUSHED})
    assert d(0.2, {"pad": PUSHED, "mouse": PUSHED}) == ("mouse", False, ())
    verdicts = [d(0.3 + 0.1 * k, {"pad": PUSHED, "mouse": PUSHED}) for k in range(5)]
    assert [v.owner for v in verdicts] == ["mouse"] * 5
    assert [m for v in verdicts for m in v.refused] == ["pad is refused: mouse is in control, and must let go first"]


def test_who_was_refused_inherits_nothing():
    d = desk()
    for k in range(1, 5):
        d(0.1 * k, {"pad": PUSHED, "mouse": PUSHED})
    assert d.owner == "pad"
    for k in range(5, 30):
        verdict = d(0.1 * k, {"pad": REST, "mouse": PUSHED})
    assert verdict == ("", False, ())
    for k in range(30, 40):
        d(0.1 * k, {"pad": REST, "mouse": REST})
    d(4.1, {"pad": REST, "mouse": PUSHED})
    assert d(4.3, {"pad": REST, "mouse": PUSHED}).owner == "mouse"


def test_a_lost_device_is_told_from_one_that_was_let_go():
    d = desk()
    d(0.1, {"pad": PUSHED, "mouse": REST})
    assert d(0.3, {"pad": PUSHED, "mouse": REST}).owner == "pad"
    assert d(0.4, {"pad": None, "mouse": REST}) == ("", True, ())
    assert d(0.5, {"pad": None, "mouse": REST}) == ("", False, ())
    assert d(0.9, {"pad": PUSHED, "mouse": REST}).owner == ""  # it came back deflected


def test_a_button_lets_go_at_once():
    d = desk()
    d(0.1, {"pad": PUSHED, "mouse": REST})
    assert d(0.3, {"pad": PUSHED, "mouse": REST}).owner == "pad"
    assert d(0.35, {"pad": Claim(0.9, let_go=True), "mouse": REST}) == ("", False, ())
    assert d(1.0, {"pad": Claim(0.9, take=True), "mouse": REST}).owner == ""


def test_after_a_drop_everybody_must_let_go():
    d = desk()
    d(0.1, {"pad": PUSHED, "mouse": REST})
    d(0.3, {"pad": PUSHED, "mouse": REST})
    d.drop()
    assert d(0.6, {"pad": PUSHED, "mouse": REST}).owner == ""


# --- the way back -------------------------------------------------------------------------------------------


def test_the_way_back_by_hand():
    back = HandBack(2, torch.tensor([0.3, math.inf]))
    back.begin(torch.tensor([True, False]), torch.tensor([[0.8, 1.0], [1.0, 1.0]]), torch.tensor([[0.0, -1.0]] * 2))
    rows = [back(torch.tensor([[0.0, -1.0], [0.1, -1.0]])) for _ in range(4)]
    torch.testing.assert_close(torch.stack([r[0, 0] for r in rows]), torch.tensor([0.8, 0.5, 0.2, 0.0]))
    assert all(r[0, 1] == -1.0 for r in rows)  # a gripper does not glide
    assert all(torch.equal(r[1], torch.tensor([0.1, -1.0])) for r in rows)  # nothing was handed back there
    assert not back.active.any()


def test_no_jump_is_larger_than_the_policys_own_and_a_step_and_it_ends():
    for seed in range(50):
        draw = torch.Generator().manual_seed(seed)
        step = 0.02 + 0.3 * torch.rand(4, generator=draw)
        back, everybody = HandBack(3, step), torch.ones(3, dtype=torch.bool)
        human, policy = (torch.rand(3, 4, generator=draw) * 2 - 1 for _ in range(2))
        back.begin(everybody, human, policy)
        last, wanted = human, policy
        for _ in range(math.ceil(2.0 / float(step.min())) + 1):
            action = back(policy)
            assert ((action - last).abs() <= (policy - wanted).abs() + step + 1e-6).all()
            assert (action.abs() <= 1.0).all()
            last, wanted = action, policy
            policy = (policy + 0.4 * torch.randn(3, 4, generator=draw)).clamp(-1.0, 1.0)
        assert torch.equal(back(policy), policy) and not back.active.any()


def test_a_new_episode_owes_nothing_and_what_is_no_number_is_no_gap():
    back = HandBack(2, torch.tensor([0.1]))
    back.begin(torch.ones(2, dtype=torch.bool), torch.tensor([[1.0], [math.nan]]), torch.zeros(2, 1))
    assert back.active.tolist() == [True, False]
    back.reset(torch.tensor([True, False]))
    assert torch.equal(back(torch.zeros(2, 1)), torch.zeros(2, 1))


def test_a_step_of_nothing_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        HandBack(1, torch.tensor([0.1, 0.0]))
