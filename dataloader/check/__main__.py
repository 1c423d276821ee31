"""`python -m dataloader.check DIR`: exit status 0 without errors, 1 with, 2 when there is nothing to check."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from threads import configure_threads


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m dataloader.check", description="What is wrong with a prepared data set?"
    )
    parser.add_argument("folder", type=Path, help="a scene's folder, or one section")
    parser.add_argument("--sections", nargs="+", help="only these sections of the scene")
    parser.add_argument("--limit", type=int, help="look at so many samples of each section, evenly spread")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything that was found; - is the standard output"
    )
    parser.add_argument("--map", type=Path, metavar="PICTURE", help="draw which ground training and held-out images see")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors in the exit status")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Checks, reports, and says by the exit status whether all is well."""
    cores = configure_threads()
    args = build_parser().parse_args(arguments)
    from dataloader.check.coverage import draw
    from dataloader.check.run import check_data
    from records.command import exit_status
    from records.files import check_writable, plain, write_json

    to_stdout = args.json is not None and str(args.json) == "-"

    def work() -> int:
        for name in ("limit", "workers"):
            if (value := getattr(args, name)) is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
        files = [file for file in (args.map, None if to_stdout else args.json) if file is not None]
        for file in files:
            check_writable(file.parent, file.name)
        report = check_data(args.folder, names=args.sections, limit=args.limit, workers=args.workers or cores)
        # First of all what was found: what happens to the files must not lose it.
        print(json.dumps(plain(report.as_json()), indent=1) if to_stdout else report.as_text())
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        if args.json is not None and not to_stdout:
            write_json(args.json, report.as_json())
        if args.map is not None:
            if report.coverage is None:
                raise ValueError("--map: there is no training section with scene coordinates to draw")
            draw(report.coverage, args.map)
        return 1 if report.errors or (args.strict and report.findings) else 0

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
