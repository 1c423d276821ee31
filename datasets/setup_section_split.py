#!/usr/bin/env python3
"""Makes chunks of a section: `python setup_section_split.py --section_dir urbanscape/train_drone_real`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datagen.benchmark.command import chunk_main

if __name__ == "__main__":
    sys.exit(chunk_main())
