"""Speed and accuracy of dsacstar beside every solver a user could pick instead, in one run.

    python -m benchmarks.solver_peers [--problems 200] [--rows 0 1 2 3] [--quick]

Problems: benchmarks/solver_views.py (60x90 cells, f = 480, 120-200 m above rolling ground, isotropic Gaussian
coordinate noise, outliers with a 60 m spread), threshold 10 px, 64 hypotheses; peers 1000 iterations. Time is CPU time
of the one thread that does the work (so that a busy machine does not blur it), conversion of inputs excluded, mean
over the problems; error is the median distance between true and estimated camera centres, and rotation in degrees.
Cramer-Rao: median error of an unbiased estimator that knows every cell's true standard deviation and attains the bound.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import metadata

import cv2
import numpy as np
import poselib
import pycolmap

import dsacstar
from benchmarks.solver_views import View, make_view, pose_error

ROWS = ((1.0, 0.1), (3.0, 0.3), (5.0, 0.6), (5.0, 0.8))
THRESHOLD_PX, ITERATIONS = 10.0, 1000


def cell_pixels(view: View) -> np.ndarray:
    """[N, 2] pixels of the cells."""
    height, width = view.coords_13hw.shape[2:]
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([cols.ravel(), rows.ravel()], 1) * view.subsampling


def inverse_of(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R.T, -R.T @ t
    return pose


def ours_forward(view: View, pixels_N2, points_N3) -> np.ndarray:
    out = np.zeros((4, 4))
    dsacstar.forward_rgb(view.coords_13hw, out, 64, THRESHOLD_PX, view.focal_px, view.cx, view.cy, 100, 100, view.subsampling)
    return out


def ours_weighted(view: View, pixels_N2, points_N3) -> np.ndarray:
    options = dsacstar.RansacOptions(threads=1)
    return dsacstar.solve(view.coords_13hw, view.intrinsics, options=options, weights=view.sigma_1hw)[0].pose


def with_poselib(view: View, pixels_N2, points_N3) -> np.ndarray:
    camera = {"model": "PINHOLE", "width": int(2 * view.cx), "height": int(2 * view.cy), "params": view.intrinsics}
    options = {"max_reproj_error": THRESHOLD_PX, "max_iterations": ITERATIONS}
    pose, _ = poselib.estimate_absolute_pose(pixels_N2, points_N3, camera, options, {})
    return inverse_of(pose.R, pose.t)


def with_opencv(flags: dict) -> Callable:
    def run(view: View, pixels_N2, points_N3) -> np.ndarray:
        fx, fy, cx, cy = view.intrinsics
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        found, rotation, t, inliers = cv2.solvePnPRansac(
            points_N3, pixels_N2, K, None, iterationsCount=ITERATIONS, reprojectionError=THRESHOLD_PX, **flags
        )
        if not found or inliers is None or len(inliers) < 4:
            return np.eye(4)
        chosen = np.asarray(inliers).ravel()
        rotation, t = cv2.solvePnPRefineLM(points_N3[chosen], pixels_N2[chosen], K, None, rotation, t)
        return inverse_of(cv2.Rodrigues(rotation)[0], t[:, 0])

    return run


def with_opencv_usac(method: int) -> Callable:
    def run(view: View, pixels_N2, points_N3) -> np.ndarray:
        fx, fy, cx, cy = view.intrinsics
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        params = cv2.UsacParams()
        params.threshold, params.maxIterations, params.confidence = THRESHOLD_PX, ITERATIONS, 0.9999
        params.score = cv2.SCORE_METHOD_MAGSAC if method == cv2.USAC_MAGSAC else cv2.SCORE_METHOD_MSAC
        params.loMethod = cv2.LOCAL_OPTIM_SIGMA if method == cv2.USAC_MAGSAC else cv2.LOCAL_OPTIM_INNER_LO
        found, _, rotation, t, _ = cv2.solvePnPRansac(points_N3, pixels_N2, K, None, params=params)
        return inverse_of(cv2.Rodrigues(rotation)[0], t[:, 0]) if found else np.eye(4)

    return run


def with_pycolmap(view: View, pixels_N2, points_N3) -> np.ndarray:
    camera = pycolmap.Camera(model="PINHOLE", width=int(2 * view.cx), height=int(2 * view.cy), params=view.intrinsics)
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = THRESHOLD_PX
    answer = pycolmap.estimate_and_refine_absolute_pose(pixels_N2, points_N3, camera, options)
    if answer is None:
        return np.eye(4)
    matrix = answer["cam_from_world"].matrix()
    return inverse_of(matrix[:, :3], matrix[:, 3])


SOLVERS = {
    "ours, forward_rgb": ours_forward,
    "ours, solve + sigma": ours_weighted,
    "PoseLib": with_poselib,
    "OpenCV P3P + LM": with_opencv({"flags": cv2.SOLVEPNP_P3P}),
    "OpenCV USAC (MSAC)": with_opencv_usac(cv2.USAC_ACCURATE),
    "OpenCV USAC (MAGSAC)": with_opencv_usac(cv2.USAC_MAGSAC),
    "pycolmap": with_pycolmap,
}


def cramer_rao_metres(view: View, rng: np.random.Generator) -> float:
    """One draw of |error of the camera centre| from the bound's covariance, metres.

    A cell's coordinate with isotropic noise sigma carries information on the pose only across its ray (its depth along
    the ray is unknown): J^T (I - u u^T) J / sigma^2, J = [-[p]x, I] for the camera-frame point p and unit ray u.
    """
    R, c = view.world_from_cam_44[:3, :3], view.world_from_cam_44[:3, 3]
    p_N3 = (view.truth_3N.T - c) @ R
    u_N3 = p_N3 / np.linalg.norm(p_N3, axis=1, keepdims=True)
    J_N36 = np.zeros((len(p_N3), 3, 6))
    J_N36[:, 0, 1], J_N36[:, 0, 2], J_N36[:, 1, 2] = p_N3[:, 2], -p_N3[:, 1], p_N3[:, 0]
    J_N36[:, 1, 0], J_N36[:, 2, 0], J_N36[:, 2, 1] = -p_N3[:, 2], p_N3[:, 1], -p_N3[:, 0]
    J_N36[:, :, 3:] = np.eye(3)
    across_N36 = (J_N36 - u_N3[:, :, None] * np.einsum("ni,nij->nj", u_N3, J_N36)[:, None]) / view.sigma_1hw.reshape(-1, 1, 1)
    information = np.einsum("nij,nik->jk", across_N36, across_N36)
    covariance = np.linalg.inv(information)[3:, 3:]
    return float(np.linalg.norm(rng.multivariate_normal(np.zeros(3), covariance)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=range(len(ROWS)), help="which of the noise / outlier rows")
    parser.add_argument("--first_seed", type=int, default=0, help="of the problems (the solver was tuned on 0 to 199)")
    parser.add_argument("--quick", action="store_true", help="ours and PoseLib only")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    names = [name for name in SOLVERS if not arguments.quick or name.startswith("ours") or name == "PoseLib"]
    print(f"dsacstar {dsacstar.__version__} ({dsacstar.instruction_set()}), poselib {metadata.version('poselib')}, opencv {cv2.__version__}, pycolmap {pycolmap.__version__}; {arguments.problems} problems a row")
    rng = np.random.default_rng(0)
    for noise_m, outlier_share in (ROWS[row] for row in arguments.rows):
        views = [make_view(seed, noise_m, outlier_share) for seed in range(arguments.first_seed, arguments.first_seed + arguments.problems)]
        bound = statistics.median(cramer_rao_metres(view, rng) for view in views for _ in range(20))
        print(f"\nnoise {noise_m:g} m, outliers {outlier_share:.0%}; Cramer-Rao bound {bound:.3f} m")
        print(f"  {'':22}{'CPU ms':>9}{'median m':>10}{'90 % m':>9}{'deg':>8}{'/ bound':>9}{'PoseLib / it':>14}", flush=True)
        table = {}
        for name in names:
            seconds, errors = [], []
            for view in views:
                points_N3 = np.ascontiguousarray(view.coords_13hw.reshape(3, -1).T, dtype=np.float64)
                pixels_N2 = cell_pixels(view)
                start = time.thread_time()
                pose = SOLVERS[name](view, pixels_N2, points_N3)
                seconds.append(time.thread_time() - start)
                errors.append(pose_error(pose, view.world_from_cam_44))
            table[name] = (1e3 * statistics.mean(seconds), *np.median(errors, axis=0), np.quantile([m for m, _ in errors], 0.9))
        for name, (ms, metres, degrees, worst) in table.items():
            print(f"  {name:22}{ms:9.2f}{metres:10.3f}{worst:9.2f}{degrees:8.3f}{metres / bound:9.2f}{table['PoseLib'][0] / ms:14.1f}", flush=True)


if __name__ == "__main__":
    main()
