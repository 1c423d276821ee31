#!/usr/bin/env python3
"""Draws trainings and evaluations side by side.

    python visualize.py output --keywords demo coord          loss, valid rate and task error of all runs that fit
    python visualize.py RUN_FOLDER output.log ...             of these; logs of the published system too
    python visualize.py weights-clean --section test_drone_real   cumulative errors of the evaluations on a section
    python visualize.py SECTION_WEIGHTS.net_task_coord.csv ...    of these

Pictures get the published names (training_info_*_by_*.png, results_info.png); a table goes to the terminal.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from records.command import exit_status
from threads import configure_threads

ENDINGS = ("png", "svg")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "paths", type=Path, nargs="+", help="folders, logs (output.log, training_log.csv) or tables of images"
    )
    parser.add_argument("--section", nargs="+", default=[], metavar="S", help="in folders: draw the evaluations on these")
    parser.add_argument(
        "--smooth", type=int, default=125, help="steps of the moving average, a tenth of the run at most (125)"
    )
    parser.add_argument("--output_dir", type=Path, default=Path(), help="where the pictures go (the current folder)")
    parser.add_argument("--format", choices=ENDINGS, default="png", help="of the pictures (png)")
    return parser


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows under their keys; what is not known is empty."""
    import pandas as pd

    return pd.DataFrame(list(rows)).to_string(index=False, na_rep="", float_format=lambda value: f"{value:.3f}")


def visualize(words: Sequence[str]) -> None:
    """Reads, draws and prints what the command line names.

    Raises:
        FileNotFoundError, ValueError: nothing to draw, or a file that is none; names it.
    """
    from evaluation.error_curves import draw_errors, errors_table, find_tables, is_table, read_errors
    from evaluation.options import without_keywords
    from training.curves import curves_table, draw_curves, find_logs, read_curves

    # Before the keywords, which may look like flags, paths end at the first flag.
    others, keywords = without_keywords(words, ("-h",))
    args = arguments().parse_args(others)
    if args.smooth < 1:
        raise ValueError(f"--smooth must be at least 1, got {args.smooth}")
    tables = [p for p in args.paths if p.is_file() and is_table(p)]
    runs = [p for p in args.paths if p not in tables]
    if args.section:
        tables += [table for path in runs for table in find_tables(path, args.section)]
        runs = []
    curves = read_curves(log for path in runs for log in find_logs(path, keywords))
    results = read_errors(tables)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    written = []
    if curves:
        written += draw_curves(curves, args.output_dir, ending=args.format, window=args.smooth)
        print(text_table(curves_table(curves, args.smooth)))
    if results:
        written += draw_errors(results, args.output_dir, ending=args.format)
        for task in dict.fromkeys(result.task for result in results):
            print(text_table(errors_table([result for result in results if result.task == task])))
    print(f"drawn: {', '.join(map(str, written))}")


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    return exit_status(lambda: visualize(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
