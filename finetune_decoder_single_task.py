#!/usr/bin/env python3
"""Trains a network of several trained encoders: `finetune_decoder_single_task.py SCENE --task coord --encoders ...`."""

import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from training.command import run_command
    from training.options import add_decoder_arguments, decoder_options_from

    return run_command(__doc__, add_decoder_arguments, decoder_options_from)


if __name__ == "__main__":
    sys.exit(main())
