#!/usr/bin/env python3
"""Trains a network that fuses trained encoders: `python finetune_decoder_single_task.py SCENE --task coord --encoders ...`."""

import sys


def main() -> int:
    from training.command import run_command
    from training.options import add_decoder_arguments, decoder_options_from

    return run_command(__doc__, add_decoder_arguments, decoder_options_from)


if __name__ == "__main__":
    sys.exit(main())
