"""Sections on disk: their samples, their records, and the record of the scene that they belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rasterio.crs import CRS
from tqdm import tqdm

from datagen.cameras import Camera, read_json
from datagen.render import View
from datagen.scene import GeoScene
from records.files import write_json
from tasks import CLASS_NAMES, LAS_CODE_TO_CLASS

NODATA = -1.0
SCENE_RECORD, SECTION_RECORD = "scene.json", "section.json"
SCENE_RECORD_VERSION = 2
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


def read_scene_record(scene_dir: Path) -> dict | None:
    """The scene's record, None when there is none yet."""
    path = Path(scene_dir) / SCENE_RECORD
    return read_json(path, "scene record") if path.is_file() else None


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
    check_same_frame(record, scene.crs, scene.origin_xyz, scene_dir)


def check_same_frame(record: dict, crs: CRS, origin_xyz: Sequence[float], scene_dir: Path) -> None:
    """Raises ValueError when a scene record has another CRS or origin."""
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
    return read_json(path, "section record") if path.is_file() else None
