"""Names of ROS 2: validation, expansion (`~`, relative, `{node}`), remapping."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from robolearn.errors import ConfigError

TOKEN = r"[A-Za-z_][A-Za-z0-9_]*"
NODE_NAME = re.compile(TOKEN)
FULL_NAME = re.compile(rf"(/{TOKEN})+")
NAMESPACE = re.compile(rf"/|(/{TOKEN})+")


@dataclass(frozen=True)
class Remap:
    """`-r [node:]source:=target`; source may be `__node` or `__ns`."""

    source: str
    target: str
    node: str = ""

    @classmethod
    def parse(cls, text: str) -> Remap:
        left, given, target = text.partition(":=")
        node, colon, source = left.rpartition(":")
        if not given or not source or not target or (colon and not NODE_NAME.fullmatch(node)):
            raise ConfigError(f"-r {text}: [node:]from:=to expected")
        return cls(source, target, node)


def node_and_namespace(name: str, namespace: str, remaps: Iterable[Remap]) -> tuple[str, str]:
    """Remapped and checked; the namespace with a leading slash. The first rule that fits counts."""
    rules = [r for r in remaps if r.node in ("", name)]
    name = next((r.target for r in rules if r.source in ("__node", "__name")), name)
    namespace = next((r.target for r in rules if r.source == "__ns"), namespace)
    namespace = "/" + namespace.strip("/")
    if not NODE_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a node: letters, digits and _, not starting with a digit")
    if not NAMESPACE.fullmatch(namespace):
        raise ConfigError(f"{namespace!r} is no namespace: /letters_or_digits, repeated")
    return name, namespace


def expand(name: str, node: str, namespace: str) -> str:
    """The full name of a topic or service, from where the node is."""
    for key, value in {"{node}": node, "{ns}": namespace, "{namespace}": namespace}.items():
        name = name.replace(key, value)
    base = namespace.rstrip("/")
    if name.startswith("~"):
        if name[1:2] not in ("", "/"):
            raise ConfigError(f"{name!r} is no name: ~ is followed by /")
        name = f"{base}/{node}{name[1:]}"
    elif not name.startswith("/"):
        name = f"{base}/{name}"
    if not FULL_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a topic or service: /letters_or_digits, repeated")
    return name


def resolve(name: str, node: str, namespace: str, remaps: Iterable[Remap] = ()) -> str:
    """Expanded and remapped: the name on the wire, without its prefix."""
    full = expand(name, node, namespace)
    for rule in remaps:
        if (
            rule.node in ("", node)
            and not rule.source.startswith("__")
            and expand(rule.source, node, namespace) == full
        ):
            return expand(rule.target, node, namespace)
    return full
