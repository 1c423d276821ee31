"""Several sections made at once: they come to be together, or not at all.

A run fills a hidden staging folder in the scene folder. When all is there, a commit file is written into it, and from
then on the swap is finished, by the next run if this one is killed: first every old section leaves its place, then the
files beside the sections are replaced, then the new ones come in. So old and new sections are never seen together.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rasterio.crs import CRS

from datagen.sections import SCENE_RECORD, check_same_frame, read_scene_record
from records.files import locked, read_json, write_json

log = logging.getLogger(__name__)

# Inside a scene folder while a run writes: the staging folder and its entries.
_STAGING, _NEW, _OLD, _COMMIT, _RUN = ".making-", "new", "old", "commit.json", "run"


@dataclass(frozen=True)
class Staged:
    """What becomes the scene's when the block of `new_sections` ends: `staged[name]` is a section's or a file's path."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        return self.sections_dir / name

    @property
    def sections_dir(self) -> Path:
        """The folder that holds all of them."""
        return self.folder / _NEW


@contextmanager
def new_sections(scene_dir: Path, names: list[str], *, overwrite: bool = False) -> Iterator[Staged]:
    """Folders to fill that become the sections `names` when the block ends, and vanish when it fails.

    Raises:
        FileExistsError: a section is already there and overwrite is False.
        ValueError: the scene got another world frame meanwhile.
    """
    scene_dir = Path(scene_dir)
    _refuse_existing(scene_dir, names, overwrite)
    created = _make_scene_dir(scene_dir)
    try:
        with _staging_folder(scene_dir) as folder:
            staged = Staged(folder)
            for name in names:
                staged[name].mkdir(parents=True)
            yield staged
            with locked(scene_dir / SCENE_RECORD):
                _finish_interrupted(scene_dir)
                _refuse_existing(scene_dir, names, overwrite)
                _refuse_other_frame(scene_dir, staged)
                write_json(folder / _COMMIT, names)
                _take_places(scene_dir, folder)
    except BaseException:
        _remove_empty(created)
        raise


def _refuse_existing(scene_dir: Path, names: list[str], overwrite: bool) -> None:
    existing = [str(scene_dir / name) for name in names if (scene_dir / name).exists()]
    if existing and not overwrite:
        raise FileExistsError(f"already there: {', '.join(existing)} (overwriting was not asked for)")


def _refuse_other_frame(scene_dir: Path, staged: Staged) -> None:
    """Raises ValueError when a run beside this one gave the scene another frame."""
    if staged[SCENE_RECORD].is_file():
        ours = read_json(staged[SCENE_RECORD], "scene record")
        check_same_frame(read_scene_record(scene_dir) or {}, CRS.from_wkt(ours["crs"]), ours["origin_xyz"], scene_dir)


def _make_scene_dir(scene_dir: Path) -> list[Path]:
    missing = [folder for folder in (scene_dir, *scene_dir.parents) if not folder.exists()]
    scene_dir.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


@contextmanager
def _staging_folder(scene_dir: Path) -> Iterator[Path]:
    """A staging folder; its lock is held meanwhile, so that no other run takes it for a dead one's."""
    folder = scene_dir / f"{_STAGING}{uuid.uuid4().hex[:12]}"
    with ExitStack() as held:
        with locked(scene_dir / SCENE_RECORD):
            _finish_interrupted(scene_dir)
            folder.mkdir()
            held.enter_context(locked(folder / _RUN))
        try:
            yield folder
        except BaseException:
            if not (folder / _COMMIT).is_file():
                shutil.rmtree(folder, ignore_errors=True)
            else:  # interrupted in the swap: what is left of it takes milliseconds; if it fails, the next run ends it
                with suppress(OSError):
                    _take_places(scene_dir, folder)
            raise


def _remove_empty(created: list[Path]) -> None:
    """Removes folders that were made for nothing."""
    lock = f".{SCENE_RECORD}.lock"
    for folder in reversed(created):
        left = {path.name for path in folder.iterdir()}
        if left - {lock}:
            return
        (folder / lock).unlink(missing_ok=True)
        folder.rmdir()


def finish_interrupted(scene_dir: Path) -> None:
    """Ends what killed runs left in a scene folder: a swap that had begun is finished, half-made sections are removed."""
    if any(Path(scene_dir).glob(f"{_STAGING}*")):
        with locked(Path(scene_dir) / SCENE_RECORD):
            _finish_interrupted(Path(scene_dir))


def _finish_interrupted(scene_dir: Path) -> None:
    for folder in sorted(scene_dir.glob(f"{_STAGING}*")):
        if not _is_abandoned(folder):
            continue
        if (folder / _COMMIT).is_file():
            log.info("finishing what an interrupted run had made: %s", ", ".join(read_json(folder / _COMMIT, "commit file")))
            _take_places(scene_dir, folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether no living process holds a staging folder's lock."""
    try:
        with (folder / f".{_RUN}.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held; or just removed; or another user's
        return False
    return True


def _take_places(scene_dir: Path, folder: Path) -> None:
    """Swaps a complete staging folder in; may be repeated after a kill at any point."""
    new, old = folder / _NEW, folder / _OLD
    old.mkdir(exist_ok=True)
    entries = sorted(new.iterdir())
    # Hence what still waits in `new` has not been swapped, and what has its name in the scene folder is old.
    for entry in entries:
        if entry.is_dir() and (scene_dir / entry.name).exists():
            shutil.rmtree(old / entry.name, ignore_errors=True)
            os.replace(scene_dir / entry.name, old / entry.name)
    for entry in sorted(entries, key=Path.is_dir):
        os.replace(entry, scene_dir / entry.name)
    (folder / _COMMIT).unlink()
    shutil.rmtree(folder, ignore_errors=True)
