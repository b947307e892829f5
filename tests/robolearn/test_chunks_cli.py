"""What the commands do with the chunks of a residual policy's base."""

import pytest
from chunk_samples import chunk_spec, diffusion, gaussian

from robolearn.cli import _chunks
from robolearn.errors import ConfigError
from robolearn.policies.base import Policy, build
from robolearn.policies.residual import ResidualPolicy, correction_spec


def residual(base: Policy) -> ResidualPolicy:
    """State of 3 and action of 2, a layer of 4: (3 + 2) 4 + 4 + 4 2 + 2 = 34 parameters of the head."""
    config = {"hidden": [4], "activation": "elu", "normalizer": "running", "stochastic": False}
    return ResidualPolicy.of(base, build("squashed", correction_spec(base.spec, 0.1), config), 0.1)


def test_the_plan_of_the_base_is_measured(monkeypatch):
    monkeypatch.setattr(_chunks, "PLANS", 2)
    base = diffusion(chunk_spec(8, 4), {"name": "ddim", "steps": 3}).eval()
    alone, told = _chunks.measure(base), _chunks.measure(residual(base))
    assert (told["sampler"], told["calls_per_chunk"], told["plans"]) == ("ddim", 3, 2)
    assert (told["parameters"], told["correction_parameters"]) == (alone["parameters"], 34)
    assert _chunks.table(told).startswith("chunk")


def test_the_bases_sampler_is_changed_and_so_is_what_a_bundle_says():
    policy = residual(diffusion(chunk_spec(8, 4), {"name": "ddim", "steps": 3}))
    _chunks.use_sampler(policy, "", 5)
    assert policy.base.sampler.calls == 5
    again = build("residual", policy.spec, policy.config)
    assert again.base.sampler.calls == 5


def test_a_base_without_a_sampler_is_named():
    with pytest.raises(ConfigError, match="this is gaussian_chunk"):
        _chunks.use_sampler(residual(gaussian(chunk_spec(8, 4))), "ddim", 0)
