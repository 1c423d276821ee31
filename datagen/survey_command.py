"""A bag of photos and their COLMAP model, or the photos alone, to everything that the curriculum needs.

Poses (given, or by structure from motion), a surface model, an orthophoto of the training and validation photos only,
then the sections of `photos` and `sections` made from them.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from datagen import dense_surface, frames, motion, photo_command, photo_metadata, photos, pose_lists, section_command, splits
from datagen.cameras import Camera, read_colmap
from datagen.common_arguments import add_output_arguments, focal_length, positive
from datagen.dense_surface import SurveyPhoto
from datagen.flights import converted_with_north
from datagen.orthophoto import PHOTOS_TAG, blended_orthophoto
from datagen.rasters import Grid
from datagen.raycast import RayCaster, height_mesh
from dataloader.section import IMAGE_SUFFIXES
from records import fingerprint
from records.files import read_json, replacing, write_json

log = logging.getLogger(__name__)

FOLDER, _RECORD, _MODEL_RECORD = "geodata", "survey.json", "model.json"
_VERSION = 1
# Cells of the surface model per pixel of the orthophoto.
_CELL_PIXELS = 3
_MAX_CELLS = 16_000_000
# The surface may reach beyond the sparse points by this share of the flying height.
_REACH_SHARE = 0.3
_NODATA = -9999.0
# Sparse points: seen at least so often, and so well, to count.
_MIN_TRACK, _MAX_ERROR_PX = 3, 2.0
# Views are drawn as the quickstart does it: this far from the flight, in flying heights and degrees.
_POSITION_SHARE, _HEIGHT_SHARE, _YAW_DEG, _TILT_DEG = 0.5, 0.06, 10, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs = parser.add_argument_group("photos")
    inputs.add_argument("--images", type=Path, required=True, help="folder of the photos")
    inputs.add_argument("--colmap", type=Path, help="folder of their COLMAP model (default: structure from motion)")
    inputs.add_argument(
        "--crs",
        help="frame of the model: EPSG:CODE, or local for metres with z up; without it the model is tied to positions",
    )
    inputs.add_argument("--geo_txt", type=Path, help="positions of the photos (geo.txt or CSV; default: their EXIF and XMP)")
    inputs.add_argument(
        "--flying_height", type=float, help="metres above ground, to scale a model of photos without positions"
    )
    inputs.add_argument(
        "--focal",
        type=focal_length,
        help="focal length of the photos in pixels, for structure from motion (default: EXIF and XMP)",
    )
    inputs.add_argument("--split", nargs="+", help="as for `photos`; test photos never enter the orthophoto")
    inputs.add_argument(
        "--surface_photos",
        choices=("all", "known"),
        default="all",
        help="whose pixels shape the surface model: all, or those of training and validation only (%(default)s)",
    )
    inputs.add_argument("--ground_sampling", type=float, help="metres per pixel of the orthophoto (default: the photos')")
    output = add_output_arguments(parser)
    output.add_argument("--height", type=positive, default=480, help="shorter side of stored images (%(default)s)")
    output.add_argument("--num_images", type=positive, default=1000, help="rendered views around the flight (%(default)s)")
    output.add_argument("--geodata_only", action="store_true", help="write dsm.tif and ortho.tif, no sections")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Survey:
    """Posed photos: the folder of their COLMAP model, its CRS, what that was derived from, and the model's content."""

    model_dir: Path
    crs: CRS
    tie: str
    cameras: list[Camera]
    points_N3: np.ndarray


def run(args: argparse.Namespace) -> None:
    """Makes what is missing: poses, surface model and orthophoto, sections."""
    if not args.images.is_dir():
        raise NotADirectoryError(f"photo folder {args.images}: no such folder")
    if args.flying_height is not None and not args.flying_height > 0:
        raise ValueError(f"--flying_height {args.flying_height:g}: give metres above ground")
    scene_dir = args.output_dir / args.scene
    geodata_dir = scene_dir / FOLDER
    missing = [folder for folder in (geodata_dir, *geodata_dir.parents) if not folder.exists()]
    geodata_dir.mkdir(parents=True, exist_ok=True)
    try:
        survey = _posed(args, geodata_dir)
        log.info("poses of %d photos in %s, from %s", len(survey.cameras), frames.label(survey.crs), survey.tie)
        split = _split(args, scene_dir, survey.cameras)
        paths = photos.find_photos(args.images, survey.cameras)
        photos.check_photos(survey.cameras, paths)
        _geodata(args, geodata_dir, survey, split, paths)
    except BaseException:
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
    if not args.geodata_only:
        _make_sections(args, geodata_dir, survey)


def _posed(args: argparse.Namespace, geodata_dir: Path) -> _Survey:
    """The photos' model in a metric frame with z up: as given, as made before from the same, or made now."""
    if args.colmap is not None and args.crs is not None:
        return _read_survey(args.colmap, frames.declared(args.crs), "the given model")
    files = [camera.file for camera in read_colmap(args.colmap)] if args.colmap is not None else _photo_files(args.images)
    made_from = _motion_inputs(args, files)
    record_path, model_dir = geodata_dir / _MODEL_RECORD, geodata_dir / "model"
    record = read_json(record_path, "model record") if record_path.is_file() else {}
    if record.get("made_from") == made_from:
        return _read_survey(model_dir, CRS.from_wkt(record["crs"]), record["tie"])
    positions, crs = _positions(args, files)
    if not positions and args.flying_height is None:
        raise ValueError(
            f"the photos of {args.images} hold no positions (EXIF), and nothing else says where and how large the model is: "
            "give --geo_txt, --flying_height, or --crs with a --colmap model that is in metres with z up"
        )
    model = _model(args, geodata_dir, files, located=len(positions) >= motion.MIN_PHOTOS)
    if positions:
        # Small numbers for the solver; the model gets the whole ones back in float64.
        offset_3 = np.round(np.mean(list(positions.values()), axis=0))
        tie = motion.tie_to_positions(model, {name: xyz - offset_3 for name, xyz in positions.items()})
        _move(model, offset_3)
    else:
        tie, crs = motion.tie_to_ground(model, args.flying_height), frames.declared(frames.LOCAL)
    how = tie.how + ("" if tie.residual_m is None else f", median distance to them {tie.residual_m:.2f} m")
    record_path.unlink(missing_ok=True)
    model_dir.mkdir(exist_ok=True)
    model.write_binary(str(model_dir))
    write_json(record_path, {"made_from": made_from, "crs": crs.to_wkt(), "tie": how})
    return _read_survey(model_dir, crs, how)


def _photo_files(folder: Path) -> list[str]:
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    files = [str(path.relative_to(folder)) for path in found if not path.name.startswith(".")]
    if not files:
        raise ValueError(f"photo folder {folder} holds no photo")
    return files


def _motion_inputs(args: argparse.Namespace, files: list[str]) -> str:
    """Fingerprint of all that decides the model's poses."""
    read = {file: photos.find_photo(args.images, file) for file in files}
    read |= {} if args.geo_txt is None else {"geo_txt": args.geo_txt}
    if args.colmap is not None:
        read |= {f"colmap/{path.name}": path for path in args.colmap.iterdir() if path.suffix in (".bin", ".txt")}
    return fingerprint.of_value(
        [_VERSION, args.crs, args.flying_height, args.focal, sorted(fingerprint.digests(read).items())]
    )


def _model(args: argparse.Namespace, geodata_dir: Path, files: list[str], *, located: bool):
    """The given model, or one by structure from motion (a pycolmap.Reconstruction)."""
    import pycolmap

    if args.colmap is not None:
        return pycolmap.Reconstruction(str(args.colmap))
    work_dir, focal_px = geodata_dir / "motion", args.focal or _calibrated_focal(args.images, files)
    try:
        return motion.reconstruct(args.images, files, work_dir, focal_px=focal_px, located=located, workers=args.workers)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def _calibrated_focal(folder: Path, files: list[str]) -> float | None:
    """The focal length that the photos' XMP states, in pixels; None when each photo's EXIF is to be read.

    Raises:
        ValueError: a photo states none.
    """
    said = {file: photo_metadata.read_metadata(folder / file) for file in files}
    unknown = [file for file, metadata in said.items() if metadata.focal_px is None]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(files)} photos (such as {unknown[0]}) do not tell their focal length (EXIF, XMP), "
            "which flat ground seen from above cannot tell from the flying height: give --focal, in pixels"
        )
    focals = {(metadata.focal_px, metadata.calibrated) for metadata in said.values()}
    focal_px, calibrated = next(iter(focals))
    return focal_px if len(focals) == 1 and calibrated else None


def _move(model, offset_3: np.ndarray) -> None:
    import pycolmap

    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(np.eye(3)), offset_3))


def _positions(args: argparse.Namespace, files: list[str]) -> tuple[dict[str, np.ndarray], CRS | None]:
    """Positions (x, y, z in metres, float64) by photo that a list or the photos themselves give, and their CRS."""
    if args.geo_txt is not None:
        listed = pose_lists.read_pose_list(args.geo_txt)
        known = dict(zip(listed.names, listed.position_N3, strict=True))
        named = {file: known.get(file, known.get(Path(file).name)) for file in files}
        crs = listed.crs or frames.declared(args.crs or frames.LOCAL)
    else:
        said = {file: photo_metadata.read_metadata(photos.find_photo(args.images, file)) for file in files}
        named, crs = {file: metadata.lon_lat_height for file, metadata in said.items()}, frames.WGS84
    found = {file: np.array(xyz, np.float64) for file, xyz in named.items() if xyz is not None}
    if not found:
        if args.geo_txt is not None:
            raise ValueError(f"pose list {args.geo_txt}: none of its names is a photo of {args.images}")
        return {}, None
    xy_N2 = np.array(list(found.values()))[:, :2]
    target = frames.declared(args.crs) if args.crs else crs
    if not frames.is_local(target) and frames.metres_per_unit(target) is None:
        target = frames.utm_of(*xy_N2.mean(axis=0))
    if target != crs:
        for xyz, xy_2 in zip(found.values(), converted_with_north(xy_N2, crs, target)[0], strict=True):
            xyz[:2] = xy_2
    return found, target


def _read_survey(model_dir: Path, crs: CRS, tie: str) -> _Survey:
    """Cameras and good sparse points of a model.

    Raises:
        ValueError: no good point, or the cameras do not look down on the points: z is not up.
    """
    import pycolmap

    cameras = read_colmap(model_dir)
    points = pycolmap.Reconstruction(str(model_dir)).points3D.values()
    points_N3 = np.array(
        [point.xyz for point in points if point.track.length() >= _MIN_TRACK and point.error <= _MAX_ERROR_PX]
    ).reshape(-1, 3)
    if len(points_N3) < 4:
        raise ValueError(f"COLMAP model {model_dir}: {len(points_N3)} points seen by {_MIN_TRACK} photos make no surface")
    above_m = np.median([camera.world_from_cam_44[2, 3] for camera in cameras]) - np.median(points_N3[:, 2])
    down = np.median([-camera.world_from_cam_44[2, 2] for camera in cameras])
    if above_m <= 0 or down <= 0:
        raise ValueError(
            f"COLMAP model {model_dir}: its z axis does not point up (cameras {above_m:.1f} above the points, looking "
            f"{'down' if down > 0 else 'up'}); without --crs it is tied to the photos' positions, or to --flying_height"
        )
    return _Survey(model_dir, crs, tie, cameras, points_N3)


def _split(args: argparse.Namespace, scene_dir: Path, cameras: list[Camera]) -> dict[str, list[str]]:
    """The split that `photos` will obey: given, recorded, or drawn."""
    stems = [camera.stem for camera in cameras]
    if args.split:
        return splits.read_split(args.split, stems, {camera.stem: camera.file for camera in cameras})
    record = splits.flight_split_record(scene_dir, args.scene)
    return splits.obeyed_split(record, stems, splits.FLIGHT_SHARES, redraw=args.overwrite)


def _geodata(args, geodata_dir: Path, survey: _Survey, split: dict[str, list[str]], paths: dict[str, Path]) -> None:
    """Makes surface model and orthophoto unless they are there, from the same.

    Raises:
        FileExistsError: there, but from something else.
    """
    known = {stem for part in ("train", "val") for stem in split.get(part, ())}
    if not known:
        raise ValueError("the split has no training or validation photo to make an orthophoto of")
    made_from = fingerprint.of_value(
        [
            _VERSION, [args.surface_photos, args.ground_sampling], sorted(known), survey.crs.to_wkt(),
            [[c.stem, c.world_from_cam_44.tolist(), c.K_33.tolist(), c.lens] for c in survey.cameras],
            survey.points_N3.tolist(), sorted(fingerprint.digests(paths).items()),
        ]
    )  # fmt: skip
    record_path = geodata_dir / _RECORD
    if record_path.is_file():
        if read_json(record_path, "survey record").get("made_from") == made_from:
            log.info("reusing %s", geodata_dir)
            return
        if not args.overwrite:
            raise FileExistsError(f"{record_path}: made from other photos, poses or with another split (--overwrite)")
        record_path.unlink()
    record = {"made_from": made_from, "tie": survey.tie, "crs": survey.crs.to_wkt()}
    record |= _make_geodata(args, geodata_dir, survey, known, paths)
    write_json(geodata_dir / "split.json", split)
    write_json(record_path, record)


def _make_geodata(args, geodata_dir: Path, survey: _Survey, known: set[str], paths: dict[str, Path]) -> dict:
    """Writes dsm.tif and ortho.tif; what is worth recording about them."""
    # Small numbers inside, for float32; the CRS's own in the files.
    origin_3 = np.round(np.median([camera.world_from_cam_44[:3, 3] for camera in survey.cameras], axis=0), -1)
    cameras = [_local(camera, origin_3) for camera in survey.cameras]
    points_N3 = survey.points_N3 - origin_3
    sampling_m = args.ground_sampling or _ground_sampling(cameras, points_N3)
    dsm_grid, ortho_grid = _grids(cameras, points_N3, sampling_m)
    voters = [camera for camera in cameras if args.surface_photos == "all" or camera.stem in known]
    sweep = dense_surface.swept_surface(points_N3, [_survey_photo(c, paths[c.stem], points_N3, dsm_grid.step_x)
                                                    for c in voters], dsm_grid)  # fmt: skip
    x_c = dsm_grid.left + (np.arange(dsm_grid.cols) + 0.5) * dsm_grid.step_x
    y_r = dsm_grid.top - (np.arange(dsm_grid.rows) + 0.5) * dsm_grid.step_y
    raycaster = RayCaster(*height_mesh(x_c, y_r, sweep.heights_rc))
    shown = sorted(camera.stem for camera in cameras if camera.stem in known)
    colour_RC3, seen_RC = blended_orthophoto(
        ortho_grid,
        dsm_grid,
        sweep.heights_rc,
        raycaster,
        [photos.pinhole_camera(camera) for camera in cameras if camera.stem in known],
        lambda pinhole: _undistorted(next(c for c in cameras if c.stem == pinhole.stem), paths[pinhole.stem]),
    )
    heights = np.nan_to_num(sweep.heights_rc.astype(np.float64) + origin_3[2], nan=_NODATA).astype(np.float32)
    _write(geodata_dir / "dsm.tif", dsm_grid, survey.crs, origin_3, heights[None], nodata=_NODATA)
    picture = np.concatenate((colour_RC3.transpose(2, 0, 1), 255 * seen_RC[None].astype(np.uint8)))
    _write(geodata_dir / "ortho.tif", ortho_grid, survey.crs, origin_3, picture, {PHOTOS_TAG: "\n".join(shown)})
    surface = float(np.isfinite(sweep.heights_rc).mean())
    log.info(
        "surface model %d x %d cells of %.3g m: %.0f %% with heights, %.0f %% matched, the rest from %d sparse points; "
        "orthophoto %.3g m from %d photos, covers %.0f %%",
        dsm_grid.cols, dsm_grid.rows, dsm_grid.step_x, 100 * surface, 100 * sweep.matched, len(points_N3),
        sampling_m, len(shown), 100 * seen_RC.mean(),
    )  # fmt: skip
    return {
        "cell_m": dsm_grid.step_x, "ground_sampling_m": sampling_m, "surface_share": surface,
        "matched_share": sweep.matched, "orthophoto_share": float(seen_RC.mean()), "orthophoto_photos": shown,
        "surface_photos": sorted(camera.stem for camera in voters), "sparse_points": len(points_N3),
    }  # fmt: skip


def _local(camera: Camera, origin_3: np.ndarray) -> Camera:
    pose_44 = camera.world_from_cam_44.copy()
    pose_44[:3, 3] -= origin_3
    return replace(camera, world_from_cam_44=pose_44)


def _ground_sampling(cameras: list[Camera], points_N3: np.ndarray) -> float:
    """Metres on the ground under a pixel, to two digits."""
    sizes = [
        (c.world_from_cam_44[2, 3] - np.median(points_N3[:, 2])) / np.sqrt(c.K_33[0, 0] * c.K_33[1, 1]) for c in cameras
    ]
    return float(f"{np.median(sizes):.2g}")


def _footprint(camera: Camera, ground: float) -> np.ndarray:
    """Where a pinhole photo's corners meet the ground's height, [N, 2]; none for corners at or above the horizon."""
    corners_px = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (camera.width, camera.height)
    rays_43 = np.column_stack((corners_px, np.ones(4))) @ np.linalg.inv(camera.K_33).T @ camera.world_from_cam_44[:3, :3].T
    down_M3 = rays_43[rays_43[:, 2] < 0]
    centre_3 = camera.world_from_cam_44[:3, 3]
    return centre_3[:2] + down_M3[:, :2] * ((ground - centre_3[2]) / down_M3[:, 2])[:, None]


def _grids(cameras: list[Camera], points_N3: np.ndarray, sampling_m: float) -> tuple[Grid, Grid]:
    """Cells of the surface model over what the photos see near the sparse points, and the orthophoto's pixels in them."""
    low_2, high_2 = np.percentile(points_N3[:, :2], [0.2, 99.8], axis=0)
    ground = float(np.median(points_N3[:, 2]))
    reach_m = _REACH_SHARE * (float(np.median([camera.world_from_cam_44[2, 3] for camera in cameras])) - ground)
    seen_N2 = np.concatenate([_footprint(photos.pinhole_camera(camera), ground) for camera in cameras])
    low_2 = np.maximum(low_2 - reach_m, np.minimum(seen_N2.min(axis=0), low_2))
    high_2 = np.minimum(high_2 + reach_m, np.maximum(seen_N2.max(axis=0), high_2))
    step = _CELL_PIXELS * sampling_m
    left, top = np.floor(low_2[0] / step) * step, np.ceil(high_2[1] / step) * step
    rows, cols = int(np.ceil((top - low_2[1]) / step)), int(np.ceil((high_2[0] - left) / step))
    if rows * cols > _MAX_CELLS or min(rows, cols) < 8:
        raise ValueError(
            f"a surface of {cols} x {rows} cells of {step:.3g} m is {'too large' if rows * cols > _MAX_CELLS else 'none'}; "
            "choose --ground_sampling"
        )
    return Grid(left, top, step, step, rows, cols), Grid(
        left, top, sampling_m, sampling_m, rows * _CELL_PIXELS, cols * _CELL_PIXELS
    )


def _undistorted(camera: Camera, path: Path) -> np.ndarray:
    return photos.undistorted(photos.read_photo(path, camera), camera)[0]


def _survey_photo(camera: Camera, path: Path, points_N3: np.ndarray, cell_m: float) -> SurveyPhoto:
    """A photo reduced to about one pixel per cell."""
    pinhole = photos.pinhole_camera(camera)
    above_m = camera.world_from_cam_44[2, 3] - np.median(points_N3[:, 2])
    scale = min(1.0, above_m / cell_m / pinhole.K_33[0, 0])
    small = photos.resized_camera(pinhole, max(16, round(scale * min(pinhole.width, pinhole.height))))
    grey_HW = cv2.cvtColor(_undistorted(camera, path), cv2.COLOR_RGB2GRAY)
    rgb_HW3 = np.repeat(grey_HW[..., None], 3, axis=2)
    return SurveyPhoto(small, photos.area_resized(rgb_HW3, small.width, small.height)[..., 0].astype(np.float32))


def _write(path: Path, grid: Grid, crs: CRS, origin_3, bands: np.ndarray, tags: Mapping[str, str] | None = None, **profile):
    options = {
        "driver": "GTiff", "count": len(bands), "height": grid.rows, "width": grid.cols, "dtype": bands.dtype,
        "crs": crs, "transform": grid.shifted(*origin_3[:2]).transform, "compress": "deflate", "tiled": True,
    }  # fmt: skip
    with replacing(path) as temporary, rasterio.open(temporary, "w", **options, **profile) as raster:
        if len(bands) == 4:
            raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        raster.update_tags(**(tags or {}))
        raster.write(bands)


def _make_sections(args: argparse.Namespace, geodata_dir: Path, survey: _Survey) -> None:
    """The photo sections and the rendered ones, by their own commands."""
    common = ["--surface", geodata_dir / "dsm.tif", "--ortho", geodata_dir / "ortho.tif", "--scene", args.scene]
    common += ["--output_dir", args.output_dir, "--workers", args.workers, "--split", geodata_dir / "split.json"]
    common += ["--overwrite"] * args.overwrite + ["--resume"] * args.resume
    photo = ["--colmap", survey.model_dir, "--photos", args.images, "--height", args.height]
    _run(photo_command, "photos", [*common, *photo])
    first = photos.resized_camera(photos.pinhole_camera(survey.cameras[0]), args.height)
    flying_m = np.median([c.world_from_cam_44[2, 3] for c in survey.cameras]) - np.median(survey.points_N3[:, 2])
    views = ["--around", survey.model_dir, "--num_images", args.num_images, "--backdrop", "elsewhere"]
    views += ["--width", first.width, "--height", first.height, "--focal", first.K_33[0, 0], first.K_33[1, 1]]
    views += [
        "--position_margin",
        round(_POSITION_SHARE * flying_m, 1),
        "--height_margin",
        round(_HEIGHT_SHARE * flying_m, 1),
    ]
    views += ["--yaw_margin", _YAW_DEG, "--tilt_margin", _TILT_DEG, "--min_valid", 0.5]
    _run(section_command, "sections", [*common, *views])


def _run(command, name: str, words: list) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m datagen {name}")
    command.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    args.command = name
    args.run(args)
