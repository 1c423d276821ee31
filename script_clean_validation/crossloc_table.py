#!/usr/bin/env python3
"""What the stages of run_crossloc.sh came to: `crossloc_table.py OUTPUT_DIR/crossloc_SCENE_DOMAIN_SIZE`.

Prints a table and writes it as stages.csv and stages.json into that folder.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    from records.command import exit_status
    from training.curriculum import stages, text_table, write_table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where run_crossloc.sh keeps its commands and its journal")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(message)s")  # what selection passed over was said by selection

    def work() -> None:
        rows = stages(args.folder)
        write_table(args.folder, rows)
        print(text_table(rows))

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
