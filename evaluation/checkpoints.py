"""Which weights files an evaluation is about."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

_ITERATION = re.compile(r"ckpt_iter_(\d+)")
NAME_RULE = "weights are named model*.net or contain ckpt_ or crossloc, and end in .net"


@dataclass(frozen=True)
class CheckpointFilter:
    """What narrows a search.

    Attributes:
        keywords: all of them must occur in the path of the weights' folder; one with a leading ! must not.
        min_iteration, max_iteration: both exclusive; with either, files without an iteration drop out.
    """

    keywords: Sequence[str] = ()
    min_iteration: int | None = None
    max_iteration: int | None = None

    def accepts(self, weights: Path) -> bool:
        folder = str(weights.resolve().parent)
        for keyword in self.keywords:
            if (keyword.removeprefix("!") in folder) == keyword.startswith("!"):
                return False
        if self.min_iteration is None and self.max_iteration is None:
            return True
        iteration = iteration_of(weights)
        return (
            iteration is not None
            and (self.min_iteration is None or iteration > self.min_iteration)
            and (self.max_iteration is None or iteration < self.max_iteration)
        )


def iteration_of(weights: Path) -> int | None:
    """Images seen by a numbered checkpoint, by its name; None for other weights."""
    match = _ITERATION.search(weights.name)
    return int(match[1]) if match else None


def find_checkpoints(
    network_in: Path | None, search_dir: Path | None, criteria: CheckpointFilter = CheckpointFilter()
) -> list[Path]:
    """Weights files by name, in the order of folder and iteration (unnumbered ones last).

    Args:
        network_in: a weights file, or a folder: its `model.net` and `ckpt_iter*.net`.
        search_dir: searched with all its subfolders, in place of `network_in`.
    Raises:
        ValueError: both or neither were given, or a file has a foreign name.
        FileNotFoundError: nothing is there, or nothing passes the filter.
    """
    if (network_in is None) == (search_dir is None):
        raise ValueError("give either --network_in (a weights file or folder) or --search_dir")
    place = network_in if search_dir is None else search_dir
    if network_in is not None and network_in.is_file():
        if not _has_weights_name(network_in.name):
            raise ValueError(f"{network_in} is no weights file by its name: {NAME_RULE}")
        candidates = [network_in]
    elif place.is_dir():
        folders = [place] if search_dir is None else [place, *sorted(p for p in place.rglob("*") if p.is_dir())]
        candidates = [file for folder in folders for file in _weights_in(folder)]
    else:
        raise FileNotFoundError(f"no such {'folder' if search_dir else 'weights file or folder'}: {place}")
    chosen = [path for path in candidates if criteria.accepts(path)]
    if not chosen:
        raise FileNotFoundError(f"no weights to evaluate in {place}: {len(candidates)} found, none fits {criteria}")
    return chosen


def keywords_as_options(arguments: Sequence[str], short_flags: Collection[str]) -> list[str]:
    """Rewrites `--keywords a -tiny` as `--keywords=a --keywords=-tiny`: argparse would take -tiny for a flag.

    Args:
        short_flags: the command's flags with a single dash; one of them, or any with two dashes, ends the keywords.
    """
    rewritten, inside = [], False
    for argument in arguments:
        if argument.startswith("--") or argument in short_flags:
            inside = argument == "--keywords"
            if inside:
                continue
        rewritten.append(f"--keywords={argument}" if inside else argument)
    return rewritten


def _has_weights_name(name: str) -> bool:
    return name.endswith(".net") and (name.startswith("model") or "ckpt_" in name or "crossloc" in name)


def _weights_in(folder: Path) -> list[Path]:
    numbered = [path for path in folder.glob("ckpt_iter*.net") if iteration_of(path) is not None]
    return sorted(numbered, key=iteration_of) + [path for path in [folder / "model.net"] if path.is_file()]
