"""Where figures go while a loop runs: TensorBoard, a JSON line an iteration, and a live display."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)


class Writer:
    """TensorBoard events and `metrics.jsonl` in a run's folder. A run resumed at `step` continues both: what a killed
    process wrote beyond its last checkpoint is taken out."""

    def __init__(self, folder: Path, step: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(folder) if row["step"] <= step] if path.exists() else []
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in kept))
        part.replace(path)
        self._events = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        self._lines = path.open("a")

    def write(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._events.add_scalar(name, value, step)
        self._lines.write(json.dumps({"step": step, **figures}) + "\n")
        self._lines.flush()

    def close(self) -> None:
        self._events.close()
        self._lines.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl`; after a kill the last line may be cut and is left out."""
    rows = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s ends in a cut line", folder / "metrics.jsonl")
    return rows


class Display:
    """A live progress bar with rate and time left on a terminal; elsewhere a line every few seconds."""

    def __init__(self, total: int, title: str, done: int = 0, every_s: float = 5.0):
        self.total, self.title, self.done, self.every_s = total, title, done, every_s
        self._bar: Any = None
        self._last = self._start = time.monotonic()
        self._first = done

    def __enter__(self) -> Display:
        if sys.stderr.isatty():
            self._bar = _rich_bar()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, figures="")
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, figures: dict[str, float], total: int = 0) -> None:
        """`total`: where it is known better now, of work that ends by the clock."""
        self.done, self.total = done, total or self.total
        text = "  ".join(f"{k} {v:.3g}" for k, v in figures.items())
        if self._bar is not None:
            self._bar.update(self._task, total=self.total, completed=done, figures=text)
            return
        now = time.monotonic()
        if now - self._last >= self.every_s or done >= self.total:
            self._last = now
            rate = (done - self._first) / max(now - self._start, 1e-9)
            left = f"{max(0, self.total - done) / rate:.0f} s left" if rate else "no end in sight yet"
            log.info("%s %d/%d  %s  %s  %s", self.title, done, self.total, _pace(rate), left, text)


def _pace(rate: float | None) -> str:
    """Of so many a second, or how long one takes."""
    if not rate:
        return ""
    return f"{rate:,.0f}/s" if rate >= 1.0 else f"{1.0 / rate:.1f} s each"


def _rich_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Any) -> Text:
            return Text(_pace(task.speed), style="cyan")

    return Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(""), TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"), console=Console(stderr=True),
    )  # fmt: skip
