"""Optional packages, imported at their first use."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from robolearn.errors import UserError


class MissingPackageError(UserError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class lazy:
    """`mujoco = lazy("mujoco", extra="mujoco")`: the module, imported when an attribute is first read."""

    def __init__(self, module: str, extra: str):
        self._module, self._extra = module, extra
        self._loaded: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if self._loaded is None:
            self._loaded = load(self._module, self._extra)
        return getattr(self._loaded, name)


def load(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise MissingPackageError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingPackageError(
            f"{package} could not be imported ({error}); install it with: pip install 'robolearn[{extra}]'"
        ) from error
