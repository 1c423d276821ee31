"""The embedded demo scene: a procedural landscape, surveyed once and photographed later.

`python -m datagen demo` writes the geodata of two versions of the same place, simulated views of the first, and a
flight whose 'real' photos show the second. `datagen.demo.settings` holds every number.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from datagen.common_arguments import focal_length, positive, scene_name
from datagen.demo.settings import DemoSettings, FlightSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the demo's options to a parser of the datagen command."""
    demo, flight = DemoSettings(), FlightSettings()
    parser.add_argument(
        "--output_dir", type=Path, default=Path("datasets"), help="folder of the data sets (default: %(default)s)"
    )
    parser.add_argument(
        "--scene", type=scene_name, default=demo.scene, help="name of the scene's folder (default: %(default)s)"
    )
    parser.add_argument(
        "--num_images", type=positive, default=demo.num_images, help="simulated views (default: %(default)s)"
    )
    parser.add_argument(
        "--num_photos", type=positive, default=demo.num_photos, help="photos of the flight (default: %(default)s)"
    )
    parser.add_argument("--height", type=int, default=demo.height, help="image height, px (default: %(default)s)")
    parser.add_argument("--width", type=int, help="image width, px (default: 1.5 x height)")
    parser.add_argument("--focal", type=focal_length, help="focal length, px (default: the image height)")
    parser.add_argument(
        "--seed",
        type=int,
        default=demo.seed,
        help="another seed gives other fields, houses and hills (default: %(default)s)",
    )
    parser.add_argument(
        "--gap", type=float, default=demo.gap, help="strength of the sim-to-real gap, 0 for none (default: %(default)s)"
    )
    parser.add_argument("--flying_height", type=float, default=flight.height_m, help="metres (default: %(default)s)")
    parser.add_argument(
        "--headings", type=float, nargs="+", default=list(flight.headings_deg), metavar="DEG", help="of the flight lines"
    )
    parser.add_argument(
        "--pitches", type=float, nargs="+", default=list(flight.pitches_deg), metavar="DEG", help="-90 looks straight down"
    )
    parser.add_argument(
        "--span", type=float, default=flight.span, help="flown share of the scene's side (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, help="rendering threads (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what was made with other settings")


def settings_from(args: argparse.Namespace) -> DemoSettings:
    """The demo's settings for parsed options.

    Raises:
        ValueError: an option is out of its range.
    """
    limits = {"num_images": (2, 100_000), "num_photos": (4, 100_000), "height": (32, 8192), "gap": (0.0, 1.5),
              "flying_height": (30.0, 500.0), "span": (0.05, 0.9), "seed": (0, 2**32 - 1)}  # fmt: skip
    for name, (low, high) in limits.items():
        if not low <= getattr(args, name) <= high:
            raise ValueError(f"--{name} {getattr(args, name)}: choose a value from {low} to {high}")
    for pitch in args.pitches:
        if not -90.0 <= pitch <= -30.0:
            raise ValueError(f"--pitches {pitch:g}: choose values from -90 (straight down) to -30")
    width = args.width if args.width is not None else round(1.5 * args.height)
    if not 32 <= width <= 8192:
        raise ValueError(f"--width {width}: choose a value from 32 to 8192")
    flight = replace(
        FlightSettings(),
        height_m=args.flying_height,
        headings_deg=tuple(args.headings),
        pitches_deg=tuple(args.pitches),
        span=args.span,
    )
    return DemoSettings(
        scene=args.scene,
        seed=args.seed,
        num_images=args.num_images,
        num_photos=args.num_photos,
        width=width,
        height=args.height,
        focal_px=args.focal if args.focal is not None else float(args.height),
        gap=args.gap,
        flight=flight,
    )


def run(args: argparse.Namespace) -> None:
    """Makes the demo scene that the options ask for."""
    from datagen.demo.build import build_demo

    build_demo(settings_from(args), args.output_dir, workers=args.workers, overwrite=args.overwrite)
