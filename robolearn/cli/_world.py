"""What several commands share: discovery of everything, environments, and run folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from robolearn import config
from robolearn.config import ConfigError
from robolearn.spec import PolicySpec, differences, stepwise

if TYPE_CHECKING:
    from torch import Tensor

    from robolearn.bundle import Bundle
    from robolearn.policies.base import Policy
    from sim.env import SimEnv

PACKAGES = (
    "robolearn.robots",
    "robolearn.algos",
    "robolearn.rewards",
    "robolearn.hil",
    "sim.tasks",
    "sim.backends",
    "robolearn.cli._loops",
)


def discover() -> None:
    config.discover(PACKAGES)


def make_env(task: Any, backend: Any, num_envs: int, device: str, seed: int, trace_dir: Path | None = None) -> SimEnv:
    from sim.env import SimEnv

    args = task, backend, num_envs, pick_device(device, backend), seed, trace_dir
    return config.entry("task", task.name).value.fast_env(*args) or SimEnv(*args)


def spec_of(task: Any) -> PolicySpec:
    """What a policy for this task must agree with; no engine is needed."""
    made = config.build(task)
    return PolicySpec(made.robot.name, 1.0 / task.step_dt_s, made.observation_spec(), made.action_spec())


def pick_device(device: str, backend: Any) -> str:
    """`auto` is the GPU where there is one and the engine can use it. ConfigError for one that is not there."""
    import torch

    on_gpu = config.entry("backend", backend.name).value.capabilities.gpu and torch.cuda.is_available()
    if device == "auto":
        return "cuda" if on_gpu else "cpu"
    return usable(device)


def usable(device: str) -> str:
    """ConfigError for a device that is not there."""
    import torch

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
        acting = bound(policy, env, seed)
        with Display(episodes, "evaluate") as display:
            return run_episodes(env, acting.act, episodes, lambda n: display.update(n, {}), acting.reset)
    finally:
        env.close()


@dataclass(frozen=True)
class Scripted:
    """A task's own expert where a policy is asked for; `noise` makes it err."""

    noise: float = 0.0
    kind = "expert"


class Acting(Protocol):
    def act(self, obs: dict[str, Tensor]) -> Tensor: ...

    def reset(self, mask: Tensor) -> None: ...


class _Expert:
    """It looks at the true state, not at the observation."""

    def __init__(self, env: SimEnv, noise: float, seed: int):
        import torch

        self._env, generator = env, torch.Generator(env.device).manual_seed(seed)
        self._expert = env.task.expert(env.num_envs, env.device, noise, generator)
        self.reset = self._expert.reset

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        return self._expert.act(*self._env.states())


def bound(policy: Policy | Scripted, env: SimEnv, seed: int) -> Acting:
    """Ready to act in `env`, its noise from `seed`. ConfigError for a policy of another world, and for a task that has
    no expert."""
    import torch

    if isinstance(policy, Scripted):
        return _Expert(env, policy.noise, seed)
    require_fit(policy, env)
    policy = policy.to(env.device)
    policy.generator = torch.Generator(env.device).manual_seed(seed)
    return policy


def require_fit(policy: Policy, env: SimEnv) -> None:
    """Raise ConfigError, naming what differs, unless the policy was made for such an environment."""
    require_spec(policy, env.policy_spec())


def require_spec(policy: Policy, spec: PolicySpec) -> None:
    """As `require_fit`, for an environment that is not built yet."""
    found = differences(stepwise(policy.spec), stepwise(spec))
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


def load_baseline(policy: str, task: str, backend: str = "", overrides: Sequence[str] = (),
                  noise: float = 0.0) -> tuple[Any, Policy | Scripted]:  # fmt: skip
    """A training's configuration of a task, and who does it without training."""
    from robolearn.cli.train import TrainCfg
    from robolearn.policies.geometric import GeometricPolicy, config_of

    if policy == "expert":
        return config.load(TrainCfg, [f"task={task}", f"backend={backend or 'mujoco'}", *overrides]), Scripted(noise)
    if policy != "geometric":
        raise ConfigError(config.unknown("policy", policy, ["expert", "geometric"]))
    cfg = config.load(TrainCfg, [f"task={task}", f"backend={backend or 'quadrotor'}", *overrides])
    robot = config.build(cfg.task).robot
    if robot.quadrotor is None:
        raise ConfigError(f"policy geometric flies quadrotors, task {task} is for {robot.name}")
    about = config_of(robot.quadrotor, preview_step_s=getattr(cfg.task, "preview_step_s", 0.1))
    return cfg, GeometricPolicy(spec_of(cfg.task), about)


def _configured(plain: dict[str, Any], path: Path, overrides: Sequence[str]) -> Any:
    """The configuration inside a bundle. ConfigError if it is not that of a training here."""
    from robolearn.cli._loops.options import DataOptions, ResidualOptions
    from robolearn.cli.train import TrainCfg

    changed = [word.removeprefix("task.") for word in overrides]
    try:
        nested = {"data": DataOptions, "residual": ResidualOptions}
        plain = plain | {k: config.from_plain(cls, plain.get(k, {})) for k, cls in nested.items()}
        plain = {"person": {"name": "nobody"}} | plain  # an older one knows of none
        groups = ("task", "algo", "backend", "person")
        chosen = {g: (config.entry(g, plain[g]["name"]).config, plain[g]) for g in groups}
        parts: dict[str, Any] = {
            g: config.from_plain(cls, part) for g, (cls, part) in chosen.items() if cls is not None
        }
        whole = TrainCfg(**(plain | parts))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} has no configuration of this version's training: {error}") from None
    if changed:
        whole.task = config.from_plain(type(whole.task), plain["task"], changed)
    return whole
