#!/usr/bin/env python3
"""Evaluates single-task networks on sections: `python test_single_task.py SCENE --task coord --network_in FOLDER`."""

import argparse
import logging
import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from evaluation.checkpoints import keywords_as_options
    from evaluation.options import SHORT_FLAGS, add_arguments, options_from
    from evaluation.run import evaluate
    from training.device import choose_device

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args(keywords_as_options(sys.argv[1:], SHORT_FLAGS))
    try:
        evaluate(options_from(args), choose_device(args.device))
    except (ValueError, OSError) as error:
        print(f"error: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the reports of finished sections are kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
