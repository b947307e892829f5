"""Reads launch files: YAML into actions, each with its line; whatever is not in SHAPES is refused.

The subset of ROS 2's YAML front end. Types are as strict as there: a text must be quoted where YAML would read a
number or a truth value, because `ros2 launch` refuses it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from robolearn.cli import _launch_text
from robolearn.errors import ConfigError, unknown

OUTPUTS = "screen", "both"
TYPES = {"str": str, "int": int, "float": float, "bool": bool}
"""Of a `param`; without one, a value made by substitutions is read as YAML."""


@dataclass(frozen=True)
class Item:
    """A YAML value and where it stands: a scalar, a list of Items, or a dictionary of Items."""

    value: Any
    where: str


@dataclass(frozen=True)
class Action:
    """One checked entry; `fields` holds templates, words, numbers or Actions, by the readers in SHAPES."""

    kind: str
    fields: dict[str, Any]
    where: str


@dataclass(frozen=True)
class Shape:
    """Keys of an action, each with the function that checks its value; `required` must be there."""

    keys: dict[str, Callable[[Item], Any]]
    required: tuple[str, ...] = ()


class _NoAliases(yaml.SafeLoader):
    """An alias would let one line stand in two places."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not used here", problem_mark=self.get_mark())
        return super().compose_node(parent, index)


def fault(where: str, message: str) -> ConfigError:
    return ConfigError(f"{where}: {message}")


def read(path: Path) -> list[Action]:
    """The checked actions of a launch file; ConfigError names file and line."""
    try:
        loader = _NoAliases(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is None:
            raise fault(str(path), "the file is empty; it starts with `launch:`")
        item = _item(loader, root, path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise fault(f"{path}{line}", str(error.problem or error.context)) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise fault(str(path), f"cannot be read as YAML: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise fault(str(path), str(error.strerror)) from None
    return _keys(item, "a launch file", Shape({"launch": _actions}, ("launch",)))["launch"]


def _item(loader: yaml.SafeLoader, node: yaml.Node, path: Path) -> Item:
    where = f"{path}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.SequenceNode):
        return Item([_item(loader, child, path) for child in node.value], where)
    if not isinstance(node, yaml.MappingNode):
        try:
            return Item(loader.construct_object(node), where)
        except ValueError as error:  # 2024-13-45 looks like a date
            raise fault(where, str(error)) from None
    found: dict[str, Item] = {}
    for key_node, value_node in node.value:
        key = _item(loader, key_node, path)
        if not isinstance(key.value, str):
            raise fault(key.where, f"a key must be text, got {key.value!r}")
        if key.value in found:
            raise fault(key.where, f"'{key.value}' is given twice")
        value = _item(loader, value_node, path)
        found[key.value] = Item(value.value, value.where if value.value else key.where)
    return Item(found, where)


# --- readers of one value ----------------------------------------------------------------------------------


def _string(item: Item) -> str:
    if isinstance(item.value, str):
        return item.value
    if item.value is None or isinstance(item.value, (list, dict)):
        raise fault(item.where, "a text is expected")
    raise fault(item.where, f"a text is expected, YAML reads {type(item.value).__name__} {item.value}: quote it")


def _name(item: Item) -> str:
    """Text as it stands; substitutions are not known here."""
    if "$(" in _string(item):
        raise fault(item.where, "no substitution can stand here")
    return item.value


def _text(item: Item) -> _launch_text.Template:
    text = _string(item)
    try:
        return _launch_text.parse(text)
    except ConfigError as error:
        raise fault(item.where, str(error)) from None


def _words(item: Item) -> tuple[_launch_text.Template, ...]:
    try:
        return _launch_text.split(_text(item))
    except ConfigError as error:
        raise error if str(error).startswith(item.where) else fault(item.where, str(error)) from None


def _flag(item: Item) -> bool:
    if not isinstance(item.value, bool):
        raise fault(item.where, f"true or false is expected, got {item.value!r}")
    return item.value


def _seconds(item: Item) -> float:
    if not isinstance(item.value, float) or not 0.0 <= item.value < float("inf"):
        raise fault(item.where, f"seconds are expected, with a decimal point and not negative, got {item.value!r}")
    return item.value


def _one_of(*words: str) -> Callable[[Item], str]:
    def read(item: Item) -> str:
        if item.value not in words:
            raise fault(item.where, f"only {' or '.join(words)} can stand here, got {item.value!r}")
        return item.value

    return read


def _value(item: Item) -> Any:
    """Of a parameter: a number, a truth value, a template, or a list of one of these without substitutions."""
    if isinstance(item.value, str):
        return _text(item)
    if isinstance(item.value, list):
        values = [_name(i) if isinstance(i.value, str) else _value(i) for i in item.value]
        if not values or len({type(v) for v in values}) > 1 or isinstance(values[0], list):
            raise fault(item.where, "a list needs values, all of one type")
        return values
    if isinstance(item.value, (bool, int, float)):
        return item.value
    raise fault(item.where, f"a parameter is a number, text, true, false, or a list of these, got {item.value!r}")


# --- readers of several ------------------------------------------------------------------------------------


def _keys(item: Item, kind: str, shape: Shape) -> dict[str, Any]:
    """The fields of one mapping; ConfigError for a key that is unknown or missing."""
    if not isinstance(item.value, dict):
        raise fault(item.where, f"{kind} is written as `key: value` pairs")
    for key, value in item.value.items():
        if key not in shape.keys:
            raise fault(value.where, f"in {kind}: {unknown('key', key, list(shape.keys))}")
    for key in shape.required:
        if key not in item.value:
            raise fault(item.where, f"{kind} needs '{key}'")
    return {key: shape.keys[key](value) for key, value in item.value.items()}


def _list_of(kind: str, shape: Shape) -> Callable[[Item], list[Action]]:
    def read(item: Item) -> list[Action]:
        if not isinstance(item.value, list) or not item.value:
            raise fault(item.where, f"'{kind}' is a list with at least one entry")
        return [Action(kind, _keys(i, kind, shape), i.where) for i in item.value]

    return read


def _parameters(item: Item) -> list[Action]:
    shape = Shape({"name": _name, "value": _value, "type": _one_of(*TYPES), "from": _text})
    found = _list_of("param", shape)(item)
    for action in found:
        if set(action.fields) not in ({"from"}, {"name", "value"}, {"name", "value", "type"}):
            raise fault(action.where, "a param has either name and value (and type), or only from")
        value, wanted = action.fields.get("value"), TYPES.get(action.fields.get("type", ""))
        if wanted and type(value) not in (tuple, wanted):
            raise fault(action.where, f"type {wanted.__name__}, but the value is {value!r}")
    return found


def _actions(item: Item) -> list[Action]:
    if not isinstance(item.value, list):
        raise fault(item.where, "a list of actions is expected")
    return [_action(i) for i in item.value]


def _action(item: Item) -> Action:
    if not isinstance(item.value, dict) or len(item.value) != 1:
        raise fault(item.where, "an action is one key, its kind, and what belongs to it below")
    ((kind, body),) = item.value.items()
    if kind not in SHAPES:
        raise fault(item.where, unknown("action", kind, list(SHAPES)))
    if kind == "group" and isinstance(body.value, list):
        return Action(kind, {"children": _actions(body)}, item.where)
    fields = _keys(body, kind, SHAPES[kind])
    if {"if", "unless"} <= set(fields):
        raise fault(item.where, "'if' and 'unless' cannot stand together")
    return Action(kind, fields, item.where)


_CONDITION = {"if": _text, "unless": _text}
_PAIR = Shape({"name": _text, "value": _text}, ("name", "value"))
_PROCESS = {
    "cwd": _text,
    "env": _list_of("env", _PAIR),
    "output": _one_of(*OUTPUTS),
    "on_exit": _one_of("shutdown"),
    "sigterm_timeout": _seconds,
    "sigkill_timeout": _seconds,
    **_CONDITION,
}
SHAPES: dict[str, Shape] = {
    "arg": Shape(
        {
            "name": _name,
            "default": _text,
            "description": _name,
            "choice": _list_of("choice", Shape({"value": _name}, ("value",))),
            **_CONDITION,
        },
        ("name",),
    ),
    "let": Shape({"name": _text, "value": _text, **_CONDITION}, ("name", "value")),
    "set_env": Shape({"name": _text, "value": _text, **_CONDITION}, ("name", "value")),
    "include": Shape({"file": _text, "arg": _list_of("arg", _PAIR), **_CONDITION}, ("file",)),
    "group": Shape({"scoped": _flag, "children": _actions, **_CONDITION}, ("children",)),
    "executable": Shape({"cmd": _words, "name": _text, **_PROCESS}, ("cmd",)),
    "node": Shape(
        {
            "pkg": _text,
            "exec": _text,
            "name": _text,
            "namespace": _text,
            "args": _words,
            "ros_args": _words,
            "param": _parameters,
            "remap": _list_of("remap", Shape({"from": _text, "to": _text}, ("from", "to"))),
            **_PROCESS,
        },
        ("pkg", "exec"),
    ),
}
