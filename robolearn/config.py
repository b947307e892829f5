"""Configuration from dataclasses, YAML and the command line: the only user of hydra.

A default is written once, in the dataclass; `configs/experiment/*.yaml` hold choices and differences. What is
wrong (an unknown name or key, a wrong type, a value out of range) raises ConfigError before anything is
built, with the nearest valid names. What can be named is in `robolearn.registry`, found from here too.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from robolearn.errors import ConfigError, unknown
from robolearn.paths import share_dir
from robolearn.registry import (
    _PLUGIN_CONFIGS,
    _REGISTRY,
    Entry,
    build,
    discover,
    entry,
    experiments,
    names,
    plugins,
    register,
)

__all__ = [
    "ConfigError", "Entry", "build", "discover", "entry", "experiments", "load", "names", "parse", "plugins",
    "register", "reload", "save", "to_plain", "to_yaml", "unknown",
]  # fmt: skip

T = TypeVar("T")
EXPERIMENT = "experiment"
WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
PLURALS = {int: "integers", float: "numbers", bool: "true or false", str: "words"}


# --- reading and writing -----------------------------------------------------------------------------------


def load(root: type[T], overrides: Sequence[str]) -> T:
    """Compose the dataclass `root` (whose `defaults` name the groups) with `key=value` overrides."""
    choices, settings = {}, []
    for key, text in map(_split, overrides):
        if key in (*_groups(root), EXPERIMENT):
            choices[key] = text
        else:
            settings.append((key, text))
    for group, name in choices.items():
        valid = list(experiments()) if group == EXPERIMENT else names(group)
        if name not in valid:
            raise ConfigError(unknown(group, name, valid))
    return _object(_set(_compose(root, choices), settings))


def reload(root: type[T], path: Path, overrides: Sequence[str] = (), anew: Mapping[str, str] | None = None) -> T:
    """Read what `save` wrote, with further overrides. `anew`: names by group that are chosen in place of those written
    there; where that is another one, with its defaults."""
    from omegaconf import OmegaConf

    try:
        stored: Any = OmegaConf.load(path)
        for group in [g for g, name in (anew or {}).items() if g in stored and stored[g].name != name]:
            del stored[group]
        choices = {g: stored[g].name for g in _groups(root) if g in stored}  # an older one lacks the newer groups
        choices |= anew or {}
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; is {path.parent} a run?") from None
    except Exception as error:
        raise ConfigError(f"{path} cannot be read: {_first_line(error)}") from None
    for group, name in choices.items():
        entry(group, name)
    try:
        merged = _merge_all(_compose(root, choices), stored)
    except ConfigError as error:
        raise ConfigError(f"{path} is not from this version: {error}") from None
    return _object(_set(merged, map(_split, overrides)))


def parse(cls: type[T], arguments: Sequence[str]) -> T:
    """`key=value` words -> an instance of a flat dataclass (a command's options)."""
    from omegaconf import OmegaConf

    return _object(_set(OmegaConf.structured(cls), map(_split, arguments)))


def save(config: Any, path: Path) -> None:
    """Write a resolved configuration as YAML."""
    part = path.with_suffix(".part")
    part.write_text(to_yaml(config))
    part.replace(path)


def to_yaml(config: Any) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(to_plain(config)))


def to_plain(config: Any) -> dict[str, Any]:
    """A resolved configuration as dictionaries and lists, ready for JSON."""
    from omegaconf import OmegaConf

    plain = _plain(OmegaConf.structured(config), resolve=True)
    return {k: v for k, v in plain.items() if k != "defaults"}  # hydra's list, not a setting


def from_plain(cls: type[T], data: dict[str, Any], overrides: Sequence[str] = ()) -> T:
    """What `to_plain` gave, as `cls` again, with further overrides."""
    from omegaconf import OmegaConf

    return _object(_set(_merge_all(OmegaConf.structured(cls), OmegaConf.create(data)), map(_split, overrides)))


# --- hydra -------------------------------------------------------------------------------------------------

_stored: dict[tuple[str, str], type] = {}
"""What hydra has been told of, which takes it long."""


def _compose(root: type, choices: dict[str, str]) -> Any:
    """The root with its groups and experiment chosen; `choices` are known names."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    store = ConfigStore.instance()
    store.store(name="root", node=root)
    for group, entries in _REGISTRY.items():
        for name, item in entries.items():
            if item.config is not None and _stored.get((group, name)) is not item.config:
                store.store(group=group, name=name, node=item.config)
                _stored[group, name] = item.config
    paths = ",".join(f"'file://{p}'" for p in _PLUGIN_CONFIGS)
    words = [*(f"{group}={name}" for group, name in choices.items()), f"hydra.searchpath=[{paths}]"]
    try:
        with initialize_config_dir(str(share_dir() / "configs"), version_base=None):
            composed = compose("root", words)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        must = re.search(r"You must specify '([^']+)'", str(error))
        if must:
            valid = ", ".join(names(must[1])) or "none is installed"
            raise ConfigError(f"no {must[1]} chosen: give {must[1]}=NAME ({valid}) or experiment=NAME") from None
        if EXPERIMENT in choices:
            _explain_experiment(root, choices)
        raise ConfigError(_first_line(error)) from error
    OmegaConf.set_struct(composed, False)  # its dataclasses stay closed; mappings by name are open
    return composed


def _explain_experiment(root: type, choices: dict[str, str]) -> None:
    """Raise ConfigError with what is wrong in the chosen experiment's file, if that is what is wrong."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    path = experiments()[choices[EXPERIMENT]]
    try:
        content: Any = OmegaConf.load(path)
    except YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    chosen = {g: n for g, n in choices.items() if g != EXPERIMENT}
    for item in content.pop("defaults", []):
        for key, name in item.items() if hasattr(item, "items") else ():
            chosen.setdefault(key.removeprefix("override ").strip().lstrip("/"), name)
    try:
        for group in chosen.keys() & set(_groups(root)):
            entry(group, chosen[group])
        _merge_all(_compose(root, {g: n for g, n in chosen.items() if g in _groups(root)}), content)
    except ConfigError as error:
        suits = ", ".join(f"{g}={chosen[g]}" for g in _groups(root) if g in chosen)
        raise ConfigError(f"experiment '{path.stem}' does not fit {suits}: {error} (in {path})") from None


def _groups(root: type) -> list[str]:
    return [f.name for f in dataclasses.fields(root) if f.metadata.get("group")]


# --- keys and values ---------------------------------------------------------------------------------------


def _split(word: str) -> tuple[str, str]:
    key, equals, text = word.partition("=")
    if equals and re.fullmatch(r"[A-Za-z_][\w.]*", key):
        return key, text
    if word.startswith("-"):
        raise ConfigError(f"'{word}' is not key=value: settings have no dashes, {word.lstrip('-') or 'key=value'}")
    known = [f"{g}={word}" for g in _REGISTRY if word in names(g)]
    known += [f"experiment={word}"] if word in experiments() else []
    raise ConfigError(f"'{word}' is not key=value" + (f"; did you mean {' or '.join(known)}?" if known else ""))


def _set(base: Any, settings: Iterable[tuple[str, str]]) -> Any:
    """`base` (structured) with texts assigned to dotted keys; nothing may stay without a value."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for key, text in settings:
        kind, value = _kind_at(base, key), text
        if kind is not str and text:
            try:
                value = _plain(OmegaConf.from_dotlist([f"it={_plain_number(text)}"]))["it"]
            except YAMLError:
                raise ConfigError(f"{key} must be {_expected(kind)}, got {text}") from None
        base = _merge(base, key, value, text)
    try:
        OmegaConf.resolve(base)
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from None
    missing = sorted(OmegaConf.missing_keys(base))
    if missing:
        raise ConfigError(f"missing: {', '.join(k + '=...' for k in missing)}")
    return base


def _plain_number(text: str) -> str:
    """1e6 as 1000000, so that it may be an integer."""
    if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d+", text) and float(text).is_integer():
        return str(int(float(text)))
    return text


def _merge_all(base: Any, tree: Any) -> Any:
    """Merge a plain tree key by key, so that an error names its key."""

    for key, value in _leaves(_plain(tree)):
        if key.removesuffix(".name") not in _groups(_type(base)):
            base = _merge(base, key, value, repr(value))
    return base


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merge(base: Any, key: str, value: Any, shown: str) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    kind = _kind_at(base, key)
    if dataclasses.is_dataclass(kind) and not hasattr(value, "items"):
        some = ", ".join(f"{key}.{n}" for n in _fields(kind)[:3])
        raise ConfigError(f"{key} holds several settings; set one of them ({some} ...)")
    patch = OmegaConf.create({})
    OmegaConf.update(patch, key, value)
    try:
        return OmegaConf.merge(base, patch)
    except OmegaConfBaseException:
        raise ConfigError(f"{key} must be {_expected(kind)}, got {shown or 'nothing'}") from None


def _kind_at(base: Any, key: str) -> Any:
    """The declared type of a dotted key, or ConfigError with the nearest keys."""
    from omegaconf import OmegaConf

    kind = _type(base)
    node, (first, *rest) = base, key.split(".")
    if first in _groups(kind) and rest == ["name"]:
        raise ConfigError(f"{key} cannot be set; choose with {first}=NAME")
    for part in (first, *rest):
        if dataclasses.is_dataclass(kind) and part in _fields(kind):
            kind, held = typing.get_type_hints(kind)[part], _type(node, part)
            kind = held if dataclasses.is_dataclass(held) else kind
            node = OmegaConf.select(node, part)
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        else:
            raise ConfigError(_unknown_key(base, key))
    return kind


def _unknown_key(base: Any, key: str) -> str:
    known = list(_keys(base))
    parent, _, leaf = key.rpartition(".")
    while parent and parent not in known:  # task.foo.bar: there is no task.foo
        parent, _, leaf = parent.rpartition(".")
    prefix = f"{parent}." if parent else ""
    siblings = [k.removeprefix(prefix) for k in known if k.startswith(prefix) and "." not in k.removeprefix(prefix)]
    near = [prefix + k for k in difflib.get_close_matches(leaf, siblings, n=3, cutoff=0.6)]
    near += [k for k in known if k.endswith(f".{leaf}") and k not in near]  # right, but for its group
    wrong = f"no key '{prefix}{leaf}'"
    if near:
        return f"{wrong}; did you mean {' or '.join(near[:3])}?"
    return f"{wrong}; {parent or 'the top level'} has {', '.join(siblings) or 'no keys'}"


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key below a structured node."""

    for name in _fields(_type(node)):
        if prefix and name == "name":
            continue
        yield prefix + name
        if dataclasses.is_dataclass(_type(node, name)):
            yield from _keys(node[name], f"{prefix}{name}.")


def _fields(cls: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(cls) if f.name != "defaults"]


def _expected(kind: Any) -> str:
    """What a value of this type is, as a phrase."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_expected, args))
    if origin in (tuple, list):
        count = "" if origin is list or args[-1] is Ellipsis else f"{len(args)} "
        return f"a list of {count}{PLURALS.get(args[0], 'values')}"
    if origin is dict:
        return f"{PLURALS.get(args[1], 'values')} by name, {{name: value}}"
    return WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _object(node: Any, prefix: str = "") -> Any:
    """The dataclass that a structured node holds; lists become the tuples that are declared."""
    from omegaconf import OmegaConf

    cls = _type(node)
    values = {}
    for name, kind in typing.get_type_hints(cls).items():
        if name not in node or name == "defaults":
            continue
        value = node[name]
        if dataclasses.is_dataclass(_type(node, name)):
            values[name] = _object(value, f"{prefix}{name}.")
        elif OmegaConf.is_config(value):
            values[name] = _as_declared(_plain(value, resolve=True), kind, prefix + name)
        else:
            values[name] = value
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error


def _as_declared(value: Any, kind: Any, key: str) -> Any:
    """`value` with tuples where `kind` declares them; ConfigError for a wrong length."""
    args = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(a for a in args if a is not type(None))
        return _as_declared(value, kind, key)
    if typing.get_origin(kind) is not tuple:
        return value
    if args[-1] is not Ellipsis and len(args) != len(value):
        raise ConfigError(f"{key} must be {_expected(kind)}, got {value}")
    return tuple(_as_declared(v, args[0], key) for v in value)


def _type(node: Any, key: str | None = None) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.get_type(node, key)


def _plain(node: Any, resolve: bool = False) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=resolve)


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
