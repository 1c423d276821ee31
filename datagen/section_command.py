"""Renders sections from geodata: views sampled from a preset or around a flight, or a list of camera poses."""

from __future__ import annotations

import argparse
import json
import logging
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from datagen import cameras as camera_files
from datagen import sampling, sections
from datagen.cameras import Camera
from datagen.common_arguments import (
    add_scene_arguments,
    focal_length,
    geodata_settings,
    open_scene,
    positive,
    scene_name,
    sections_to_make,
    share,
)
from datagen.render import Backdrop, Renderer, View
from datagen.scene import GeoScene

log = logging.getLogger(__name__)

_FULLSIZE_SUFFIX = "-fullsize"
_BACKDROPS = ("plain", "elsewhere")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_scene_arguments(parser)
    views = parser.add_argument_group("views")
    source = views.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--preset",
        type=Path,
        help="JSON: nbImages, lonRange and latRange or xRange and yRange, hRange, heightReference (ground or "
        "ellipsoid), yawRange, pitchRange, rollRange",
    )
    source.add_argument(
        "--around", type=Path, help="sample around a flight: a cameras.json or the folder of a COLMAP model"
    )
    source.add_argument(
        "--poses",
        type=Path,
        help="a cameras.json (poses in the CRS) or a folder of pose files (poses in the world frame, as in a section); "
        "the images are as given below",
    )
    views.add_argument(
        "--split", nargs="+", help="with --around: use only the training photos of this split (see `photos`)"
    )
    views.add_argument(
        "--position_margin",
        type=float,
        default=sampling.FlightMargins.position,
        help="--around: metres outside the flight's outline (%(default)s)",
    )
    views.add_argument(
        "--height_margin",
        type=float,
        default=sampling.FlightMargins.height,
        help="--around: metres below and above the flight (%(default)s)",
    )
    views.add_argument(
        "--yaw_margin",
        type=float,
        default=sampling.FlightMargins.yaw_deg,
        help="--around: degrees about the flight's headings, 180 for any (%(default)s)",
    )
    views.add_argument(
        "--tilt_margin",
        type=float,
        default=sampling.FlightMargins.tilt_deg,
        help="--around: degrees about the flight's tilts (%(default)s)",
    )
    views.add_argument(
        "--num_images", type=positive, help="number of views (default: the preset's nbImages, or 1000 around a flight)"
    )
    views.add_argument("--seed", type=int, default=sections.SPLIT_SEED, help="of the sampling (%(default)s)")
    views.add_argument(
        "--min_valid",
        type=share,
        default=0.6,
        help="sampled views whose cells see less of the surface are drawn again (%(default)s)",
    )
    image = parser.add_argument_group("image")
    image.add_argument("--width", type=positive, default=720)
    image.add_argument("--height", type=positive, default=480)
    image.add_argument("--focal", type=focal_length, default=480.0, help="focal length in pixels (%(default)s)")
    image.add_argument("--fullsize", action="store_true", help=f"labels at every pixel, in SCENE{_FULLSIZE_SUFFIX}")
    image.add_argument(
        "--backdrop",
        choices=_BACKDROPS,
        default=_BACKDROPS[0],
        help="what shows where the data end: the orthophoto's mean colour, or parts of it from elsewhere, different in "
        "every view, so that a network does not learn the border (%(default)s)",
    )
    parser.add_argument(
        "--section",
        type=scene_name,
        help="write one section of this name instead of train_sim (90 %%) and val_sim (10 %%)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Samples or reads the views, renders them, splits them, writes the sections."""
    scene_dir = args.output_dir / (args.scene + (_FULLSIZE_SUFFIX if args.fullsize else ""))
    names = [args.section] if args.section else [f"{part}_sim" for part in sections.LHS_SHARES]
    views = _read_views(args)
    settings = _settings(args, views)
    if not sections_to_make(args, scene_dir, dict.fromkeys(names, settings)):
        return
    scene = open_scene(args, scene_dir)
    renderer = Renderer(scene, label_stride=1) if args.fullsize else Renderer(scene)
    cameras, rejected = _cameras(args, renderer, views)
    record = scene_dir / f"{args.scene}_lhs_split.txt"
    parts = _parts(args, record, [camera.stem for camera in cameras])
    by_stem = {camera.stem: camera for camera in cameras}
    folder_of = {stem: name for name, stems in parts.items() for stem in stems}
    with sections.new_sections(scene_dir, names, overwrite=args.overwrite or args.resume) as staged:
        sections.for_each(
            [by_stem[stem] for stem in sorted(folder_of)],
            lambda camera: sections.write_sample(
                staged[folder_of[camera.stem]], camera, _render(args, renderer, camera)
            ),
            workers=args.workers,
            description=f"rendering {args.scene}",
            postfix={"rejected": rejected},
        )
        made = {**settings, "images": len(cameras), "rejected": rejected}
        sections.update_scene_record(scene_dir, scene, {name: made for name in names})
        if not args.section:
            sections.write_split_record(record, {name.removesuffix("_sim"): stems for name, stems in parts.items()})
    log.info("wrote %s", ", ".join(f"{scene_dir / name} ({len(stems)})" for name, stems in parts.items()))


def _render(args: argparse.Namespace, renderer: Renderer, camera: Camera) -> View:
    backdrop = None
    if args.backdrop == "elsewhere":
        backdrop = Backdrop.drawn(np.random.default_rng((args.seed, zlib.crc32(camera.stem.encode()))))
    return renderer.render(camera.world_from_cam_44, camera.K_33, camera.width, camera.height, backdrop)


def _settings(args: argparse.Namespace, views: sampling.Preset | list[Camera]) -> dict:
    """What determines the images, for the scene record and --resume."""
    kind = "preset" if args.preset else "around" if args.around else "poses"
    settings = {
        "command": "sections",
        "geodata": geodata_settings(args),
        "views": kind,
        "view_source": getattr(args, kind).name,
        "num_images": args.num_images,
        "seed": args.seed,
        "min_valid": args.min_valid,
        "width": args.width,
        "height": args.height,
        "focal": args.focal,
        "backdrop": args.backdrop,
    }
    if args.preset:
        settings["preset"] = json.loads(args.preset.read_text())
    else:
        settings["cameras"] = [camera.stem for camera in views]
    if args.around:
        settings["margins"] = asdict(_margins(args))
    return settings


def _margins(args: argparse.Namespace) -> sampling.FlightMargins:
    return sampling.FlightMargins(args.position_margin, args.height_margin, args.yaw_margin, args.tilt_margin)


def _read_views(args: argparse.Namespace) -> sampling.Preset | list[Camera]:
    """Reads the small inputs first, so that their mistakes show before the geodata load: a preset or cameras."""
    if args.preset is not None:
        return sampling.read_preset(args.preset)
    if args.around is not None:
        return _flight(args)
    if args.poses.is_dir():
        K_33 = camera_files.centred_intrinsics(args.focal, args.width, args.height)
        return camera_files.read_pose_folder(args.poses, K_33, args.width, args.height)
    return camera_files.read_cameras_json(args.poses)


def _flight(args: argparse.Namespace) -> list[Camera]:
    flight = (
        camera_files.read_colmap(args.around) if args.around.is_dir() else camera_files.read_cameras_json(args.around)
    )
    if not args.split:
        return flight
    training = set(sections.read_split(args.split, [camera.stem for camera in flight])["train"])
    return [camera for camera in flight if camera.stem in training]


def _cameras(args: argparse.Namespace, renderer: Renderer, views) -> tuple[list[Camera], int]:
    """Cameras to render, in the world frame, and the number of rejected draws."""
    K_33 = camera_files.centred_intrinsics(args.focal, args.width, args.height)
    if args.poses is not None:
        if args.poses.is_file():
            views = [
                replace(camera, world_from_cam_44=renderer.scene.to_world(camera.world_from_cam_44)) for camera in views
            ]
        views = [replace(camera, K_33=K_33, width=args.width, height=args.height, distortion=()) for camera in views]
        sampling.check_cameras(views, renderer)
        return views, 0
    propose, count = _proposal(args, renderer.scene, views)
    poses_N44, rejected = sampling.sample_views(
        propose, renderer, K_33, (args.width, args.height), count, min_valid=args.min_valid, seed=args.seed
    )
    return [
        Camera(f"{args.scene}_{k:05d}", pose, K_33, args.width, args.height) for k, pose in enumerate(poses_N44)
    ], rejected


def _proposal(args: argparse.Namespace, scene: GeoScene, views) -> tuple[sampling.Proposal, int]:
    if args.preset is not None:
        return sampling.preset_proposal(views, scene), args.num_images or views.count
    flight = [replace(camera, world_from_cam_44=scene.to_world(camera.world_from_cam_44)) for camera in views]
    return sampling.flight_proposal(flight, _margins(args)), args.num_images or 1000


def _parts(args: argparse.Namespace, record: Path, stems: list[str]) -> dict[str, list[str]]:
    if args.section:
        return {args.section: stems}
    parts = (
        sections.split_stems(stems, sections.LHS_SHARES)
        if args.overwrite
        else sections.obeyed_split(record, stems, sections.LHS_SHARES)
    )
    return {f"{part}_sim": names for part, names in parts.items()}
