"""Photos with poses, from whichever program's files: the options that name them, and the flight that they give."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from datagen import nerfstudio, opendronemap, photo_metadata, pose_lists
from datagen.cameras import Camera, centred_intrinsics, intrinsics, read_cameras_json, read_colmap, unique_stems
from datagen.common_arguments import focal_length
from datagen.flights import Flight
from datagen.photos import find_photo

log = logging.getLogger(__name__)

SOURCES = ("cameras", "colmap", "nerfstudio", "odm", "geo_txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of which exactly one says where the poses are, and those about the photos."""
    group = parser.add_argument_group("photos with poses")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--cameras", type=Path, help="cameras.json: poses in the surface model's CRS")
    source.add_argument("--colmap", type=Path, help="folder of a COLMAP model (text or binary) in the surface model's CRS")
    source.add_argument("--nerfstudio", type=Path, help="transforms.json of a model in the surface model's CRS")
    source.add_argument("--odm", type=Path, help="OpenDroneMap project: shots.geojson and cameras.json, any CRS")
    source.add_argument(
        "--geo_txt",
        type=Path,
        help="photos with x y z yaw pitch roll: geo.txt, or a CSV with column names (yaw from north, pitch -90 down)",
    )
    group.add_argument(
        "--photos",
        type=Path,
        help="folder of the photos (default: that of --cameras, --nerfstudio, --geo_txt; ODM's images/)",
    )
    group.add_argument(
        "--intrinsics",
        type=focal_length,
        nargs="+",
        metavar="F",
        help="--geo_txt: focal length in pixels, or fx fy cx cy (default: what EXIF or XMP say)",
    )


def photo_folder(args: argparse.Namespace) -> Path:
    """The photos' folder; NotADirectoryError when it is none."""
    if args.photos is not None:
        folder = args.photos
    elif args.colmap is not None:
        raise ValueError("--colmap needs --photos, the folder of the photos")
    elif args.odm is not None:
        folder = args.odm / "images"
    else:
        folder = (args.cameras or args.nerfstudio or args.geo_txt).parent
    if not folder.is_dir():
        raise NotADirectoryError(f"photo folder {folder}: no such folder")
    return folder


def read_flight(args: argparse.Namespace, folder: Path) -> Flight:
    """The flight of whichever source is given; see the readers for what they raise."""
    if args.intrinsics and args.geo_txt is None:
        raise ValueError("--intrinsics is for --geo_txt; the other sources hold calibrations")
    if args.cameras is not None:
        return Flight(read_cameras_json(args.cameras))
    if args.colmap is not None:
        return Flight(read_colmap(args.colmap))
    if args.nerfstudio is not None:
        return Flight(nerfstudio.read_transforms(args.nerfstudio))
    if args.odm is not None:
        return opendronemap.read_project(args.odm, lambda file: find_photo(folder, file))
    return _listed_flight(args, folder)


def _listed_flight(args: argparse.Namespace, folder: Path) -> Flight:
    listed = pose_lists.read_pose_list(args.geo_txt)
    stems = unique_stems(listed.names)
    cameras = [
        camera_of_photo(find_photo(folder, name), stem, name, args.intrinsics)
        for name, stem in zip(listed.names, stems, strict=True)
    ]
    return listed.flight(cameras)


def camera_of_photo(path: Path, stem: str, file: str, given: list[float] | None) -> Camera:
    """A photo's camera without its pose: intrinsics as given, else as its metadata say; no distortion.

    Args:
        given: focal length, or fx fy cx cy, pixels.
    Raises:
        ValueError: wrong count, or the photo does not tell its focal length.
    """
    metadata = photo_metadata.read_metadata(path)
    width, height = metadata.width, metadata.height
    if given is not None:
        if len(given) not in (1, 4):
            raise ValueError(f"--intrinsics takes a focal length, or fx fy cx cy, not {len(given)} numbers")
        K_33 = centred_intrinsics(given[0], width, height) if len(given) == 1 else intrinsics(*given)
    elif metadata.focal_px is None:
        raise ValueError(f"photo {path} does not tell its focal length (EXIF, XMP): give --intrinsics")
    else:
        log.info("%s: f = %.1f px from %s, no distortion assumed", file, metadata.focal_px, metadata.focal_source)
        K_33 = centred_intrinsics(metadata.focal_px, width, height)
    return Camera(stem, np.eye(4), K_33, width, height, None, file)
