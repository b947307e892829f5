"""Loggers of nodes: to stderr in ROS's format, and to /rosout."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

ROOT = "ros"
LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARN", 40: "ERROR", 50: "FATAL"}


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix(f"{ROOT}.")
        return (
            f"[{LEVELS.get(record.levelno, record.levelname)}] [{record.created:.9f}] [{name}]: {record.getMessage()}"
        )


class _Stderr(logging.StreamHandler):
    """To what sys.stderr is when it is written to."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def configure(levels: dict[str, int]) -> None:
    """Log to stderr as ROS nodes do, from the levels given (logger's name, "" for every other) on."""
    root = logging.getLogger(ROOT)
    if not any(isinstance(h, _Stderr) for h in root.handlers):
        handler = _Stderr()
        handler.setFormatter(_Format())
        root.addHandler(handler)
    root.propagate = False
    root.setLevel(levels.get("", logging.INFO))
    for name, level in levels.items():
        if name:
            logging.getLogger(f"{ROOT}.{name}").setLevel(level)


class Logger:
    """rclpy's: `info(text, once=True)`, `warning(text, throttle_duration_sec=1.0)`."""

    def __init__(self, name: str, publish: Callable[[int, str, str, Any], None] | None = None):
        self.name, self._publish = name, publish
        self._logger = logging.getLogger(f"{ROOT}.{name}")
        self._last: dict[tuple[str, int], float] = {}

    def get_child(self, name: str) -> Logger:
        return Logger(f"{self.name}.{name}", self._publish)

    def set_level(self, level: int) -> None:
        self._logger.setLevel(int(level))

    def debug(self, message: str, **how: Any) -> None:
        self._log(10, message, **how)

    def info(self, message: str, **how: Any) -> None:
        self._log(20, message, **how)

    def warning(self, message: str, **how: Any) -> None:
        self._log(30, message, **how)

    warn = warning

    def error(self, message: str, **how: Any) -> None:
        self._log(40, message, **how)

    def fatal(self, message: str, **how: Any) -> None:
        self._log(50, message, **how)

    def _log(self, level: int, message: str, once: bool = False, throttle_duration_sec: float | None = None) -> None:
        if not self._logger.isEnabledFor(level):
            return
        caller = sys._getframe(2)
        if once or throttle_duration_sec is not None:
            place, now = (caller.f_code.co_filename, caller.f_lineno), time.monotonic()
            if place in self._last and (once or now - self._last[place] < (throttle_duration_sec or 0.0)):
                return
            self._last[place] = now
        self._logger.log(level, "%s", message)
        if self._publish is not None:
            self._publish(level, self.name, str(message), caller)
