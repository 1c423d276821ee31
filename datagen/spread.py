"""The same samples on one machine's threads, on a Dask cluster, or in shares of a batch scheduler's array.

What is written depends on the camera and the geodata alone, so where and in what order it happens changes no byte.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datagen import sections, staging
from datagen.large_scene import LargeRenderer, LargeScene
from datagen.render import Renderer
from datagen.scene import POINT_SPACING_M, GeoScene
from geometry.grid import STRIDE
from records import fingerprint
from records.files import locked

log = logging.getLogger(__name__)

# Writes one item below a folder that holds the sections: write(folder, item). Items and it travel to other machines.
Write = Callable[[Path, Any], None]

# Samples of one task: few enough to lose little with a worker, enough that talking costs nothing.
_BATCH = 8
_RETRIES, _CONNECT_S = 1, 20
_DONE = "part-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    spread = parser.add_argument_group("more than one machine (all see the same files and this code)")
    where = spread.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="render on a Dask cluster, such as tcp://host:8786")
    where.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="render the Ith of N shares (a batch scheduler's array); the one that ends last joins them",
    )


def shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 1/8")
    return int(index), int(count)


@dataclass(frozen=True)
class SceneSource:
    """All that a process needs to open a scene as the command did. Attributes: see `GeoScene.open`; absolute paths."""

    surface: tuple[Path, ...]
    ortho: tuple[Path, ...]
    landcover: tuple[Path, ...] | None
    origin_xyz: tuple[float, float, float]
    landcover_codes: tuple[tuple[int, int], ...]
    declared_crs: str | None
    height_unit: str | None
    label_stride: int
    in_parts: bool
    points: tuple[Path, ...] | None
    point_spacing: float

    @classmethod
    def of(cls, args: argparse.Namespace, renderer: Renderer) -> SceneSource:
        """That of a command whose renderer is open; it stands for the source in this process."""
        paths = [
            None if value is None else tuple(Path(p).resolve() for p in (value if isinstance(value, list) else [value]))
            for value in (args.surface, args.ortho, args.landcover, args.points)
        ]
        codes, in_parts = tuple(map(tuple, args.landcover_codes)), isinstance(renderer.scene, LargeScene)
        source = cls(
            *paths[:3], tuple(renderer.scene.origin_xyz), codes, args.crs, args.height_unit, renderer.label_stride, in_parts,
            paths[3], args.point_spacing or POINT_SPACING_M,
        )  # fmt: skip
        _OPEN.clear()
        _OPEN[source] = renderer
        return source

    @property
    def renderer(self) -> Renderer:
        """The process's renderer of this scene, opened once."""
        with _OPENING:
            if self not in _OPEN:
                _OPEN.clear()
                opener = LargeScene.open if self.in_parts else GeoScene.open
                clouds = {} if self.points is None else {"points": list(self.points), "point_spacing": self.point_spacing}
                scene = opener(
                    list(self.surface), list(self.ortho), None if self.landcover is None else list(self.landcover),
                    origin_xyz=self.origin_xyz, landcover_codes=dict(self.landcover_codes),
                    declared_crs=self.declared_crs, height_unit=self.height_unit, **clouds,
                )  # fmt: skip
                _OPEN[self] = renderer_of(scene, self.label_stride)
            return _OPEN[self]


def renderer_of(scene: GeoScene | LargeScene, label_stride: int = STRIDE) -> Renderer:
    """The renderer for a scene, whole or read in parts."""
    kind = LargeRenderer if isinstance(scene, LargeScene) else Renderer
    return kind(scene, label_stride=label_stride)


_OPEN: dict[SceneSource, Renderer] = {}
_OPENING = threading.Lock()


@contextmanager
def rendered_sections(
    args: argparse.Namespace,
    scene_dir: Path,
    names: list[str],
    items: Sequence[Any],
    write: Write,
    *,
    made_from: Mapping[str, Any],
    description: str,
    postfix: Mapping[str, Any] | None = None,
) -> Iterator[staging.Staged | None]:
    """Writes all items into new sections; the block then adds their records (see `staging.new_sections`).

    Args:
        items: in a fixed order. made_from: what tells these sections from others, for the shares to find each other.
    Yields:
        the sections; None when other shares are missing, and there is nothing to add.
    """
    overwrite = args.overwrite or args.resume
    if args.shard is None:
        with staging.new_sections(scene_dir, names, overwrite=overwrite) as staged:
            _run(args, staged.sections_dir, items, write, description, postfix)
            yield staged
        return
    index, count = args.shard
    shares = scene_dir / f".shards-{fingerprint.of_value([made_from, names, count])}"
    _write_share(args, shares, index, items[index - 1 :: count], write, f"{description}, share {index} of {count}", postfix)
    # The lock stands beside the shares, which the one that joins removes.
    joining = scene_dir / f"{shares.name.lstrip('.')}-join"
    with locked(joining):
        if not shares.is_dir():
            log.info("the shares were joined by another run")
            yield None
            return
        missing = [number for number in range(1, count + 1) if not (shares / f"{_DONE}{number}").is_dir()]
        if missing:
            log.info("share %d of %d is done; still missing: %s", index, count, ", ".join(map(str, missing)))
            yield None
            return
        with staging.new_sections(scene_dir, names, overwrite=overwrite) as staged:
            for number in range(1, count + 1):
                _link_tree(shares / f"{_DONE}{number}", staged.sections_dir)
            yield staged
        shutil.rmtree(shares, ignore_errors=True)
    joining.with_name(f".{joining.name}.lock").unlink(missing_ok=True)


def _write_share(args, shares: Path, index: int, items, write: Write, description: str, postfix) -> None:
    """One share, complete under its name or not there at all."""
    done = shares / f"{_DONE}{index}"
    if done.is_dir():
        log.info("%s: done before", description)
        return
    shares.mkdir(parents=True, exist_ok=True)
    making = shares / f"making-{index}-{uuid.uuid4().hex[:8]}"
    making.mkdir()
    try:
        _run(args, making, items, write, description, postfix)
        os.replace(making, done)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _link_tree(source: Path, target: Path) -> None:
    """The files of a share under the sections' names; the share stays whole until all are joined."""
    for path in sorted(source.rglob("*")):
        placed = target / path.relative_to(source)
        if path.is_dir():
            placed.mkdir(parents=True, exist_ok=True)
            continue
        try:
            os.link(path, placed)
        except OSError:  # a file system without links
            shutil.copy2(path, placed)


def _run(args, folder: Path, items: Sequence[Any], write: Write, description: str, postfix) -> None:
    if args.scheduler is None:
        sections.for_each(
            items, lambda item: write(folder, item), workers=args.workers, description=description, postfix=postfix
        )
    else:
        _run_on_cluster(args.scheduler, folder.resolve(), items, write, description)


def _run_on_cluster(address: str, folder: Path, items: Sequence[Any], write: Write, description: str) -> None:
    """Batches as tasks of a Dask cluster; those of a lost worker are done again by another.

    Raises:
        ValueError: dask.distributed is not installed. OSError: no scheduler there. Whatever a task raised.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ValueError("--scheduler needs the package distributed (pip install distributed)") from None
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler answers at {address} ({error})") from None
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    with client, client.as_current(), tqdm(total=len(items), desc=description, unit="img") as bar:
        same = [write] * len(batches), [folder] * len(batches)
        futures = client.map(_write_batch, *same, batches, retries=_RETRIES, pure=False)
        try:
            for future, count in as_completed(futures, with_results=True):
                bar.update(count)
                future.release()
        except BaseException:
            client.cancel(futures)
            raise


def _write_batch(write: Write, folder: Path, batch: Sequence[Any]) -> int:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: not seen from a worker; all machines need the same files under the same names")
    for item in batch:
        write(folder, item)
    return len(batch)
