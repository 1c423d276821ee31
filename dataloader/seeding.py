"""Random generators named by numbers: what is drawn depends on the position in a run and on nothing else."""

from __future__ import annotations

import hashlib

import torch

# One stream of draws never repeats another, even where their numbers are alike.
ORDER, REAL_ORDER, SYNTHETIC_ORDER, GEOMETRY, PHOTOMETRY = range(5)


def generator_of(seed: int, stream: int, *position: int) -> torch.Generator:
    """A generator on the CPU for one position of one stream of a run."""
    # The generator reads 32 bits of its seed: a hash fills them evenly.
    digest = hashlib.blake2b(repr((seed, stream, *position)).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
