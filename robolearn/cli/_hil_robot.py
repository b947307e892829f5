"""The world of an actor on a robot: its topics, through its guard; and of a simulated person beside a twin."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from real import ros
from real.env import RobotEnv
from real.resets import ByPerson, Learned, ResetPolicy, Scripted
from real.site import Site, read_site
from robolearn import runs
from robolearn.cli import _world
from robolearn.config import ConfigError
from robolearn.spec import PolicySpec, RobotSpec

log = logging.getLogger(__name__)
SCRIPTED, PERSON = "scripted", "person"


@contextmanager
def robot_env(cfg: Any, spec: PolicySpec, stopping: Callable[[], bool]) -> Iterator[RobotEnv]:
    """`cfg.site` is a site file, or the name of a robot's profile. Its authority is given back at the end, whatever
    that is. `stopping` says that it is near."""
    with _node(cfg, "actor") as node:
        found = _site(node, cfg, spec)
        env = RobotEnv(node, found, spec, episode_length_s=cfg.task.episode_length_s,
                       resets=_resets(cfg, found.robot), stopping=stopping)  # fmt: skip
        try:
            yield env
        finally:
            env.close()


def serve_person(cfg: Any, spec: PolicySpec) -> None:
    """Until it is told to end."""
    from robolearn.cli._hil_person import TwinPerson

    world = _world.make_env(cfg.task, cfg.backend, 1, "cpu", cfg.seed)
    try:
        with _node(cfg, "person") as node:
            TwinPerson(node, _site(node, cfg, spec), cfg, spec, world)
            log.info("%s watches the twin of %s", cfg.person.name, cfg.site)
            ros.spin(node)
    finally:
        world.close()


@contextmanager
def _node(cfg: Any, name: str) -> Iterator[Any]:
    words = ["--params-file", cfg.site] if Path(cfg.site).suffix in (".yaml", ".yml") else ["-p", f"robot:={cfg.site}"]
    words += ["-r", f"__ns:=/{cfg.namespace.strip('/')}"] if cfg.namespace else []
    ros.init(["hil", "--ros-args", *words])
    try:
        yield ros.Node(name)
    finally:
        ros.shutdown()


def _site(node: Any, cfg: Any, spec: PolicySpec) -> Site:
    found = read_site(node)
    if not isinstance(found, Site) or found.robot.name != spec.robot:
        raise ConfigError(f"site={cfg.site} is of {found.profile.robot}, the task is for {spec.robot}")
    return found


def _resets(cfg: Any, robot: RobotSpec) -> ResetPolicy:
    if cfg.reset in (SCRIPTED, PERSON):
        return {SCRIPTED: Scripted, PERSON: ByPerson}[cfg.reset]()
    return Learned(runs.load_bundle(cfg.reset)[1], robot, cfg.reset_limit_s)
