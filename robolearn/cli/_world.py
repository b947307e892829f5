"""What several commands share: discovery of everything, environments, and run folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.config import ConfigError
from robolearn.spec import differences

if TYPE_CHECKING:
    from robolearn.policies.base import Policy
    from sim.env import SimEnv

PACKAGES = ("robolearn.robots", "robolearn.algos", "sim.tasks", "sim.backends")
RUNS = Path("runs")


def discover() -> None:
    config.discover(PACKAGES)


def make_env(task: Any, backend: Any, num_envs: int, device: str, seed: int, trace_dir: Path | None = None) -> SimEnv:
    from sim.env import SimEnv

    return SimEnv(task, backend, num_envs, pick_device(device, backend), seed, trace_dir)


def pick_device(device: str, backend: Any) -> str:
    """`auto` is the GPU where there is one and the engine can use it. ConfigError for one that is not there."""
    import torch

    on_gpu = config.entry("backend", backend.name).value.capabilities.gpu and torch.cuda.is_available()
    if device == "auto":
        return "cuda" if on_gpu else "cpu"
    try:
        if torch.device(device).type not in ("cpu", "cuda"):
            raise RuntimeError("no such processor")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device} cannot be used here ({str(error).splitlines()[0]}); try cpu") from None
    return device


def backend_config(name: str, fallback: Any) -> Any:
    """The named engine's defaults, or `fallback` for an empty name."""
    if not name:
        return fallback
    cls = config.entry("backend", name).config
    assert cls is not None
    return cls()


def find_run(run: str) -> Path:
    """A run's folder: a path, or `last` for the newest under runs/. ConfigError with the nearest ones otherwise."""
    known = sorted(RUNS.glob("*/*/config.yaml"), key=lambda p: p.stat().st_mtime)
    if run == "last":
        if not known:
            raise ConfigError(f"there is no run under {RUNS.resolve()} yet; train one first")
        return known[-1].parent
    path = Path(run)
    if (path / "config.yaml").is_file():
        return path
    raise ConfigError(config.unknown("run", run, ["last", *(str(p.parent) for p in known[-10:])]))


def score(policy: Any, task: Any, backend: Any, episodes: int, seed: int, device: str = "auto",
          trace_dir: Path | None = None) -> dict[str, Any]:  # fmt: skip
    """Scores of a policy on fresh environments."""
    from robolearn.loops.evaluate import summarize

    return summarize(run_episodes(policy, task, backend, episodes, seed, device, trace_dir))


def run_episodes(policy: Any, task: Any, backend: Any, episodes: int, seed: int, device: str = "auto",
                 trace_dir: Path | None = None) -> Any:  # fmt: skip
    """Results of each episode, one an environment where that fits in 1024 of them. Divergences are written to
    `trace_dir`."""
    from robolearn.loops.evaluate import run_episodes
    from robolearn.loops.log import Display

    env = make_env(task, backend, min(episodes, 1024), device, seed, trace_dir)
    try:
        require_fit(policy, env)
        with Display(episodes, "evaluate") as display:
            policy = policy.to(env.device)
            return run_episodes(env, policy.act, episodes, lambda n: display.update(n, {}), policy.reset)
    finally:
        env.close()


def require_fit(policy: Policy, env: SimEnv) -> None:
    """Raise ConfigError, naming what differs, unless the policy was made for such an environment."""
    found = differences(policy.spec, env.policy_spec())
    if found:
        raise ConfigError("the policy does not fit this environment (policy != here): " + "; ".join(found))


def load_run(run: str, backend: str = "") -> tuple[Path, Any, Any]:
    """A run's folder, its configuration (with another engine if one is named) and its bundle."""
    from robolearn import bundle
    from robolearn.cli.train import TrainCfg

    folder = find_run(run)
    cfg = config.reload(TrainCfg, folder / "config.yaml")
    if not (folder / "bundle").exists():
        raise ConfigError(f"{folder} has no bundle, its training is not finished: robolearn train resume={folder}")
    cfg.backend = backend_config(backend, cfg.backend)
    return folder, cfg, bundle.load(folder / "bundle")
