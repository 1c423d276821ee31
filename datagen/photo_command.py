"""Turns photos with known cameras into *_drone_real sections and their rendered *_drone_sim pairs."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

from datagen import photo_sources, photos, provenance, sampling, sections, splits, spread
from datagen.cameras import Camera
from datagen.common_arguments import add_scene_arguments, open_scene
from datagen.orthophoto import photos_in
from datagen.scene_geodata import geodata_record
from datagen.written import check_written

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_scene_arguments(parser)
    photo_sources.add_arguments(parser)
    inputs = parser.add_argument_group("images and split")
    inputs.add_argument(
        "--height",
        type=int,
        default=480,
        help="shorter side of the stored images in pixels, 0 for the photos' own (%(default)s)",
    )
    inputs.add_argument(
        "--split",
        nargs="+",
        help='a JSON file {"train": [...], "val": [...], "test": [...]}, or train=A,B val=C test=D,E with photo names; '
        "default: 40 / 10 / 50 %% at random (recorded, and obeyed when recorded)",
    )
    spread.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Reads the photos, renders their pairs, writes both."""
    if args.height < 0:
        raise ValueError(f"--height {args.height}: give a number of pixels, or 0 for the photos' own size")
    scene_dir = args.output_dir / args.scene
    folder = photo_sources.photo_folder(args)
    flight = photo_sources.read_flight(args, folder)
    cameras = flight.cameras
    paths = photos.find_photos(folder, cameras)
    record = splits.flight_split_record(scene_dir, args.scene)
    parts = _split(args, record, cameras)
    names = [f"{part}_drone_{domain}" for part in parts for domain in ("real", "sim")]
    made_with = provenance.settings_of(args) | ({} if flight.crs is None else {"pose_crs": flight.crs.to_wkt()})
    settings = {name: {**made_with, "stems": parts[name.split("_")[0]]} for name in names}
    inputs = provenance.inputs_of(args, scene_dir, cameras, paths)
    if not provenance.sections_to_make(args, scene_dir, settings, inputs.found):
        return
    photos.check_photos(cameras, paths)
    refuse_test_photos_in_orthophoto(args.ortho, parts)
    scene = open_scene(args, scene_dir)
    renderer = spread.renderer_of(scene)
    cameras = [
        replace(camera, world_from_cam_44=scene.to_world(camera.world_from_cam_44)) for camera in flight.in_crs(scene.crs)
    ]
    sampling.check_cameras([photos.pinhole_camera(camera) for camera in cameras], renderer)
    part_of = {stem: part for part, stems in parts.items() for stem in stems}
    items = [(camera, part_of[camera.stem], paths[camera.stem].resolve()) for camera in cameras]
    with spread.rendered_sections(
        args,
        scene_dir,
        names,
        items,
        partial(_write_pair, spread.SceneSource.of(args, renderer), args.height),
        made_from={"settings": settings, "inputs": inputs.found, "frame": sections.frame_of(scene)},
        description=f"photos of {args.scene}",
    ) as staged:
        if staged is None:
            return
        inputs.check_unchanged()
        frame, assumed = sections.frame_of(scene), provenance.assumed(scene)
        for name in names:
            count = len(settings[name]["stems"])
            made = provenance.section_record(settings[name], inputs.found, frame, assumptions=assumed, images=count)
            sections.write_section_record(staged[name], made)
        geodata = geodata_record(scene_dir, args.surface, args.ortho, inputs, args.height_unit)
        sections.write_scene_record(staged[sections.SCENE_RECORD], scene, geodata)
        splits.write_split_record(staged[record.name], parts)
    log.info("wrote %s", ", ".join(f"{scene_dir / name} ({len(parts[name.split('_')[0]])})" for name in names))
    _warn_of_views_around_held_out(scene_dir, parts)
    check_written(scene_dir, names)


def refuse_test_photos_in_orthophoto(ortho: Path | list[Path], parts: dict[str, list[str]]) -> None:
    """Raises ValueError when an orthophoto says that it was made of photos that are for testing."""
    test = set(parts.get("test", ()))
    for path in ortho if isinstance(ortho, list) else [ortho]:
        both = sorted(test & photos_in(path))
        if both:
            raise ValueError(
                f"orthophoto {path} holds pixels of {len(both)} test photos (such as {both[0]}): make it again without "
                "them (python -m datagen from_photos), or keep the split that it was made with"
            )


def _warn_of_views_around_held_out(scene_dir: Path, parts: dict[str, list[str]]) -> None:
    held_out = {stem for part, stems in parts.items() if part != "train" for stem in stems}
    for section_dir in sorted(scene_dir.glob("train*_sim")):
        around = (sections.read_section_record(section_dir) or {}).get("inputs", {}).get("around", {})
        seen = sorted(held_out & set(around.get("stems", ())))
        if seen:
            log.warning(
                "%s was drawn around %d photos that are held out now (such as %s): make it again with --overwrite",
                section_dir, len(seen), seen[0],
            )  # fmt: skip


def _write_pair(source: spread.SceneSource, shorter_side: int, folder: Path, item: tuple[Camera, str, Path]) -> None:
    """Writes a photo and its render, both with the render's labels, into the two sections of its part."""
    camera, part, path = item
    photo_HW3, pinhole = photos.undistorted(photos.read_photo(path, camera), camera)
    stored = photos.resized_camera(pinhole, shorter_side)
    view = source.renderer.render(stored.world_from_cam_44, stored.K_33, stored.width, stored.height)
    real = replace(view, rgb_HW3=photos.area_resized(photo_HW3, stored.width, stored.height))
    sections.write_sample(folder / f"{part}_drone_sim", stored, view)
    sections.write_sample(folder / f"{part}_drone_real", stored, real)


def _split(args: argparse.Namespace, record: Path, cameras: list[Camera]) -> dict[str, list[str]]:
    stems = [camera.stem for camera in cameras]
    if args.split:
        parts = splits.read_split(args.split, stems, {camera.stem: camera.file for camera in cameras})
        if record.is_file() and not args.overwrite and _recorded(record) != parts:
            raise ValueError(f"--split differs from the split record {record}; --overwrite replaces it")
    else:
        parts = splits.obeyed_split(record, stems, splits.FLIGHT_SHARES, redraw=args.overwrite)
    missing = [part for part in splits.SPLITS if part not in parts]
    if missing:
        log.info("the split leaves %s empty: no such sections are made", " and ".join(missing))
    return parts


def _recorded(record: Path) -> dict[str, list[str]]:
    return {part: stems for part, stems in splits.read_split_record(record).items() if stems}
