"""Renders sections from geodata: views sampled from a preset or around a flight, or a list of camera poses."""

from __future__ import annotations

import argparse
import logging
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from datagen import cameras as camera_files
from datagen import held_out, pose_lists, provenance, random_walk, sampling, sections, splits, spread
from datagen.cameras import Camera
from datagen.common_arguments import (
    add_scene_arguments,
    focal_length,
    open_scene,
    positive,
    scene_name,
    share,
)
from datagen.flights import Flight, flown_again, raised
from datagen.render import Backdrop, Renderer
from datagen.scene_geodata import geodata_record
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
        "ellipsoid), yawRange, pitchRange, rollRange; TOPO-DataGen's own form too (heightRef, random walks)",
    )
    source.add_argument("--around", type=Path, help="sample around a flight: a cameras.json or the folder of a COLMAP model")
    source.add_argument(
        "--poses",
        type=Path,
        help="a cameras.json (poses in the CRS), a folder of pose files (poses in the world frame, as in a section), or a "
        "list: CSV with lon lat (or x y) height yaw pitch roll, geo.txt, earth-centred .npy; the images are as given below",
    )
    source.add_argument(
        "--flight", type=Path, help="folder of drone photos that are flown again, by their EXIF position and XMP attitude"
    )
    views.add_argument(
        "--height_offset",
        type=float,
        help="--poses, --flight: metres added to the heights, such as the step between two vertical datums",
    )
    views.add_argument(
        "--split",
        nargs="+",
        help="with --around, --flight: use only the training photos of this split (default: the one that `photos` recorded)",
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
    views.add_argument("--seed", type=int, default=splits.SPLIT_SEED, help="of the sampling (%(default)s)")
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
    spread.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Samples or reads the views, renders them, splits them, writes the sections."""
    if len(args.focal) > 2:
        raise ValueError(f"--focal takes one or two numbers, not {len(args.focal)}")
    if args.split and not (args.around or args.flight):
        raise ValueError("--split is for --around and --flight")
    if args.height_offset and not (args.poses or args.flight):
        raise ValueError("--height_offset is for --poses and --flight")
    scene_dir = args.output_dir / (args.scene + (_FULLSIZE_SUFFIX if args.fullsize else ""))
    names = [args.section] if args.section else [f"{part}_sim" for part in splits.LHS_SHARES]
    views = _read_views(args)
    settings = provenance.settings_of(args)
    if isinstance(views, Flight) and views.crs is not None:
        settings["pose_crs"] = views.crs.to_wkt()
    inputs = provenance.inputs_of(args, scene_dir, [] if args.preset else _listed(views), {})
    if args.preset and views.height_file is not None:
        inputs.add_raster("heightRef", [views.height_file])
    if not provenance.sections_to_make(args, scene_dir, dict.fromkeys(names, settings), inputs.found):
        return
    scene = open_scene(args, scene_dir)
    renderer = spread.renderer_of(scene, 1) if args.fullsize else spread.renderer_of(scene)
    cameras, rejected = _cameras(args, renderer, views)
    record = scene_dir / f"{args.scene}_lhs_split.txt"
    parts = _parts(args, record, [camera.stem for camera in cameras])
    by_stem = {camera.stem: camera for camera in cameras}
    items = sorted(((by_stem[stem], name) for name, stems in parts.items() for stem in stems), key=lambda item: item[0].stem)
    write = partial(_write_view, spread.SceneSource.of(args, renderer), args.seed if args.backdrop == "elsewhere" else None)
    with spread.rendered_sections(
        args,
        scene_dir,
        names,
        items,
        write,
        made_from={"settings": settings, "inputs": inputs.found, "frame": sections.frame_of(scene)},
        description=f"rendering {args.scene}",
        postfix={"rejected": rejected},
    ) as staged:
        if staged is None:
            return
        inputs.check_unchanged()
        frame, assumed = sections.frame_of(scene), provenance.assumed(scene)
        for name, stems in parts.items():
            made = provenance.section_record(
                settings, inputs.found, frame, assumptions=assumed, images=len(stems), rejected=rejected
            )
            sections.write_section_record(staged[name], made)
        geodata = geodata_record(scene_dir, args.surface, args.ortho, inputs, args.height_unit)
        sections.write_scene_record(staged[sections.SCENE_RECORD], scene, geodata)
        if not args.section:
            lhs = {name.removesuffix("_sim"): stems for name, stems in parts.items()}
            splits.write_split_record(staged[record.name], lhs)
    log.info("wrote %s", ", ".join(f"{scene_dir / name} ({len(stems)})" for name, stems in parts.items()))
    check_written(scene_dir, list(parts))


def _write_view(source: spread.SceneSource, backdrop_seed: int | None, folder: Path, item: tuple[Camera, str]) -> None:
    """Renders a camera into a section of a folder; backdrops are drawn by seed and stem."""
    camera, section = item
    backdrop = None
    if backdrop_seed is not None:
        backdrop = Backdrop.drawn(np.random.default_rng((backdrop_seed, zlib.crc32(camera.stem.encode()))))
    view = source.renderer.render(camera.world_from_cam_44, camera.K_33, camera.width, camera.height, backdrop)
    sections.write_sample(folder / section, camera, view)


def _margins(args: argparse.Namespace) -> sampling.FlightMargins:
    return sampling.FlightMargins(args.position_margin, args.height_margin, args.yaw_margin, args.tilt_margin)


def _read_views(args: argparse.Namespace) -> sampling.Preset | Flight | list[Camera]:
    """Reads the small inputs first, so that their mistakes show before the geodata load.

    Returns:
        a preset, a flight in a CRS, or cameras in the world frame.
    """
    if args.preset is not None:
        preset = sampling.read_preset(args.preset)
        if preset.walk is not None and args.num_images:
            raise ValueError("--num_images is for single views; a preset of random walks says nbSeq and seqLen")
        return preset
    if args.around is not None:
        read = camera_files.read_colmap if args.around.is_dir() else camera_files.read_cameras_json
        return Flight(_for_training(args, read(args.around)))
    if args.flight is not None:
        flight = flown_again(args.flight)
        return raised(Flight(_for_training(args, flight.cameras), flight.crs), args.height_offset or 0.0)
    if args.poses.is_dir():
        cameras = camera_files.read_pose_folder(args.poses, _intrinsics(args), args.width, args.height)
        return raised(Flight(cameras), args.height_offset or 0.0).cameras
    if args.poses.suffix.lower() == ".json":
        return raised(Flight(camera_files.read_cameras_json(args.poses)), args.height_offset or 0.0)
    return raised(pose_lists.read_pose_list(args.poses).flight(), args.height_offset or 0.0)


def _for_training(args: argparse.Namespace, flight: list[Camera]) -> list[Camera]:
    return held_out.training_cameras(flight, args.split, args.output_dir / args.scene, args.scene, args.section)


def _listed(views: Flight | list[Camera]) -> list[Camera]:
    return views.cameras if isinstance(views, Flight) else views


def _intrinsics(args: argparse.Namespace) -> np.ndarray:
    return camera_files.intrinsics(args.focal[0], args.focal[-1], args.width / 2, args.height / 2)


def _cameras(args: argparse.Namespace, renderer: Renderer, views) -> tuple[list[Camera], int]:
    """Cameras to render, in the world frame, and the number of rejected draws."""
    K_33 = _intrinsics(args)
    if isinstance(views, Flight):
        to_world = renderer.scene.to_world
        posed = views.in_crs(renderer.scene.crs)
        views = [replace(view, world_from_cam_44=to_world(view.world_from_cam_44)) for view in posed]
    if args.preset is None and held_out.is_for_training(args.section):
        held_out.refuse_held_out_poses(views, args.output_dir / args.scene)
    if args.poses is not None or args.flight is not None:
        views = [replace(view, K_33=K_33, width=args.width, height=args.height, lens=None) for view in views]
        sampling.check_cameras(views, renderer)
        return views, 0
    if args.preset is not None and views.walk is not None:
        return _walked(args, renderer, views, K_33)
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


def _walked(args: argparse.Namespace, renderer: Renderer, preset: sampling.Preset, K_33) -> tuple[list[Camera], int]:
    """The acceptable views of the random walks, and how many are not."""
    cameras, rejected, size = [], 0, (args.width, args.height)
    for k, poses_L44 in enumerate(random_walk.walks(preset, renderer.scene, args.seed)):
        for i, pose_44 in enumerate(poses_L44):
            if sampling.is_acceptable(renderer, pose_44, K_33, size, args.min_valid):
                cameras.append(Camera(f"{args.scene}_seq_{k:02d}_{i:04d}", pose_44, K_33, *size))
            else:
                rejected += 1
    if not cameras:
        raise ValueError(f"none of {rejected} views of the random walks sees the surface from above: check the ranges")
    if rejected:
        log.warning("%d of %d views of the random walks see too little of the data: left out", rejected,
                    rejected + len(cameras))  # fmt: skip
    return cameras, rejected


def _parts(args: argparse.Namespace, record: Path, stems: list[str]) -> dict[str, list[str]]:
    if args.section:
        return {args.section: stems}
    parts = splits.obeyed_split(record, stems, splits.LHS_SHARES, redraw=args.overwrite)
    if set(parts) != set(splits.LHS_SHARES):
        raise ValueError(f"split record {record} has the parts {', '.join(parts)}, not {', '.join(splits.LHS_SHARES)}")
    return {f"{part}_sim": names for part, names in parts.items()}
