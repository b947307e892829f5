"""Watch a policy in the viewer (or film it where there is no display), or replay a divergence trace.

usage: robolearn play run=RUN [backend=NAME] [episodes=3] [num_envs=1] [video=FILE.mp4]
       robolearn play dump=FILE [video=FILE.mp4]

RUN is a run's folder, a bundle (folder or .zip), or `last`. Without a display, or with `video=`, a film is written
instead (to the run's folder if no file is given). A dump is what a run leaves in its folder `diverged/` when physics
diverges: the last periods of that environment are stepped again in the same engine, and what exploded is printed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _options, _video, _world
from robolearn.cli._options import option
from robolearn.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from sim.env import SimEnv


@dataclass
class PlayCfg:
    run: str = option("", "a run's folder, a bundle, or last")
    dump: str = option("", "a divergence trace to replay")
    backend: str = option("", "physics engine, if not the one it was trained in")
    episodes: int = option(3, "in the viewer")
    num_envs: int = option(1, "environments in the film's grid")
    seed: int = option(10_000, "of the environments")
    video: str = option("", "file.mp4 to write instead of opening the viewer")

    def __post_init__(self) -> None:
        _options.check_range(self, seed=_options.SEEDS, episodes=_options.EPISODES, num_envs=_options.FILMED)
        if self.video and not self.video.endswith(".mp4"):
            raise ValueError(f"video must be a .mp4 file, got {self.video}")
        if bool(self.run) == bool(self.dump):
            raise ValueError("give run=RUN or dump=FILE")


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(PlayCfg)}"


def main(argv: list[str]) -> int:
    options = config.parse(PlayCfg, argv)
    _world.discover()
    if options.video and not Path(options.video).absolute().parent.is_dir():
        raise ConfigError(f"the folder of {options.video} does not exist")
    return _replay(options) if options.dump else _play(options)


# --- a policy --------------------------------------------------------------------------------------------


def _play(options: PlayCfg) -> int:
    from sim.backends import looks

    folder, cfg, packed = _world.load_run(options.run, options.backend)
    if options.video or not looks.has_display():
        if not options.video:
            print("there is no display here, so this is a film")
        path = Path(options.video) if options.video else _world.beside(folder) / "play.mp4"
        _video.record(packed.policy, cfg, path, options.num_envs, options.seed)
        print(f"{'video':22} {path}")
        return 0
    env = _video.world(cfg, 1, options.seed)
    try:
        _video.require_cameras(env, cfg.backend.name)
        _world.require_fit(packed.policy, env)
        _watch(env, packed.policy.to(env.device), options.episodes)
    finally:
        env.close()
    return 0


def _watch(env: SimEnv, policy: Any, episodes: int) -> None:
    """Real time in MuJoCo's window, until it is closed or the episodes are over."""
    import torch

    from robolearn import optional
    from sim.backends import looks

    viewer = optional.load("mujoco.viewer", "mujoco")
    backend: Any = env.backend  # one with cameras
    painter, left = backend.painter, episodes
    obs, _ = env.reset()
    policy.reset(torch.ones(env.num_envs, dtype=torch.bool, device=env.device))
    others = set(threading.enumerate())
    with viewer.launch_passive(painter.model, painter.data, show_left_ui=False, show_right_ui=False) as window:
        due = time.monotonic()
        while window.is_running() and left:
            with torch.inference_mode():
                obs, _, terminated, truncated, extras = env.step(policy.act(obs))
            policy.reset(terminated | truncated)
            with window.lock():
                painter.put(backend.physics_state(0))
                window.user_scn.ngeom = 0
                looks.draw_frames(window.user_scn, painter.frames(backend.goals(0)))
            window.sync()
            if bool(terminated | truncated):
                left -= 1
                print("success" if extras["episode"]["success"][0] > 0.5 else "no success")
            due = max(due + env.step_dt, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    for thread in set(threading.enumerate()) - others:
        thread.join(timeout=5.0)  # the window's: the program must not end while it is being closed


# --- a divergence ----------------------------------------------------------------------------------------


def _replay(options: PlayCfg) -> int:
    from sim import trace

    path = Path(options.dump)
    about, tensors = trace.read(path)
    if options.backend not in ("", about["backend"]):
        raise ConfigError(f"{path} holds states of {about['backend']}, which {options.backend} cannot take; "
                          "leave backend= out")  # fmt: skip
    kind: Any = config.entry("task", about["task"]["name"]).config
    task = config.from_plain(kind, about["task"])
    backend = _world.backend_config(about["backend"], None)
    env = _world.make_env(task, backend, 1, "auto", 0)
    try:
        finite, frames = _step_through(env, tensors)
        _tell(env, about, tensors, finite)
    finally:
        env.close()
    if frames:
        target = Path(options.video) if options.video else path.with_suffix(".mp4")
        _video.write(target, frames, Fraction(1.0 / env.step_dt).limit_denominator(1001))
        print(f"{'video':22} {target}")
    return 0


def _step_through(env: SimEnv, tensors: dict[str, Tensor]) -> tuple[list[bool], list[np.ndarray]]:
    """Whether each period ended finite, and pictures up to the first that did not."""
    import torch

    from sim import trace

    finite, frames = [], []
    filmed = env.backend.capabilities.cameras and env.task.camera in env.backend.scene.cameras
    for good in trace.replay(env, tensors):
        finite.append(good)
        if filmed and all(finite):
            frames.append(_video.snapshot(env, torch.zeros(1, dtype=torch.bool)))
        if not good:
            break
    return finite, frames


def _tell(env: SimEnv, about: dict[str, Any], tensors: dict[str, Tensor], finite: list[bool]) -> None:
    kept = len(tensors["state"])
    print(f"{about['task']['name']} on {about['backend']}, environment {about['env']}, the last {kept} periods")
    if all(finite):
        print("it did not diverge again: same states and commands, so this engine or machine differs")
        return
    print(f"diverged again in period {len(finite)} of {kept}")
    before = tensors["state"][len(finite) - 1]
    print(f"{'':26} {'before':>12} {'after':>12}")
    env_after = _joints(env)
    env.backend.set_state(before.expand(env.num_envs, -1))
    for (name, was), (_, now) in zip(_joints(env), env_after, strict=True):
        print(f"  {name:24} {was:12.5g} {now:12.5g}")
    action = " ".join(f"{a:.3g}" for a in tensors["action"][len(finite) - 1].tolist())
    print(f"  {'action':24} {action}")


def _joints(env: SimEnv) -> list[tuple[str, float]]:
    """Position and rate of every joint, named, as numbers."""
    asset, names = env.task.asset, env.robot.joint_names
    position, rate = env.backend.joint_pos(asset)[0].tolist(), env.backend.joint_vel(asset)[0].tolist()
    return [(f"{n} position", v) for n, v in zip(names, position, strict=True)] + [
        (f"{n} velocity", v) for n, v in zip(names, rate, strict=True)
    ]
