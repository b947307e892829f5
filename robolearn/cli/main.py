"""`robolearn COMMAND key=value ...`: finds the command, turns expected errors into one line and an exit code."""

from __future__ import annotations

import ast
import importlib
import logging
import pkgutil
import sys
from pathlib import Path

from robolearn import cli
from robolearn.errors import ConfigError, UserError, unknown

USAGE = """usage: robolearn COMMAND [key=value ...]

Train policies in parallel simulation, evaluate them, and pack them for robots.

commands:
{commands}

A first session:
  robolearn list experiments                        what can be trained as it stands
  robolearn train experiment=franka_reach_ppo       train, evaluate, pack; prints the run's folder
  robolearn evaluate run=last video=reach.mp4       success with its interval, and a video
  robolearn export run=last format=onnx             for a robot computer without torch

`robolearn COMMAND --help` explains each; `robolearn doctor` says what this machine has and lacks."""

INTERRUPTED = 130


def commands() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(cli.__path__) if m.name != "main" and not m.name.startswith("_")]


def summary(command: str) -> str:
    """First line of the command's docstring, read without importing it."""
    source = Path(cli.__path__[0], f"{command}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def usage() -> str:
    return USAGE.format(commands="\n".join(f"  {c:10} {summary(c)}" for c in commands()))


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("--version", "-V"):
        from robolearn import __version__

        print(__version__)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return _run(argv[0], argv[1:])


def _run(command: str, argv: list[str]) -> int:
    try:
        if command not in commands():
            raise ConfigError(unknown("command", command, commands()))
        module = importlib.import_module(f"robolearn.cli.{command}")
        rest = [word for word in argv if word not in ("-h", "--help")]
        if len(rest) < len(argv):
            print(module.help_for(rest) if hasattr(module, "help_for") else module.help_text())
            return 0
        return int(module.main(argv) or 0)
    except UserError as error:
        print(f"robolearn {command}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # piped into head
        return 0
    except OSError as error:  # a full disk, a missing file, no permission: the message names it
        print(f"robolearn {command}: {error}", file=sys.stderr)
        return UserError.exit_code
    except KeyboardInterrupt:
        print(f"robolearn {command}: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
