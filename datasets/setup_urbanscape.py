#!/usr/bin/env python3
"""Makes the sections of urbanscape: `python setup_urbanscape.py --dataset_dir RAW --output_dir ./urbanscape`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datagen.benchmark.command import setup_main

if __name__ == "__main__":
    sys.exit(setup_main("urbanscape", __file__))
