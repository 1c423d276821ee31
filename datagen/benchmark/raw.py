"""The raw benchmark on disk: Latin-hypercube renders, and flights whose photos are paired with renders by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGE, POINTS, CLASSES, POSES, PHOTO = "_img.png", "_pc.npy", "_semantics.npy", "_poses.npy", ".JPG"
LHS = "lhs"
# Words in a flight's name and the kind of its sections; all others are in-place flights.
_KINDS = {"outofplace": "oop_drone", "winter": "winter_drone"}
IN_PLACE = "drone"
FLIGHTS = (IN_PLACE, *_KINDS.values())
_NAMED = 3


@dataclass(frozen=True)
class RawSample:
    """One render and, of a flight, its photo.

    Attributes:
        stem: the render's file name without `_img.png`.
        pose_6: x, y, z in ECEF metres; yaw, pitch, roll in degrees.
        photo: of flights; None for Latin-hypercube renders.
    """

    stem: str
    image: Path
    points: Path
    classes: Path
    pose_6: np.ndarray
    photo: Path | None = None


def read_raw(lhs_dir: Path, matching_dir: Path) -> dict[str, list[RawSample]]:
    """All samples by mode (`lhs`, `drone`, `oop_drone`, `winter_drone`; those that there are), sorted by stem.

    Raises:
        FileNotFoundError: a folder is absent, or counterparts of files; names them.
        ValueError: names without an index, poses of another shape, stems that occur twice, photos without a render.
    """
    if not lhs_dir.is_dir():
        raise FileNotFoundError(f"no such folder: {lhs_dir} (--lhs_dir)")
    if not matching_dir.is_dir():
        raise FileNotFoundError(f"no such folder: {matching_dir} (--matching_dir)")
    modes = {LHS: _renders(lhs_dir)}
    flights = sorted(path for path in matching_dir.rglob("*-sim") if path.is_dir())
    if not flights:
        raise FileNotFoundError(f"{matching_dir}: no flight there (a folder *-sim beside one *-real)")
    for flight in flights:
        modes.setdefault(_kind(flight.name), []).extend(_with_photos(flight))
    for mode, samples in modes.items():
        samples.sort(key=lambda sample: sample.stem)
        twice = [stem for stem, count in Counter(sample.stem for sample in samples).items() if count > 1]
        if twice:
            raise ValueError(f"{len(twice)} renders of {mode} have a name that occurs twice: {_named(twice)}")
    return {mode: modes[mode] for mode in (LHS, *FLIGHTS) if mode in modes}


def _kind(flight: str) -> str:
    return next((kind for word, kind in _KINDS.items() if word in flight), IN_PLACE)


def _renders(folder: Path) -> list[RawSample]:
    images = sorted(path for path in folder.iterdir() if path.name.endswith(IMAGE) and not path.name.startswith("."))
    if not images:
        raise FileNotFoundError(f"{folder}: no *{IMAGE} there")
    poses_N6 = _read_poses(folder)
    samples, missing = [], []
    for image in images:
        stem = image.name.removesuffix(IMAGE)
        points, classes = (image.with_name(f"{stem}{suffix}") for suffix in (POINTS, CLASSES))
        missing += [path.name for path in (points, classes) if not path.is_file()]
        samples.append(RawSample(stem, image, points, classes, poses_N6[_index(image, len(poses_N6))]))
    if missing:
        raise FileNotFoundError(f"{folder} lacks {len(missing)} files: {_named(missing)}")
    return samples


def _read_poses(folder: Path) -> np.ndarray:
    files = sorted(path for path in folder.glob(f"*{POSES}") if not path.name.startswith("."))
    if len(files) != 1:
        raise FileNotFoundError(f"{folder}: one *{POSES} is needed, found {[path.name for path in files]}")
    try:
        poses_N6 = np.load(files[0], allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{files[0]}: {error}") from None
    if poses_N6.ndim != 2 or poses_N6.shape[1] != 6 or not np.isfinite(poses_N6).all():
        raise ValueError(
            f"{files[0]}: finite numbers [n, 6] are needed (x y z yaw pitch roll), found {list(poses_N6.shape)}"
        )
    return poses_N6.astype(np.float64)


def _index(image: Path, count: int) -> int:
    """The pose's row: the second field of the file name."""
    fields = image.name.split("_")
    if len(fields) < 3 or not fields[1].isdecimal():
        raise ValueError(f"{image}: the second field between _ must be the pose's index (names of data sets hold no _)")
    if int(fields[1]) >= count:
        raise ValueError(f"{image}: there are only {count} poses")
    return int(fields[1])


def _with_photos(sim_dir: Path) -> list[RawSample]:
    """A flight's renders with their photos: X.JPG belongs to the render whose name contains X_img.png."""
    real_dir = sim_dir.with_name(sim_dir.name.removesuffix("-sim") + "-real")
    if not real_dir.is_dir():
        raise FileNotFoundError(f"{sim_dir} has no sibling {real_dir.name} with its photos")
    renders = _renders(sim_dir)
    photos = sorted(path for path in real_dir.rglob("*") if path.suffix.upper() == PHOTO and not path.name.startswith("."))
    by_end: dict[str, list[Path]] = {}
    for photo in photos:
        by_end.setdefault(photo.stem, []).append(photo)
    paired, alone, used = [], [], set()
    for render in renders:
        # Every end of the name after a _ may be the photo's name, which may hold _ itself; `contains` allows any end.
        ends = [render.stem[i:] for i in range(len(render.stem)) if render.stem[i:] in by_end]
        if not ends:
            alone.append(render.image.name)
            continue
        found = by_end[ends[0]]
        if len(found) > 1:
            raise ValueError(f"two photos are called {found[0].name}: {found[0].parent} and {found[1].parent}")
        if ends[0] in used:
            raise ValueError(f"{found[0]} belongs to more than one render, such as {render.image.name}")
        used.add(ends[0])
        paired.append(RawSample(**{**vars(render), "photo": found[0]}))
    if alone:
        raise FileNotFoundError(f"{real_dir}: no *{PHOTO} for {len(alone)} renders: {_named(alone)}")
    unused = sorted(set(by_end) - used)
    if unused:
        raise ValueError(f"{real_dir}: {len(unused)} photos have no render: {_named(unused)}")
    return paired


def _named(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
