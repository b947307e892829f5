"""The last periods of every environment, written to a file when physics diverges, and replayed from it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from robolearn import config

if TYPE_CHECKING:
    from sim.env import SimEnv

KEPT, MAX_FILES = 16, 10


class Recorder:
    """Keeps, for the last periods, the engine's state just before it stepped (commands included) and the
    action."""

    def __init__(self, env: SimEnv, folder: Path | None):
        self.env, self.folder = env, folder
        self.kept: deque[tuple[Tensor, Tensor]] = deque(maxlen=KEPT)
        self.written = 0

    def add(self, state: Tensor, action: Tensor) -> None:
        self.kept.append((state, action.clone()))

    def dump(self, diverged: Tensor) -> None:
        """One file for each diverged environment, ten at most a run."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.written = max(self.written, len(list(self.folder.glob("diverged_*"))))  # a resumed run's
        for env in diverged.nonzero().flatten().tolist()[: MAX_FILES - self.written]:
            self._write(env, self.folder / f"diverged_{self.written:02d}_env{env}.safetensors")
            self.written += 1

    def _write(self, env: int, path: Path) -> None:
        kept = list(self.kept)[-1 - int(self.env.episode_length_buf[env]) :]  # this episode's: its world differs
        tensors: dict[str, Tensor] = {
            "state": torch.stack([s[env] for s, _ in kept]),
            "action": torch.stack([a[env] for _, a in kept]),
        } | {f"param.{k}": v[env].reshape(1) for k, v in self.env.backend.params().items()}
        tensors |= {f"task.{k}": v[env : env + 1].clone() for k, v in self.env.task.state_dict().items()}
        made = type(self.env.backend)
        engine = next(n for n in config.names("backend") if config.entry("backend", n).value is made)
        about = {"task": config.to_plain(self.env.cfg), "backend": engine, "env": env}
        save_file(tensors, path, metadata={"robolearn": json.dumps(about)})


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a dump says about itself, and its tensors. ConfigError if it is not one of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["robolearn"])
            return about, {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise config.ConfigError(f"{path} does not exist") from None
    except Exception as error:
        raise config.ConfigError(f"{path} is not a divergence trace ({type(error).__name__}: {error})") from None


def replay(env: SimEnv, tensors: dict[str, Tensor]) -> Iterator[bool]:
    """Step env's engine (one environment) through a dump; after each period, whether it is still finite."""
    everyone = torch.ones(env.num_envs, dtype=torch.bool)
    for name, value in tensors.items():
        if name.startswith("param."):
            asset, _, param = name.removeprefix("param.").partition(".")
            env.backend.set_param(asset, param, value.expand(env.num_envs), everyone)  # type: ignore[arg-type]
    env.task.load_state_dict({k.removeprefix("task."): v for k, v in tensors.items() if k.startswith("task.")})
    for state in tensors["state"]:
        env.backend.set_state(state.expand(env.num_envs, -1))
        env.backend.step(env.cfg.decimation)
        yield bool(env.backend.finite().all())
