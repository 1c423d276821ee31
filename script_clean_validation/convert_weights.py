#!/usr/bin/env python3
"""Weights to safetensors or back, with their record: `convert_weights.py model.net model.safetensors`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    from records.command import exit_status
    from runs.convert import convert

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="weights file, .net or .safetensors")
    parser.add_argument("target", type=Path, help="file of the other kind")
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    args = parser.parse_args()

    def work() -> None:
        record = convert(args.source, args.target, overwrite=args.overwrite)
        print(f"{args.target}: {'without a record' if record is None else f'with the record of {record.name}'}")

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
