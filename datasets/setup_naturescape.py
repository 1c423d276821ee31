#!/usr/bin/env python3
"""Makes the sections of naturescape: `python setup_naturescape.py --dataset_dir RAW --output_dir ./naturescape`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datagen.benchmark.command import setup_main

if __name__ == "__main__":
    sys.exit(setup_main("naturescape", __file__))
