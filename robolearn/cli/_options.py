"""A command's options: a flat dataclass whose fields carry their help."""

from __future__ import annotations

import dataclasses
from typing import Any

MISSING = "???"
SEEDS = 0, 2**31 - 1
EPISODES = 1, 10**9
FILMED = 1, 100
"""Environments in a film: more would be dots."""


def option(default: Any, help: str, choices: tuple[str, ...] = (), group: bool = False) -> Any:
    """A dataclass field with its help; MISSING makes it required; a `group` holds a registered configuration."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "group": group})


def describe(cls: type, prefix: str = "") -> str:
    """The options as a table; `prefix`: of the key that holds them."""
    lines = []
    for field in dataclasses.fields(cls):
        if "help" not in field.metadata:
            continue
        default = "required" if field.default == MISSING else f"default {field.default!r}"
        if field.default in ("", None, dataclasses.MISSING):
            default = "optional"
        choices = field.metadata["choices"]
        text = field.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
        lines.append(f"  {prefix + field.name + '=':20} {text}; {default}")
    return "\n".join(lines)


def check_range(options: Any, **bounds: tuple[int, int]) -> None:
    """Raise ValueError, naming the field, for a value outside its bounds, both included."""
    for name, (low, high) in bounds.items():
        if not low <= getattr(options, name) <= high:
            raise ValueError(f"{name} must be {low} to {high}, got {getattr(options, name)}")


def check_choices(options: Any) -> None:
    """Raise ConfigError for a value outside its field's choices."""
    from robolearn.config import ConfigError, unknown

    for field in dataclasses.fields(options):
        choices, value = field.metadata.get("choices", ()), getattr(options, field.name)
        if choices and value not in choices:
            raise ConfigError(unknown(field.name, str(value), choices))
