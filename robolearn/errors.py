"""Expected failures: the command line prints their message without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """Something outside the program is wrong; the message says what, and what to do."""

    exit_code = 1


class ConfigError(UserError, ValueError):
    """The user asked for something that does not exist or does not fit; the message says what would."""

    exit_code = 2


def unknown(kind: str, name: str, valid: Sequence[str]) -> str:
    """`no task 'cartpol'; did you mean cartpole? (cartpole, franka_reach)`; all names while they are few."""
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    if not near:
        return f"no {kind} '{name}'; there is {', '.join(valid) or 'none'}"
    return f"no {kind} '{name}'; did you mean {' or '.join(near)}?" + (
        f" ({', '.join(valid)})" if len(near) < len(valid) <= 12 else ""
    )
