"""Photos with the synthetic images that they are trained beside; which, is a pure function of seed and position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset, Sampler

from dataloader.prepare import RawBatch, collate
from dataloader.sampler import RunBatchSampler
from dataloader.section import Sample, SectionDataset
from dataloader.seeding import generator_of

# Streams of draws beside those of `dataloader.seeding`.
PARTNER, NOISE, BUFFER = 100, 101, 102
Key = tuple[int, int]


class Pairs(Dataset):
    """Photos, each with a partner; asked for by (epoch, index of the photo).

    Args:
        real: the photos.
        by_name: whose partners bear the photos' names. other: whose partners are random; its own photos for stage I, where
            a photo's partner lends its mask.
        paired_from: the first epoch whose partners are `by_name`'s.
    Raises:
        ValueError: a photo has no partner of its name; names it.
    """

    def __init__(
        self,
        real: SectionDataset,
        by_name: SectionDataset | None,
        other: SectionDataset | None,
        *,
        paired_from: int,
        seed: int,
    ):
        self.real, self.by_name, self.other = real, by_name, other
        self.paired_from, self.seed = paired_from, seed
        self.partner_of = [] if by_name is None else same_names(real, by_name)

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, key: Key) -> tuple[Sample, Sample]:
        epoch, index = key
        if epoch >= self.paired_from:
            return self.real[index], self.by_name[self.partner_of[index]]
        generator = generator_of(self.seed, PARTNER, epoch, index)
        if self.other is self.real:
            # Never the photo itself, unless there is no other.
            step = 1 + int(torch.randint(max(1, len(self.real) - 1), (1,), generator=generator))
            return self.real[index], self.real[(index + step) % len(self.real)]
        return self.real[index], self.other[int(torch.randint(len(self.other), (1,), generator=generator))]


class PairSampler(Sampler[list[Key]]):
    """Batches of keys of a whole run from a position on, epoch after epoch; an epoch is one pass over the photos."""

    def __init__(self, photos: int, batch_size: int, *, seed: int, epochs: int, start_images: int):
        self._photos, self._start = photos, start_images
        self._batches = RunBatchSampler([True] * photos, batch_size, seed=seed, epochs=epochs, start_images=start_images)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Key]]:
        seen = self._start
        for batch in self._batches:
            yield [(seen // self._photos, index) for index in batch]
            seen += len(batch)


def collate_pairs(pairs: Sequence[tuple[Sample, Sample]]) -> tuple[RawBatch, RawBatch]:
    """Stacks photos and partners apart: their sizes may differ."""
    return collate([real for real, _ in pairs]), collate([partner for _, partner in pairs])


def same_names(real: SectionDataset, synthetic: SectionDataset) -> list[int]:
    """For every photo the index of the synthetic image of its name.

    Raises:
        ValueError: there is none for some photos; names one.
    """
    index_of = {Path(stem).name: index for index, stem in enumerate(synthetic.stems)}
    missing = [stem for stem in real.stems if Path(stem).name not in index_of]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(real)} photos have no synthetic image of their name, such as {missing[0]} "
            f"in {synthetic.section_of[0]}"
        )
    return [index_of[Path(stem).name] for stem in real.stems]
