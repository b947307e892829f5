"""How every node starts and ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from real import ros
from robolearn.errors import UserError

log = logging.getLogger(__name__)


def run(make: Callable[[], Any], args: Sequence[str] | None = None) -> int:
    """Make the node and serve it until it is told to end; its exit code, and one line, for what the user got wrong."""
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
    try:
        ros.spin(node)
    finally:
        if hasattr(node, "close"):
            node.close()
        ros.shutdown()
    return 0
