#!/usr/bin/env python3
"""Selects the best checkpoint by the results of test_single_task.py: `cd RUN_FOLDER && select_ckpt.py --task coord`."""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    from evaluation.checkpoints import IterationRange
    from evaluation.options import SelectionOptions, without_keywords
    from evaluation.selection import runs_with_results, select_and_export
    from records.command import exit_status
    from records.options import add_options, options_from

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, SelectionOptions)
    others, keywords = without_keywords(sys.argv[1:], ("-h",))
    args = parser.parse_args(others)
    args.keywords = keywords

    def work() -> None:
        options = options_from(SelectionOptions, args)
        folders = [Path.cwd()]
        if options.search_dir is not None:
            folders = [run.folder for run in runs_with_results(options.search_dir, options.task, options.criteria)]
        iterations = IterationRange(options.min_ckpt_iter, options.max_ckpt_iter)
        select_and_export(folders, options.task, options.section, options.export, print, iterations)

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
