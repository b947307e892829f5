"""Corrections of what is planned beside the control loop."""

from concurrent.futures import Executor, Future
from dataclasses import replace

import pytest
import torch
from chunk_samples import chunk_spec, diffusion
from torch import Tensor

from real.planner import PlanError, Planner
from robolearn.loops.threads import one_thread
from robolearn.policies.base import build
from robolearn.policies.residual import ResidualPolicy, correction_spec

PERIODS, BEGINS = 14, 6
SAMPLERS = [{"name": "ddim", "steps": 4}, {"name": "streaming", "steps": 4}]


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class AtOnce(Executor):
    """As a thread that takes no time."""

    def submit(self, job, *words):
        future = Future()
        future.set_result(job(*words))
        return future


class Never(Executor):
    def submit(self, job, *words):
        return Future()


def residual(sampler: dict | None = None, trained: bool = True) -> ResidualPolicy:
    torch.manual_seed(0)
    spec = chunk_spec(8, 4)
    spec = replace(spec, action=replace(spec.action, low=-9.0, high=9.0))  # an action that is cut tells nothing
    base = diffusion(spec, sampler or SAMPLERS[0]).eval()
    about = {"hidden": [16], "activation": "elu", "normalizer": "running", "stochastic": False}
    head = build("squashed", correction_spec(base.spec, 0.5), about)
    if trained:
        torch.nn.init.normal_(head.net[-1].weight)
    return ResidualPolicy.of(base, head, 0.5).eval()


def run(policy, planner: Planner | None = None) -> Tensor:
    """The actions for the same history and noise, with a new episode on the way."""
    torch.manual_seed(1)
    actions = []
    for k in range(PERIODS):
        if k in (0, BEGINS):
            (planner or policy).reset(*([] if planner else [torch.ones(1, dtype=torch.bool)]))
        actions.append((planner or policy).act({"policy": torch.sin(torch.arange(3.0) + k)[None]}))
    return torch.cat(actions)


def planned(policy) -> Tensor:
    planner = Planner(policy, 0.05, AtOnce(), lambda: 0.0)
    planner.warm_up()
    assert planner.lead == 0
    return run(policy, planner)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s["name"])
def test_actions_are_those_of_act_bit_by_bit_where_planning_is_quick(sampler):
    told = planned(residual(sampler))
    assert told.shape == (PERIODS, 2) and torch.equal(told, run(residual(sampler)))
    assert (told - planned(residual(sampler).base)).abs().amax(1).min() > 0.0  # every period's was corrected


def test_an_untrained_correction_leaves_the_bases_actions():
    policy = residual(trained=False)
    assert torch.equal(planned(policy), planned(policy.base))


def test_the_correction_is_of_the_periods_own_observation():
    """Of a chunk that was planned long before."""
    policy = residual()
    planner = Planner(policy, 0.05, AtOnce(), lambda: 0.0)
    planner.reset()
    first = {"policy": torch.zeros(1, 3)}
    planner.act(first)
    base = planner._chunk.at(1)
    seen = {"policy": torch.ones(1, 3)}
    told = planner.act(seen)
    assert torch.equal(told, policy.correct(seen, base)) and not torch.equal(told, policy.correct(first, base))


def test_where_there_is_no_action_there_is_nothing_to_correct():
    assert Planner(residual(), 0.01, Never()).act({"policy": torch.zeros(1, 3)}) is None


def test_an_episode_begins_for_the_correction_too(monkeypatch):
    policy, begun = residual(), []
    monkeypatch.setattr(policy.head, "reset", lambda mask: begun.append(mask.tolist()))
    Planner(policy, 0.05, AtOnce(), lambda: 0.0).reset()
    assert begun == [[True]]


def test_a_correction_that_fails_is_an_error_of_the_planner(monkeypatch):
    policy = residual()
    planner = Planner(policy, 0.05, AtOnce(), lambda: 0.0)

    def fails(obs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(policy.head, "act", fails)
    with pytest.raises(PlanError, match="an action could not be corrected: RuntimeError: out of memory"):
        planner.act({"policy": torch.zeros(1, 3)})
    with pytest.raises(PlanError, match="corrected"):
        planner.warm_up()
