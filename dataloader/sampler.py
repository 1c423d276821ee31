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


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of one epoch; an epoch draws as many samples as the data set holds.

    Args:
        is_real: per sample, whether it is a real photo.
        batch_size: the last batch may be smaller.
        seed, epoch: determine the order.
        start_batch: batches to skip, for resuming inside an epoch.
        real_share: None: every sample once, shuffled. Otherwise the expected share of real photos among the drawn ones:
            few photos are repeated, many synthetic images are sub-sampled evenly over the epochs.
    """

    def __init__(self, is_real: list[bool], batch_size: int, *, seed: int, epoch: int, start_batch: int = 0,
                 real_share: float | None = None):
        if batch_size < 1:
            raise ValueError(f"batch size must be at least 1, got {batch_size}")
        if real_share is not None and not 0 < real_share < 1:
            raise ValueError(f"real share must lie between 0 and 1, got {real_share}")
        self.batch_size, self.start_batch = batch_size, start_batch
        generator = _generator(seed, 0, epoch)
        if real_share is None:
            self.order = torch.randperm(len(is_real), generator=generator).tolist()
        else:
            self.order = _mixed_order(torch.tensor(is_real), real_share, seed, epoch, generator)

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(self.start_batch * self.batch_size, len(self.order), self.batch_size):
            yield self.order[start : start + self.batch_size]


def _mixed_order(is_real_N: torch.Tensor, share: float, seed: int, epoch: int, generator: torch.Generator) -> list[int]:
    real, synthetic = is_real_N.nonzero()[:, 0], (~is_real_N).nonzero()[:, 0]
    if len(real) == 0 or len(synthetic) == 0:
        raise ValueError("a real share needs both real and synthetic training sections")
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
