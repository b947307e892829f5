"""Work in the background, on as many cores as there are: files that are made once, each by a process of its own choice,
while the caller goes on."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn.cli import _world
from robolearn.errors import UserError
from robolearn.loops.log import Display

log = logging.getLogger(__name__)

NICE = 10
"""So much behind what the caller does meanwhile."""


@dataclass(frozen=True)
class Job:
    """`make(path, *args)` makes a file from another one; a function that its module names, for it crosses processes."""

    path: Path
    source: Path
    make: Callable[..., Any]
    args: Sequence[Any] = ()


def stale(path: Path, source: Path) -> bool:
    """It is not there, or older than what it is made from."""
    return not path.is_file() or path.stat().st_mtime < source.stat().st_mtime


class Jobs:
    """Use it as a context; its end waits for all. What they print goes to a file."""

    def __init__(self, words: Path):
        self.words, self._futures = words, dict[Future[Any], Path]()
        self._pool: ProcessPoolExecutor | None = None

    def add(self, jobs: Iterable[Job]) -> None:
        """Those whose file is there and new enough are left out."""
        for job in jobs:
            if stale(job.path, job.source):
                self._futures[self._started().submit(_run, job)] = job.path

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            from robolearn.loops.threads import usable_cores

            self.words.unlink(missing_ok=True)
            context = multiprocessing.get_context("spawn")  # a fork would inherit the engines' threads
            self._pool = ProcessPoolExecutor(usable_cores(), context, _begin, (str(self.words.absolute()),))
        return self._pool

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """As `wait`; after an error those that were not begun never are."""
        try:
            if kind is None:
                self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)

    def wait(self) -> None:
        """For all that were added. Raises the first error of one."""
        if not self._futures:
            return
        with Display(len(self._futures), "evaluate, film, export") as display:
            for done, future in enumerate(as_completed(self._futures), 1):
                try:
                    future.result()
                except BrokenProcessPool as error:
                    raise UserError(f"a process that made {self._futures[future]} was killed; what it said is in "
                                    f"{self.words}") from error  # fmt: skip
                display.update(done, {})
        self._futures.clear()


def _run(job: Job) -> None:
    job.make(job.path, *job.args)


def _begin(words: str) -> None:
    """In a new process."""
    with contextlib.suppress(OSError):
        os.nice(NICE)
    said = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (sys.stdout, sys.stderr):
        standard.flush()
        os.dup2(said, standard.fileno())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _world.discover()
