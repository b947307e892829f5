"""Training windows out of a set of episodes: what imitation learners read."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robolearn.data import contract, layout
from robolearn.data.read import Episodes
from robolearn.errors import ConfigError, unknown
from robolearn.nets.encoder import observed
from robolearn.nets.normalize import statistics_of
from robolearn.spec import PolicySpec

log = logging.getLogger(__name__)
PRELOAD = ("auto", "true", "false")
MB = 1024**2


def open_set(path: str, spec: PolicySpec, task: str = "", episodes: int = 0, only_success: bool = False,
             cache_mb: float = 512.0) -> Episodes:  # fmt: skip
    """The first `episodes` (0: all) of a set, successful ones only if asked, that was recorded with what `spec` says;
    ConfigError or DataError, with both shown or the remedy, otherwise."""
    root = Path(path)
    if not path or not (root / layout.INFO).exists():
        collect = f"robolearn collect task={task or 'NAME'} policy=expert out={path or 'data/NAME'}"
        said = f"data.path={path} holds no set of episodes" if path else "missing: data.path=..., a set of episodes"
        raise ConfigError(f"{said}; make one with: {collect}")
    whole = Episodes(root, cache_mb=cache_mb)
    contract.require(whole, spec, task)
    ids = contract.chosen(whole, episodes, only_success)
    return whole if ids == whole.ids else Episodes(root, cache_mb=cache_mb, ids=ids)


class EpisodeWindows:
    """One window for every step: the `steps` observations up to it, and `horizon` actions from it on. Before an
    episode's start its first observation is repeated, after its end its last action, where `mask` is False.

    Numbers lie in memory, on `device`. Pictures too with `preload` `true`, or `auto` where all are at most `limit_mb`;
    else they are decoded for each batch, by `workers` processes ahead of the learner if that is not 0.
    """

    def __init__(self, episodes: Episodes, spec: PolicySpec, steps: int, horizon: int, preload: str = "auto",
                 workers: int = 0, limit_mb: float = 4000.0, device: torch.device | str = "cpu"):  # fmt: skip
        """DataError, with episode and step, for a number that is not finite."""
        if preload not in PRELOAD:
            raise ConfigError(f"data.preload: {unknown('choice', preload, PRELOAD)}")
        self.episodes, self.device = episodes, torch.device(device)
        shapes = observed(spec.observation)
        self._pictures = {f"observation.{k}": contract.column_of(k) for k, s in shapes.items() if len(s) > 1}
        vectors = {f"observation.{k}": contract.column_of(k) for k, s in shapes.items() if len(s) == 1}
        self._in_memory = self._load(preload, limit_mb)
        self.workers = 0 if self._in_memory else workers
        columns = vectors | {"action": "action"}
        self._numbers = {k: episodes.column(c).to(self.device) for k, c in columns.items()}
        self._past, self._future = torch.arange(1 - steps, 1), torch.arange(horizon)
        length = torch.from_numpy(episodes.lengths)
        self._first = torch.from_numpy(episodes.starts).repeat_interleave(length)
        self._last = self._first + length.repeat_interleave(length) - 1
        self._episode = np.repeat(np.array(episodes.ids, dtype=np.int64), episodes.lengths)

    def _load(self, preload: str, limit_mb: float) -> bool:
        """Whether all pictures are in memory now."""
        features = self.episodes.info.features
        size = self.episodes.frames * sum(math.prod(features[c].shape) for c in self._pictures.values())
        wanted = preload == "true" or (preload == "auto" and size <= limit_mb * MB)
        if wanted and self._pictures:
            log.info("decoding %d steps of %d cameras into %.0f MB of memory", self.episodes.frames,
                     len(self._pictures), size / MB)  # fmt: skip
            self.episodes.preload(self.device, list(self._pictures.values()))
        return wanted or not self._pictures

    def __len__(self) -> int:
        return len(self._first)

    def windows(self, batch: Tensor) -> dict[str, Tensor]:
        """Those of the steps `batch` (B,), counted over all episodes: `observation.<key>` (B, T, ...), `action`
        (B, H, A) and `mask` (B, H)."""
        first, last = self._first[batch, None], self._last[batch, None]
        past = torch.maximum(batch[:, None] + self._past, first)
        there = batch[:, None] + self._future
        future = torch.minimum(there, last)
        rows = {"action": future.to(self.device)}
        past_here = past.to(self.device)
        out = {k: v[rows.get(k, past_here)] for k, v in self._numbers.items()}
        out["mask"] = (there == future).to(self.device)
        return out | self._decoded(batch)

    def _decoded(self, batch: Tensor) -> dict[str, Tensor]:
        if not self._pictures:
            return {}
        step = (batch - self._first[batch]).numpy()
        offsets = dict.fromkeys(self._pictures.values(), self._past.tolist())
        values, _ = self.episodes.windows(self._episode[batch.numpy()], step, offsets)
        return {k: values[c] for k, c in self._pictures.items()}

    def stream(self, batches: Iterable[Tensor]) -> Iterator[dict[str, Tensor]]:
        """`windows` of batch after batch, in their order; `workers` processes are ahead of the caller."""
        if not self.workers:
            return map(self.windows, batches)
        if self.device.type != "cpu":
            self._numbers = {k: v.cpu() for k, v in self._numbers.items()}
            self.device = torch.device("cpu")  # the learner moves them
        order: Any = (b.tolist() for b in batches)
        return iter(DataLoader(_Steps(self), batch_sampler=order, num_workers=self.workers, collate_fn=_as_it_is))

    def statistics(self) -> dict[str, dict[str, Tensor]]:
        """Of the steps that are learned from, exactly; of numbers only."""
        return {k: statistics_of(v) for k, v in self._numbers.items()}


class _Steps(Dataset):
    """For torch's loader, which wants numbers as lists."""

    def __init__(self, source: EpisodeWindows):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return self.source.windows(torch.tensor(indices))


def _as_it_is(batch: Any) -> Any:
    return batch
