"""The picture of the operator's page in docs/hil.md: `python -m benchmarks.page_picture [out=docs/operator_page.png]
[run=FOLDER] [task=franka_lift]`.

A twin with the task's objects, its guard, a simulated camera, and the page in Chromium, which has the arm; `run` is the
folder of a run of robolearn hil, whose figures and curves are shown.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.browser import Browser
from benchmarks.deploy_stack import Stack
from benchmarks.page_lost import page_stack
from real.listener import TrialError

SIZE = 1280, 860
CAMERA = ["-p", "simulated:=true", "-p", "compressed:=true", "-p", "raw:=false", "-p", "rate_hz:=2.0", "-p",
          "name:=front", "-p", "eye_m:=[1.3, 0.7, 0.7]", "-p", "target_m:=[0.4, 0.0, 0.2]", "-p", "width:=320", "-p",
          "height:=240"]  # fmt: skip


def shown(stack: Stack, browser: Browser, script: str, click: str = "") -> None:
    """Wait for it; `click` again and again."""
    until = time.monotonic() + 60.0
    while not browser.value(script):
        if time.monotonic() > until:
            said = browser.text("#banner"), browser.text("#told")
            raise TrialError(f"the page does not show {script}, but {said}")
        if click:
            browser.click(click)
        stack.stay(1.0)


def main(argv: list[str]) -> int:
    options = dict(word.split("=", 1) for word in argv)
    os.environ.setdefault("ROS_DOMAIN_ID", "89")
    scene = ["-p", f"scene:={options.get('task', 'franka_lift')}"]
    page = ["-p", "cameras:=[front]", "-p", f"run:={options.get('run', '')}", "-p", "timeout_s:=1.0"]
    with tempfile.TemporaryDirectory() as name, page_stack(Path(name), scene, page) as (stack, address):
        stack.start("camera", words=[*scene, *CAMERA])
        browser = Browser(f"http://{address}/", Path(name) / "browser", SIZE)
        try:
            shown(stack, browser, "document.querySelector('#cameras img')?.naturalWidth > 0")
            browser.press("KeyR")
            mine = "document.querySelector('#banner').dataset.kind === 'mine'"
            shown(stack, browser, mine, click="[data-do=take]")
            browser.picture(Path(options.get("out", "docs/operator_page.png")))
        finally:
            browser.kill()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
