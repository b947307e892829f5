"""Texts of messages from the packages of a ROS 2 installation, as bags hold them: with all that they use."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

SEPARATOR = "=" * 80 + "\n"
COMMENT = re.compile(r"#.*")
ARRAY = re.compile(r"\[[^\]]*\]$|<=\d+$")
BASES = {
    "bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
    "uint64", "string", "wstring",
}  # fmt: skip


def collected(type_name: str, share: Callable[[str], Path]) -> str:
    """Of `pkg/msg/Name`; `share` finds a package's folder. Empty where there is no .msg file, as for actions."""
    texts: dict[str, str] = {}
    waiting = [type_name]
    while waiting:
        name = waiting.pop(0)
        package, kind, member = name.split("/")
        path = share(package) / kind / f"{member}.msg"
        if name in texts:
            continue
        if not path.is_file():
            return ""
        texts[name] = path.read_text(encoding="utf-8")
        waiting += _used(texts[name], package)
    own = texts.pop(type_name)
    return own + "".join(f"{SEPARATOR}MSG: {name.replace('/msg/', '/')}\n{text}" for name, text in texts.items())


def _used(text: str, package: str) -> list[str]:
    """Types of the fields that are messages."""
    found = []
    for line in text.splitlines():
        word = COMMENT.sub("", line).split()
        base = ARRAY.sub("", ARRAY.sub("", word[0])) if len(word) > 1 else ""
        if base and base not in BASES:
            parts = base.split("/")
            found.append(f"{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}")
    return found
