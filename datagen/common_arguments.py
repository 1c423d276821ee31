"""Arguments that the commands share, and what they build."""

from __future__ import annotations

import argparse
import logging
import os
import re
from pathlib import Path

import numpy as np

from datagen.large_scene import LargeScene, is_large
from datagen.mosaic import tile_paths
from datagen.scene import POINT_SPACING_M, GeoScene
from datagen.sections import check_frame, read_scene_record
from datagen.vertical import UNITS

log = logging.getLogger(__name__)

_SCENE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def scene_name(text: str) -> str:
    if not _SCENE_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain folder name (letters, digits, _ . -)")
    return text


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def focal_length(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a focal length in pixels")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def code_replacement(text: str) -> tuple[int, int]:
    old, _, new = text.partition("=")
    try:
        return int(old), int(new)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW with LAS codes") from None


class Tiles(argparse.Action):
    """Stores the files of a layer: one path as it is and several as a list; a folder stands for the GeoTIFFs in it."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            paths = tile_paths(values, option_string)
        except (ValueError, OSError) as error:
            raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, paths[0] if len(paths) == 1 else paths)


def add_scene_arguments(parser: argparse.ArgumentParser) -> None:
    """Geodata, scene name and output."""
    geodata = parser.add_argument_group("geodata (GeoTIFF, any CRS; each a file, a folder of tiles, or several of either)")
    geodata.add_argument("--surface", type=Path, nargs="+", action=Tiles, required=True, help="surface model")
    geodata.add_argument("--ortho", type=Path, nargs="+", action=Tiles, required=True, help="orthophoto, 8 bits per channel")
    geodata.add_argument(
        "--landcover",
        type=Path,
        nargs="+",
        action=Tiles,
        help="land cover, LAS codes, as rasters or as point clouds (LAS, LAZ); without it all ground is unclassified (1)",
    )
    geodata.add_argument(
        "--points",
        type=Path,
        nargs="+",
        action=Tiles,
        help="point clouds (LAS, LAZ) with what stands over the surface model: walls, overhangs, tree crowns",
    )
    geodata.add_argument(
        "--point_spacing",
        type=float,
        help=f"--points: side of the cubes that keep one point each, metres ({POINT_SPACING_M})",
    )
    geodata.add_argument(
        "--crs", help="CRS of files that declare none: EPSG:CODE, or local for a frame of its own in metres"
    )
    geodata.add_argument(
        "--height_unit",
        choices=UNITS,
        help="unit of the surface model's heights (default: what the file declares, else metres)",
    )
    geodata.add_argument(
        "--landcover_codes",
        type=code_replacement,
        nargs="+",
        default=[],
        metavar="OLD=NEW",
        help="replace land-cover codes, such as 5=3",
    )
    geodata.add_argument(
        "--origin",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="world origin in the CRS (default: the scene's recorded one, else the data's centre rounded to 100 m)",
    )
    add_output_arguments(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Where the sections go, and what happens to those that are there."""
    output = parser.add_argument_group("output: OUTPUT_DIR/SCENE/<section>/")
    output.add_argument("--scene", type=scene_name, required=True, help="name of the scene")
    output.add_argument("--output_dir", type=Path, required=True, help="folder of the data sets")
    output.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="threads")
    existing = output.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace sections that exist")
    existing.add_argument(
        "--resume",
        action="store_true",
        help="keep the sections when all of them exist and were made from the same inputs with the same settings",
    )
    return output


def open_scene(args: argparse.Namespace, scene_dir: Path) -> GeoScene | LargeScene:
    """The scene of the arguments, in the world frame that the scene folder already has."""
    record = read_scene_record(scene_dir) or {}
    origin_xyz = args.origin if args.origin is not None else record.get("origin_xyz")
    spacing_m = POINT_SPACING_M if args.point_spacing is None else args.point_spacing
    if not 0 < spacing_m < np.inf:
        raise ValueError(f"--point_spacing {spacing_m:g}: give metres")
    in_parts = is_large(args.surface, args.ortho, args.crs)
    clouds = {"points": args.points, "point_spacing": spacing_m} if args.points is not None else {}
    if in_parts and clouds:
        raise ValueError("--points: a scene larger than memory takes no point clouds; crop the layers")
    scene = (LargeScene if in_parts else GeoScene).open(
        args.surface,
        args.ortho,
        args.landcover,
        origin_xyz=origin_xyz,
        landcover_codes=dict(args.landcover_codes),
        declared_crs=args.crs,
        height_unit=args.height_unit,
        **clouds,
    )
    check_frame(record, scene, scene_dir)
    log.info("geodata: %s; origin %s", scene.assumptions, list(scene.origin_xyz))
    return scene
