"""From how far off a pose is refined by the map, and how near it comes.

    python benchmarks/refinement_basin.py datasets/demo --surface DSM --ortho ORTHO
    python benchmarks/refinement_basin.py datasets/demo --surface DSM --ortho ORTHO --refine sift --off 5 10 20 --coarse_map

Photos of a section (by default those that no test uses) start from poses that are off by so many metres and degrees in random
directions. --coarse_map makes a map as others have it: the surface in cells of 1 m, the orthophoto in pixels of 0.25 m, in
other colours, with shadows of another sun cast by the surface itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from threads import configure_threads

configure_threads()

import cv2
import numpy as np
import rasterio
import torch
from rasterio.enums import Resampling
from rasterio.transform import Affine
from tqdm import tqdm

from datagen.demo.sunlight import cast_shadows, sun_direction
from dataloader.images import decode_image
from dataloader.labels import read_calibration, read_pose
from dataloader.section import stems_in
from geometry.poses import pose_error
from localization.geodata import Geodata
from localization.matchers import matcher_of
from localization.refinement import REFINEMENTS, refine
from records.files import read_json

_SURFACE_CELL_M, _ORTHO_PIXEL_M = 1.0, 0.25
# Mixes the colours and darkens the middle tones; shadows keep this much of the light.
_OTHER_COLOURS_33 = np.array([[0.75, 0.25, 0.0], [0.1, 0.75, 0.15], [0.15, 0.1, 0.75]])
_OTHER_GAMMA, _SHADOW_LIGHT = 1.3, 0.45
_OTHER_SUN = sun_direction(azimuth_deg=300.0, elevation_deg=30.0)


def coarse_map(surface: Path, ortho: Path, folder: Path) -> tuple[Path, Path]:
    """Writes the coarser and differently lit map; returns its files."""
    with rasterio.open(surface) as raster:
        heights, profile = _resampled(raster, _SURFACE_CELL_M, Resampling.average)
        fine, fine_profile = _resampled(raster, raster.res[0], Resampling.nearest)
        nodata = raster.nodata
    _write(folder / "surface.tif", heights, profile)
    heights_hw = fine[0].astype(np.float32)
    if nodata is not None:
        heights_hw = np.where(heights_hw == nodata, heights_hw[heights_hw != nodata].min(), heights_hw)
    lit_hw = ~cast_shadows(heights_hw, fine_profile["transform"].a, _OTHER_SUN)
    with rasterio.open(ortho) as raster:
        colours, profile = _resampled(raster, _ORTHO_PIXEL_M, Resampling.average)
    # Both on the orthophoto's pixels, by their georeferences.
    rows, columns = np.mgrid[: colours.shape[1], : colours.shape[2]] + 0.5
    to_fine = ~fine_profile["transform"] * profile["transform"]
    x, y = to_fine.a * columns + to_fine.c - 0.5, to_fine.e * rows + to_fine.f - 0.5
    lit_HW = cv2.remap(
        lit_hw.astype(np.float32),
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    light_HW = _SHADOW_LIGHT + (1 - _SHADOW_LIGHT) * lit_HW
    mixed = np.einsum("ij,jhw->ihw", _OTHER_COLOURS_33, (colours[:3] / 255.0) ** _OTHER_GAMMA) * light_HW
    colours[:3] = np.where((colours[:3] > 0).any(axis=0), np.clip(np.rint(255 * mixed), 1, 255), 0)
    _write(folder / "ortho.tif", colours, profile)
    return folder / "surface.tif", folder / "ortho.tif"


def _resampled(raster, cell_m: float, method: Resampling) -> tuple[np.ndarray, dict]:
    rows, columns = (max(2, round(size * raster.res[0] / cell_m)) for size in (raster.height, raster.width))
    bands = raster.read(out_shape=(raster.count, rows, columns), resampling=method)
    transform = raster.transform * Affine.scale(raster.width / columns, raster.height / rows)
    return bands, {**raster.profile, "height": rows, "width": columns, "transform": transform}


def _write(path: Path, bands: np.ndarray, profile: dict) -> None:
    kept = {
        key: profile[key] for key in ("crs", "transform", "height", "width", "count", "dtype", "nodata") if key in profile
    }
    with rasterio.open(path, "w", driver="GTiff", **kept) as raster:
        raster.write(bands)


def moved(world_from_cam_44: np.ndarray, metres: float, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """A pose that is off by so much, in random directions."""
    shift_3, axis_3 = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    wrong_44 = world_from_cam_44.copy()
    wrong_44[:3, :3] = world_from_cam_44[:3, :3] @ cv2.Rodrigues(np.deg2rad(degrees) * axis_3)[0]
    wrong_44[:3, 3] += metres * shift_3
    return wrong_44


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene_dir", type=Path)
    parser.add_argument("--surface", type=Path, required=True)
    parser.add_argument("--ortho", type=Path, required=True)
    parser.add_argument("--sections", nargs="+", default=["train_drone_real", "val_drone_real"])
    parser.add_argument("--photos", type=int, default=10, help="so many, evenly taken")
    parser.add_argument(
        "--refine", choices=REFINEMENTS[1:], default="ncc", help="by patches alone, or with such a wide start"
    )
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--off", type=float, nargs="+", default=[0.5, 1, 2, 4, 6, 8, 10, 20], help="metres and degrees")
    parser.add_argument("--coarse_map", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    matcher = matcher_of(args.refine, torch.device("cpu"))
    images = [p for name in args.sections for p in stems_in(args.scene_dir / name / "rgb").values()]
    images = [images[i] for i in np.linspace(0, len(images) - 1, min(args.photos, len(images))).round().astype(int)]
    with tempfile.TemporaryDirectory() as folder:
        files = coarse_map(args.surface, args.ortho, Path(folder)) if args.coarse_map else (args.surface, args.ortho)
        geodata = Geodata.open(*files, read_json(args.scene_dir / "scene.json", "scene record"))
    print("off by         accepted  worse  median m  median deg  worst accepted m  CPU s")
    for off in args.off:
        rng, errors, started = np.random.default_rng(0), [], time.process_time()
        for image in tqdm(images, leave=False):
            true_44 = read_pose(image.parents[1] / "poses" / f"{image.stem}.txt")
            photo_HW3 = decode_image(image)
            K_33 = read_calibration(image.parents[1] / "calibration" / f"{image.stem}.txt", *photo_HW3.shape[:2]).numpy()
            start_44 = moved(true_44.numpy(), off, off, rng)
            refined = refine(photo_HW3, K_33, start_44, geodata, height=args.height, matcher=matcher)
            errors.append((*pose_error(torch.from_numpy(refined.world_from_cam_44), true_44), refined.accepted))
        error_m, error_deg, accepted = np.array(errors).T
        worst_m = error_m[accepted > 0].max(initial=0.0)
        seconds = (time.process_time() - started) / len(images)
        print(
            f"{off:4.1f} m and deg  {100 * accepted.mean():6.0f} %  {(error_m > off + 1e-6).sum():5d}  "
            f"{np.median(error_m):8.3f}  {np.median(error_deg):10.3f}  {worst_m:16.2f}  {seconds:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
