"""What planning in chunks costs: network calls, and the latency of a plan for one robot."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from robolearn.config import ConfigError

if TYPE_CHECKING:
    from robolearn.policies.base import Policy
    from robolearn.policies.chunked import ChunkedPolicy

PLANS, WARM_UP, LIMIT_S = 60, 5, 20.0
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def use_sampler(policy: Policy, name: str, steps: int, temperature: float = -1.0) -> None:
    """Draw a diffusion policy's chunks, or those of a residual policy's base, in another way, at its own temperature if
    none is given. ConfigError for another kind of policy, a sampler that there is not, or one that the network was not
    trained for."""
    from robolearn.policies.diffusion import DiffusionPolicy
    from robolearn.policies.residual import ResidualPolicy

    if not name and not steps and temperature < 0.0:
        return
    if isinstance(policy, ResidualPolicy):
        use_sampler(policy.base, name, steps, temperature)
        policy.config = policy.config | {"base": policy.config["base"] | {"config": policy.base.config}}
        return
    if not isinstance(policy, DiffusionPolicy):
        raise ConfigError(f"sampler=, steps= and temperature= are for diffusion policies, this is {policy.kind}")
    now = policy.config["sampler"]
    chosen: dict[str, Any] = {"name": name or now["name"]} | ({"steps": steps} if steps else {})
    chosen |= {"temperature": temperature} if temperature >= 0.0 else {}
    policy.use_sampler(**(now | chosen if chosen["name"] == now["name"] else chosen))


def measure(policy: Policy) -> dict[str, Any]:
    """Of a policy that plans chunks: how, `calls_per_chunk` (network calls for the actions that are run before the next
    plan), and percentiles of the milliseconds of a plan for one environment, on the policy's device and one thread:
    on a robot's computer the others are busy. Of a residual policy these are its base's, and `correction_parameters`
    are counted beside them. Empty for others."""
    import torch

    from robolearn.loops.threads import one_thread
    from robolearn.policies.chunked import ChunkedPolicy
    from robolearn.policies.residual import ResidualPolicy

    if isinstance(policy, ResidualPolicy):
        return measure(policy.base) | {"correction_parameters": sum(p.numel() for p in policy.head.parameters())}
    if not isinstance(policy, ChunkedPolicy):
        return {}
    sampler = getattr(policy, "sampler", None)
    with one_thread():
        seconds = torch.tensor(_plans(policy), dtype=torch.float64)
    times = {k: 1e3 * float(torch.quantile(seconds, q)) for k, q in PERCENTILES.items()}
    about: dict[str, Any] = {"horizon": policy.horizon, "execute": policy.execute}
    about |= {"sampler": sampler.kind if sampler else "none", "calls_per_chunk": sampler.calls if sampler else 1}
    about |= {"parameters": sum(p.numel() for p in policy.parameters()), "threads": 1}
    return about | {"device": str(next(policy.parameters()).device), "plan_ms": times, "plans": len(seconds)}


def _plans(policy: ChunkedPolicy) -> list[float]:
    """Seconds of each plan in the middle of an episode, the network and the processor being warm."""
    import torch

    device = next(policy.parameters()).device
    pictures = policy.encoder.pictures
    shapes = policy.encoder.shapes.items()
    dtype = {k: torch.uint8 if k in pictures else torch.float32 for k, _ in shapes}
    obs = {k: torch.zeros(1, *s, dtype=dtype[k], device=device) for k, s in shapes}
    one, rows = torch.ones(1, dtype=torch.bool, device=device), torch.zeros(1, dtype=torch.long, device=device)
    policy.reset(one)
    found: list[float] = []
    began = time.perf_counter()
    with torch.inference_mode():
        while len(found) < WARM_UP + PLANS and (time.perf_counter() - began < LIMIT_S or len(found) < WARM_UP + 2):
            start = time.perf_counter()
            policy.observe(obs)
            policy.chunk(rows).cpu()  # waits for a GPU
            found.append(time.perf_counter() - start)
    return found[WARM_UP:]


def table(about: dict[str, Any]) -> str:
    """The same for a person."""
    plan = "   ".join(f"{name} {value:.3g}" for name, value in about["plan_ms"].items())
    drawn = f"{about['sampler']}, {about['calls_per_chunk']} network calls for {about['execute']} steps"
    return f"{'chunk':22} {drawn}\n{'plan_ms':22} {plan}   one environment, {about['device']}"
