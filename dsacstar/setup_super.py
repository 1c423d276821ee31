"""Builds and installs dsacstar, with the arguments of the published set-up script.

    python3 setup_super.py [--conda | --cv_path DIR]

Both arguments chose where to find OpenCV; the solver does not use it any more, so they are accepted and ignored.
Equivalent to `python3 -m pip install .` in this folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--conda", action="store_true", help="install into the active conda environment, as is the default")
    place.add_argument("--cv_path", metavar="DIR", help="no longer necessary: OpenCV is not used")
    arguments = parser.parse_args()
    if arguments.cv_path is not None:
        print("--cv_path is no longer necessary: the solver is built without OpenCV")
    return subprocess.call([sys.executable, "-m", "pip", "install", str(Path(__file__).resolve().parent)])


if __name__ == "__main__":
    sys.exit(main())
