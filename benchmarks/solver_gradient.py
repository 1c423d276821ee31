"""Gradient check: directional derivatives of the expected loss against central differences, RGB and RGB-D.

    python -m benchmarks.solver_gradient [--problems 20] [--directions 5]

The inputs are float32, so each difference quotient uses the perturbation that float32 really made; everything behind
the input is double. With the seed fixed the expected loss is smooth except where a sample's acceptance flips or a
refinement changes its basin; such events are isolated, so the median is what checks the formula and the share within
the tolerance tells how rare they are.
"""

from __future__ import annotations

import argparse

import numpy as np

import dsacstar
from benchmarks.solver_views import View, make_view

STEP_M = 2e-4
TOLERANCE = 1e-3  # relative; central differences of step h leave h^2 curvature and rounding of about 1e-6 at this step


def loss_rgb(view: View, coords_13hw: np.ndarray, gradient_13hw: np.ndarray, seed: int, truth: np.ndarray) -> float:
    return dsacstar.backward_rgb(
        coords_13hw,
        gradient_13hw,
        truth,
        16,
        10,
        view.focal_px,
        view.cx,
        view.cy,
        1,
        1,
        100,
        100,
        100,
        view.subsampling,
        seed,
    )


def loss_rgbd(view: View, coords_13hw: np.ndarray, gradient_13hw: np.ndarray, seed: int, truth: np.ndarray) -> float:
    world_from_cam = view.world_from_cam_44
    camera_3N = world_from_cam[:3, :3].T @ (view.truth_3N - world_from_cam[:3, 3:])
    camera_13hw = camera_3N.reshape(coords_13hw.shape).astype(np.float32)
    return dsacstar.backward_rgbd(coords_13hw, camera_13hw, gradient_13hw, truth, 16, 500, 1, 1, 100, 100, 5000, seed)


def relative_errors(loss, problems: int, directions: int, noise_m: float, outlier_share: float) -> np.ndarray:
    """|difference quotient - directional derivative| / max(|both|, 1e-6) for random directions."""
    errors = []
    for problem in range(problems):
        view = make_view(problem, noise_m, outlier_share, height=15, width=22, subsampling=32)
        truth = view.world_from_cam_44
        gradient = np.zeros(view.coords_13hw.shape)
        loss(view, view.coords_13hw, gradient, problem, truth)
        rng = np.random.default_rng(problem)
        for _ in range(directions):
            move = STEP_M * rng.standard_normal(gradient.shape)
            ahead = (view.coords_13hw + move).astype(np.float32)
            behind = (view.coords_13hw - move).astype(np.float32)
            scratch = np.zeros(gradient.shape)
            difference = loss(view, ahead, scratch, problem, truth) - loss(view, behind, scratch, problem, truth)
            predicted = float((gradient * (ahead.astype(np.float64) - behind)).sum())
            errors.append(abs(difference - predicted) / max(abs(difference), abs(predicted), 1e-9))
    return np.array(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--directions", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'':28}{'median':>10}{'90 %':>10}{'within ' + str(TOLERANCE):>14}{'checks':>8}")
    for name, loss in (("RGB", loss_rgb), ("RGB-D", loss_rgbd)):
        for noise_m, outlier_share in ((0.5, 0.0), (1.0, 0.3), (2.0, 0.5)):
            errors = relative_errors(loss, arguments.problems, arguments.directions, noise_m, outlier_share)
            label = f"{name}, {noise_m} m, {outlier_share:.0%} outliers"
            print(
                f"{label:28}{np.median(errors):10.1e}{np.quantile(errors, 0.9):10.1e}{(errors < TOLERANCE).mean():14.1%}{len(errors):8}"
            )


if __name__ == "__main__":
    main()
