"""A browser without a screen that is told what to press: Chromium over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

KEYS = {"Space": (" ", 32), "Enter": ("Enter", 13), "Escape": ("Escape", 27)}
"""What is pressed, and its Windows code; letters are told from their own."""
START_S, ANSWER_S = 60.0, 30.0


class BrowserError(RuntimeError):
    """It does not start, or does not do what it is told."""


def found() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """A process with a session of its own, and one tab; what it needs is below `folder`."""

    def __init__(self, url: str, folder: Path, size: tuple[int, int] = (1200, 900)):
        from websockets.sync.client import connect

        program = found()
        if program is None:
            raise BrowserError("there is no chromium; Debian's package is `chromium`")
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                 "--ignore-certificate-errors", "--remote-debugging-port=0", f"--user-data-dir={folder}",
                 f"--window-size={size[0]},{size[1]}"]  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen([program, *words, url], stdout=log, stderr=log, start_new_session=True)
        self._ids, self._open = itertools.count(1), contextlib.ExitStack()
        try:
            self._line = self._open.enter_context(connect(self._tab(folder), max_size=None))
            self("Page.enable")
            # Without a screen nothing is in front: a page behind another one has its timers slowed down.
            self("Emulation.setFocusEmulationEnabled", enabled=True)
        except BaseException:
            self.kill()
            raise

    def _tab(self, folder: Path) -> str:
        """Address of the tab's protocol, once it is there."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            try:
                port = (folder / "DevToolsActivePort").read_text().split()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5.0) as answer:
                    tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
                if tabs:
                    return str(tabs[0]["webSocketDebuggerUrl"])
            except (OSError, IndexError):
                pass
            time.sleep(0.05)
        raise BrowserError(f"chromium did not start: {(folder / 'log').read_text()[-500:]}")

    def __call__(self, method: str, **values: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._line.send(json.dumps({"id": number, "method": method, "params": values}))
        while True:
            said = json.loads(self._line.recv(timeout=ANSWER_S))
            if said.get("id") == number:
                if "error" in said:
                    raise BrowserError(f"{method}: {said['error']}")
                return dict(said["result"])

    # --- what it shows --------------------------------------------------------------------------------------

    def value(self, script: str) -> Any:
        """Of JavaScript, as JSON has it."""
        result = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.value(f"document.querySelector({json.dumps(selector)}).textContent"))

    def picture(self, path: Path) -> None:
        """A PNG of the window."""
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", format="png")["data"]))

    # --- what a person does ---------------------------------------------------------------------------------

    def click(self, selector: str) -> None:
        x, y = self.middle(selector)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def middle(self, selector: str) -> tuple[float, float]:
        script = f"""(() => {{
            const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2]; }})()"""
        x, y = self.value(script)
        return x, y

    def mouse(self, what: str, x: float, y: float) -> None:
        """mousePressed, mouseMoved or mouseReleased, of the left button, at a place of the window."""
        self("Input.dispatchMouseEvent", type=what, x=x, y=y, button="left", buttons=int(what != "mouseReleased"),
             clickCount=1)  # fmt: skip

    def press(self, code: str) -> None:
        self._key("rawKeyDown", code)

    def release(self, code: str) -> None:
        self._key("keyUp", code)

    def _key(self, what: str, code: str) -> None:
        key, number = KEYS.get(code, (code[-1].lower(), ord(code[-1])))
        self("Input.dispatchKeyEvent", type=what, code=code, key=key, windowsVirtualKeyCode=number)

    # --- its end --------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """To all of its processes."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """All of its processes at once, by a signal that none of them can catch."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(Exception):  # the other end is gone
            self._open.close()
