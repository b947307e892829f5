"""Who may speak to whom: the loopback needs nothing, any other address a token and TLS."""

from __future__ import annotations

import hmac
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn.errors import ConfigError
from robolearn.optional import lazy

grpc = lazy("grpc", extra="distributed")

VARIABLE = "ROBOLEARN_TOKEN"
HEADER = "authorization"
SHORTEST = 16


@dataclass(frozen=True)
class Access:
    """How the two ends know each other. A token that is given is demanded on the loopback too."""

    token_file: Path | None = None
    """Readable by its owner only; without one the environment variable ROBOLEARN_TOKEN is read. Never on a command
    line, where every user of the machine sees it."""
    certificate: Path | None = None
    """PEM, at both ends. It must name the address by which the actors reach the learner (subjectAltName)."""
    key: Path | None = None
    """PEM, at the learner's end only."""

    def token(self) -> str:
        """Empty if there is none. ConfigError for one that others can read, or that is short."""
        if self.token_file is None:
            token, where = os.environ.get(VARIABLE, ""), VARIABLE
        else:
            token, where = _read(self.token_file, "token").decode(errors="replace").strip(), str(self.token_file)
            if self.token_file.stat().st_mode & 0o077:
                raise ConfigError(f"{where} can be read by others; do: chmod 600 {where}")
        if (token or self.token_file) and len(token) < SHORTEST:
            raise ConfigError(f"the token in {where} is shorter than {SHORTEST} characters; make one with: "
                              "python -c 'import secrets; print(secrets.token_urlsafe())'")  # fmt: skip
        if not token.isascii() or not token.isprintable():
            raise ConfigError(f"the token in {where} holds more than printable ASCII characters")
        return token

    def require(self, address: str, server: bool) -> None:
        """ConfigError, naming what is missing, unless `address` is on this machine or all is there that guards it."""
        if is_loopback(address):
            return
        needed = {"a token (a file, or " + VARIABLE + ")": self.token(), "a TLS certificate": self.certificate}
        needed |= {"the certificate's key": self.key} if server else {}
        missing = [name for name, value in needed.items() if not value]
        if missing:
            raise ConfigError(f"{address} is not on this machine: that needs {', '.join(missing)}; or use 127.0.0.1")

    def server_credentials(self) -> Any:
        """None without TLS."""
        if self.certificate is None and self.key is None:
            return None
        if self.certificate is None or self.key is None:
            raise ConfigError("TLS at the learner's end needs both a certificate and its key")
        pair = _read(self.key, "key"), _read(self.certificate, "certificate")
        return grpc.ssl_server_credentials([pair])

    def channel_credentials(self) -> Any:
        """None without TLS."""
        if self.certificate is None:
            return None
        return grpc.ssl_channel_credentials(_read(self.certificate, "certificate"))


def metadata(token: str) -> tuple[tuple[str, str], ...]:
    """What an actor sends along with each call."""
    return ((HEADER, f"Bearer {token}"),) if token else ()


def admitted(given: Any, token: str) -> bool:
    """Whether a call's metadata hold the token; in a time that does not tell how much of it was right."""
    said = next((str(value) for key, value in given if key == HEADER), "")
    return not token or hmac.compare_digest(said.encode(), f"Bearer {token}".encode())


def is_loopback(address: str) -> bool:
    """Of HOST:PORT or unix:PATH. A name other than `localhost` counts as not, wherever it may lead."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"the {what} {path} cannot be read: {error.strerror}") from None
