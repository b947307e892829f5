"""The page on the web: its files, the log-in, and a connection to each browser, served by a thread of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real.page.gate import COOKIE, Gate
from real.page.messages import LONGEST
from real.page.pages import Page, Pages
from robolearn.distributed.access import Access
from robolearn.errors import ConfigError
from robolearn.optional import lazy

if TYPE_CHECKING:
    import fastapi
    import uvicorn
else:
    fastapi = lazy("fastapi", extra="page")
    uvicorn = lazy("uvicorn", extra="page")
log = logging.getLogger(__name__)

FILES = {"": ("index.html", "text/html"), "page.js": ("page.js", "text/javascript"),
         "scene.js": ("scene.js", "text/javascript"), "page.css": ("page.css", "text/css")}  # fmt: skip
FOLDER = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FULL, FLOOD, OVERSIZED = 4001, 1008, 1009
"""Why a connection is closed."""
MOST_A_S = 200
"""Messages of one browser; a page sends some 20."""
PATIENCE_S = 2.0
"""For a browser that does not read what it is sent."""
REFUSAL_S = 0.5
"""After a wrong token."""
REQUESTS = 32
"""Connections at the same time, of all browsers."""


class Board:
    """The newest of what is shown; written by one thread, read by another."""

    def __init__(self) -> None:
        self.shown: tuple[int, dict[str, Any], tuple[int, str]] = (0, {}, (0, ""))
        """A state with its number, and the curves that belong to it, as they are sent, with one of their own."""
        self.pictures: dict[int, tuple[int, bytes]] = {}
        """Of each camera the number and the JPEG of the last picture."""


class Server:
    """Bound when it is made, and serving until `close`."""

    def __init__(self, address: str, access: Access, pages: Pages):
        """Raises ConfigError for an address that cannot be bound, or that is not guarded well enough."""
        self.gate, self.pages, self.board = Gate(address, access), pages, Board()
        self._socket = _bound(address)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._wakers: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = uvicorn.Server(uvicorn.Config(
            self._app(), log_config=None, access_log=False, lifespan="off", ws_max_size=LONGEST, server_header=False,
            limit_concurrency=REQUESTS, timeout_graceful_shutdown=1, ssl_certfile=access.certificate,
            ssl_keyfile=access.key,
        ))  # fmt: skip
        self._thread = threading.Thread(target=self._serve, daemon=True, name="page")
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.gate.secure else 'http'}://{self.address}"

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def post(self, state: dict[str, Any], curves: dict[str, Any] | None = None) -> None:
        """A new state, to every browser; and curves, where they are new. Both may change afterwards."""
        number, _, drawn = self.board.shown
        if curves is not None:
            drawn = drawn[0] + 1, json.dumps({"curves": curves})
        self.pages.made(number + 1, time.monotonic())
        self.board.shown = number + 1, dict(state), drawn
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(3.0)
        self._socket.close()

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    # --- in the thread --------------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])

    def _app(self) -> Any:
        app = fastapi.FastAPI(openapi_url=None)

        @app.get("/login")
        async def whether(request: fastapi.Request) -> Any:
            return _answer({"in": self.gate.admits(request.cookies.get(COOKIE, ""))})

        @app.post("/login")
        async def log_in(request: fastapi.Request) -> Any:
            return await self._log_in(request)

        @app.get("/{name:path}")
        async def file(name: str, request: fastapi.Request) -> Any:
            if name not in FILES or not self.gate.knows_host(request.headers.get("host", "")):
                return _answer({"error": "there is no such page"}, 404)
            path, kind = FILES[name]
            return fastapi.Response((FOLDER / path).read_bytes(), media_type=kind, headers=HEADERS)

        @app.websocket("/ws")
        async def connect(browser: fastapi.WebSocket) -> None:
            await self._connect(browser)

        return app

    async def _log_in(self, request: Any) -> Any:
        headers, body = request.headers, b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST:
                break
        given = self.gate.is_ours(headers.get("origin", ""), headers.get("host", "")) and _token_in(body)
        cookie = self.gate.log_in(given) if given else None
        if cookie is None:
            self.pages.refuse("a wrong token")
            await asyncio.sleep(REFUSAL_S)
            return _answer({"in": False}, 403)
        answer = _answer({"in": True})
        answer.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", secure=self.gate.secure)
        return answer

    async def _connect(self, browser: Any) -> None:
        headers = browser.headers
        if not self.gate.is_ours(headers.get("origin", ""), headers.get("host", "")):
            self.pages.refuse("a page of another origin")
            return await browser.close()
        if not self.gate.admits(browser.cookies.get(COOKIE, "")):
            self.pages.refuse("a browser without the token")
            return await browser.close()
        await browser.accept()
        page = self.pages.open(browser.client.host if browser.client else "?")
        if page is None:
            return await browser.close(FULL, f"{self.pages.most} pages are open already: close one")
        log.info("%s is open at %s", page.name, page.where)
        try:
            with self._waker() as waker:
                await self._converse(browser, page, waker)
        finally:
            self.pages.close(page)
            log.info("%s is closed", page.name)

    @contextmanager
    def _waker(self) -> Iterator[asyncio.Event]:
        """Set when there is a state to be told."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        if self.board.shown[0]:
            waker.set()
        try:
            yield waker
        finally:
            self._wakers.remove(waker)

    async def _converse(self, browser: Any, page: Page, waker: asyncio.Event) -> None:
        """Until either of listening and telling ends."""
        tasks = [asyncio.create_task(t) for t in (self._listen(browser, page), self._tell(browser, page, waker))]
        done, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for task in done:
            if error := task.exception():
                log.debug("%s: %r", page.name, error)  # the connection broke: the page is closed all the same

    async def _listen(self, browser: Any, page: Page) -> None:
        count, since_s = 0, time.monotonic()
        while (message := await browser.receive())["type"] == "websocket.receive":
            now_s = time.monotonic()
            if now_s - since_s > 1.0:
                count, since_s = 0, now_s
            count += 1
            if count > MOST_A_S:
                self.pages.refuse("a flood of messages")
                return await browser.close(FLOOD, "too many messages")
            text = message.get("text")
            if text is None:
                self.pages.refuse("a message that is no text")
            else:
                self.pages.hear(page, text, now_s)
        if message.get("code") == OVERSIZED:
            self.pages.refuse("too long")

    async def _tell(self, browser: Any, page: Page, waker: asyncio.Event) -> None:
        board, sent, last = self.board, dict[int, int](), 0
        while True:
            await waker.wait()
            waker.clear()
            number, state, (drawn, curves) = board.shown
            mine = {"n": number, "you": page.name, "told": page.told}
            await _in_time(browser.send_text(json.dumps(mine | state)))
            if drawn != last:
                last = drawn
                await _in_time(browser.send_text(curves))
            for camera, (number, picture) in list(board.pictures.items()):
                if sent.get(camera) != number:
                    sent[camera] = number
                    await _in_time(browser.send_bytes(bytes([camera]) + picture))


async def _in_time(sending: Any) -> None:
    await asyncio.wait_for(sending, PATIENCE_S)


def _answer(content: dict[str, Any], status: int = 200) -> Any:
    return fastapi.Response(json.dumps(content), status, HEADERS, "application/json")


def _token_in(body: bytes) -> str:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    token = said.get("token") if isinstance(said, dict) else None
    return token if isinstance(token, str) else ""


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host.strip("[]"), int(port)))
        bound.listen()  # who comes before the thread serves waits
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"address {address} cannot be served: {error}; use HOST:PORT with a free port") from None
    return bound
