"""Who may see the page: a browser on this machine, or one that has been given the token, over TLS."""

from __future__ import annotations

import hmac
import secrets
from collections import deque
from urllib.parse import urlsplit

from robolearn.distributed.access import Access, is_loopback

COOKIE = "robolearn_page"
MOST = 100
"""Browsers that are logged in; one more logs the first of them out."""


class Gate:
    """Of a server at `address` (HOST:PORT). The token and the certificate are read as for robolearn hil."""

    def __init__(self, address: str, access: Access):
        """Raises ConfigError for an address beyond this machine without token and TLS."""
        access.require(address, server=True)
        self.secure = access.certificate is not None
        self._token, self._here = access.token(), is_loopback(address)
        self._admitted: deque[str] = deque(maxlen=MOST)

    @property
    def closed(self) -> bool:
        """Whether a token is demanded."""
        return bool(self._token)

    def knows_host(self, host: str) -> bool:
        """Of a request's Host. On the loopback it must be a name of the loopback: a foreign name that was made to lead
        here (DNS rebinding) brings pages of others along."""
        return not self._here or is_loopback(host if ":" in host.rpartition("]")[2] else f"{host}:80")

    def is_ours(self, origin: str, host: str) -> bool:
        """Whether the page that opens a connection came from here; another site's page must not move the robot."""
        parts = urlsplit(origin)
        scheme = "https" if self.secure else "http"
        return self.knows_host(host) and parts.scheme == scheme and bool(host) and parts.netloc == host

    def log_in(self, token: str) -> str | None:
        """A cookie's value for the right token; in a time that does not tell how much of it was right."""
        given = token.encode(errors="surrogatepass")  # half a character, as JSON may have it, too
        if not self.closed or not hmac.compare_digest(given, self._token.encode()):
            return None
        self._admitted.append(secrets.token_urlsafe())
        return self._admitted[-1]

    def admits(self, cookie: str) -> bool:
        return not self.closed or any(hmac.compare_digest(cookie.encode(), one.encode()) for one in self._admitted)
