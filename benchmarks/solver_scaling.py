"""Cost of dsacstar against image size, hypotheses, threads and batch.

    python -m benchmarks.solver_scaling [--problems 20]

CPU time of the solving thread per image (size, hypotheses) as the solver itself spends it; wall time for threads.
Problems as in benchmarks/solver_peers.py with 3 m noise and 30 % outliers.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import dsacstar
from benchmarks.solver_views import make_view, pose_error

NOISE_M, OUTLIER_SHARE = 3.0, 0.3


def cost(views: list, options: dsacstar.RansacOptions) -> tuple[float, float]:
    """(mean CPU milliseconds, median error in metres)."""
    seconds, errors = [], []
    for view in views:
        start = time.thread_time()
        result = dsacstar.solve(view.coords_13hw, view.intrinsics, options=options)[0]
        seconds.append(time.thread_time() - start)
        errors.append(pose_error(result.pose, view.world_from_cam_44)[0])
    return 1e3 * statistics.mean(seconds), statistics.median(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=20)
    arguments = parser.parse_args()
    seeds = range(arguments.problems)
    print(f"dsacstar {dsacstar.__version__} ({dsacstar.instruction_set()}), {NOISE_M:g} m, {OUTLIER_SHARE:.0%} outliers\n")
    print("cells       CPU ms  median m   (64 hypotheses)")
    # Large views take long to make, and their cost varies little.
    for height, width, subsampling, problems in (
        (30, 45, 16, 20),
        (60, 90, 8, 20),
        (120, 180, 4, 20),
        (240, 360, 2, 4),
        (480, 720, 1, 2),
    ):
        views = [
            make_view(s, NOISE_M, OUTLIER_SHARE, height=height, width=width, subsampling=subsampling)
            for s in seeds[:problems]
        ]
        ms, metres = cost(views, dsacstar.RansacOptions(threads=1, subsampling=subsampling))
        print(f"{height:4}x{width:<6}{ms:8.2f}{metres:9.3f}", flush=True)

    views = [make_view(s, NOISE_M, OUTLIER_SHARE) for s in seeds]
    print("\nhypotheses  CPU ms  median m   (60x90 cells)")
    for hypotheses in (16, 32, 64, 128, 256, 512, 1024):
        ms, metres = cost(views, dsacstar.RansacOptions(threads=1, hypotheses=hypotheses))
        print(f"{hypotheses:<11}{ms:7.2f}{metres:9.3f}", flush=True)

    batch = np.concatenate([view.coords_13hw for view in views] * 10)
    print(f"\nthreads     wall ms per image   (batch of {len(batch)}, 60x90 cells; best of 5)")
    poses = []
    for threads in (1, 2):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            results = dsacstar.solve(batch, views[0].intrinsics, options=dsacstar.RansacOptions(threads=threads))
            seconds.append(time.perf_counter() - start)
        poses.append(np.stack([r.pose for r in results]))
        print(f"{threads:<11}{1e3 * min(seconds) / len(batch):8.2f}", flush=True)
    print(f"same answers for any number of threads: {np.array_equal(poses[0], poses[1])}")


if __name__ == "__main__":
    main()
