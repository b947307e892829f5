"""The last periods of every environment, written to a file when physics diverges, and replayed from it."""

from __future__ import annotations

import json
from collections import deque
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
    """Keeps, for the last periods, the engine's state just before it stepped (commands included) and the action."""

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
        for env in diverged.nonzero().flatten().tolist()[: MAX_FILES - self.written]:
            self._write(env, self.folder / f"diverged_{self.written:02d}_env{env}.safetensors")
            self.written += 1

    def _write(self, env: int, path: Path) -> None:
        tensors = {
            "state": torch.stack([s[env] for s, _ in self.kept]),
            "action": torch.stack([a[env] for _, a in self.kept]),
        } | {f"param.{k}": v[env].reshape(1) for k, v in self.env.backend.params().items()}
        about = {"task": config.to_yaml(self.env.cfg), "backend": type(self.env.backend).__name__, "env": env}
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


def replay(env: SimEnv, tensors: dict[str, Tensor]) -> tuple[list[Tensor], bool]:
    """Step env (one environment) through a dump; the states after each period, and whether it diverged again."""
    mask = torch.ones(env.num_envs, dtype=torch.bool)
    for name, value in tensors.items():
        if name.startswith("param."):
            asset, _, param = name.removeprefix("param.").partition(".")
            env.backend.set_param(asset, param, value.expand(env.num_envs), mask)  # type: ignore[arg-type]
    states = []
    for state in tensors["state"]:
        env.backend.set_state(state.expand(env.num_envs, -1))
        env.backend.step(env.cfg.decimation)
        states.append(env.backend.get_state())
    return states, not bool(env.backend.finite().all())
