"""Splits of a scene's samples into training, validation and test: drawn, given, recorded and obeyed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath

import numpy as np

from datagen.cameras import read_json
from records.files import replacing

log = logging.getLogger(__name__)

SPLIT_SEED = 2021
SPLITS = ("train", "val", "test")
LHS_SHARES = {"train": 0.9, "val": 0.1}
FLIGHT_SHARES = {"train": 0.4, "val": 0.1, "test": 0.5}


def split_stems(stems: list[str], shares: dict[str, float]) -> dict[str, list[str]]:
    """Random split of the sorted stems: sizes rounded down but at least 1, the last part takes the rest, each part sorted.

    The permutation is that of numpy's legacy generator seeded 2021, as in the published split; so are the sizes, except that
    the published rule leaves a part of less than one stem empty.

    Raises:
        ValueError: fewer stems than parts.
    """
    if len(stems) < len(shares):
        raise ValueError(
            f"{len(stems)} image(s) are too few: {', '.join(shares)} need at least one each (choose the parts of photos by "
            "--split; views can go into one section by --section)"
        )
    stems = sorted(stems)
    order = np.random.RandomState(SPLIT_SEED).permutation(np.arange(len(stems)))
    sizes = [max(1, int(np.floor(share * len(stems) + 1e-9))) for share in list(shares.values())[:-1]]
    parts = np.split(order, np.cumsum(sizes))
    return {name: [stems[i] for i in np.sort(part)] for name, part in zip(shares, parts, strict=True)}


def write_split_record(path: Path, parts: dict[str, list[str]]) -> None:
    """Writes `Subset section ***name***` and one stem per line for each part."""
    lines = [line for name, stems in parts.items() for line in (f"Subset section ***{name}***", *stems)]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_split_record(path: Path) -> dict[str, list[str]]:
    """Reads a split record; ValueError when a line precedes the first header."""
    parts: dict[str, list[str]] = {}
    current = None
    for line in filter(None, map(str.strip, Path(path).read_text(encoding="utf-8").splitlines())):
        if line.startswith("Subset section ***") and line.endswith("***"):
            current = parts.setdefault(line[len("Subset section ***") : -3], [])
        elif current is None:
            raise ValueError(f"split record {path}: {line!r} stands before any 'Subset section' line")
        else:
            current.append(line)
    return parts


def obeyed_split(record: Path, stems: list[str], shares: dict[str, float], *, redraw: bool = False) -> dict[str, list[str]]:
    """The recorded split when there is a record, else a new one (not yet written).

    Args:
        redraw: a record that does not cover exactly these stems is replaced instead of refused.
    Raises:
        ValueError: the record does not cover exactly these stems.
    """
    if not record.is_file():
        return split_stems(stems, shares)
    try:
        parts = read_split_record(record)
        check_split(parts, stems, f"split record {record}")
    except ValueError as error:
        if not redraw:
            raise
        log.info("a new split is drawn: %s", error)
        return split_stems(stems, shares)
    return {part: parts[part] for part in SPLITS if parts.get(part)}


def flight_split_record(scene_dir: Path, scene: str) -> Path:
    """Where the split of a scene's photos is recorded."""
    return scene_dir / f"{scene}_drone_split.txt"


def check_split(parts: dict[str, list[str]], stems: list[str], source: str) -> None:
    """Raises ValueError unless the parts name every stem exactly once, in known sections."""
    unknown_parts = sorted(set(parts) - set(SPLITS))
    if unknown_parts:
        raise ValueError(f"{source}: unknown sections {unknown_parts}; choose from {list(SPLITS)}")
    listed = [stem for part in parts.values() for stem in part]
    problems = {
        "listed twice": sorted(stem for stem, count in Counter(listed).items() if count > 1),
        "not in the data": sorted(set(listed) - set(stems)),
        "in no part": sorted(set(stems) - set(listed)),
    }
    for problem, names in problems.items():
        if names:
            raise ValueError(
                f"{source}: {len(names)} stems are {problem}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            )


def read_split(words: list[str], stems: list[str], photos: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """A split given as a JSON file or as train=A,B val=C words.

    Args:
        stems: of all samples. photos: stem to the photo's file name, when there are photos.
    Returns:
        the parts that have stems; a name may be a stem, a file name with or without its ending, or with its folders.
    Raises:
        FileNotFoundError, ValueError: no such file, unknown sections, photos missing, listed twice or unknown.
    """
    if len(words) == 1 and "=" not in words[0]:
        source = f"split {words[0]}"
        given = read_json(Path(words[0]), "split")
    else:
        source = "--split"
        given = dict(word.partition("=")[::2] for word in words)
        given = {part: [name for name in names.split(",") if name] for part, names in given.items()}
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in given.values()):
        raise ValueError(f"{source}: every section must be a list of photo names")
    called = _stems_by_name(stems, photos or {})
    parts = {part: sorted(_stem_called(name, called, source) for name in names) for part, names in given.items()}
    check_split(parts, stems, source)
    return {part: parts[part] for part in SPLITS if parts.get(part)}


def _stems_by_name(stems: list[str], photos: Mapping[str, str]) -> dict[str, set[str]]:
    """Every way to call a sample: its stem, and its photo's file name with and without folders and ending."""
    called: dict[str, set[str]] = {}
    for stem in stems:
        file = PurePath(photos.get(stem, stem))
        names = {stem, str(file), file.name}
        if stem in photos:
            names |= {str(file.with_suffix("")), file.stem}
        for name in names:
            called.setdefault(name, set()).add(stem)
    # A stem is its own, even where another photo's bare name is the same.
    return called | {stem: {stem} for stem in stems}


def _stem_called(name: str, called: dict[str, set[str]], source: str) -> str:
    found = called.get(name) or called.get(PurePath(name).stem) or {PurePath(name).stem}
    if len(found) > 1:
        raise ValueError(f"{source}: {name!r} is the name of {len(found)} photos; call them {', '.join(sorted(found))}")
    return next(iter(found))
