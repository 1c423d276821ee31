"""Which sample goes where: the published draws of splits and chunks, and the split records that overrule them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from datagen.benchmark.raw import LHS
from datagen.splits import (
    FLIGHT_SHARES,
    LHS_SHARES,
    SPLIT_SEED,
    check_split,
    read_split_record,
    write_split_record,
)

log = logging.getLogger(__name__)


def record_path(record_dir: Path, scene: str, mode: str) -> Path:
    """Where a mode's split is recorded."""
    return record_dir / f"{scene}_{mode}_split.txt"


def splits(stems: dict[str, list[str]], scene: str, record_dir: Path) -> dict[str, dict[str, list[str]]]:
    """The parts of every mode, obeyed where recorded, else drawn and recorded.

    One legacy generator seeded 2021 serves all modes in their order; a recorded mode draws nothing, and photos obey their
    renders. Sizes are rounded down and the last part takes the rest, so that a part may be empty.

    Args:
        stems: sorted, by mode in the published order.
    Raises:
        ValueError: a record does not name exactly the stems that there are; nothing is written then.
    """
    generator = np.random.RandomState(SPLIT_SEED)
    parts: dict[str, dict[str, list[str]]] = {}
    drawn = []
    for mode, names in stems.items():
        record = record_path(record_dir, scene, mode)
        shares = LHS_SHARES if mode == LHS else FLIGHT_SHARES
        if record.is_file():
            recorded = read_split_record(record)
            check_split(recorded, names, f"split record {record}")
            if foreign := sorted(set(recorded) - set(shares)):
                raise ValueError(f"split record {record}: the parts {foreign} are not among {list(shares)}")
            parts[mode] = {part: sorted(recorded.get(part, [])) for part in shares}
        else:
            parts[mode] = draw(names, shares, generator)
            drawn.append(mode)
    for mode in drawn:
        record_dir.mkdir(parents=True, exist_ok=True)
        write_split_record(record_path(record_dir, scene, mode), parts[mode])
    log.info("splits: %s", "; ".join(_described(mode, found, mode in drawn) for mode, found in parts.items()))
    return parts


def draw(stems: list[str], shares: dict[str, float], generator: np.random.RandomState) -> dict[str, list[str]]:
    """The published split of sorted stems: a permutation cut at the cumulative sizes, each part sorted."""
    order = generator.permutation(np.arange(len(stems)))
    sizes = [int(share * len(stems)) for share in list(shares.values())[:-1]]
    return {
        part: [stems[i] for i in np.sort(indices)]
        for part, indices in zip(shares, np.split(order, np.cumsum(sizes)), strict=True)
    }


def _described(mode: str, parts: dict[str, list[str]], drawn: bool) -> str:
    return f"{mode} {' + '.join(str(len(stems)) for stems in parts.values())} ({'drawn' if drawn else 'as recorded'})"


def chunk(stems: list[str], size: float) -> list[str]:
    """The share of the sorted stems that makes a chunk, sorted; smaller chunks are contained in larger ones."""
    order = np.random.RandomState(SPLIT_SEED).permutation(np.arange(len(stems)))
    # The product may exceed a whole number in its last bit, which is no sample.
    count = int(np.ceil(size * len(stems) - 1e-9))
    return [stems[i] for i in np.sort(order[:count])]
