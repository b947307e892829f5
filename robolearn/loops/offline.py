"""Learn from a data set, batch by batch, in an order that a resumed run repeats."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn.algos.imitation import Imitation, WindowSource
from robolearn.loops import checkpoint
from robolearn.loops.interrupt import Interrupt
from robolearn.loops.log import Display, Writer
from robolearn.loops.online import LearningDiverged

log = logging.getLogger(__name__)


class Order:
    """The windows of every update: a shuffle of all of them each epoch, from `seed` and the epoch alone. What is left
    of an epoch when it holds no whole batch waits for another epoch."""

    def __init__(self, windows: int, batch: int, seed: int):
        self.windows, self.batch, self.seed = windows, min(batch, windows), seed
        self._epoch, self._shuffle = -1, torch.empty(0, dtype=torch.long)

    def at(self, update: int) -> Tensor:
        """Numbers (B,) of the windows of update number `update`."""
        epoch, part = divmod(update, self.windows // self.batch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._shuffle = epoch, torch.randperm(self.windows, generator=generator)
        return self._shuffle[part * self.batch : (part + 1) * self.batch]

    def after(self, update: int) -> Iterator[Tensor]:
        """The windows of this update and of all that follow."""
        return map(self.at, itertools.count(update))


class OfflineTrainer:
    """Runs a supervised learner on a source of windows for its `total_updates`, checkpointing as it goes. A resumed
    run sees the same windows in the same order and draws the same noise: it ends in the same weights."""

    def __init__(self, algo: Imitation, source: WindowSource, batch: int, seed: int, folder: Path,
                 checkpoint_every_s: float, log_every: int = 100):  # fmt: skip
        if batch < 1 or log_every < 1:
            raise ValueError(f"batch and log_every must be at least 1, got {batch} and {log_every}")
        self.algo, self.source, self.folder = algo, source, folder
        self.order = Order(len(source), batch, seed)
        self.checkpoint_every_s, self.log_every = checkpoint_every_s, log_every
        self.seconds = 0.0
        """Of all processes that worked on the run."""
        self._interrupt = Interrupt("this update")

    def run(self) -> None:
        """Learn to the end; the last checkpoint is always written. The first Ctrl-C or SIGTERM ends the training
        after the update under way, checkpoint included, by KeyboardInterrupt; the second at once."""
        self._began, self._saved_at = time.monotonic() - self.seconds, time.monotonic()
        self._windows = self.source.stream(self.order.after(self.algo.updates))
        total, writer = self.algo.total_updates, Writer(self.folder, self.algo.updates)
        try:
            with self._interrupt.watch(), Display(total, "learn", self.algo.updates) as display:
                while self.algo.updates < total and not self._interrupt.wanted:
                    figures = self._interval()
                    writer.write(self.algo.updates, figures)
                    display.update(self.algo.updates, {"loss": figures["learn/loss"]})
                self.save()
        finally:
            writer.close()
        if self._interrupt.wanted:
            raise KeyboardInterrupt

    def _interval(self) -> dict[str, float]:
        """Updates up to the next multiple of log_every, the end or an interrupt; the means of their figures."""
        start, first, sums = time.perf_counter(), self.algo.updates, dict[str, Any]()
        stop = min(self.algo.total_updates, first - first % self.log_every + self.log_every)
        waited = 0.0
        while self.algo.updates < stop and not self._interrupt.wanted:
            asked = time.perf_counter()
            windows = next(self._windows)
            waited += time.perf_counter() - asked
            for key, value in self.algo.update(windows).items():
                sums[key] = sums.get(key, 0.0) + value
            self._maybe_save(sums)
        count = self.algo.updates - first
        figures = {f"learn/{k}": float(v) / count for k, v in sums.items()}
        self._refuse_divergence(figures)
        self.seconds = time.monotonic() - self._began
        taken = time.perf_counter() - start
        times = {"time/updates_per_s": count / taken, "time/data_share": waited / taken, "time/seconds": self.seconds}
        return figures | times

    def _refuse_divergence(self, figures: dict[str, float]) -> None:
        bad = {k: v for k, v in figures.items() if not math.isfinite(v)}
        if bad:
            raise LearningDiverged(
                f"learning diverged before update {self.algo.updates} ({bad}); nothing of it is saved, the checkpoint "
                f"before stands. Look for NaN in the data, or make the learning rate smaller"
            )

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def _maybe_save(self, sums: dict[str, Any]) -> None:
        if time.monotonic() - self._saved_at <= self.checkpoint_every_s:
            return
        self._saved_at = time.monotonic()
        self.seconds = self._saved_at - self._began
        self._refuse_divergence({k: float(v) for k, v in sums.items()})
        try:
            self.save()
        except OSError as error:  # a full disk may be emptied before the training ends
            log.error("%s", error)

    def save(self) -> None:
        checkpoint.write(self.folder / "checkpoints", self.algo.updates, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {
            "algo": self.algo.state_dict(), "generator": self.algo.generator.get_state(), "seconds": self.seconds,
            "data": {"windows": self.order.windows, "batch": self.order.batch, "seed": self.order.seed},
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ValueError, with both, if the run was on another number of windows, batch or seed: the order would differ."""
        data = {"windows": self.order.windows, "batch": self.order.batch, "seed": self.order.seed}
        if state["data"] != data:
            raise ValueError(f"the run learned from {state['data']}, now it would from {data}: the order of the data "
                             f"would differ")  # fmt: skip
        self.algo.load_state_dict(state["algo"])
        self.algo.generator.set_state(state["generator"].cpu())
        self.seconds = state["seconds"]
