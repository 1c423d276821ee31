"""The files of one sample: a render's are made from the raw data, a photo's are its render's but for the image."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from datagen.benchmark import labels
from datagen.benchmark.geocentric import BenchmarkScene, world_from_camera
from datagen.benchmark.links import link, put
from datagen.benchmark.options import SetupOptions
from datagen.benchmark.plan import Job, folders_of
from datagen.benchmark.progress import Workshop
from dataloader.images import read_header
from geometry.grid import NODATA, STRIDE
from tasks import LAS_CODE_TO_CLASS

# Width and height of a photo may differ from its render's by such a share in their ratio.
_SAME_SHAPE = 0.01


def write_render(scene: BenchmarkScene, options: SetupOptions, job: Job, shop: Workshop) -> None:
    """Writes everything of a render's sample."""
    sample, section = job.sample, shop.folder / job.section
    pose_44 = world_from_camera(sample.pose_6[:3], sample.pose_6[3:], scene)
    points_HW3 = _load(sample.points, 3)
    codes_HW = _load(sample.classes, 2)
    header = read_header(sample.image)
    if not points_HW3.shape[:2] == codes_HW.shape == (header.height, header.width):
        raise ValueError(
            f"{sample.image} is {header.width} x {header.height} px, its points are {list(points_HW3.shape)} and its "
            f"classes {list(codes_HW.shape)}"
        )
    _link_image(options, shop, job, sample.image)
    _write_text(section / "poses" / f"{sample.stem}.txt", lambda stream: np.savetxt(stream, pose_44))
    stride = _image_stride(options)
    calibration = labels.calibration_text(header.width, header.width, header.height, stride)
    _write_text(section / "calibration" / f"{sample.stem}.txt", lambda stream: stream.write(calibration.encode()))
    _write_classes(options, job, codes_HW, shop)
    if not options.ignore_3d_label:
        _write_labels(scene, options, points_HW3, pose_44, section, sample.stem)


def _image_stride(options: SetupOptions) -> int:
    """Pixels per cell of the labels that the calibration is for; class maps do not mind half a pixel."""
    return STRIDE if options.ignore_3d_label else options.stride


def _write_labels(
    scene: BenchmarkScene, options: SetupOptions, points_HW3: np.ndarray, pose_44: np.ndarray, section: Path, stem: str
) -> None:
    coords_3hw = labels.scene_coordinates(labels.on_grid(points_HW3, options.stride), scene.origin_3)
    p_cam_3hw = labels.camera_points(coords_3hw, pose_44)
    valid_hw = ~(coords_3hw == NODATA).any(0)
    made = {
        "init": coords_3hw,
        "depth": labels.depths(coords_3hw, p_cam_3hw),
        "normal": labels.normals(coords_3hw, p_cam_3hw),
    }
    for folder, label in made.items():
        tensor = torch.from_numpy(np.ascontiguousarray(labels.stored(label, valid_hw)))
        # Through memory: torch.save writes the name of its file into it, which is a hidden one here.
        buffer = io.BytesIO()
        torch.save(tensor, buffer)
        put(section / folder / f"{stem}.dat", lambda path, buffer=buffer: path.write_bytes(buffer.getbuffer()))


def _write_classes(options: SetupOptions, job: Job, codes_HW: np.ndarray, shop: Workshop) -> None:
    sample = job.sample
    unknown = sorted(set(np.unique(codes_HW).tolist()) - set(LAS_CODE_TO_CLASS))
    if unknown:
        raise ValueError(f"{sample.classes}: LAS codes {unknown} have no class; known are {sorted(LAS_CODE_TO_CLASS)}")
    path = shop.folder / job.section / "semantics" / f"{sample.stem}.npy"
    if codes_HW.dtype == np.uint8 and not options.force_semantics_downsampling:
        link(path, sample.classes, copy=options.copy, seen_from=shop.output / job.section / "semantics")
        return
    chosen_hw = labels.on_grid(codes_HW, options.stride) if options.force_semantics_downsampling else codes_HW
    put(path, partial(_save_array, np.ascontiguousarray(chosen_hw.astype(np.uint8))))


def write_photo(options: SetupOptions, job: Job, shop: Workshop) -> None:
    """A photo's sample: everything but the image is its render's."""
    sample = job.sample
    render, photo = read_header(sample.image), read_header(sample.photo)
    ratio = (photo.width / photo.height) / (render.width / render.height)
    if abs(ratio - 1) > _SAME_SHAPE:
        raise ValueError(
            f"{sample.photo} is {photo.width} x {photo.height} px, not of the shape of its render, {render.width} x "
            f"{render.height} px"
        )
    _link_image(options, shop, job, sample.photo)
    larger = (photo.width, photo.height) != (render.width, render.height)
    for folder in folders_of(options):
        if folder == "rgb" or (folder == "calibration" and larger):
            continue
        name = f"{sample.stem}{ {'poses': '.txt', 'calibration': '.txt', 'semantics': '.npy'}.get(folder, '.dat') }"
        link(
            shop.folder / job.section / folder / name,
            shop.folder / job.render_section / folder / name,
            copy=options.copy,
        )
    if larger:
        text = labels.calibration_text(render.width, photo.width, photo.height, _image_stride(options))
        path = shop.folder / job.section / "calibration" / f"{sample.stem}.txt"
        _write_text(path, lambda stream: stream.write(text.encode()))


def _link_image(options: SetupOptions, shop: Workshop, job: Job, image: Path) -> None:
    """The image under the sample's name; a JPG too is called .png, images are decoded by content."""
    name = f"{job.sample.stem}.png"
    link(shop.folder / job.section / "rgb" / name, image, copy=options.copy, seen_from=shop.output / job.section / "rgb")


def _load(path: Path, dimensions: int) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if found.ndim != dimensions or (dimensions == 3 and found.shape[2] != 3):
        raise ValueError(f"{path} must have shape [{'H, W, 3' if dimensions == 3 else 'H, W'}], found {list(found.shape)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{path} holds NaN or infinite values")
    return found


def _write_text(path: Path, write: Callable) -> None:
    def written(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            write(stream)

    put(path, written)


def _save_array(array: np.ndarray, path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, array)
