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
from datagen.flights import converted_with_north
from datagen.mosaic import Mosaic
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
_WALK = ("nbSeq", "seqLen", "maxTransVel", "maxRotVel")
# In published presets, the project's folder.
_PROJECT = "PROJ_DIR/"

# Poses [n, 4, 4] in the world frame; NaN where a draw cannot be placed (no ground under it).
Proposal = Callable[[int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class WalkLimits:
    """Random walks instead of single views: their number and length, and the largest change from one view to the next.

    Attributes: translation: x, y, z, metres. rotation: yaw, pitch, roll, degrees.
    """

    count: int
    length: int
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float]


@dataclass(frozen=True)
class Preset:
    """Ranges of a sampling preset; angles in degrees, heights in metres.

    Attributes:
        count: views.
        horizontal: ranges of lon, lat (degrees, WGS 84) or x, y (metres in the scene's CRS), as `geographic` says.
        height_reference: 'ground' (above the surface model under the camera) or 'ellipsoid' (the vertical datum of the
            surface model).
        height_file: a terrain model that heights are above, instead; nearest cell. walk: None: single views.
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
    height_file: Path | None = None
    walk: WalkLimits | None = None


def read_preset(path: Path) -> Preset:
    """Reads a preset: JSON with nbImages (or nbSeq, seqLen and limits of random walks), heightReference and the ranges.

    The published form says no heightReference: heights are then ellipsoidal, or above the terrain model `heightRef`.

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
    known = {"nbImages", "heightReference", "heightRef", "lonRange", "latRange", "xRange", "yRange", *_RANGES, *_WALK}
    unknown = sorted(set(document) - known - {"name", "comment"})
    if unknown:
        raise ValueError(f"preset {path}: unknown entries {unknown}; known are {sorted(known)}")
    height_file = _height_file(document, path)
    published = has_lonlat and "heightReference" not in document
    reference = "ellipsoid" if published or height_file is not None else document.get("heightReference")
    if reference not in HEIGHT_REFERENCES:
        raise ValueError(f"preset {path}: heightReference is {reference!r}; choose from {list(HEIGHT_REFERENCES)}")
    walk = _walk_limits(document, path)
    count = _count(document, "nbImages", path) if walk is None else walk.count * walk.length
    names = ("lonRange", "latRange") if has_lonlat else ("xRange", "yRange")
    first, second, height, yaw, pitch, roll = (_range(document, name, path) for name in (*names, *_RANGES))
    return Preset(count, has_lonlat, (first, second), height, reference, yaw, pitch, roll, height_file, walk)


def _count(document: dict, name: str, path: Path) -> int:
    count = document.get(name)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"preset {path}: {name} must be a positive whole number, found {count!r}")
    return count


def _height_file(document: dict, path: Path) -> Path | None:
    """The terrain model of heightRef: as written, beside the preset, or below one of its folders for PROJ_DIR/."""
    stated = document.get("heightRef")
    if stated is None:
        return None
    if "heightReference" in document or not isinstance(stated, str) or not stated:
        raise ValueError(f"preset {path}: heightRef is the path of a terrain model, and stands instead of heightReference")
    inside = stated.removeprefix(_PROJECT)
    folders = path.resolve().parents if stated.startswith(_PROJECT) else [Path(), path.parent]
    found = next((folder / inside for folder in folders if (folder / inside).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"preset {path}: heightRef {stated}: no such file, looked in {', '.join(map(str, folders))}")
    return found


def _walk_limits(document: dict, path: Path) -> WalkLimits | None:
    given = [name for name in _WALK if name in document]
    if not given:
        return None
    if "nbImages" in document or len(given) < len(_WALK):
        raise ValueError(f"preset {path}: random walks take {', '.join(_WALK)}, all of them, and no nbImages")
    limits = []
    for name in _WALK[2:]:
        try:
            values = tuple(float(value) for value in document[name])
        except (TypeError, ValueError):
            values = ()
        if len(values) != 3 or not all(np.isfinite(value) and value > 0 for value in values):
            raise ValueError(f"preset {path}: {name} must be three positive numbers, found {document[name]!r}")
        limits.append(values)
    return WalkLimits(_count(document, "nbSeq", path), _count(document, "seqLen", path), *limits)


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

    ground = ground_under(preset, scene)

    def propose(count: int, rng: np.random.Generator) -> np.ndarray:
        ranges = np.array([*preset.horizontal, preset.height, preset.yaw, preset.pitch, preset.roll])
        values = ranges[:, 0] + latin_hypercube(count, 6, rng) * (ranges[:, 1] - ranges[:, 0])
        if preset.geographic:
            x_N, y_N = scene.lonlat_to_world(values[:, 0], values[:, 1])
        else:
            x_N, y_N = values[:, 0] - scene.origin_xyz[0], values[:, 1] - scene.origin_xyz[1]
        z_N = ground(x_N, y_N) + values[:, 2]
        poses_N44 = np.tile(np.eye(4), (count, 1, 1))
        poses_N44[:, :3, :3] = [enu_from_camera(*angles) for angles in values[:, 3:]]
        poses_N44[:, :3, 3] = np.stack((x_N, y_N, z_N), 1)
        return poses_N44

    return propose


def ground_under(preset: Preset, scene: GeoScene) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """World height [N] that a preset's heights are above, at world x, y; NaN where it is not known."""
    if preset.height_file is not None:
        return _terrain(preset.height_file, scene)
    if preset.height_reference == "ground":
        return scene.height_at
    return lambda x_N, y_N: np.full(len(x_N), -scene.origin_xyz[2])


def _terrain(path: Path, scene: GeoScene) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Heights of a terrain model's nearest cells, whatever its CRS; its vertical datum must be the surface model's."""
    with Mosaic.open(path, "heightRef") as mosaic:
        mosaic = mosaic.in_frame(scene.crs)
        crs, grid = mosaic.crs, mosaic.grid(mosaic.crs)
        heights_rc, _ = mosaic.heights(crs, grid)
        datum = mosaic.verticals(None)[0].datum
    if scene.assumptions is not None and datum != scene.assumptions.vertical.datum:
        log.warning(
            "heights above heightRef (%s) are added to heights above %s as they stand",
            datum or "datum not declared", scene.assumptions.vertical.datum or "an undeclared datum",
        )  # fmt: skip

    def ground(x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        xy_N2 = np.stack((np.asarray(x_N) + scene.origin_xyz[0], np.asarray(y_N) + scene.origin_xyz[1]), 1)
        if crs != scene.crs:
            xy_N2 = converted_with_north(xy_N2, scene.crs, crs)[0]
        c_N, r_N = (np.floor(a).astype(int) for a in (grid.columns(xy_N2[:, 0]), grid.rows_of(xy_N2[:, 1])))
        inside_N = (c_N >= 0) & (c_N < grid.cols) & (r_N >= 0) & (r_N < grid.rows)
        z_N = np.full(len(xy_N2), np.nan)
        z_N[inside_N] = heights_rc[r_N[inside_N], c_N[inside_N]]
        return z_N - scene.origin_xyz[2]

    return ground


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
