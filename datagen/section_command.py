"""Renders sections from geodata: views sampled from a preset or around a flight, or a list of camera poses."""

from __future__ import annotations

import argparse
import logging
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from datagen import cameras as camera_files
from datagen import held_out, provenance, sampling, sections
from datagen.cameras import Camera
from datagen.common_arguments import (
    add_scene_arguments,
    focal_length,
    open_scene,
    positive,
    scene_name,
    share,
)
from datagen.render import Backdrop, Renderer, View
from datagen.written import check_written

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
    source.add_argument("--around", type=Path, help="sample around a flight: a cameras.json or the folder of a COLMAP model")
    source.add_argument(
        "--poses",
        type=Path,
        help="a cameras.json (poses in the CRS) or a folder of pose files (poses in the world frame, as in a section); "
        "the images are as given below",
    )
    views.add_argument(
        "--split",
        nargs="+",
        help="with --around: use only the training photos of this split (see `photos`; default: the one that it recorded)",
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
    image.add_argument(
        "--focal",
        type=focal_length,
        nargs="+",
        default=[480.0],
        metavar="F",
        help="focal length in pixels, or one for x and one for y (480)",
    )
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
    if len(args.focal) > 2:
        raise ValueError(f"--focal takes one or two numbers, not {len(args.focal)}")
    if args.split and not args.around:
        raise ValueError("--split is for --around")
    scene_dir = args.output_dir / (args.scene + (_FULLSIZE_SUFFIX if args.fullsize else ""))
    names = [args.section] if args.section else [f"{part}_sim" for part in sections.LHS_SHARES]
    views = _read_views(args)
    settings = provenance.settings_of(args)
    inputs = provenance.inputs_of(args, scene_dir, [] if args.preset else views, {})
    if not provenance.sections_to_make(args, scene_dir, dict.fromkeys(names, settings), inputs.found):
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
            lambda camera: sections.write_sample(staged[folder_of[camera.stem]], camera, _render(args, renderer, camera)),
            workers=args.workers,
            description=f"rendering {args.scene}",
            postfix={"rejected": rejected},
        )
        inputs.check_unchanged()
        for name, stems in parts.items():
            made = provenance.section_record(settings, inputs.found, scene, images=len(stems), rejected=rejected)
            sections.write_section_record(staged[name], made)
        sections.write_scene_record(staged[sections.SCENE_RECORD], scene)
        if not args.section:
            lhs = {name.removesuffix("_sim"): stems for name, stems in parts.items()}
            sections.write_split_record(staged[record.name], lhs)
    log.info("wrote %s", ", ".join(f"{scene_dir / name} ({len(stems)})" for name, stems in parts.items()))
    check_written([scene_dir / name for name in parts])


def _render(args: argparse.Namespace, renderer: Renderer, camera: Camera) -> View:
    backdrop = None
    if args.backdrop == "elsewhere":
        backdrop = Backdrop.drawn(np.random.default_rng((args.seed, zlib.crc32(camera.stem.encode()))))
    return renderer.render(camera.world_from_cam_44, camera.K_33, camera.width, camera.height, backdrop)


def _margins(args: argparse.Namespace) -> sampling.FlightMargins:
    return sampling.FlightMargins(args.position_margin, args.height_margin, args.yaw_margin, args.tilt_margin)


def _read_views(args: argparse.Namespace) -> sampling.Preset | list[Camera]:
    """Reads the small inputs first, so that their mistakes show before the geodata load: a preset or cameras."""
    if args.preset is not None:
        return sampling.read_preset(args.preset)
    if args.around is not None:
        return _flight(args)
    if args.poses.is_dir():
        return camera_files.read_pose_folder(args.poses, _intrinsics(args), args.width, args.height)
    return camera_files.read_cameras_json(args.poses)


def _flight(args: argparse.Namespace) -> list[Camera]:
    flight = camera_files.read_colmap(args.around) if args.around.is_dir() else camera_files.read_cameras_json(args.around)
    return held_out.training_cameras(flight, args.split, args.output_dir / args.scene, args.scene, args.section)


def _intrinsics(args: argparse.Namespace) -> np.ndarray:
    return camera_files.intrinsics(args.focal[0], args.focal[-1], args.width / 2, args.height / 2)


def _cameras(args: argparse.Namespace, renderer: Renderer, views) -> tuple[list[Camera], int]:
    """Cameras to render, in the world frame, and the number of rejected draws."""
    K_33, in_crs = _intrinsics(args), args.around is not None or (args.poses is not None and args.poses.is_file())
    if in_crs:
        views = [replace(view, world_from_cam_44=renderer.scene.to_world(view.world_from_cam_44)) for view in views]
    if args.preset is None and held_out.is_for_training(args.section):
        held_out.refuse_held_out_poses(views, args.output_dir / args.scene)
    if args.poses is not None:
        views = [replace(view, K_33=K_33, width=args.width, height=args.height, lens=None) for view in views]
        sampling.check_cameras(views, renderer)
        return views, 0
    if args.preset is not None:
        propose, count = sampling.preset_proposal(views, renderer.scene), args.num_images or views.count
    else:
        propose, count = sampling.flight_proposal(views, _margins(args)), args.num_images or 1000
    poses_N44, rejected = sampling.sample_views(
        propose, renderer, K_33, (args.width, args.height), count, min_valid=args.min_valid, seed=args.seed
    )
    return [
        Camera(f"{args.scene}_{k:05d}", pose, K_33, args.width, args.height) for k, pose in enumerate(poses_N44)
    ], rejected


def _parts(args: argparse.Namespace, record: Path, stems: list[str]) -> dict[str, list[str]]:
    if args.section:
        return {args.section: stems}
    parts = sections.obeyed_split(record, stems, sections.LHS_SHARES, redraw=args.overwrite)
    if set(parts) != set(sections.LHS_SHARES):
        raise ValueError(f"split record {record} has the parts {', '.join(parts)}, not {', '.join(sections.LHS_SHARES)}")
    return {f"{part}_sim": names for part, names in parts.items()}
