"""How every node starts and ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from real import memory, ros
from robolearn.errors import UserError

log = logging.getLogger(__name__)


def run(make: Callable[[], Any], args: Sequence[str] | None = None, on_time: bool = False) -> int:
    """Make the node and serve it until it is told to end; its exit code, and one line, for what the user got wrong.
    The memory of one that is to be `on_time` is locked, if that is allowed."""
    if "torch" in sys.modules:  # the guard has none of it
        sys.modules["torch"].set_num_threads(1)
    try:
        ros.init(args)
        node = make()
    except UserError as error:
        log.error("%s", error)
        ros.shutdown()
        return error.exit_code
    except KeyboardInterrupt:
        ros.shutdown()
        return 130
    for name in node.undeclared_parameters():
        node.get_logger().warning(f"nobody knows the parameter {name}: it is ignored")
    if on_time:
        _lock_memory(node.get_logger())
    try:
        ros.spin(node)
    finally:
        if hasattr(node, "close"):
            node.close()
        ros.shutdown()
    return 0


def _lock_memory(logger: Any) -> None:
    if lack := memory.lock():
        logger.warning(f"its memory may be paged out, and it may be late then: {lack}")
    else:
        logger.info("its memory is locked")
