"""What several commands share: discovery of everything, environments, and run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.config import ConfigError
from robolearn.spec import PolicySpec, differences, stepwise

if TYPE_CHECKING:
    from robolearn.bundle import Bundle
    from robolearn.policies.base import Policy
    from sim.env import SimEnv

PACKAGES = ("robolearn.robots", "robolearn.algos", "sim.tasks", "sim.backends")


def discover() -> None:
    config.discover(PACKAGES)


def make_env(task: Any, backend: Any, num_envs: int, device: str, seed: int, trace_dir: Path | None = None) -> SimEnv:
    from sim.env import SimEnv

    args = task, backend, num_envs, pick_device(device, backend), seed, trace_dir
    return config.entry("task", task.name).value.fast_env(*args) or SimEnv(*args)


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


def score(policy: Any, task: Any, backend: Any, episodes: int, seed: int, device: str = "auto",
          trace_dir: Path | None = None) -> dict[str, Any]:  # fmt: skip
    """Scores of a policy on fresh environments."""
    from robolearn.loops.evaluate import summarize

    return summarize(run_episodes(policy, task, backend, episodes, seed, device, trace_dir))


def run_episodes(policy: Any, task: Any, backend: Any, episodes: int, seed: int, device: str = "auto",
                 trace_dir: Path | None = None) -> Any:  # fmt: skip
    """Results of each episode, one an environment where the engine takes that many. Divergences are written to
    `trace_dir`."""
    from robolearn.loops.evaluate import run_episodes
    from robolearn.loops.log import Display

    most = config.entry("backend", backend.name).value.capabilities.evaluation_envs
    env = make_env(task, backend, min(episodes, most), device, seed, trace_dir)
    try:
        require_fit(policy, env)
        with Display(episodes, "evaluate") as display:
            policy = policy.to(env.device)
            return run_episodes(env, policy.act, episodes, lambda n: display.update(n, {}), policy.reset)
    finally:
        env.close()


def require_fit(policy: Policy, env: SimEnv) -> None:
    """Raise ConfigError, naming what differs, unless the policy was made for such an environment."""
    found = differences(stepwise(policy.spec), stepwise(env.policy_spec()))
    if found:
        raise ConfigError("the policy does not fit this environment (policy != here): " + "; ".join(found))


def beside(path: Path) -> Path:
    """Where files about a run or bundle go: into its folder, or beside a .zip."""
    return path if path.is_dir() else path.parent


def load_run(run: str, backend: str = "", overrides: Sequence[str] = ()) -> tuple[Path, Any, Bundle]:
    """A run's folder (or a bundle's path), its configuration (with another engine if one is named, and with
    `task.key=value` overrides) and its bundle."""
    from robolearn import runs
    from robolearn.cli.train import TrainCfg

    path, packed = runs.load_bundle(run)
    stored = path / "config.yaml"
    if stored.is_file():
        cfg = config.reload(TrainCfg, stored, overrides)
    else:
        cfg = _configured(packed.config, path, overrides)
    cfg.backend = backend_config(backend, cfg.backend)
    return path, cfg, packed


def load_baseline(policy: str, task: str, backend: str = "", overrides: Sequence[str] = ()) -> tuple[Any, Policy]:
    """A training's configuration of a task, and a policy for it that needs no training."""
    from robolearn.cli.train import TrainCfg
    from robolearn.policies.geometric import GeometricPolicy, config_of

    if policy != "geometric":
        raise ConfigError(config.unknown("policy", policy, ["geometric"]))
    cfg = config.load(TrainCfg, [f"task={task}", f"backend={backend or 'quadrotor'}", *overrides])
    made = config.build(cfg.task)
    if made.robot.quadrotor is None:
        raise ConfigError(f"policy geometric flies quadrotors, task {task} is for {made.robot.name}")
    spec = PolicySpec(made.robot.name, 1.0 / cfg.task.step_dt_s, made.observation_spec(), made.action_spec())
    about = config_of(made.robot.quadrotor, preview_step_s=getattr(cfg.task, "preview_step_s", 0.1))
    return cfg, GeometricPolicy(spec, about)


def _configured(plain: dict[str, Any], path: Path, overrides: Sequence[str]) -> Any:
    """The configuration inside a bundle. ConfigError if it is not that of a training here."""
    from robolearn.cli.train import TrainCfg

    changed = [word.removeprefix("task.") for word in overrides]
    try:
        chosen = {g: (config.entry(g, plain[g]["name"]).config, plain[g]) for g in ("task", "algo", "backend")}
        parts: dict[str, Any] = {
            g: config.from_plain(cls, part) for g, (cls, part) in chosen.items() if cls is not None
        }
        whole = TrainCfg(**(plain | parts))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} has no configuration of this version's training: {error}") from None
    if changed:
        whole.task = config.from_plain(type(whole.task), plain["task"], changed)
    return whole
