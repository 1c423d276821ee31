"""The order of samples: a pure function of seed and position, so that a run resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


def _generator(*numbers: int) -> torch.Generator:
    state = 0
    for number in numbers:
        # splitmix-style mixing; keeps (seed, epoch) pairs apart.
        state = ((state ^ number) * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) % 2**63
    return torch.Generator().manual_seed(state)


def step_generator(seed: int, images_seen: int) -> torch.Generator:
    """The random generator of one training step's augmentation."""
    return _generator(seed, 1, images_seen)


class RunBatchSampler(Sampler[list[int]]):
    """Batches of a whole run, epoch after epoch; an epoch draws as many samples as the data set holds.

    Args:
        is_real: per sample, whether it is a real photo.
        batch_size: the last batch of an epoch may be smaller.
        seed: determines the order of every epoch.
        epochs: epochs of the whole run.
        start_epoch, start_batch: where to continue.
        real_share: None: every sample once an epoch, shuffled. Otherwise the share of real photos among the drawn ones:
            few photos are repeated, many synthetic images are sub-sampled evenly over the epochs.
    """

    def __init__(self, is_real: list[bool], batch_size: int, *, seed: int, epochs: int, start_epoch: int = 0,
                 start_batch: int = 0, real_share: float | None = None):
        if batch_size < 1:
            raise ValueError(f"batch size must be at least 1, got {batch_size}")
        if real_share is not None:
            if not 0 < real_share < 1:
                raise ValueError(f"real share must lie between 0 and 1, got {real_share}")
            if all(is_real) or not any(is_real):
                raise ValueError("a real share needs both real and synthetic training sections")
        self._is_real_N = torch.tensor(is_real)
        self._batch_size, self._seed, self._real_share = batch_size, seed, real_share
        self._epochs, self._start_epoch, self._start_batch = epochs, start_epoch, start_batch

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self._is_real_N) // self._batch_size)

    def __len__(self) -> int:
        return (self._epochs - self._start_epoch) * self.batches_per_epoch - self._start_batch

    def __iter__(self) -> Iterator[list[int]]:
        first = self._start_batch * self._batch_size
        for epoch in range(self._start_epoch, self._epochs):
            order = self.order_of(epoch)
            for start in range(first, len(order), self._batch_size):
                yield order[start : start + self._batch_size]
            first = 0

    def order_of(self, epoch: int) -> list[int]:
        """Sample indices of an epoch."""
        generator = _generator(self._seed, 0, epoch)
        if self._real_share is None:
            return torch.randperm(len(self._is_real_N), generator=generator).tolist()
        return _mixed_order(self._is_real_N, self._real_share, self._seed, epoch, generator)


def _mixed_order(is_real_N: torch.Tensor, share: float, seed: int, epoch: int, generator: torch.Generator) -> list[int]:
    real, synthetic = is_real_N.nonzero()[:, 0], (~is_real_N).nonzero()[:, 0]
    total = len(is_real_N)
    n_real = min(max(round(share * total), 1), total - 1)
    order = torch.cat((_endless(real, n_real, seed, epoch, 2), _endless(synthetic, total - n_real, seed, epoch, 3)))
    return order[torch.randperm(total, generator=generator)].tolist()


def _endless(indices: torch.Tensor, count: int, seed: int, epoch: int, stream: int) -> torch.Tensor:
    """The part of epoch `epoch` of an endless sequence of permutations, `count` long: all are drawn equally often."""
    first, n = epoch * count, len(indices)
    rounds = range(first // n, (first + count - 1) // n + 1)
    sequence = torch.cat([indices[torch.randperm(n, generator=_generator(seed, stream, r))] for r in rounds])
    return sequence[first - rounds.start * n :][:count]
