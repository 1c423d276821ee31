#!/usr/bin/env python3
"""Selects the best checkpoint by the results of test_single_task.py: `cd RUN_FOLDER && select_ckpt.py --task coord`."""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    from evaluation.checkpoints import keywords_as_options
    from evaluation.selection import result_folders, select_and_export
    from tasks import TASKS, task_named

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--task", required=True, help=f"one of {', '.join(sorted(TASKS))}")
    add("--section", default=None, help="the section whose results count (default: the last block of each file)")
    add("--search_dir", type=Path, default=None, help="select in every run folder below (default: in the current folder)")
    add("--keywords", nargs="+", action="extend", default=[], metavar="K", help="all must occur in the run folder's path")
    add("--export", default=None, metavar="PATH",
        help="copy the selected weights, with their training record, there; fields in braces ({scene} {task} "
        "{sim_chunk:.2f} {real_chunk:.2f} {real_domain} {partial} ...) are filled from the training record")
    args = parser.parse_args(keywords_as_options(sys.argv[1:], ("-h",)))
    try:
        task_named(args.task)
        folders = result_folders(args.search_dir, args.task, args.keywords) if args.search_dir else [Path.cwd()]
        select_and_export(folders, args.task, args.section, args.export, print)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
