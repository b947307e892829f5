"""Gradient updates a second of off-policy learning: `python -m benchmarks.updates [key=value ...]`.

Alternately, each for `seconds=3`, `rounds=5` times, on one thread and a batch of 256 (medians and their range):

- TD3's critics as one ensemble against a loop over as many single networks, each with an optimiser of its own, for
  `critics=10` members and several widths;
- SAC with two critics against stable-baselines3's SAC of the same networks, if `peer=PYTHON` names an interpreter that
  has it. Both take their batches from a replay of 100,000 transitions, update critics, actor and temperature.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.algos.off_policy import OffPolicy
from robolearn.algos.sac import SAC, SACCfg
from robolearn.algos.td3 import TD3, TD3Cfg
from robolearn.data.replay import Batch
from robolearn.nets.mlp import ACTIVATIONS
from robolearn.robots.franka import FRANKA
from robolearn.spec import ActionSpec, Field, ObservationSpec, PolicySpec, TermSpec

SETTINGS = {"seconds": "3", "rounds": "5", "critics": "10", "peer": ""}
STATE, ACTION, BATCH, FILLED = 40, 7, 256, 100_000
WIDTHS = ((64, 64), (128, 128), (256, 256))


def spec() -> PolicySpec:
    seen = ObservationSpec({"policy": (TermSpec(Field("state", (STATE,)), "state"),)})
    action = ActionSpec("joint_position_delta", tuple(f"j{i}" for i in range(ACTION)), "rad", scale=(0.1,) * ACTION)
    return PolicySpec(FRANKA.name, 20.0, seen, action)


def filled(algo: OffPolicy) -> OffPolicy:
    """With random transitions in its replay, after a first update."""
    replay, generator = algo.replay, torch.Generator().manual_seed(0)
    n = FILLED // 100
    for _ in range(n):
        obs = {"policy": torch.randn(100, STATE, generator=generator)}
        ends = torch.zeros(100, dtype=torch.bool)
        ends[-1] = True
        replay.add_episode(obs, torch.rand(100, ACTION, generator=generator) * 2 - 1, torch.zeros(100), ends)
    algo.learn()
    return algo


class Loop(TD3):
    """The same with critics one after another, each with an optimiser and a bound of its gradient: what the ensemble
    replaces."""

    def _make_critics(self) -> None:
        super()._make_critics()
        cfg, n = self.cfg, self.cfg.critics
        sizes = [self.policy.dim + ACTION, *cfg.hidden, 1]
        self.members = [single(sizes, cfg.activation) for _ in range(n)]
        self.targets = [single(sizes, cfg.activation) for _ in range(n)]
        self.adams = [torch.optim.Adam(m.parameters(), lr=cfg.critic_rate, fused=True) for m in self.members]

    def values(self, critic: Any, features: Tensor, obs: Mapping[str, Tensor], action: Tensor,
               picked: Tensor | None = None) -> Tensor:  # fmt: skip
        x, members = torch.cat((features, action), dim=-1), self.targets if critic is self.target else self.members
        return torch.stack([m(x) for m in (members if picked is None else [members[k] for k in picked.tolist()])])

    def learn(self) -> None:
        cfg, batch = self.cfg, self.batch()
        self._learn_members(batch, self.pick())
        self.updates += 1
        if self.updates % cfg.actor_every == 0:
            loss, _ = self.actor_loss(batch, self.noise(cfg.batch))
            self._descend("actor", loss, self._actor_parameters)

    def _learn_members(self, batch: Batch, picked: Tensor | None) -> None:
        obs, after = {"policy": batch["obs/policy"]}, {"policy": batch["next/policy"]}
        with torch.no_grad():
            target = batch["reward"] + batch["discount"] * self.next_value(after, self.noise(self.cfg.batch), picked)
            x = torch.cat((self.policy.features(obs), batch["action"]), dim=-1)
        for member, target_net, adam in zip(self.members, self.targets, self.adams, strict=True):
            loss = ((member(x).squeeze(-1) - target) ** 2).mean()
            adam.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(member.parameters(), self.cfg.max_grad_norm)
            adam.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(target_net.parameters()), list(member.parameters()), self.cfg.tau)


def single(sizes: list[int], activation: str) -> nn.Sequential:
    """One critic of the ensemble, of torch's own layers."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes[:-1]):
        layers += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def rate(learn: Callable[[], None], seconds: float) -> float:
    """Calls a second."""
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        learn()
        count += 1
    return count / passed


def ensembles(settings: dict[str, str]) -> None:
    critics = int(settings["critics"])
    for hidden in WIDTHS:
        cfg = TD3Cfg(hidden=hidden, critics=critics, capacity=2 * FILLED, batch=BATCH, normalizer="running")
        made = {"ensemble": TD3, "loop": Loop}
        algos = {n: filled(_built(cls, cfg)) for n, cls in made.items()}
        rates = _alternately({n: a.learn for n, a in algos.items()}, settings)
        _told(f"{critics} critics of {hidden}", rates, "ensemble", "loop")


def _built(cls: Any, cfg: Any) -> Any:
    return cls(cfg, spec(), 1, torch.device("cpu"), torch.Generator().manual_seed(0))


def _alternately(learners: dict[str, Callable[[], None]], settings: dict[str, str]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {n: [] for n in learners}
    for _ in range(int(settings["rounds"])):
        for name, learn in learners.items():
            rates[name].append(rate(learn, float(settings["seconds"])))
    return rates


def _told(title: str, rates: dict[str, list[float]], ours: str, theirs: str) -> None:
    pairs = [a / b for a, b in zip(rates[ours], rates[theirs], strict=True)]
    for name, found in rates.items():
        print(f"{title}: {name:22} {statistics.median(found):8.1f} updates/s ({min(found):.1f} to {max(found):.1f})")
    print(f"{title}: {ours} / {theirs} {statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})\n")


PEER = """
import json, sys, time
import gymnasium, numpy as np, torch
from stable_baselines3 import SAC
torch.set_num_threads(1)
state, action, batch, filled, hidden = json.loads(sys.argv[1])
box = gymnasium.spaces.Box
class World(gymnasium.Env):
    observation_space, action_space = box(-9, 9, (state,), np.float32), box(-1, 1, (action,), np.float32)
    def reset(self, seed=None, options=None): return np.zeros(state, np.float32), {}
    def step(self, a): return np.zeros(state, np.float32), 0.0, False, False, {}
net = dict(net_arch=hidden, activation_fn=torch.nn.ReLU)
algo = SAC("MlpPolicy", World(), batch_size=batch, buffer_size=filled, policy_kwargs=net, device="cpu", seed=0)
algo.learn(1)
rng, buffer = np.random.default_rng(0), algo.replay_buffer
for _ in range(filled):
    a, b = rng.normal(size=(2, 1, state)).astype(np.float32)
    buffer.add(a, b, rng.uniform(-1, 1, (1, action)).astype(np.float32), np.zeros(1), np.zeros(1), [{}])
algo.train(5, batch)
print("ready", flush=True)
for line in sys.stdin:
    seconds, count, start = float(line), 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        algo.train(10, batch)
        count += 10
    print(count / passed, flush=True)
"""


def against_peer(settings: dict[str, str]) -> None:
    for hidden in WIDTHS:
        cfg = SACCfg(hidden=hidden, capacity=2 * FILLED, batch=BATCH, layer_norm=False)
        ours = {ln: filled(_built(SAC, replace(cfg, layer_norm=ln))) for ln in (False, True)}
        about = json.dumps([STATE, ACTION, BATCH, FILLED, list(hidden)])
        command = [settings["peer"], "-c", PEER, about]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            assert peer.stdin is not None and peer.stdout is not None
            if peer.stdout.readline().strip() != "ready":
                raise SystemExit(f"error: {settings['peer']} cannot run stable-baselines3")
            rates: dict[str, list[float]] = {"ours": [], "ours with LayerNorm": [], "stable-baselines3": []}
            for _ in range(int(settings["rounds"])):
                rates["ours"].append(rate(ours[False].learn, float(settings["seconds"])))
                rates["ours with LayerNorm"].append(rate(ours[True].learn, float(settings["seconds"])))
                print(settings["seconds"], file=peer.stdin, flush=True)
                rates["stable-baselines3"].append(float(peer.stdout.readline()))
            peer.stdin.close()
        _told(f"SAC {hidden}", rates, "ours", "stable-baselines3")


def main(words: list[str]) -> None:
    given = dict(word.partition("=")[::2] for word in words)
    if wrong := given.keys() - SETTINGS.keys():
        raise SystemExit(f"error: no '{min(wrong)}='; there are {', '.join(f'{k}=' for k in SETTINGS)}")
    settings = SETTINGS | given
    torch.set_num_threads(1)
    ensembles(settings)
    if settings["peer"]:
        against_peer(settings)


if __name__ == "__main__":
    main(sys.argv[1:])
