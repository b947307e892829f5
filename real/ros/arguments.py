"""`--ros-args`: remapping, parameters, parameter files, log level. And the environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from real.ros.names import Remap
from robolearn.errors import ConfigError, unknown

SECTION = "ros__parameters"
FLAGS = [f"--{word}-{what}-logs" for word in ("enable", "disable") for what in ("rosout", "stdout", "external-lib")]
LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}
RANGES = ("LOCALHOST", "SUBNET", "OFF", "SYSTEM_DEFAULT")


class _Loader(yaml.SafeLoader):
    """YAML as rcl reads it: 1e-3 is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\.inf|\.nan)$", re.IGNORECASE),
    list("-+0123456789."),
)


@dataclass
class Arguments:
    remaps: list[Remap] = field(default_factory=list)
    parameters: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Pattern of full node names -> values, in the order given: later ones win."""
    log_levels: dict[str, int] = field(default_factory=dict)
    """Logger's name ("" is every other) -> level."""
    rest: list[str] = field(default_factory=list)
    """What is not ROS's."""

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Arguments:
        """ConfigError names what is wrong between `--ros-args` and `--`."""
        got, words = cls(), list(argv)
        while words:
            word = words.pop(0)
            if word != "--ros-args":
                got.rest.append(word)
                continue
            while words and words[0] != "--":
                if words[0] == "--ros-args":
                    words.pop(0)
                    continue
                got._option(words)
            del words[:1]  # the --
        return got

    def _option(self, words: list[str]) -> None:
        word = words.pop(0)
        options: dict[str, Callable[[str], object]] = {
            "-r": self._remap, "--remap": self._remap, "-p": self._parameter, "--param": self._parameter,
            "--params-file": self._file, "--log-level": self._log_level, "-e": str, "--enclave": str,
        }  # fmt: skip
        if word in FLAGS:
            return
        if word not in options:
            raise ConfigError(f"--ros-args: {unknown('option', word, sorted([*options, *FLAGS]))}")
        if not words:
            raise ConfigError(f"--ros-args: {word} needs a value")
        options[word](words.pop(0))

    def _remap(self, text: str) -> None:
        self.remaps.append(Remap.parse(text))

    def _parameter(self, text: str) -> None:
        left, given, value = text.partition(":=")
        node, _, name = left.rpartition(":")
        if not given or not name:
            raise ConfigError(f"-p {text}: [node:]name:=value expected")
        self.parameters.append((f"/**/{node}" if node else "/**", {name: _yaml(value, f"-p {text}")}))

    def _file(self, path: str) -> None:
        try:
            content = _yaml(Path(path).read_text(encoding="utf-8"), path)
        except OSError as error:
            raise ConfigError(f"--params-file {path}: {error.strerror}") from None
        self.parameters += _sections(content, "", path)

    def _log_level(self, text: str) -> None:
        logger, _, level = text.rpartition(":=")
        if level.lower() not in LEVELS:
            raise ConfigError(f"--log-level {text}: {unknown('level', level, list(LEVELS))}")
        self.log_levels[logger] = LEVELS[level.lower()]

    def overrides(self, node: str) -> dict[str, Any]:
        """Parameters given from outside for the node with this full name."""
        values: dict[str, Any] = {}
        for pattern, given in self.parameters:
            if matches(pattern, node):
                values |= given
        return values


def matches(pattern: str, node: str) -> bool:
    """`*` stands for one word of the name, `**` for any number of them."""
    parts = (p for p in pattern.split("/") if p)
    text = "".join({"**": r"(/[^/]+)*", "*": "/[^/]+"}.get(p) or "/" + re.escape(p) for p in parts)
    return re.fullmatch(text, node) is not None


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from None


def _sections(content: Any, prefix: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: {prefix or 'the file'} holds no '{SECTION}'")
    found = []
    for key, value in content.items():
        if key != SECTION:
            found += _sections(value, f"{prefix}/{str(key).strip('/')}", where)
        elif isinstance(value, dict):
            found.append((prefix or "/**", flat(value)))
        elif value is not None:
            raise ConfigError(f"{where}: {prefix}: {SECTION} holds names with values, not {type(value).__name__}")
    return found


def flat(values: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    got: dict[str, Any] = {}
    for key, value in values.items():
        got |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return got


# --- environment ------------------------------------------------------------------------------------------


def domain_id() -> int:
    """ROS_DOMAIN_ID, 0 without."""
    text = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not text.isdecimal() or int(text) > 232:
        raise ConfigError(f"ROS_DOMAIN_ID={text}: a number from 0 to 232 expected")
    return int(text)


def discovery_range() -> str:
    """ROS_AUTOMATIC_DISCOVERY_RANGE. LOCALHOST without (ROS 2: SUBNET): a robot is commanded on purpose only."""
    text = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "LOCALHOST"
    if text not in RANGES:
        raise ConfigError(f"ROS_AUTOMATIC_DISCOVERY_RANGE={text}: one of {', '.join(RANGES)} expected")
    return text


def cyclonedds_config(more: str = "") -> str:
    """What rmw_cyclonedds writes for the range and ROS_STATIC_PEERS, larger sockets, `more`, then CYCLONEDDS_URI."""
    scope, parts = discovery_range(), []
    peers = [p for p in os.environ.get("ROS_STATIC_PEERS", "").split(";") if p]
    if scope in ("LOCALHOST", "OFF"):
        parts.append("<General><AllowMulticast>false</AllowMulticast></General>")
    if scope == "OFF":
        parts.append(
            "<Discovery><ParticipantIndex>none</ParticipantIndex>"
            f"<Tag>ros_discovery_off_{os.getpid()}</Tag></Discovery>"
        )
    elif scope != "SYSTEM_DEFAULT":
        addresses = (["localhost"] if scope == "LOCALHOST" else []) + peers
        known = "".join(f'<Peer address="{address}"/>' for address in addresses)
        parts.append(
            "<Discovery><ParticipantIndex>auto</ParticipantIndex>"
            "<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>"
            f"{f'<Peers>{known}</Peers>' if known else ''}</Discovery>"
        )
    buffers = '<SocketReceiveBufferSize max="4MB"/><SocketSendBufferSize max="4MB"/>'
    linger = "<WriterLingerDuration>200 ms</WriterLingerDuration>"  # a reader that is gone delays the end no longer
    parts.append(f"<Internal>{buffers}{linger}</Internal>")
    ours = f"<CycloneDDS><Domain>{''.join(parts)}{more}</Domain></CycloneDDS>"
    return ",".join(filter(None, [ours, os.environ.get("CYCLONEDDS_URI", "")]))
