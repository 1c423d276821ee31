"""The demo scene on disk: geodata of both versions of the world, simulated views, and the flight's real and sim pairs."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from datagen import provenance, sampling, sections, splits, staging
from datagen.cameras import Camera, centred_intrinsics
from datagen.demo.camera_effects import photograph
from datagen.demo.flight import lawn_mower, sim_presets
from datagen.demo.settings import DemoSettings, Season
from datagen.demo.world import GeodataPaths, make_world, write_world
from datagen.render import Renderer
from datagen.scene import GeoScene
from datagen.scene_geodata import geodata_record
from geometry.attitude import enu_from_camera
from records import files, fingerprint

log = logging.getLogger(__name__)

GEODATA, PRESETS = "geodata", "presets"
SURVEYED_NAME, FLOWN_NAME = "surveyed", "flown"
SIM_SECTIONS = {part: f"{part}_sim" for part in splits.LHS_SHARES}
PAIR_SECTIONS = {part: (f"{part}_drone_real", f"{part}_drone_sim") for part in splits.FLIGHT_SHARES}
_WAY_OUT = "--overwrite replaces them, --scene chooses another name"
# Streams of random numbers, apart from those of the world.
_FLIGHT_STREAM, _VIEW_STREAM, _PHOTO_STREAM = 101, 102, 103


def build_demo(settings: DemoSettings, output_dir: Path, *, workers: int = 1, overwrite: bool = False) -> Path:
    """Make whatever of the demo scene is not there yet.

    Args:
        output_dir: the data sets' folder; the scene becomes a folder in it.
        workers: rendering threads; the result does not depend on them.
        overwrite: replace what was made with other settings, which is an error otherwise.
    Returns:
        the scene's folder
    Raises:
        FileExistsError: sections or geodata with other settings are there.
    """
    scene_dir = Path(output_dir) / settings.scene
    paths = {}
    for name, season in ((SURVEYED_NAME, settings.surveyed), (FLOWN_NAME, settings.flown_season)):
        paths[name] = _geodata(settings, scene_dir / GEODATA, name, season, overwrite)
    surveyed = _open(paths[SURVEYED_NAME])
    ground = round(float(np.nanmedian(surveyed.heights_rc)) + surveyed.origin_xyz[2], 1)
    _write_sim_sections(settings, scene_dir, surveyed, paths[SURVEYED_NAME], ground, workers, overwrite)
    _write_pair_sections(settings, scene_dir, surveyed, paths, ground, workers, overwrite)
    return scene_dir


def _geodata(settings: DemoSettings, folder: Path, name: str, season: Season, overwrite: bool) -> GeodataPaths:
    """The three rasters of one version of the world, made unless they are there, unchanged, with the same settings."""
    paths = GeodataPaths.under(folder, name)
    record_path = folder / f"{name}.json"
    record = files.plain({"seed": settings.seed, "world": asdict(settings.world), "season": asdict(season)})
    if paths.exist() and record_path.is_file():
        if files.read_json(record_path, "geodata record") == {**record, "contents": _contents(paths)}:
            log.info("reusing %s", paths.surface.parent / f"{name}_*.tif")
            return paths
        if not overwrite:
            raise FileExistsError(f"{record_path}: made with other settings, or changed since ({_WAY_OUT})")
    log.info("making the %s world", name)
    folder.mkdir(parents=True, exist_ok=True)
    world = make_world(settings.world, season, settings.seed)
    record_path.unlink(missing_ok=True)
    write_world(world, settings.world, paths)
    files.write_json(record_path, {**record, "contents": _contents(paths)})
    return paths


def _contents(paths: GeodataPaths) -> dict[str, str]:
    return fingerprint.digests({path.name: path for path in (paths.surface, paths.ortho, paths.landcover)})


def _open(paths: GeodataPaths, origin_xyz: tuple[float, float, float] | None = None) -> GeoScene:
    return GeoScene.open(paths.surface, paths.ortho, paths.landcover, origin_xyz=origin_xyz)


def _inputs(**geodata: GeodataPaths) -> dict[str, dict]:
    """Fingerprints of the rasters that sections are made from."""
    inputs = provenance.Inputs()
    for name, paths in geodata.items():
        inputs.add_files(name, {path.name: path for path in (paths.surface, paths.ortho, paths.landcover)})
    return inputs.found


def _to_make(scene_dir: Path, names: list[str], settings: dict, inputs: dict[str, dict], overwrite: bool) -> bool:
    """Whether sections have to be made: False when all are there and would be the same, True when some are missing.

    Raises:
        FileExistsError: some are there, made otherwise, and must not be replaced.
    """
    staging.finish_interrupted(scene_dir)
    there = [name for name in names if (scene_dir / name).exists()]
    other = {name: provenance.differences(scene_dir / name, settings, inputs) for name in there}
    other = {name: found for name, found in other.items() if found}
    if other and not overwrite:
        name, found = next(iter(other.items()))
        raise FileExistsError(f"{scene_dir / name} was made {' and '.join(found)} ({_WAY_OUT})")
    if len(there) == len(names) and not other:
        log.info("reusing %s of %s", ", ".join(names), scene_dir)
        return False
    return True


def _cameras(settings: DemoSettings, prefix: str, poses: list[np.ndarray]) -> list[Camera]:
    K_33 = centred_intrinsics(settings.focal_px, settings.width, settings.height)
    return [Camera(f"{prefix}_{k:05d}", pose_44, K_33, settings.width, settings.height) for k, pose_44 in enumerate(poses)]


def _write_sim_sections(
    settings, scene_dir: Path, scene: GeoScene, geodata: GeodataPaths, ground: float, workers: int, overwrite: bool
) -> None:
    """train_sim and val_sim: Latin-hypercube views around the flight, one preset for each heading."""
    names = list(SIM_SECTIONS.values())
    presets = sim_presets(settings.flight, settings.views, settings.world, ground, settings.num_images)
    made_with = {
        "command": "demo",
        "seed": settings.seed,
        "size": [settings.width, settings.height],
        "focal_px": settings.focal_px,
        "surveyed": asdict(settings.surveyed),
        "world": asdict(settings.world),
        "min_valid": settings.views.min_valid,
        "presets": presets,
    }
    inputs = _inputs(**{SURVEYED_NAME: geodata})
    if not _to_make(scene_dir, names, made_with, inputs, overwrite):
        return
    renderer = Renderer(scene)
    cameras = _cameras(settings, "lhs", _sample_presets(settings, scene_dir / PRESETS, presets, renderer))
    parts = splits.split_stems([camera.stem for camera in cameras], splits.LHS_SHARES)
    # What is replaced here was made otherwise and may be, or is part of an incomplete set.
    with staging.new_sections(scene_dir, names, overwrite=True) as staged:
        for part, stems in parts.items():
            name = SIM_SECTIONS[part]
            chosen = [camera for camera in cameras if camera.stem in set(stems)]
            sections.write_section(
                staged[name], chosen, lambda camera: _render(renderer, camera), workers=workers, description=name
            )
            _write_record(staged, name, made_with, inputs, scene, len(stems))
        _write_scene_files(settings, staged, "lhs", parts, scene, _map_of(scene_dir, geodata))


def _sample_presets(settings, folder: Path, presets: list[dict], renderer: Renderer) -> list[np.ndarray]:
    """Writes the presets and draws their views."""
    folder.mkdir(parents=True, exist_ok=True)
    poses = []
    for k, preset in enumerate(presets):
        path = folder / f"lhs_{k}.json"
        files.write_json(path, preset)
        read = sampling.read_preset(path)
        drawn_N44, _ = sampling.sample_views(
            sampling.preset_proposal(read, renderer.scene),
            renderer,
            centred_intrinsics(settings.focal_px, settings.width, settings.height),
            (settings.width, settings.height),
            read.count,
            min_valid=settings.views.min_valid,
            seed=np.random.SeedSequence([settings.seed, _VIEW_STREAM, k]),
        )
        poses += list(drawn_N44)
    return poses


def _render(renderer: Renderer, camera: Camera):
    return renderer.render(camera.world_from_cam_44, camera.K_33, camera.width, camera.height)


def _flight_cameras(settings: DemoSettings, scene: GeoScene, ground: float) -> list[Camera]:
    rng = np.random.default_rng([settings.seed, _FLIGHT_STREAM])
    stations = lawn_mower(settings.flight, settings.world, ground, settings.num_photos, rng)
    poses = []
    for position_3, angles_3 in zip(stations.position_N3, stations.yaw_pitch_roll_N3):
        pose_44 = np.eye(4)
        pose_44[:3, :3], pose_44[:3, 3] = enu_from_camera(*angles_3), position_3
        poses.append(scene.to_world(pose_44))
    return _cameras(settings, "flight", poses)


def _write_pair_sections(
    settings,
    scene_dir: Path,
    surveyed: GeoScene,
    geodata: dict[str, GeodataPaths],
    ground: float,
    workers: int,
    overwrite: bool,
) -> None:
    """The flight's sections: sim shows the surveyed world, real photographs the flown one; both carry sim's labels."""
    names = [name for pair in PAIR_SECTIONS.values() for name in pair]
    made_with = {"command": "demo", "ground": ground, **asdict(replace(settings, num_images=0))}
    inputs = _inputs(**geodata)
    if not _to_make(scene_dir, names, made_with, inputs, overwrite):
        return
    sim = Renderer(surveyed)
    real = Renderer(_open(geodata[FLOWN_NAME], surveyed.origin_xyz))
    cameras = _flight_cameras(settings, surveyed, ground)
    number = {camera.stem: k for k, camera in enumerate(cameras)}
    parts = splits.split_stems([camera.stem for camera in cameras], splits.FLIGHT_SHARES)
    # What is replaced here was made otherwise and may be, or is part of an incomplete set.
    with staging.new_sections(scene_dir, names, overwrite=True) as staged:

        def write_pair(camera: Camera, real_name: str, sim_name: str) -> None:
            view = _render(sim, camera)
            rng = np.random.default_rng([settings.seed, _PHOTO_STREAM, number[camera.stem]])
            photo_HW3 = photograph(_render(real, camera).rgb_HW3, settings.effects, settings.gap, rng)
            sections.write_sample(staged[sim_name], camera, view)
            sections.write_sample(staged[real_name], camera, replace(view, rgb_HW3=photo_HW3))

        for part, stems in parts.items():
            pair = PAIR_SECTIONS[part]
            chosen = [camera for camera in cameras if camera.stem in set(stems)]
            sections.for_each(
                chosen, lambda camera, pair=pair: write_pair(camera, *pair), workers=workers, description=f"{part}_drone"
            )
            for name in pair:
                _write_record(staged, name, made_with, inputs, surveyed, len(stems))
        _write_scene_files(settings, staged, "drone", parts, surveyed, _map_of(scene_dir, geodata[SURVEYED_NAME]))


def _write_record(staged: staging.Staged, name: str, made_with: dict, inputs: dict, scene: GeoScene, images: int) -> None:
    frame, assumed = sections.frame_of(scene), provenance.assumed(scene)
    record = provenance.section_record(made_with, inputs, frame, assumptions=assumed, images=images)
    sections.write_section_record(staged[name], record)


def _map_of(scene_dir: Path, geodata: GeodataPaths) -> dict:
    return geodata_record(scene_dir, geodata.surface, geodata.ortho, provenance.Inputs())


def _write_scene_files(
    settings, staged: staging.Staged, kind: str, parts: dict[str, list[str]], scene: GeoScene, geodata: dict
) -> None:
    splits.write_split_record(staged[f"{settings.scene}_{kind}_split.txt"], parts)
    sections.write_scene_record(staged[sections.SCENE_RECORD], scene, geodata)
