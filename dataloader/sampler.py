"""The order of samples: a pure function of seed and position in images, so that a run resumes exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

from dataloader.seeding import ORDER, REAL_ORDER, SYNTHETIC_ORDER, generator_of


class RunBatchSampler(Sampler[list[int]]):
    """Batches of a whole run, epoch after epoch; an epoch draws as many samples as the data set holds.

    What it yields are *draws*: the sample's index for its first appearance in an epoch, plus the number of samples for
    each further one (see `SectionDataset`), so that a photo that is shown often is not augmented alike each time.

    Args:
        is_real: per sample, whether it is a real photo.
        batch_size: the last batch of an epoch may be smaller.
        seed: determines the order of every epoch.
        epochs: epochs of the whole run.
        start_images: images seen before. Batches begin at multiples of the batch size in each epoch; a start between two
            of them first yields what is left of that batch.
        real_share: None: every sample once an epoch, shuffled. Otherwise the share of real photos among the drawn ones:
            few photos are repeated, many synthetic images are sub-sampled evenly over the epochs.
        share: the part of a batch that is to be yielded, where several processes divide it; default: all of it.
    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        is_real: list[bool],
        batch_size: int,
        *,
        seed: int,
        epochs: int,
        start_images: int = 0,
        real_share: float | None = None,
        share: Callable[[Sequence[int]], list[int]] = list,
    ):
        if batch_size < 1:
            raise ValueError(f"batch size must be at least 1, got {batch_size}")
        if not is_real:
            raise ValueError("no samples to draw from")
        if start_images < 0:
            raise ValueError(f"a run cannot start at image {start_images}")
        if real_share is not None:
            if not 0 < real_share < 1:
                raise ValueError(f"real share must lie between 0 and 1, got {real_share}")
            if all(is_real) or not any(is_real):
                raise ValueError("a real share needs both real and synthetic training sections")
        self._is_real_N = torch.tensor(is_real)
        self._batch_size, self._seed, self._real_share = batch_size, seed, real_share
        self._epochs, self._start_images, self._share = epochs, start_images, share

    @property
    def images_per_epoch(self) -> int:
        return len(self._is_real_N)

    def __len__(self) -> int:
        """Batches from the start to the end of the run."""
        epoch, image = divmod(self._start_images, self.images_per_epoch)
        per_epoch = -(-self.images_per_epoch // self._batch_size)
        return max(0, (self._epochs - epoch) * per_epoch - image // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        first_epoch, first_image = divmod(self._start_images, self.images_per_epoch)
        for epoch in range(first_epoch, self._epochs):
            draws = self._draws_of(epoch)
            for start in range(0, len(draws), self._batch_size):
                batch = draws[max(start, first_image) : start + self._batch_size]
                if batch:
                    yield self._share(batch)
            first_image = 0

    def order_of(self, epoch: int) -> list[int]:
        """Sample indices of an epoch."""
        generator = generator_of(self._seed, ORDER, epoch)
        if self._real_share is None:
            return torch.randperm(self.images_per_epoch, generator=generator).tolist()
        return _mixed_order(self._is_real_N, self._real_share, self._seed, epoch, generator)

    def _draws_of(self, epoch: int) -> list[int]:
        shown: Counter[int] = Counter()
        draws = []
        for index in self.order_of(epoch):
            draws.append(index + shown[index] * self.images_per_epoch)
            shown[index] += 1
        return draws


def _mixed_order(is_real_N: torch.Tensor, share: float, seed: int, epoch: int, generator: torch.Generator) -> list[int]:
    real, synthetic = is_real_N.nonzero()[:, 0], (~is_real_N).nonzero()[:, 0]
    total = len(is_real_N)
    n_real = min(max(round(share * total), 1), total - 1)
    order = torch.cat(
        (
            _endless(real, n_real, seed, REAL_ORDER, epoch),
            _endless(synthetic, total - n_real, seed, SYNTHETIC_ORDER, epoch),
        )
    )
    return order[torch.randperm(total, generator=generator)].tolist()


def _endless(indices: torch.Tensor, count: int, seed: int, stream: int, epoch: int) -> torch.Tensor:
    """The part of epoch `epoch` of an endless sequence of permutations, `count` long: all are drawn equally often."""
    first, n = epoch * count, len(indices)
    rounds = range(first // n, (first + count - 1) // n + 1)
    sequence = torch.cat([indices[torch.randperm(n, generator=generator_of(seed, stream, r))] for r in rounds])
    return sequence[first - rounds.start * n :][:count]
