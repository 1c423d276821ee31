"""Sections on disk: samples, atomic creation, splits and their records, the scene record."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from datagen.cameras import Camera, read_json
from datagen.render import View
from datagen.scene import GeoScene

NODATA = -1.0
SPLIT_SEED = 2021
SPLITS = ("train", "val", "test")
LHS_SHARES = {"train": 0.9, "val": 0.1}
FLIGHT_SHARES = {"train": 0.4, "val": 0.1, "test": 0.5}
SCENE_RECORD = "scene.json"
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
    cameras: list[Camera],
    work: Callable[[Camera], None],
    *,
    workers: int,
    description: str,
    postfix: dict | None = None,
) -> None:
    """Runs work on every camera in threads, with a progress bar in images/s; the first failure stops the rest."""
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


@contextmanager
def new_sections(scene_dir: Path, names: list[str], *, overwrite: bool = False) -> Iterator[dict[str, Path]]:
    """Folders to fill that become the sections `names` when the block ends, and vanish when it fails.

    Raises:
        FileExistsError: a section is already there and overwrite is False.
    """
    scene_dir = Path(scene_dir)
    existing = [str(scene_dir / name) for name in names if (scene_dir / name).exists()]
    if existing and not overwrite:
        raise FileExistsError(f"already there: {', '.join(existing)} (overwriting was not asked for)")
    created = _make_scene_dir(scene_dir)
    _remove_leftovers(scene_dir, names)
    staged = {name: scene_dir / f".{name}.part-{os.getpid()}" for name in names}
    try:
        for path in staged.values():
            path.mkdir()
        yield staged
        for name, path in staged.items():
            _replace_folder(path, scene_dir / name)
    except BaseException:
        for path in staged.values():
            shutil.rmtree(path, ignore_errors=True)
        for folder in reversed(created):
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


def _make_scene_dir(scene_dir: Path) -> list[Path]:
    missing = [folder for folder in (scene_dir, *scene_dir.parents) if not folder.exists()]
    scene_dir.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _remove_leftovers(scene_dir: Path, names: list[str]) -> None:
    """Removes what a killed run left behind."""
    for name in names:
        for part in scene_dir.glob(f".{name}.part-*"):
            if not _is_running(int(part.name.rsplit("-", 1)[1])):
                shutil.rmtree(part, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _replace_folder(new: Path, target: Path) -> None:
    if not target.exists():
        os.replace(new, target)
        return
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old)


def write_atomic(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    temporary = Path(path).with_name(f".{Path(path).name}.part-{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def split_stems(stems: list[str], shares: dict[str, float]) -> dict[str, list[str]]:
    """Random split of the sorted stems: sizes rounded down, the last part takes the rest, each part sorted.

    The permutation is that of numpy's legacy generator seeded 2021, as in the published split.
    """
    stems = sorted(stems)
    order = np.random.RandomState(SPLIT_SEED).permutation(np.arange(len(stems)))
    sizes = [int(np.floor(share * len(stems) + 1e-9)) for share in list(shares.values())[:-1]]
    parts = np.split(order, np.cumsum(sizes))
    return {name: [stems[i] for i in np.sort(part)] for name, part in zip(shares, parts, strict=True)}


def write_split_record(path: Path, parts: dict[str, list[str]]) -> None:
    """Writes `Subset section ***name***` and one stem per line for each part."""
    lines = [line for name, stems in parts.items() for line in (f"Subset section ***{name}***", *stems)]
    write_atomic(path, "\n".join(lines) + "\n")


def read_split_record(path: Path) -> dict[str, list[str]]:
    """Reads a split record; ValueError when a line precedes the first header."""
    parts: dict[str, list[str]] = {}
    current = None
    for line in filter(None, map(str.strip, Path(path).read_text().splitlines())):
        if line.startswith("Subset section ***") and line.endswith("***"):
            current = parts.setdefault(line[len("Subset section ***") : -3], [])
        elif current is None:
            raise ValueError(f"split record {path}: {line!r} stands before any 'Subset section' line")
        else:
            current.append(line)
    return parts


def obeyed_split(record: Path, stems: list[str], shares: dict[str, float]) -> dict[str, list[str]]:
    """The recorded split when there is a record, else a new one (not yet written).

    Raises:
        ValueError: the record does not cover exactly these stems.
    """
    if not record.is_file():
        return split_stems(stems, shares)
    parts = read_split_record(record)
    check_split(parts, stems, f"split record {record}")
    return parts


def check_split(parts: dict[str, list[str]], stems: list[str], source: str) -> None:
    """Raises ValueError unless the parts name every stem exactly once, in known sections."""
    unknown_parts = sorted(set(parts) - set(SPLITS))
    if unknown_parts:
        raise ValueError(f"{source}: unknown sections {unknown_parts}; choose from {list(SPLITS)}")
    listed = [stem for part in parts.values() for stem in part]
    problems = {
        "listed twice": sorted({stem for stem in listed if listed.count(stem) > 1}),
        "not in the data": sorted(set(listed) - set(stems)),
        "in no part": sorted(set(stems) - set(listed)),
    }
    for problem, names in problems.items():
        if names:
            raise ValueError(
                f"{source}: {len(names)} stems are {problem}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            )


def read_split(words: list[str], stems: list[str]) -> dict[str, list[str]]:
    """A split given as a JSON file or as train=A,B val=C words; names may carry their suffix (.jpg).

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
    parts = {part: sorted(Path(name).stem for name in names) for part, names in given.items()}
    check_split(parts, stems, source)
    return {part: parts[part] for part in SPLITS if parts.get(part)}


def read_scene_record(scene_dir: Path) -> dict | None:
    """The scene's record, None when there is none yet."""
    path = Path(scene_dir) / SCENE_RECORD
    return read_json(path, "scene record") if path.is_file() else None


def update_scene_record(scene_dir: Path, scene: GeoScene, sections: dict[str, dict]) -> None:
    """Adds sections (name to settings) to scene.json, with the frame that all of them share.

    Raises:
        ValueError: the record there has another frame.
    """
    record = read_scene_record(scene_dir) or {}
    frame = {"crs": scene.crs.to_wkt(), "origin_xyz": list(scene.origin_xyz)}
    check_frame(record, scene, Path(scene_dir))
    merged = {
        **record,
        **frame,
        "convention": "world = CRS coordinates - origin_xyz; x east, y north, z up, metres",
        "sections": {**record.get("sections", {}), **sections},
    }
    write_atomic(Path(scene_dir) / SCENE_RECORD, json.dumps(merged, indent=1) + "\n")


def check_frame(record: dict, scene: GeoScene, scene_dir: Path) -> None:
    """Raises ValueError when the scene folder's world frame is not this scene's."""
    if "crs" in record and record["crs"] != scene.crs.to_wkt():
        raise ValueError(
            f"{scene_dir / SCENE_RECORD} is in another CRS than the surface model; choose another --scene name"
        )
    if "origin_xyz" in record and not np.allclose(record["origin_xyz"], scene.origin_xyz, atol=1e-6):
        raise ValueError(
            f"{scene_dir / SCENE_RECORD} has the origin {record['origin_xyz']}, this scene {list(scene.origin_xyz)}"
        )
