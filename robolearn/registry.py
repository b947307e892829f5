"""What can be named in a configuration: found by discovery, in our packages and in the users' plugins."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from robolearn.errors import ConfigError, unknown
from robolearn.paths import share_dir

T = TypeVar("T")
PLUGIN_GROUP = "robolearn.plugins"


@dataclass(frozen=True)
class Entry:
    """A class with the dataclass that configures it, or a value (a RobotSpec) without one."""

    value: Any
    config: type | None = None
    module: str = ""
    """Where `register` was called."""


_REGISTRY: dict[str, dict[str, Entry]] = {}
_PLUGIN_CONFIGS: list[Path] = []


def register(group: str, name: str, config: type | None = None) -> Callable[[T], T]:
    """Class decorator (or call, for values): make it known as `name` in `group`, built from `config`."""
    module = sys._getframe(1).f_globals["__name__"]

    def add(value: T) -> T:
        entries = _REGISTRY.setdefault(group, {})
        if name in entries and entries[name].module != module:
            raise ConfigError(f"two {group}s are called '{name}': in {entries[name].module} and in {module}")
        entries[name] = Entry(value, config, module)
        return value

    return add


def claim(table: dict[str, T], kind: str, name: str, value: T) -> None:
    """Put a function or class into `table`. Raises ConfigError if another one, not a reload, has the name."""
    had, where = table.get(name), (value.__module__, getattr(value, "__qualname__", name))
    if had is not None and (had.__module__, getattr(had, "__qualname__", name)) != where:
        raise ConfigError(f"two {kind}s are called '{name}': in {had.__module__} and in {value.__module__}")
    table[name] = value


def names(group: str) -> list[str]:
    return sorted(_REGISTRY.get(group, {}))


def entry(group: str, name: str) -> Entry:
    if name not in _REGISTRY.get(group, {}):
        raise ConfigError(unknown(group, name, names(group)))
    return _REGISTRY[group][name]


def registered_by(package: str) -> list[tuple[str, str]]:
    """(group, name) of everything that this package's modules registered."""
    found = ((g, n, item.module) for g, entries in _REGISTRY.items() for n, item in entries.items())
    return sorted((g, n) for g, n, module in found if module.partition(".")[0] == package)


def build(config: Any, **given: Any) -> Any:
    """Construct what `config` configures: `Class(config, **given)`."""
    for entries in _REGISTRY.values():
        for item in entries.values():
            if item.config is type(config):
                return item.value(config, **given)
    raise ConfigError(f"nothing registered is configured by {type(config).__name__}")


def discover(packages: Iterable[str]) -> None:
    """Import every module of these packages, then the users' plugins; what they register becomes known."""
    for package in packages:
        _import_all(importlib.import_module(package))
    for plugin in plugins():
        load_plugin(plugin)


def plugins() -> list[importlib.metadata.EntryPoint]:
    """The users' packages, by name; nothing is imported."""
    found = {p.name: p for p in importlib.metadata.entry_points(group=PLUGIN_GROUP)}
    return [found[name] for name in sorted(found)]


def _import_all(module: ModuleType) -> None:
    for info in pkgutil.walk_packages(getattr(module, "__path__", ()), module.__name__ + "."):
        importlib.import_module(info.name)


def load_plugin(plugin: importlib.metadata.EntryPoint) -> None:
    """Import a plugin and all its modules. Raises ConfigError with the reason and the remedy."""
    try:
        module = importlib.import_module(plugin.module)
        if module.__file__ is None:  # only a folder of that name, without __init__.py
            folders = ", ".join(module.__path__)
            raise ImportError(f"{folders} hides it; start Python elsewhere, or with the command `robolearn`")
        _import_all(module)
    except Exception as error:
        package = plugin.dist.name if plugin.dist else plugin.module
        raise ConfigError(
            f"plugin '{plugin.name}' failed to import: {type(error).__name__}: {error}; "
            f"mend it, or remove it with: pip uninstall {package}"
        ) from error
    folder = Path(module.__file__).parent / "configs"
    if folder.is_dir() and folder not in _PLUGIN_CONFIGS:
        _PLUGIN_CONFIGS.append(folder)


def experiments() -> dict[str, Path]:
    """Experiment name -> YAML; ours win over plugins' of the same name."""
    folders = [*reversed(_PLUGIN_CONFIGS), share_dir() / "configs"]
    return {p.stem: p for folder in folders for p in sorted((folder / "experiment").glob("*.yaml"))}
