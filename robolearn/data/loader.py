"""Batches of windows in a random order that depends on the seed and the batch's number only: training that was
interrupted goes on with the same data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from robolearn.data.layout import DataError
from robolearn.data.read import Episodes

Batch = tuple[dict[str, Tensor], dict[str, Tensor]]


class Windows(Dataset):
    """One window for each step of each episode; see `Episodes.windows` for `offsets` and what comes out."""

    def __init__(self, episodes: Episodes, offsets: Mapping[str, Sequence[int]]):
        self.episodes, self.offsets = episodes, {k: list(v) for k, v in offsets.items()}
        self._episode = np.repeat(np.array(episodes.ids, dtype=np.int64), episodes.lengths)
        self._step = np.arange(episodes.frames) - np.repeat(episodes.starts, episodes.lengths)
        for key in self.offsets:
            if key not in episodes.info.videos:
                episodes.column(key)  # once, before there are workers

    def __len__(self) -> int:
        return len(self._step)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.episodes.windows(self._episode[indices], self._step[indices], self.offsets)


class Order(Sampler):
    """Indices of batch after batch, without an end. Each pass over the `count` windows is a permutation of its own;
    what is left of it after the last full batch is not used in that pass."""

    def __init__(self, count: int, batch_size: int, seed: int, start: int = 0):
        """`start`: number of the first batch. Raises DataError if there is not one full batch."""
        if not 1 <= batch_size <= count:
            raise DataError(f"a batch of {batch_size} needs as many steps; the episodes have {count}")
        self.count, self.batch_size, self.seed, self.start = count, batch_size, seed, start

    def __iter__(self) -> Iterator[list[int]]:
        each = self.count // self.batch_size
        number = self.start
        while True:
            order = np.random.default_rng([self.seed, number // each]).permutation(self.count)
            for k in range(number % each, each):
                yield order[k * self.batch_size : (k + 1) * self.batch_size].tolist()
                number += 1


def batches(windows: Windows, batch_size: int, seed: int, start: int = 0, workers: int = 0) -> Iterator[Batch]:
    """Batches from number `start` on, without an end; `workers` processes decode ahead. Episodes that were preloaded
    on a GPU need workers=0."""
    order = Order(len(windows), batch_size, seed, start)
    if workers and windows.episodes.device.type != "cpu":
        raise DataError(f"episodes on {windows.episodes.device} cannot go to worker processes: workers=0")
    return iter(DataLoader(windows, batch_sampler=order, num_workers=workers, collate_fn=_as_it_is))


def _as_it_is(batch: Any) -> Any:
    return batch
