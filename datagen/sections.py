"""Sections on disk: samples, creation of several sections at once, splits and their records, the scene record.

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
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import torch
from rasterio.crs import CRS
from tqdm import tqdm

from datagen.cameras import Camera
from datagen.cameras import read_json as read_json_object
from datagen.render import View
from datagen.scene import GeoScene
from records.files import locked, read_json, replacing, write_json
from tasks import CLASS_NAMES, LAS_CODE_TO_CLASS

log = logging.getLogger(__name__)

NODATA = -1.0
SPLIT_SEED = 2021
SPLITS = ("train", "val", "test")
LHS_SHARES = {"train": 0.9, "val": 0.1}
FLIGHT_SHARES = {"train": 0.4, "val": 0.1, "test": 0.5}
SCENE_RECORD, SECTION_RECORD = "scene.json", "section.json"
SCENE_RECORD_VERSION = 2
# Inside a scene folder while a run writes: the staging folder and its entries.
_STAGING, _NEW, _OLD, _COMMIT, _RUN = ".making-", "new", "old", "commit.json", "run"
_FOLDERS = ("rgb", "poses", "calibration", "init", "depth", "normal", "semantics")
# Rendered texture hardly compresses: higher levels cost time and save 1 %.
_PNG_COMPRESSION = 1
# Floats that are exact in the file, short enough to read.
_POSE_FORMAT = "%.12g"


def write_sample(section_dir: Path, camera: Camera, view: View) -> None:
    """Writes one sample into a section's folders (made when absent)."""
    paths = {folder: Path(section_dir) / folder for folder in _FOLDERS}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    stem = camera.stem
    png = paths["rgb"] / f"{stem}.png"
    if not cv2.imwrite(
        str(png), cv2.cvtColor(view.rgb_HW3, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION]
    ):
        raise OSError(f"cannot write {png}")
    np.savetxt(paths["poses"] / f"{stem}.txt", camera.world_from_cam_44, fmt=_POSE_FORMAT)
    height, width = view.rgb_HW3.shape[:2]
    (paths["calibration"] / f"{stem}.txt").write_text(calibration_text(camera.K_33, width, height))
    torch.save(_label(view.coords_3hw), paths["init"] / f"{stem}.dat")
    torch.save(_label(view.depth_hw), paths["depth"] / f"{stem}.dat")
    torch.save(_label(view.normal_3hw), paths["normal"] / f"{stem}.dat")
    np.save(paths["semantics"] / f"{stem}.npy", view.semantics_HW)


def _label(values: np.ndarray) -> torch.Tensor:
    """NaN becomes -1; a value that is exactly -1 moves by one float so that it stays valid."""
    shifted = np.where(values == NODATA, np.nextafter(np.float32(NODATA), np.float32(0)), values)
    return torch.from_numpy(np.nan_to_num(shifted, nan=NODATA).astype(np.float32))


def calibration_text(K_33: np.ndarray, width: int, height: int) -> str:
    """One number when pixels are square and the principal point is central (to 1e-6 px), else fx fy cx cy."""
    fx, fy, cx, cy = K_33[0, 0], K_33[1, 1], K_33[0, 2], K_33[1, 2]
    if max(abs(fx - fy), abs(cx - width / 2), abs(cy - height / 2)) < 1e-6:
        return f"{fx:.12g}\n"
    return f"{fx:.12g} {fy:.12g} {cx:.12g} {cy:.12g}\n"


def for_each(
    cameras: Sequence[Any],
    work: Callable[[Any], None],
    *,
    workers: int,
    description: str,
    postfix: dict | None = None,
) -> None:
    """Runs work on every camera, or item, in threads, with a progress bar in images/s; the first failure stops the rest."""
    with (
        ThreadPoolExecutor(max_workers=max(1, workers)) as pool,
        tqdm(total=len(cameras), desc=description, unit="img") as bar,
    ):
        bar.set_postfix(postfix or {})
        pending: deque[Future] = deque()
        try:
            for camera in cameras:
                pending.append(pool.submit(work, camera))
                if len(pending) > 2 * workers:
                    _finish_oldest(pending, bar)
            while pending:
                _finish_oldest(pending, bar)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _finish_oldest(pending: deque[Future], bar: tqdm) -> None:
    # In order, so that of several failures it is always the first that is reported.
    pending.popleft().result()
    bar.update()


def write_section(
    section_dir: Path,
    cameras: list[Camera],
    make_view: Callable[[Camera], View],
    *,
    workers: int = 1,
    description: str = "rendering",
    postfix: dict | None = None,
) -> None:
    """Writes a whole section: make_view(camera) runs in threads."""
    for_each(
        cameras,
        lambda camera: write_sample(section_dir, camera, make_view(camera)),
        workers=workers,
        description=description,
        postfix=postfix,
    )


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
        _check_same_frame(read_scene_record(scene_dir) or {}, CRS.from_wkt(ours["crs"]), ours["origin_xyz"], scene_dir)


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
        given = read_json_object(Path(words[0]), "split")
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


def read_scene_record(scene_dir: Path) -> dict | None:
    """The scene's record, None when there is none yet."""
    path = Path(scene_dir) / SCENE_RECORD
    return read_json_object(path, "scene record") if path.is_file() else None


def write_scene_record(path: Path, scene: GeoScene, geodata: Mapping[str, Any] | None = None) -> None:
    """Writes what all sections of a scene share: the world frame and the classes. Nothing in it is about a section.

    Args:
        geodata: what the sections were made from, see `scene_geodata.geodata_record`; the last ones count.
    """
    write_json(
        path,
        {
            "version": SCENE_RECORD_VERSION,
            **frame_of(scene),
            "convention": "world = CRS coordinates - origin_xyz; x east, y north, z up, metres",
            "classes": {str(code): CLASS_NAMES[index] for code, index in LAS_CODE_TO_CLASS.items()},
            **({} if geodata is None else {"geodata": geodata}),
        },
    )


def frame_of(scene: GeoScene) -> dict:
    """The world frame of a scene: CRS as WKT and, where it has one, as AUTHORITY:CODE; what was subtracted from it."""
    authority = scene.crs.to_authority()
    return {
        "crs": scene.crs.to_wkt(),
        "crs_code": ":".join(authority) if authority else None,
        "origin_xyz": [float(value) for value in scene.origin_xyz],
    }


def check_frame(record: dict, scene: GeoScene, scene_dir: Path) -> None:
    """Raises ValueError when the scene folder's world frame is not this scene's."""
    _check_same_frame(record, scene.crs, scene.origin_xyz, scene_dir)


def _check_same_frame(record: dict, crs: CRS, origin_xyz: Sequence[float], scene_dir: Path) -> None:
    # WKT texts of one CRS differ between versions of PROJ.
    if "crs" in record and record["crs"] != crs.to_wkt() and CRS.from_wkt(record["crs"]) != crs:
        raise ValueError(f"{scene_dir / SCENE_RECORD} is in another CRS than the surface model; choose another --scene name")
    if "origin_xyz" in record and not np.allclose(record["origin_xyz"], origin_xyz, atol=1e-6):
        raise ValueError(f"{scene_dir / SCENE_RECORD} has the origin {record['origin_xyz']}, this scene {list(origin_xyz)}")


def write_section_record(section_dir: Path, record: dict) -> None:
    """Writes what a section was made from into its folder; see `datagen.provenance`."""
    write_json(Path(section_dir) / SECTION_RECORD, record)


def read_section_record(section_dir: Path) -> dict | None:
    """What a section was made from, None when it does not say."""
    path = Path(section_dir) / SECTION_RECORD
    return read_json_object(path, "section record") if path.is_file() else None
