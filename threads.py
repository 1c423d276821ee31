"""How many cores a command may use, and how: one thread per library call, several calls at once.

Threads that share one library call (OpenMP's, BLAS's) wait for each other at its end, thousands of times in a training
step. On idle cores they spin, which is quick; beside other jobs every wait lasts until the scheduler lets the last one
run, and a step takes ten times as long. Here every call runs on one thread and work is split above the calls (see
networks/lanes.py), where the parts meet twice in a step. That also makes results independent of the number of threads.

This module imports nothing but the standard library: libraries read their variables once, when they load.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

# A user who sets one of these means how many cores a command may use.
_WISHES = ("CROSSLOC_THREADS", "OMP_NUM_THREADS")
_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_CGROUP = Path("/sys/fs/cgroup")


@cache
def configure_threads() -> int:
    """Gives every library one thread and returns how many cores the command may use.

    Best called before numpy, torch and OpenCV are imported: torch and OpenCV can be told later, numpy's BLAS cannot.
    CROSSLOC_THREADS or OMP_NUM_THREADS wish for a number of cores; what is no number is no wish, as for OpenMP.
    """
    cores = _wished_cores() or available_cores()
    os.environ["CROSSLOC_THREADS"] = str(cores)  # what a child process finds when it asks
    for name in _LIBRARIES:
        os.environ[name] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    return cores


def _wished_cores() -> int | None:
    for name in _WISHES:
        # OMP_NUM_THREADS may list nested levels, "4,2": the first counts.
        first = os.environ.get(name, "").split(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            return int(first)
    return None


def available_cores() -> int:
    """Cores that this process may run on: its affinity, cut to a container's quota (at least 1)."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _container_quota(_CGROUP)
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def _container_quota(cgroup: Path) -> float | None:
    """The container's processor quota in cores (cgroup v2, then v1), or None where there is none."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    if not (quota.isdecimal() and period.isdecimal() and int(period) > 0):
        return None  # "max", or -1: no quota
    return int(quota) / int(period)
