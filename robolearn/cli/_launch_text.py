"""Text with substitutions in launch files: `$(var NAME)`, `$(env NAME)`, `$(find-pkg-share PACKAGE)` and the like.

The grammar is that of ROS 2's launch front ends: arguments are separated by one space, may be quoted and may hold
substitutions again; a backslash takes the next character as it is, so that backslash `$(` is text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from robolearn.errors import ConfigError, unknown

ARGUMENTS = {"var": (1, 2), "env": (1, 2), "find-pkg-share": (1, 1), "exec-in-pkg": (2, 2)}
"""Substitution -> the least and the most arguments; the second of `var` and `env` is the default."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Call:
    """One substitution; its arguments are templates themselves."""

    name: str
    arguments: tuple[Template, ...]


Template = tuple["str | Call", ...]
"""Texts and substitutions in turn; empty for the empty text."""


class _Reader:
    """One text, read from left to right."""

    def __init__(self, text: str):
        self.text, self.at = text, 0

    def template(self, end: str = "") -> Template:
        """Up to the character `end` (a quotation mark), or to the end of the text."""
        parts: list[str | Call] = []
        while self._more() and self.text[self.at] != end:
            parts.append(self._call() if self._at_call() else self._literal(end))
        return tuple(parts)

    def _more(self) -> bool:
        return self.at < len(self.text)

    def _at_call(self) -> bool:
        return self.text.startswith("$(", self.at) and self.text[self.at - 1 : self.at] != "\\"

    def _literal(self, stops: str) -> str:
        found = ""
        while self._more() and not self._at_call() and self.text[self.at] not in stops:
            escaped = self.text[self.at] == "\\" and self.at + 1 < len(self.text)
            self.at += escaped
            found += self.text[self.at]
            self.at += 1
        return found

    def _call(self) -> Call:
        start = self.at
        named = _NAME.match(self.text, start + 2)
        if not named:
            raise ConfigError(f"a name is missing after '$(' in '{self.text}'; a plain '$(' is written '\\$('")
        self.at = named.end()
        arguments = []
        while self.text.startswith(" ", self.at):
            self.at += 1
            arguments.append(self._argument())
        if not self.text.startswith(")", self.at):
            raise ConfigError(f"'{self.text[start:]}' is not closed by ')'")
        self.at += 1
        return _checked(Call(named[0], tuple(arguments)))

    def _argument(self) -> Template:
        quote = self.text[self.at : self.at + 1]
        if quote in ("'", '"'):
            self.at += 1
            inner = self.template(quote)
            self.at += 1
            return inner
        parts: list[str | Call] = []
        while self._more() and self.text[self.at] not in " '\"()":
            parts.append(self._call() if self._at_call() else self._literal(" '\"()"))
        return tuple(parts)


def _checked(call: Call) -> Call:
    if call.name not in ARGUMENTS:
        raise ConfigError(unknown("substitution", call.name, list(ARGUMENTS)))
    least, most = ARGUMENTS[call.name]
    if not least <= len(call.arguments) <= most or () in call.arguments[:1]:
        count = str(most) if least == most else f"{least} or {most}"
        raise ConfigError(f"$({call.name} ...) takes {count} arguments, separated by one space")
    return call


def parse(text: str) -> Template:
    """ConfigError for an unknown substitution, a wrong number of arguments, an open bracket."""
    return _Reader(text).template()


def split(template: Template) -> tuple[Template, ...]:
    """A command line into its words: at the spaces of the text, never at those that a substitution brings."""
    if template and isinstance(template[0], str) and template[0][0].isspace():
        raise ConfigError("the command begins with a space, of which ROS 2 can make an empty word")
    words: list[list[str | Call]] = []
    fresh = True
    for part in template:
        if isinstance(part, Call):
            tokens: list[str | Call] = [part]
            spaces = False, False
        else:
            tokens = list(_shell_words(part))
            spaces = part[0].isspace(), part[-1].isspace()
        fresh = fresh or spaces[0]
        for token in tokens:
            if fresh:
                words.append([])
            words[-1].append(token)
            fresh = True
        fresh = spaces[1] or (fresh and not tokens)
    return tuple(map(tuple, words))


def _shell_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{error} in '{text}'; a quotation must not enclose a substitution") from None


def fill(template: Template, functions: dict[str, Callable[..., str]]) -> str:
    """The text, with every substitution replaced by what the function of its name returns for its arguments."""
    done = (
        p if isinstance(p, str) else functions[p.name](*(fill(a, functions) for a in p.arguments)) for p in template
    )
    return "".join(done)
