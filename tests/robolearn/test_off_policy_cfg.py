"""Settings of TD3 and SAC that cannot be are refused by name."""

import pytest

from robolearn.algos.sac import SACCfg
from robolearn.algos.td3 import TD3Cfg

KINDS = {"td3": TD3Cfg, "sac": SACCfg}
INF, NAN = float("inf"), float("nan")
COUNTS = ("capacity", "batch", "report_steps", "actor_every", "critics", "sampled_critics", "n_step")
BAD = [(name, 0) for name in COUNTS]
BAD += [(name, v) for name in ("ratio", "critic_rate", "actor_rate", "max_grad_norm") for v in (0.0, -1.0, NAN, INF)]
BAD += [("gamma", 1.1), ("gamma", NAN), ("tau", 0.0), ("tau", NAN), ("demo_share", 1.5), ("demo_share", NAN)]
BAD += [("rate_at_end", -0.1), ("rate_at_end", 1.1), ("rate_at_end", NAN)]
BAD += [("warmup_steps", -1), ("critic_warmup", -1), ("hl_gauss", -1), ("sampled_critics", 3), ("value_low", NAN)]
BAD += [("value_low", INF), ("activation", "rleu"), ("normalizer", "fin"), ("image_crop", (3,)), ("hidden", (64, 0))]
OWN = {"td3": [(n, v) for n in ("exploration", "smoothing", "smoothing_most", "cost") for v in (-0.1, NAN, INF)],
       "sac": [(n, v) for n in ("temperature", "temperature_rate") for v in (0.0, NAN, INF)]
       + [("target_entropy", NAN)]}  # fmt: skip
ALL = [(algo, *bad) for algo, own in OWN.items() for bad in (*BAD, *own)]


@pytest.mark.parametrize(("algo", "name", "value"), ALL)
def test_settings_outside_their_range_are_refused(algo, name, value):
    with pytest.raises(ValueError, match=f"algo.*{name}"):
        KINDS[algo](**{name: value})


@pytest.mark.parametrize("given", [{}, {"value_low": 0.0}, {"value_high": 1.0}])
def test_histograms_need_bounds(given):
    with pytest.raises(ValueError, match=r"algo\.hl_gauss needs algo\.value_low and value_high"):
        TD3Cfg(hl_gauss=51, **given)
