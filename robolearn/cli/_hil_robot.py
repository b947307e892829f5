"""The world of an actor on a robot: its topics, through its guard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from real import ros
from real.env import RobotEnv
from real.site import Site, read_site
from robolearn.config import ConfigError
from robolearn.spec import PolicySpec


@contextmanager
def robot_env(site: str, spec: PolicySpec, episode_length_s: float) -> Iterator[RobotEnv]:
    """`site` is a site file, or the name of a robot's profile. Its authority is given back at the end."""
    words = ["--params-file", site] if Path(site).suffix in (".yaml", ".yml") else ["-p", f"robot:={site}"]
    ros.init(["hil", "--ros-args", *words])
    try:
        node = ros.Node("actor")
        found = read_site(node)
        if not isinstance(found, Site) or found.robot.name != spec.robot:
            raise ConfigError(f"site={site} is of {found.profile.robot}, the task is for {spec.robot}")
        env = RobotEnv(node, found, spec, episode_length_s=episode_length_s)
        yield env
        env.close()
    finally:
        ros.shutdown()
