"""Camera poses to render: from a preset of ranges or around a known flight, by Latin hypercube."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from datagen.cameras import Camera, read_json
from datagen.render import Renderer
from datagen.scene import GeoScene
from geometry.attitude import enu_from_camera

log = logging.getLogger(__name__)

# A camera must be this far above the surface under it, metres.
MIN_CLEARANCE = 2.0
# A camera over a hole of the surface model has no surface under it; seeing more than this share of its cells from below,
# it stands under ground. (Facets seen along their plane may look either way.)
_MAX_UNDERSIDE = 0.02
_TRIES_PER_VIEW = 50
_MIN_TRIES = 500
_RANGES = ("hRange", "yawRange", "pitchRange", "rollRange")
HEIGHT_REFERENCES = ("ground", "ellipsoid")

# Poses [n, 4, 4] in the world frame; NaN where a draw cannot be placed (no ground under it).
Proposal = Callable[[int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Preset:
    """Ranges of a sampling preset; angles in degrees, heights in metres.

    Attributes:
        horizontal: ranges of lon, lat (degrees, WGS 84) or x, y (metres in the scene's CRS), as `geographic` says.
        height_reference: 'ground' (above the surface model under the camera) or 'ellipsoid' (the vertical datum of the
            surface model).
        yaw: clockwise from grid north. pitch: -90 looks straight down. roll: about the viewing axis.
    """

    count: int
    geographic: bool
    horizontal: tuple[tuple[float, float], tuple[float, float]]
    height: tuple[float, float]
    height_reference: str
    yaw: tuple[float, float]
    pitch: tuple[float, float]
    roll: tuple[float, float]


def read_preset(path: Path) -> Preset:
    """Reads a preset (JSON with nbImages, heightReference and the ranges).

    Raises:
        FileNotFoundError, ValueError: what is missing or wrong, by name.
    """
    document = read_json(path, "preset")
    has_lonlat, has_xy = (
        ("lonRange" in document and "latRange" in document),
        ("xRange" in document and "yRange" in document),
    )
    if has_lonlat == has_xy:
        raise ValueError(f"preset {path}: give either lonRange and latRange or xRange and yRange")
    known = {"nbImages", "heightReference", "lonRange", "latRange", "xRange", "yRange", *_RANGES}
    unknown = sorted(set(document) - known - {"name", "comment"})
    if unknown:
        raise ValueError(f"preset {path}: unknown entries {unknown}; known are {sorted(known)}")
    reference = document.get("heightReference")
    if reference not in HEIGHT_REFERENCES:
        raise ValueError(f"preset {path}: heightReference is {reference!r}; choose from {list(HEIGHT_REFERENCES)}")
    count = document.get("nbImages")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"preset {path}: nbImages must be a positive whole number, found {count!r}")
    names = ("lonRange", "latRange") if has_lonlat else ("xRange", "yRange")
    first, second, height, yaw, pitch, roll = (_range(document, name, path) for name in (*names, *_RANGES))
    return Preset(count, has_lonlat, (first, second), height, reference, yaw, pitch, roll)


def _range(document: dict, name: str, path: Path) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in document[name])
    except KeyError:
        raise ValueError(f"preset {path}: {name} is missing") from None
    except (TypeError, ValueError):
        raise ValueError(f"preset {path}: {name} must be [low, high], found {document[name]!r}") from None
    if not (np.isfinite([low, high]).all() and low <= high):
        raise ValueError(f"preset {path}: {name} must be [low, high] with low <= high, found {document[name]!r}")
    return low, high


def latin_hypercube(count: int, dimensions: int, rng: np.random.Generator) -> np.ndarray:
    """Points [count, dimensions] in [0, 1): each of the count equal slices of every axis holds exactly one point."""
    strata = rng.permuted(np.tile(np.arange(count)[:, None], (1, dimensions)), axis=0)
    return (strata + rng.random((count, dimensions))) / count


def preset_proposal(preset: Preset, scene: GeoScene) -> Proposal:
    """Draws poses from a preset's ranges."""
    assumed = scene.assumptions
    if preset.height_reference == "ellipsoid" and assumed is not None and assumed.vertical.ellipsoidal is False:
        log.warning(
            "heightReference is ellipsoid, the surface model's heights are above %s: hRange is taken above that",
            assumed.vertical.datum,
        )

    def propose(count: int, rng: np.random.Generator) -> np.ndarray:
        ranges = np.array([*preset.horizontal, preset.height, preset.yaw, preset.pitch, preset.roll])
        values = ranges[:, 0] + latin_hypercube(count, 6, rng) * (ranges[:, 1] - ranges[:, 0])
        if preset.geographic:
            x_N, y_N = scene.lonlat_to_world(values[:, 0], values[:, 1])
        else:
            x_N, y_N = values[:, 0] - scene.origin_xyz[0], values[:, 1] - scene.origin_xyz[1]
        if preset.height_reference == "ground":
            z_N = scene.height_at(x_N, y_N) + values[:, 2]
        else:
            z_N = values[:, 2] - scene.origin_xyz[2]
        poses_N44 = np.tile(np.eye(4), (count, 1, 1))
        poses_N44[:, :3, :3] = [enu_from_camera(*angles) for angles in values[:, 3:]]
        poses_N44[:, :3, 3] = np.stack((x_N, y_N, z_N), 1)
        return poses_N44

    return propose


@dataclass(frozen=True)
class FlightMargins:
    """How far sampled views may leave a flight: metres around its outline, metres in height, degrees."""

    position: float = 10.0
    height: float = 5.0
    yaw_deg: float = 20.0
    tilt_deg: float = 5.0


def flight_proposal(cameras: list[Camera], margins: FlightMargins) -> Proposal:
    """Draws poses around a flight.

    Positions fill the convex outline of the cameras widened by the position margin, between their lowest and highest
    height widened by the height margin. The attitude is that of one of the cameras, turned about the vertical by up to
    the yaw margin and tilted about its own x and y axes by up to the tilt margin.
    """
    if not cameras:
        raise ValueError("no camera to sample around")
    poses_C44 = np.stack([camera.world_from_cam_44 for camera in cameras])
    centres_C3 = poses_C44[:, :3, 3]
    inside = _outline(centres_C3[:, :2], margins.position)
    low_3, high_3 = centres_C3.min(axis=0), centres_C3.max(axis=0)
    reach_3 = np.array([margins.position, margins.position, margins.height])

    def propose(count: int, rng: np.random.Generator) -> np.ndarray:
        unit = latin_hypercube(count, 7, rng)
        position_N3 = low_3 - reach_3 + unit[:, :3] * (high_3 - low_3 + 2 * reach_3)
        position_N3[~inside(position_N3[:, :2])] = np.nan
        chosen_N = (unit[:, 3] * len(cameras)).astype(int)
        yaw_N, tilts_N2 = (2 * unit[:, 4] - 1) * margins.yaw_deg, (2 * unit[:, 5:] - 1) * margins.tilt_deg
        turn_N33 = Rotation.from_euler("z", yaw_N[:, None], degrees=True).as_matrix()
        tilt_N33 = Rotation.from_euler("xy", tilts_N2, degrees=True).as_matrix()
        poses_N44 = np.tile(np.eye(4), (count, 1, 1))
        poses_N44[:, :3, :3] = turn_N33 @ poses_C44[chosen_N, :3, :3] @ tilt_N33
        poses_N44[:, :3, 3] = position_N3
        return poses_N44

    return propose


def _outline(xy_C2: np.ndarray, margin: float) -> Callable[[np.ndarray], np.ndarray]:
    """Test whether points [N, 2] lie within `margin` of the convex hull's edges' half planes."""
    try:
        planes = ConvexHull(xy_C2).equations
    except (QhullError, ValueError):
        # Fewer than three positions, or all on one line: the bounding box alone limits the draw.
        return lambda xy_N2: np.ones(len(xy_N2), bool)
    return lambda xy_N2: (xy_N2 @ planes[:, :2].T + planes[:, 2] <= margin).all(axis=1)


def sample_views(
    propose: Proposal,
    renderer: Renderer,
    K_33: np.ndarray,
    size: tuple[int, int],
    count: int,
    *,
    min_valid: float,
    seed: int,
) -> tuple[np.ndarray, int]:
    """Draws views until `count` of them look at the data.

    Args:
        size: width, height. min_valid: share of the cells that must see the surface where the orthophoto shows it.
    Returns:
        (poses [count, 4, 4], number of rejected draws). The same seed gives the same poses.
    Raises:
        ValueError: hardly any draw is acceptable.
    """
    rng = np.random.default_rng(seed)
    accepted, tries = [], 0
    with tqdm(total=count, desc="sampling views", unit="view") as bar:
        while len(accepted) < count:
            if tries >= max(_MIN_TRIES, _TRIES_PER_VIEW * count) or (tries >= _MIN_TRIES and not accepted):
                raise ValueError(
                    f"only {len(accepted)} of {tries} views stand {MIN_CLEARANCE:g} m or more above the surface "
                    f"and see it, with the orthophoto on it, in at least {min_valid:.0%} of their cells ({count} wanted): "
                    "check the ranges against the geodata"
                )
            batch = propose(count - len(accepted), rng)
            tries += len(batch)
            for pose_44 in batch:
                if is_acceptable(renderer, pose_44, K_33, size, min_valid):
                    accepted.append(pose_44)
                    bar.update()
            bar.set_postfix(rejected=tries - len(accepted))
    return np.stack(accepted), tries - len(accepted)


def is_acceptable(
    renderer: Renderer, pose_44: np.ndarray, K_33: np.ndarray, size: tuple[int, int], min_valid: float
) -> bool:
    """Whether a camera stands clear of the surface and sees it, with orthophoto, in at least min_valid of its cells."""
    if not np.isfinite(pose_44).all() or clearance(renderer.scene, pose_44) < MIN_CLEARANCE:
        return False
    sight = renderer.sight(pose_44, K_33, *size)
    return sight.picture >= min_valid and sight.underside <= _MAX_UNDERSIDE


def clearance(scene: GeoScene, pose_44: np.ndarray) -> float:
    """Height of a camera above the surface under it, metres; +inf where there is no surface."""
    ground = float(scene.height_at(pose_44[0, 3], pose_44[1, 3])[0])
    return pose_44[2, 3] - ground if np.isfinite(ground) else np.inf


def check_cameras(cameras: list[Camera], renderer: Renderer) -> None:
    """Raises ValueError naming a camera that is below the surface or sees none of it; warns where little is seen."""
    unpictured = []
    for camera in cameras:
        height = clearance(renderer.scene, camera.world_from_cam_44)
        where = f"camera {camera.stem} at {np.round(camera.world_from_cam_44[:3, 3], 2).tolist()}"
        if height <= 0:
            raise ValueError(f"{where} is {-height:.1f} m below the surface")
        sight = renderer.sight(camera.world_from_cam_44, camera.K_33, camera.width, camera.height)
        if sight.surface == 0:
            raise ValueError(
                f"{where} sees none of the surface model (world x, y from {_extent(renderer.scene)}): "
                "outside the terrain, looking away, or in another frame"
            )
        if sight.underside > _MAX_UNDERSIDE:
            raise ValueError(f"{where} sees the surface from below in {sight.underside:.0%} of its cells")
        if sight.surface < 0.5:
            log.warning("%s sees the surface in only %.0f %% of its cells", where, 100 * sight.surface)
        if sight.picture < 0.5 * sight.surface:
            unpictured.append(camera.stem)
    if unpictured:
        log.warning(
            "%d of %d cameras see mostly ground without orthophoto, rendered in made-up colour: %s%s",
            len(unpictured),
            len(cameras),
            ", ".join(unpictured[:5]),
            " ..." if len(unpictured) > 5 else "",
        )


def _extent(scene: GeoScene) -> str:
    left, bottom, right, top = scene.grid.bounds
    return f"({left:.1f}, {bottom:.1f}) to ({right:.1f}, {top:.1f})"
