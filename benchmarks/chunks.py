"""What planning chunks of actions does to a control loop: `python -m benchmarks.chunks [key=value ...]`.

A loop at `rate_hz=20` calls a diffusion policy of `channels=32,64` with `sampler=ddim` of `steps=16` for `seconds=20`:
not at all, with the chunk planned in the loop itself, and with the planner's thread beside it. Late is how long after
its time a period begins, over is how long the call takes; a real node's loop has more to do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from real.planner import Planner, worker
from real.spread import Spread
from robolearn.policies.base import build
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.policies.noise import alphas_cumprod
from robolearn.robots.franka import FRANKA
from robolearn.spec import ActionSpec, Field, ObservationSpec, PolicySpec, TermSpec

SETTINGS = {"rate_hz": "20", "channels": "32,64", "sampler": "ddim", "steps": "16", "seconds": "20", "horizon": "16",
            "execute": "8"}  # fmt: skip
STATE = 33
Act = Callable[[dict[str, Tensor]], object]


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words)
    if wrong := given.keys() - SETTINGS.keys():
        raise SystemExit(f"error: no '{min(wrong)}='; there are {', '.join(f'{k}=' for k in SETTINGS)}")
    settings = SETTINGS | given
    torch.set_num_threads(1)  # as a node does
    rate_hz, seconds = float(settings["rate_hz"]), float(settings["seconds"])
    policy = policy_of(settings).eval()
    planner = Planner(policy, 1.0 / rate_hz, worker())
    planner.warm_up()
    planner.reset()
    print(planner.told())
    print("| | late, ms | over, ms |\n|---|---|---|")
    loops: dict[str, Act] = {"no policy": lambda obs: None, "planned in the loop": policy.act, "beside it": planner.act}
    for name, act in loops.items():
        late, over = loop(act, rate_hz, seconds)
        print(f"| {name} | {late} | {over} |", flush=True)
    print(planner.figures())
    planner.close()


def loop(act: Act, rate_hz: float, seconds: float) -> tuple[Spread, Spread]:
    late, over = Spread(), Spread()
    began, obs = time.monotonic(), torch.zeros(1, STATE)
    with torch.inference_mode():
        for k in range(1, round(seconds * rate_hz)):
            due = began + k / rate_hz
            time.sleep(max(0.0, due - time.monotonic()))
            woke = time.monotonic()
            act({"policy": obs})
            late.add(woke - due)
            over.add(time.monotonic() - woke)
    return late, over


def policy_of(settings: dict[str, str]) -> ChunkedPolicy:
    term, arm = TermSpec(Field("state", (STATE,)), "last_action"), FRANKA.arm_joints
    action = ActionSpec("joint_position_delta", arm, "rad", scale=(0.04,) * len(arm))
    action = replace(action, horizon=int(settings["horizon"]), execute=int(settings["execute"]))
    spec = PolicySpec("franka", float(settings["rate_hz"]), ObservationSpec({"policy": (term,)}), action)
    network = {"name": "unet", "channels": [int(c) for c in settings["channels"].split(",")], "level_dim": 32}
    steps = {} if settings["sampler"] == "ddpm" else {"steps": int(settings["steps"])}
    sampler = {"name": settings["sampler"], **steps}
    about = {"observation_steps": 2, "network": network, "sampler": sampler, "alphas_cumprod": alphas_cumprod(100)}
    policy = build("diffusion", spec, about)
    assert isinstance(policy, ChunkedPolicy)
    return policy


if __name__ == "__main__":
    main(sys.argv[1:])
