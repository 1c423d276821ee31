"""The losses that train through the solver: gradient check, speed, and what descending them does to `solve`.

    python -m benchmarks.solver_gradient [--problems 20] [--directions 5] [--parts check speed descent]

check: directional derivatives of the published loss (backward_rgb, backward_rgbd) and of `pose_loss` against central
differences. The inputs are float32, so each difference quotient uses the perturbation that float32 really made; everything
behind the input is double. With the seed fixed the expected loss is smooth except where a sample's acceptance flips or a
refinement changes its basin; such events are isolated, so the median is what checks the formula and the share within
the tolerance tells how rare they are.
speed: CPU time of the process per image at 60x90, 64 hypotheses, of the published loss (serial, which is what training used
before) and of `pose_loss` on one thread.
descent: 50 steps of Adam on the coordinates themselves, a new seed every step; the position error of `solve` before and
after, on seeds that no step used.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import dsacstar
from benchmarks.solver_views import View, make_view, pose_error

STEP_M = 2e-4
TOLERANCE = 1e-3  # relative; central differences of step h leave h^2 curvature and rounding of about 1e-6 at this step
SPEED_ROWS = ((1.0, 0.1), (3.0, 0.3), (5.0, 0.6))
FRESH_SEED = 10_000


def loss_rgb(view: View, coords_13hw: np.ndarray, gradient_13hw: np.ndarray, seed: int, truth: np.ndarray) -> float:
    return published_loss(view, coords_13hw, gradient_13hw, seed, truth, 16)


def published_loss(
    view: View, coords_13hw: np.ndarray, gradient_13hw: np.ndarray, seed: int, truth: np.ndarray, hypotheses: int
) -> float:
    return dsacstar.backward_rgb(
        coords_13hw,
        gradient_13hw,
        truth,
        hypotheses,
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


def measured_coords(view: View, shape: tuple[int, ...]) -> np.ndarray:
    """[1, 3, h, w] camera coordinates as a depth sensor without error measures them."""
    world_from_cam = view.world_from_cam_44
    camera_3N = world_from_cam[:3, :3].T @ (view.truth_3N - world_from_cam[:3, 3:])
    return camera_3N.reshape(shape).astype(np.float32)


def loss_rgbd(view: View, coords_13hw: np.ndarray, gradient_13hw: np.ndarray, seed: int, truth: np.ndarray) -> float:
    camera_13hw = measured_coords(view, coords_13hw.shape)
    return dsacstar.backward_rgbd(coords_13hw, camera_13hw, gradient_13hw, truth, 16, 500, 1, 1, 100, 100, 5000, seed)


def through_solver(rgbd: bool = False, **settings):
    """`pose_loss` in the form of the published losses, in double precision; settings: of LossOptions."""

    def loss(view: View, coords_13hw: np.ndarray, gradient_13hw: np.ndarray, seed: int, truth: np.ndarray) -> float:
        options = dsacstar.LossOptions(
            **{
                "hypotheses": 16,
                "subsampling": view.subsampling,
                "threads": 1,
                "threshold_px": 500 if rgbd else 10,
                **settings,
            }
        )
        # float32 values in a float64 tensor, so that loss and gradient come back in double.
        coords = torch.from_numpy(coords_13hw).double().requires_grad_()
        measured = measured_coords(view, coords_13hw.shape) if rgbd else None
        loss_B = dsacstar.pose_loss(
            coords, truth[None], view.intrinsics, options=options, seed=seed, camera_coords_B3hw=measured
        )
        loss_B.sum().backward()
        gradient_13hw += coords.grad.numpy()
        return loss_B.item()

    return loss


LOSSES = {
    "published, RGB": loss_rgb,
    "published, RGB-D": loss_rgbd,
    "pose_loss": through_solver(),
    "pose_loss, even softmax": through_solver(inlier_alpha=1.0),
    "pose_loss, pixels": through_solver(residual="pixel"),
    "pose_loss, RGB-D": through_solver(rgbd=True),
}


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


def check(problems: int, directions: int) -> None:
    print(f"{'':42}{'median':>10}{'90 %':>10}{'within ' + str(TOLERANCE):>14}{'checks':>8}")
    for name, loss in LOSSES.items():
        for noise_m, outlier_share in ((0.5, 0.0), (1.0, 0.3), (2.0, 0.5)):
            errors = relative_errors(loss, problems, directions, noise_m, outlier_share)
            label = f"{name}, {noise_m} m, {outlier_share:.0%} outliers"
            print(
                f"{label:42}{np.median(errors):10.1e}{np.quantile(errors, 0.9):10.1e}{(errors < TOLERANCE).mean():14.1%}{len(errors):8}",
                flush=True,
            )


def milliseconds(views: list[View], loss) -> float:
    """CPU time of the process per image."""
    start = time.process_time()
    for seed, view in enumerate(views):
        loss(view, view.coords_13hw, np.zeros(view.coords_13hw.shape), seed, view.world_from_cam_44)
    return 1e3 * (time.process_time() - start) / len(views)


def speed(problems: int) -> None:
    def before(*arguments):
        return published_loss(*arguments, 64)

    print(f"\n{'60x90 cells, 64 hypotheses':28}{'published ms':>14}{'pose_loss ms':>14}{'ratio':>8}")
    for noise_m, outlier_share in SPEED_ROWS:
        views = [make_view(seed, noise_m, outlier_share) for seed in range(problems)]
        old, new = milliseconds(views, before), milliseconds(views, through_solver(hypotheses=64))
        print(f"{f'{noise_m:g} m, {outlier_share:.0%} outliers':28}{old:14.1f}{new:14.1f}{old / new:8.1f}", flush=True)


def solved_error(view: View, coords: torch.Tensor, options: dsacstar.RansacOptions) -> float:
    """Median position error of `solve` over seeds that no step used, metres."""
    poses = [
        dsacstar.solve(coords.detach(), view.intrinsics, seed=FRESH_SEED + seed, options=options)[0].pose
        for seed in range(5)
    ]
    return float(np.median([pose_error(pose, view.world_from_cam_44)[0] for pose in poses]))


def descent(view: View, steps: int, rate: float = 0.05) -> dict[str, float]:
    """Loss and error of `solve` before and after descending `pose_loss` by the coordinates of one view."""
    coords = torch.from_numpy(view.coords_13hw.copy()).requires_grad_()
    options = dsacstar.RansacOptions(subsampling=view.subsampling, threads=1)
    loss_options = dsacstar.LossOptions(subsampling=view.subsampling, threads=1)
    optimiser = torch.optim.Adam([coords], lr=rate)
    losses, before_m = [], solved_error(view, coords, options)
    for step in range(steps):
        loss_B = dsacstar.pose_loss(coords, view.world_from_cam_44[None], view.intrinsics, options=loss_options, seed=step)
        optimiser.zero_grad()
        loss_B.sum().backward()
        optimiser.step()
        losses.append(loss_B.item())
    return {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "before_m": before_m,
        "after_m": solved_error(view, coords, options),
    }


def descents(problems: int) -> None:
    print(f"\n{'50 steps, 60x90 cells':28}{'loss':>8}{'then':>8}{'solve m':>10}{'then':>8}")
    for noise_m, outlier_share in SPEED_ROWS:
        rows = [descent(make_view(seed, noise_m, outlier_share), steps=50) for seed in range(problems)]
        first, last, before_m, after_m = (float(np.median(column)) for column in zip(*(row.values() for row in rows)))
        print(
            f"{f'{noise_m:g} m, {outlier_share:.0%} outliers':28}{first:8.3f}{last:8.3f}{before_m:10.3f}{after_m:8.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--directions", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=["check", "speed", "descent"], default=["check", "speed", "descent"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "check" in arguments.parts:
        check(arguments.problems, arguments.directions)
    if "speed" in arguments.parts:
        speed(arguments.problems)
    if "descent" in arguments.parts:
        descents(max(1, arguments.problems // 5))


if __name__ == "__main__":
    main()
