#!/usr/bin/env python3
"""Where photos were taken: `python localize.py --network_in WEIGHTS --image PHOTO|FOLDER|VIDEO [--surface --ortho]`."""

import argparse
import logging
import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from localization.command import LocalizeOptions, localize
    from records.options import add_options, options_from
    from runs.messages import explained

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, LocalizeOptions)
    args = parser.parse_args()
    try:
        localize(options_from(LocalizeOptions, args))
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {explained(error, memory='try --device cpu', loader='')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
