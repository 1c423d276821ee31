"""A small raw data set in the benchmark's form, from the procedural landscape of the demo.

Latin-hypercube renders and flights (in place, out of place and, for naturescape, in winter): ECEF point maps, class maps,
poses as ECEF position and attitude, and JPG photos that are paired with renders by their names.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from datagen import sections
from datagen.benchmark.geocentric import SCENES, BenchmarkScene, ecef_points, raw_pose
from datagen.benchmark.labels import focal_px
from datagen.benchmark.raw import CLASSES, IMAGE, PHOTO, POINTS, POSES
from datagen.cameras import centred_intrinsics
from datagen.common_arguments import positive
from datagen.demo.camera_effects import photograph
from datagen.demo.flight import lawn_mower
from datagen.demo.settings import FLOWN, SURVEYED, CameraEffects, FlightSettings, Season, WorldSettings
from datagen.demo.world import GeodataPaths, make_world, write_world
from datagen.render import Renderer
from datagen.sampling import latin_hypercube
from datagen.scene import GeoScene
from geometry.attitude import enu_from_camera
from geometry.grid import NODATA

log = logging.getLogger(__name__)

WINTER = replace(
    FLOWN,
    autumn=1.0,
    sun_azimuth_deg=195.0,
    sun_elevation_deg=24.0,
    sun_tint=(0.94, 0.98, 1.08),
    growth=-0.3,
    shadow_strength=0.8,
)
# How far away the place of the out-of-place flight lies, metres east.
_ELSEWHERE_M = 1500.0
_WORLD = WorldSettings(texel_m=0.45, surface_factor=1)
_POINT_TYPES = ("float32", "float64")
_JPEG_QUALITY = 92
_ASPECT = 1.5
# Streams of random numbers, apart from those of the worlds.
_LHS_STREAM, _FLIGHT_STREAM, _PHOTO_STREAM = 201, 202, 203


@dataclass(frozen=True)
class LookalikeSettings:
    """What is made.

    Attributes:
        num_images: Latin-hypercube renders. num_photos: of each flight.
        height: of renders, pixels; 720 x 480 in the benchmark. photo_scale: size of photos over that of renders.
        points: type of the point maps; the benchmark's float32 rounds ECEF to half a metre.
    """

    scene: str
    num_images: int = 40
    num_photos: int = 20
    height: int = 480
    photo_scale: float = 1.0
    points: str = "float32"
    seed: int = 2021
    world: WorldSettings = field(default_factory=lambda: _WORLD)
    flight: FlightSettings = field(default_factory=FlightSettings)
    effects: CameraEffects = field(default_factory=CameraEffects)

    @property
    def width(self) -> int:
        """Of renders, pixels."""
        return round(_ASPECT * self.height)


@dataclass(frozen=True)
class _Place:
    """One landscape in the scene's east-north-up frame. Attributes: renderer: as surveyed. shift_3: of its own frame."""

    renderer: Renderer
    photographers: dict[str, Renderer]
    ground_m: float
    shift_3: np.ndarray


def build_lookalike(settings: LookalikeSettings, output_dir: Path, *, workers: int = 1) -> Path:
    """Writes `output_dir/<scene>`, a folder to give to `setup_<scene>.py --dataset_dir`.

    Raises:
        FileExistsError: it is already there.
    """
    folder = output_dir / settings.scene
    if folder.exists():
        raise FileExistsError(f"already there: {folder} (remove it, or choose another --output_dir)")
    output_dir.mkdir(parents=True, exist_ok=True)
    staged = output_dir / f".making-{uuid.uuid4().hex[:8]}"
    try:
        with tempfile.TemporaryDirectory() as geodata:
            _build(settings, staged, Path(geodata), workers)
        os.replace(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _build(settings: LookalikeSettings, folder: Path, geodata: Path, workers: int) -> None:
    seasons = {"flown": FLOWN} | ({"winter": WINTER} if settings.scene == "naturescape" else {})
    here = _place(settings, geodata, settings.seed, seasons, np.zeros(3))
    elsewhere = _place(settings, geodata, settings.seed + 1, {"flown": FLOWN}, np.array([_ELSEWHERE_M, 0.0, 0.0]))
    name = f"{settings.scene}-LHS"
    _write(settings, folder / name, name, here, _lhs_poses(settings, here), workers)
    flights = {"inplace": (here, "flown"), "outofplace": (elsewhere, "flown")}
    flights |= {"winter": (here, "winter")} if "winter" in seasons else {}
    for number, (kind, (place, season)) in enumerate(flights.items()):
        name = f"{settings.scene}-{kind}"
        poses = _flight_poses(settings, place, number)
        photos = [f"DJI_{number + 1}{k + 1:03d}" for k in range(len(poses))]
        sim_dir = folder / "matching" / kind / f"{name}-sim"
        _write(settings, sim_dir, name, place, poses, workers, photos)
        real_dir = sim_dir.with_name(f"{name}-real")
        _photograph(settings, real_dir, place.photographers[season], poses, photos, number, workers)


def _place(settings: LookalikeSettings, geodata: Path, seed: int, seasons: dict[str, Season], shift_3: np.ndarray) -> _Place:
    opened = {}
    for name, season in {"surveyed": SURVEYED, **seasons}.items():
        paths = GeodataPaths.under(geodata, f"{seed}_{name}")
        write_world(make_world(settings.world, season, seed), settings.world, paths)
        origin = opened["surveyed"].origin_xyz if opened else None
        opened[name] = GeoScene.open(paths.surface, paths.ortho, paths.landcover, origin_xyz=origin)
    surveyed = opened.pop("surveyed")
    return _Place(
        Renderer(surveyed, label_stride=1),
        {name: Renderer(scene) for name, scene in opened.items()},
        float(np.nanmedian(surveyed.heights_rc)),
        shift_3,
    )


def _lhs_poses(settings: LookalikeSettings, place: _Place) -> list[np.ndarray]:
    """Camera-to-world poses in the place's own frame; as in the benchmark, no view is drawn again."""
    rng = np.random.default_rng([settings.seed, _LHS_STREAM])
    half_m, height_m = 0.3 * settings.world.extent_m, settings.flight.height_m
    low = np.array([-half_m, -half_m, place.ground_m + 0.8 * height_m, -180.0, -90.0, -15.0])
    high = np.array([half_m, half_m, place.ground_m + 1.2 * height_m, 180.0, -50.0, 15.0])
    drawn_N6 = low + latin_hypercube(settings.num_images, 6, rng) * (high - low)
    return [_pose(drawn[:3], drawn[3:]) for drawn in drawn_N6]


def _flight_poses(settings: LookalikeSettings, place: _Place, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng([settings.seed, _FLIGHT_STREAM, number])
    scene = place.renderer.scene
    stations = lawn_mower(settings.flight, settings.world, place.ground_m + scene.origin_xyz[2], settings.num_photos, rng)
    return [
        _pose(position_3 - np.asarray(scene.origin_xyz), angles_3)
        for position_3, angles_3 in zip(stations.position_N3, stations.yaw_pitch_roll_N3)
    ]


def _pose(position_3: np.ndarray, yaw_pitch_roll_deg_3: np.ndarray) -> np.ndarray:
    pose_44 = np.eye(4)
    pose_44[:3, :3], pose_44[:3, 3] = enu_from_camera(*yaw_pitch_roll_deg_3), position_3
    return pose_44


def _write(
    settings: LookalikeSettings,
    folder: Path,
    name: str,
    place: _Place,
    poses: list[np.ndarray],
    workers: int,
    photos: list[str] | None = None,
) -> None:
    """Renders of a data set: images, points, classes, and the list of poses."""
    folder.mkdir(parents=True)
    scene = SCENES[settings.scene]
    shifted = [pose_44 + np.block([[np.zeros((4, 3)), np.append(place.shift_3, 0.0)[:, None]]]) for pose_44 in poses]
    np.save(folder / f"{name}{POSES}", np.stack([raw_pose(pose_44, scene) for pose_44 in shifted]))

    def render(k: int) -> None:
        stem = f"{name}_{k:05d}" + (f"_{photos[k]}" if photos else "")
        K_33 = centred_intrinsics(focal_px(settings.width), settings.width, settings.height)
        image_HW3 = place.renderer.render(poses[k], K_33, settings.width, settings.height).rgb_HW3
        cv2.imwrite(str(folder / f"{stem}{IMAGE}"), cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGRA))
        points_HW3, codes_HW = _picked(settings, place, scene, poses[k], K_33)
        np.save(folder / f"{stem}{POINTS}", points_HW3)
        np.save(folder / f"{stem}{CLASSES}", codes_HW)

    sections.for_each(list(range(len(poses))), render, workers=workers, description=name)


def _picked(
    settings: LookalikeSettings, place: _Place, scene: BenchmarkScene, pose_44: np.ndarray, K_33: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """ECEF points [H, W, 3] and classes [H, W], each through its pixel's upper left corner as in the benchmark."""
    corner_33 = K_33.copy()
    corner_33[:2, 2] += 0.5
    view = place.renderer.render(pose_44, corner_33, settings.width, settings.height)
    points_HW3 = ecef_points(view.coords_3hw.transpose(1, 2, 0).astype(np.float64) + place.shift_3, scene)
    points_HW3 = np.where(view.valid_hw[..., None], points_HW3, NODATA)
    return points_HW3.astype(settings.points), np.where(view.valid_hw, view.semantics_HW, 0).astype(np.uint8)


def _photograph(
    settings: LookalikeSettings,
    folder: Path,
    renderer: Renderer,
    poses: list[np.ndarray],
    photos: list[str],
    flight: int,
    workers: int,
) -> None:
    folder.mkdir(parents=True)
    width, height = (round(settings.photo_scale * size) for size in (settings.width, settings.height))
    K_33 = centred_intrinsics(focal_px(width), width, height)

    def photo(k: int) -> None:
        rng = np.random.default_rng([settings.seed, _PHOTO_STREAM, flight, k])
        image_HW3 = photograph(renderer.render(poses[k], K_33, width, height).rgb_HW3, settings.effects, 1.0, rng)
        path = folder / f"{photos[k]}{PHOTO}"
        cv2.imwrite(str(path), cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])

    sections.for_each(list(range(len(poses))), photo, workers=workers, description=folder.name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m datagen lookalike`."""
    default = LookalikeSettings("")
    parser.add_argument("--scene", choices=sorted(SCENES), required=True)
    parser.add_argument("--output_dir", type=Path, required=True, help="the raw data set becomes the folder SCENE in it")
    parser.add_argument("--num_images", type=positive, default=default.num_images, help="LHS renders (%(default)s)")
    parser.add_argument(
        "--num_photos", type=positive, default=default.num_photos, help="photos of each flight (%(default)s)"
    )
    parser.add_argument("--height", type=positive, default=default.height, help="of renders, px; 3:2 (%(default)s)")
    parser.add_argument("--photo_scale", type=float, default=default.photo_scale, help="photos over renders (%(default)s)")
    parser.add_argument("--points", choices=_POINT_TYPES, default=default.points, help="of the point maps (%(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the landscape and views (%(default)s)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="rendering threads (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Makes the raw look-alike that the options ask for."""
    names = ("scene", "num_images", "num_photos", "height", "photo_scale", "points", "seed")
    settings = LookalikeSettings(**{name: getattr(args, name) for name in names})
    log.info("wrote %s", build_lookalike(settings, args.output_dir, workers=args.workers))
