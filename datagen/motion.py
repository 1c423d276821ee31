"""Poses from photos alone: structure from motion by COLMAP (pycolmap), and its frame tied to positions or to the ground."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.images import read_header

log = logging.getLogger(__name__)

MIN_PHOTOS = 3
# Fewer than this share of the photos in one model is no reconstruction of the flight.
_MIN_REGISTERED = 0.5
# All pairs are matched up to here; above, each photo with those nearest to it, or following it.
_EXHAUSTIVE_PHOTOS = 120
_NEIGHBOURS = 30
# Photos are matched at up to this longer side; more adds time and hardly a point.
_MATCH_PIXELS = 2000
# A fix of a drone's GNSS may be off by this much in the frame of the others, metres.
_GNSS_ERROR_M = 6.0
# Positions on a line leave the turn about it free.
_MIN_SPREAD = 0.05
# A focal length in 35 mm terms is rounded, and the sensor's crop for video changes it.
_EXIF_FOCAL_ERROR = 0.08
_FAR_FROM_ORIGIN = 3.0
_SEED = 0


def reconstruct(folder: Path, files: Sequence[str], work_dir: Path, *, focal_px: float | None, located: bool, workers: int):
    """Structure from motion of photos.

    Args:
        files: names below folder. work_dir: for database and models.
        focal_px: of photos of one size, held as it is; None: each photo's EXIF gives a first value. Over flat ground seen
            straight down no reconstruction can tell it from the flying height.
        located: whether the photos' EXIF hold positions, for choosing pairs of large flights.
    Returns:
        the largest pycolmap.Reconstruction, in a frame of its own.
    Raises:
        ValueError: too few photos, or too few of them hang together.
    """
    import pycolmap

    if len(files) < MIN_PHOTOS:
        raise ValueError(f"{folder}: {len(files)} photo(s) are too few for structure from motion; {MIN_PHOTOS} at least")
    work_dir.mkdir(parents=True, exist_ok=True)
    database, models = work_dir / "database.db", work_dir / "models"
    database.unlink(missing_ok=True)
    models.mkdir(exist_ok=True)
    pycolmap.logging.minloglevel = 2
    sizes = {(header.width, header.height) for header in (read_header(folder / file) for file in files)}
    mode = pycolmap.CameraMode.SINGLE if len(sizes) == 1 else pycolmap.CameraMode.AUTO
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads, extraction.use_gpu, extraction.max_image_size = workers, False, _MATCH_PIXELS
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_RADIAL"
    if focal_px is not None:
        if len(sizes) > 1:
            raise ValueError(f"{folder}: photos of {len(sizes)} sizes have no common focal length")
        width, height = next(iter(sizes))
        reader.camera_params = f"{focal_px!r},{width / 2},{height / 2},0"
    cpu = pycolmap.Device.cpu
    log.info("structure from motion of %d photos: features", len(files))
    pycolmap.extract_features(
        database, folder, image_names=list(files), camera_mode=mode, reader_options=reader,
        extraction_options=extraction, device=cpu,
    )  # fmt: skip
    log.info("matches")
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads, matching.use_gpu = workers, False
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = _SEED
    _match(pycolmap, database, matching, verification, len(files), located)
    log.info("model")
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed, options.multiple_models = workers, _SEED, True
    options.min_model_size = MIN_PHOTOS
    options.ba_refine_focal_length = focal_px is None
    model = _largest(pycolmap.incremental_mapping(database, folder, models, options), files, folder)
    if focal_px is None and _focal_ran_away(pycolmap, database, model):
        log.warning("the photos cannot tell their focal length from the flying height: it is held as EXIF states it")
        options.ba_refine_focal_length = False
        model = _largest(pycolmap.incremental_mapping(database, folder, models, options), files, folder)
    log.info(
        "model of %d photos, %d points, reprojection error %.2f px",
        model.num_reg_images(), model.num_points3D(), model.compute_mean_reprojection_error(),
    )  # fmt: skip
    return model


def _focal_ran_away(pycolmap, database: Path, model) -> bool:
    """Whether a camera's focal length left what EXIF says by more than EXIF can be wrong."""
    with pycolmap.Database.open(database) as stored:
        stated = {camera.camera_id: camera.mean_focal_length() for camera in stored.read_all_cameras()}
    return any(
        abs(camera.mean_focal_length() / stated[number] - 1) > _EXIF_FOCAL_ERROR for number, camera in model.cameras.items()
    )


def _match(pycolmap, database: Path, matching, verification, count: int, located: bool) -> None:
    chosen = {"matching_options": matching, "verification_options": verification, "device": pycolmap.Device.cpu}
    if count <= _EXHAUSTIVE_PHOTOS:
        pycolmap.match_exhaustive(database, **chosen)
    elif located:
        pairs = pycolmap.SpatialPairingOptions()
        pairs.max_num_neighbors = _NEIGHBOURS
        pycolmap.match_spatial(database, pairing_options=pairs, **chosen)
    else:
        pairs = pycolmap.SequentialPairingOptions()
        pairs.overlap = _NEIGHBOURS
        pycolmap.match_sequential(database, pairing_options=pairs, **chosen)


def _largest(found: Mapping, files: Sequence[str], folder: Path):
    model = max(found.values(), key=lambda model: model.num_reg_images(), default=None)
    count = 0 if model is None else model.num_reg_images()
    if count < max(MIN_PHOTOS, _MIN_REGISTERED * len(files)):
        parts = f"; they fall into {len(found)} models" if len(found) > 1 else ""
        raise ValueError(
            f"{folder}: only {count} of {len(files)} photos hang together{parts}. The overlap does not suffice: fly so that "
            "every point of the ground is in at least three photos (70 to 80 % overlap along and across), leave out "
            "photos of water, sky or take-off, or give poses from another program"
        )
    names = {image.name for _, image in model.images.items() if image.has_pose}
    left_out = sorted(set(files) - names)
    if left_out:
        log.warning("%d of %d photos have no pose, for want of overlap: %s%s", len(left_out), len(files),
                    ", ".join(left_out[:5]), " ..." if len(left_out) > 5 else "")  # fmt: skip
    return model


@dataclass(frozen=True)
class Tie:
    """How a model's frame was tied to metres. Attributes: residual_m: median distance to the positions; None: none given."""

    how: str
    residual_m: float | None


def tie_to_positions(model, xyz_of: Mapping[str, Sequence[float]]) -> Tie:
    """Moves, turns and scales a model, in place, so that its cameras stand at given positions (float64, near the origin).

    Raises:
        ValueError: fewer than three positions, all on a line, or none that fit.
    """
    import pycolmap

    names = sorted({image.name for image in model.images.values() if image.has_pose} & set(xyz_of))
    if len(names) < MIN_PHOTOS:
        raise ValueError(f"{len(names)} posed photo(s) with a position; tying a model to the ground takes {MIN_PHOTOS}")
    xyz_N3 = np.array([xyz_of[name] for name in names], np.float64)
    spread_3 = np.linalg.svd(xyz_N3 - xyz_N3.mean(axis=0), compute_uv=False)
    if spread_3[1] < _MIN_SPREAD * spread_3[0]:
        raise ValueError(
            "the photos' positions lie on one line, which leaves the model's turn about it free: add a second flight line"
        )
    options = pycolmap.RANSACOptions()
    options.max_error, options.random_seed = _GNSS_ERROR_M, _SEED
    # COLMAP's estimator takes points in a plane through the origin for degenerate, as those of one flying height may be.
    away = pycolmap.Sim3d(1.0, pycolmap.Rotation3d(), -_FAR_FROM_ORIGIN * spread_3[0] * np.ones(3))
    target_N3 = xyz_N3 + _FAR_FROM_ORIGIN * spread_3[0]
    similarity = pycolmap.align_reconstruction_to_locations(model, names, target_N3, MIN_PHOTOS, options)
    if similarity is None:
        raise ValueError(f"no {MIN_PHOTOS} of the {len(names)} positions agree with the model within {_GNSS_ERROR_M:g} m")
    model.transform(similarity)
    model.transform(away)
    centre_of = {image.name: image.projection_center() for image in model.images.values() if image.has_pose}
    off_N = np.linalg.norm(np.array([centre_of[name] for name in names]) - xyz_N3, axis=1)
    return Tie(f"{len(names)} positions", float(np.median(off_N)))


def tie_to_ground(model, flying_height_m: float) -> Tie:
    """Lays a model's ground level, in place, and scales it to a flying height above it.

    Up is against the mean view where the points' best plane agrees with it within a right angle.
    """
    import pycolmap

    points_N3 = np.array([point.xyz for point in model.points3D.values()])
    images = [image for image in model.images.values() if image.has_pose]
    centres_N3 = np.array([image.projection_center() for image in images])
    middle_3 = np.median(points_N3, axis=0)
    kept_N3 = points_N3[np.linalg.norm(points_N3 - middle_3, axis=1) <= np.percentile(
        np.linalg.norm(points_N3 - middle_3, axis=1), 90)]  # fmt: skip
    up_3 = np.linalg.svd(kept_N3 - kept_N3.mean(axis=0))[2][2]
    up_3 = up_3 * np.sign(up_3 @ (centres_N3.mean(axis=0) - kept_N3.mean(axis=0)))
    east_3 = np.cross(np.eye(3)[np.argmin(np.abs(up_3))], up_3)
    east_3 /= np.linalg.norm(east_3)
    R_33 = np.stack((east_3, np.cross(up_3, east_3), up_3))
    ground_3 = np.median(kept_N3 @ R_33.T, axis=0)
    scale = flying_height_m / float(np.median(centres_N3 @ up_3) - ground_3[2])
    shift_3 = -scale * ground_3
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(R_33), shift_3))
    return Tie(f"a flying height of {flying_height_m:g} m over the points' plane; north is arbitrary", None)
