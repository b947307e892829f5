"""Registration by discovery, and configuration from dataclasses, YAML and the command line (the only user of hydra).

A default is written once, in the dataclass; `configs/experiment/*.yaml` hold choices and differences. What is wrong
(an unknown name or key, a wrong type, a value out of range) raises ConfigError before anything is built, with the
nearest valid names.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from robolearn.errors import UserError
from robolearn.paths import share_dir

T = TypeVar("T")
PLUGIN_GROUP = "robolearn.plugins"


class ConfigError(UserError, ValueError):
    """The user asked for something that does not exist or does not fit; the message says what would."""

    exit_code = 2


@dataclass(frozen=True)
class Entry:
    """A registered thing: a class with the dataclass that configures it, or a value (a RobotSpec) without one."""

    value: Any
    config: type | None = None


_REGISTRY: dict[str, dict[str, Entry]] = {}
_PLUGIN_CONFIGS: list[Path] = []


def register(group: str, name: str, config: type | None = None) -> Callable[[T], T]:
    """Class decorator (or call, for values): make it known as `name` in `group`, built from `config`."""

    def add(value: T) -> T:
        entries = _REGISTRY.setdefault(group, {})
        known = entries.get(name)
        if known is not None and getattr(known.value, "__qualname__", known.value) != getattr(
            value, "__qualname__", value
        ):
            raise ConfigError(f"two {group}s are called '{name}': {known.value} and {value}")
        entries[name] = Entry(value, config)
        return value

    return add


def names(group: str) -> list[str]:
    return sorted(_REGISTRY.get(group, {}))


def entry(group: str, name: str) -> Entry:
    if name not in _REGISTRY.get(group, {}):
        raise ConfigError(unknown(group, name, names(group)))
    return _REGISTRY[group][name]


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
        module = importlib.import_module(package)
        for info in pkgutil.walk_packages(module.__path__, package + "."):
            importlib.import_module(info.name)
    for plugin in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        _load_plugin(plugin)


def _load_plugin(plugin: importlib.metadata.EntryPoint) -> None:
    try:
        module = plugin.load()
    except Exception as error:
        raise ConfigError(
            f"plugin '{plugin.name}' ({plugin.value}) failed to import: {type(error).__name__}: {error}"
        ) from error
    folder = Path(module.__file__).parent / "configs"
    if folder.is_dir() and folder not in _PLUGIN_CONFIGS:
        _PLUGIN_CONFIGS.append(folder)


def experiments() -> dict[str, Path]:
    """Experiment name -> YAML, ours and the plugins'."""
    folders = [share_dir() / "configs", *_PLUGIN_CONFIGS]
    return {p.stem: p for folder in folders for p in sorted((folder / "experiment").glob("*.yaml"))}


def load(root: type[T], overrides: Sequence[str]) -> T:
    """Compose the dataclass `root` (whose `defaults` name the groups) with `key=value` overrides."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    store.store(name="root", node=root)
    for group, entries in _REGISTRY.items():
        for name, item in entries.items():
            if item.config is not None:
                store.store(group=group, name=name, node=item.config)
    paths = "[" + ",".join(f"file://{p}" for p in _PLUGIN_CONFIGS) + "]"
    with _explained(root, overrides), initialize_config_dir(str(share_dir() / "configs"), version_base=None):
        composed = compose("root", [*overrides, f"hydra.searchpath={paths}"])
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise ConfigError(f"no value for {', '.join(missing)}")
        return _object(composed)


def reload(root: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read what `save` wrote, with further overrides."""
    from omegaconf import OmegaConf

    try:
        stored = OmegaConf.load(path)
        choices = [f"{g}={stored[g].name}" for g in _groups(root)]
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; is {path.parent} a run?") from None
    except Exception as error:
        raise ConfigError(f"{path} cannot be read: {_first_line(error)}") from None
    base = OmegaConf.structured(load(root, choices))
    with _explained(root, overrides):
        return _object(OmegaConf.merge(base, stored, OmegaConf.from_dotlist(list(overrides))))


def save(config: Any, path: Path) -> None:
    """Write a resolved configuration as YAML."""
    path.write_text(to_yaml(config))


def to_yaml(config: Any) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def parse(cls: type[T], arguments: Sequence[str]) -> T:
    """`key=value` words -> an instance of a flat dataclass (a command's options)."""
    from omegaconf import OmegaConf

    for word in arguments:
        if "=" not in word:
            raise ConfigError(f"'{word}' is not key=value; the keys are {', '.join(_fields(cls))}")
    with _explained(cls, arguments):
        merged = OmegaConf.merge(OmegaConf.structured(cls), OmegaConf.from_dotlist(list(arguments)))
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise ConfigError(f"missing: {', '.join(k + '=...' for k in missing)}")
        return _object(merged)


def unknown(kind: str, name: str, valid: Sequence[str]) -> str:
    """'no task 'cartpol'; did you mean cartpole? (...)'"""
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "known:"
    return f"no {kind} '{name}'; {hint} ({', '.join(valid)})"


def to_plain(config: Any) -> dict[str, Any]:
    """A resolved configuration as dictionaries and lists, ready for JSON."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.structured(config), resolve=True)  # type: ignore[return-value]


def _object(composed: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_object(composed)


def _groups(root: type) -> list[str]:
    return [f.name for f in dataclasses.fields(root) if f.metadata.get("group")]


def _fields(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]


class _explained:
    """Turn what hydra and omegaconf raise into a ConfigError that names the remedy."""

    def __init__(self, root: type, overrides: Sequence[str]):
        self.root, self.overrides = root, overrides

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> bool:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        if isinstance(error, ConfigError) or not isinstance(
            error, (HydraException, OmegaConfBaseException, ValueError, TypeError)
        ):
            return False
        raise ConfigError(self.explain(error)) from error

    def explain(self, error: BaseException) -> str:
        texts = [str(e) for e in _causes(error)]
        text = "\n".join(texts)
        missing_option = re.search(r"(?:find|load) '?([\w/]+)/([\w.-]+)'?", text)
        if missing_option:
            group = missing_option[1].split("/")[-1]
            valid = list(experiments()) if group == "experiment" else names(group)
            return unknown(group, missing_option[2].removesuffix(".yaml"), valid)
        full_key = re.search(r"full_key: ([\w.\[\]]+)", text)
        bad_key = re.search(r"Key '([^']+)'", text)
        if bad_key and re.search("not in|is not", text):
            key = full_key[1] if full_key else bad_key[1]
            return unknown("key", self._written(key), self._keys())
        no_group = re.search(r"Could not override '([^']+)'", text)
        if no_group:
            return unknown("key", no_group[1], self._keys())
        must = re.search(r"You must specify '([^']+)'", text)
        if must:
            valid = names(must[1])
            return f"no {must[1]} chosen: give {must[1]}=NAME ({', '.join(valid)}) or experiment=NAME"
        where = f" (at {full_key[1]})" if full_key else ""
        return _first_line(texts[-1]) + where

    def _written(self, key: str) -> str:
        """The override's own words where they contain the key: `algo.lrr`, not `lrr`."""
        for word in self.overrides:
            name = word.partition("=")[0].lstrip("+~")
            if name.split(".")[-1] == key.split(".")[-1]:
                return name
        return key

    def _keys(self) -> list[str]:
        keys = [k for k in _flat(self.root) if k != "defaults"]
        for group in _groups(self.root):
            chosen = [w.partition("=")[2] for w in self.overrides if w.startswith(group + "=")]
            for name in chosen or names(group):
                item = _REGISTRY.get(group, {}).get(name)
                if item is not None and item.config is not None:
                    keys += [f"{group}.{k}" for k in _flat(item.config)]
        return sorted(set(keys))


def _flat(cls: type, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(cls):
        yield prefix + field.name
        default = field.default_factory() if callable(field.default_factory) else None  # type: ignore[misc]
        if dataclasses.is_dataclass(default):
            yield from _flat(type(default), f"{prefix}{field.name}.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: Any) -> str:
    return str(error).strip().splitlines()[0]
