"""Speed and accuracy of dsacstar beside every solver a user could pick instead, in one run.

    python -m benchmarks.solver_peers [--problems 200] [--rows 0 1 2 3] [--quick]

Problems: benchmarks/solver_views.py (60x90 cells, f = 480, 120-200 m above rolling ground, isotropic Gaussian
coordinate noise, outliers with a 60 m spread), threshold 10 px, 64 hypotheses. PoseLib by its own stop rule (10 to
1000 iterations) and as it comes (1000 to 100,000); OpenCV up to 1000. poselib and pycolmap are installed by whoever runs this
(`pip install poselib pycolmap`); what is absent is left out. Time is CPU time of the process, which does nothing else (so
that a busy machine does not blur it), conversion of inputs excluded, mean over the problems; error is the median distance
between true and estimated camera centres, and rotation in degrees.
Cramer-Rao: median error of an unbiased estimator that knows every cell's true standard deviation and attains the bound.
Structured errors instead of Gaussian ones: benchmarks/solver_structured.py.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util

import cv2
import numpy as np

import dsacstar
from benchmarks.solver_views import View, make_view, pose_error

ROWS = ((1.0, 0.1), (3.0, 0.3), (5.0, 0.6), (5.0, 0.8))
THRESHOLD_PX, ITERATIONS = 10.0, 1000
# Older versions of the package call the uncertainty "weights".
SIGMA = "sigma" if "sigma" in inspect.signature(dsacstar.solve).parameters else "weights"


@dataclass(frozen=True)
class Matches:
    """What a peer is given: pixels_N2 and points_N3 (float64), a pinhole camera, a threshold."""

    pixels_N2: np.ndarray
    points_N3: np.ndarray
    intrinsics: list[float]
    size_px: tuple[int, int]
    threshold_px: float

    @property
    def K_33(self) -> np.ndarray:
        fx, fy, cx, cy = self.intrinsics
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def cell_pixels(height: int, width: int, subsampling: int) -> np.ndarray:
    """[N, 2] pixels of the cells."""
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([cols.ravel(), rows.ravel()], 1) * subsampling


def matches_of(view: View) -> Matches:
    height, width = view.coords_13hw.shape[2:]
    points_N3 = np.ascontiguousarray(view.coords_13hw.reshape(3, -1).T, dtype=np.float64)
    size_px = (width * view.subsampling, height * view.subsampling)
    return Matches(cell_pixels(height, width, view.subsampling), points_N3, view.intrinsics, size_px, THRESHOLD_PX)


def inverse_of(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R.T, -R.T @ t
    return pose


def with_sigma(coords_13hw, intrinsics, sigma_1hw, **settings) -> list[dsacstar.Result]:
    """solve() with or without an uncertainty."""
    return dsacstar.solve(coords_13hw, intrinsics, **{SIGMA: sigma_1hw}, **settings)


def ours_forward(view: View, matches: Matches) -> np.ndarray:
    out = np.zeros((4, 4))
    dsacstar.forward_rgb(
        view.coords_13hw, out, 64, THRESHOLD_PX, view.focal_px, view.cx, view.cy, 100, 100, view.subsampling
    )
    return out


def ours_weighted(view: View, matches: Matches) -> np.ndarray:
    options = dsacstar.RansacOptions(threads=1)
    return with_sigma(view.coords_13hw, view.intrinsics, view.sigma_1hw, options=options)[0].pose


# A peer answers (pose, its own figure of how good that is: the share of inliers), or None without a pose.
Answer = tuple[np.ndarray, float]


def with_poselib(limits: dict) -> Callable[[Matches], Answer | None]:
    def run(matches: Matches) -> Answer | None:
        import poselib

        camera = {
            "model": "PINHOLE",
            "width": matches.size_px[0],
            "height": matches.size_px[1],
            "params": matches.intrinsics,
        }
        options = {"max_reproj_error": matches.threshold_px, **limits}
        pose, info = poselib.estimate_absolute_pose(matches.pixels_N2, matches.points_N3, camera, options, {})
        return inverse_of(pose.R, pose.t), info["inlier_ratio"]

    return run


def with_opencv(flags: dict) -> Callable[[Matches], Answer | None]:
    def run(matches: Matches) -> Answer | None:
        found, rotation, t, inliers = cv2.solvePnPRansac(
            matches.points_N3,
            matches.pixels_N2,
            matches.K_33,
            None,
            iterationsCount=ITERATIONS,
            reprojectionError=matches.threshold_px,
            **flags,
        )
        if not found or inliers is None or len(inliers) < 4:
            return None
        chosen = np.asarray(inliers).ravel()
        rotation, t = cv2.solvePnPRefineLM(
            matches.points_N3[chosen], matches.pixels_N2[chosen], matches.K_33, None, rotation, t
        )
        return inverse_of(cv2.Rodrigues(rotation)[0], t[:, 0]), len(chosen) / len(matches.points_N3)

    return run


def with_opencv_usac(method: int) -> Callable[[Matches], Answer | None]:
    def run(matches: Matches) -> Answer | None:
        params = cv2.UsacParams()
        params.threshold, params.maxIterations, params.confidence = matches.threshold_px, ITERATIONS, 0.9999
        params.score = cv2.SCORE_METHOD_MAGSAC if method == cv2.USAC_MAGSAC else cv2.SCORE_METHOD_MSAC
        params.loMethod = cv2.LOCAL_OPTIM_SIGMA if method == cv2.USAC_MAGSAC else cv2.LOCAL_OPTIM_INNER_LO
        found, _, rotation, t, inliers = cv2.solvePnPRansac(
            matches.points_N3, matches.pixels_N2, matches.K_33, None, params=params
        )
        if not found:
            return None
        share = 0.0 if inliers is None else len(inliers) / len(matches.points_N3)
        return inverse_of(cv2.Rodrigues(rotation)[0], t[:, 0]), share

    return run


def with_pycolmap(matches: Matches) -> Answer | None:
    import pycolmap

    width, height = matches.size_px
    camera = pycolmap.Camera(model="PINHOLE", width=width, height=height, params=list(matches.intrinsics))
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = matches.threshold_px
    answer = pycolmap.estimate_and_refine_absolute_pose(matches.pixels_N2, matches.points_N3, camera, options)
    if answer is None:
        return None
    matrix = answer["cam_from_world"].matrix()
    return inverse_of(matrix[:, :3], matrix[:, 3]), answer["num_inliers"] / len(matches.points_N3)


OURS = {"ours, forward_rgb": ours_forward, "ours, solve + sigma": ours_weighted}
OWN_STOP = "PoseLib, own stop rule"
PEERS = {
    OWN_STOP: with_poselib({"min_iterations": 10, "max_iterations": ITERATIONS}),
    "PoseLib": with_poselib({}),
    "OpenCV P3P + LM": with_opencv({"flags": cv2.SOLVEPNP_P3P}),
    "OpenCV USAC (MSAC)": with_opencv_usac(cv2.USAC_ACCURATE),
    "OpenCV USAC (MAGSAC)": with_opencv_usac(cv2.USAC_MAGSAC),
    "pycolmap": with_pycolmap,
}


def installed_peers() -> dict[str, Callable[[Matches], Answer | None]]:
    """The peers that can run here."""
    absent = [package for package in ("poselib", "pycolmap") if util.find_spec(package) is None]
    return {name: run for name, run in PEERS.items() if not any(name.lower().startswith(package) for package in absent)}


def versions() -> str:
    """One line: who takes part and who is absent."""
    parts = [f"dsacstar {dsacstar.__version__} ({dsacstar.instruction_set()})", f"opencv {cv2.__version__}"]
    for package in ("poselib", "pycolmap"):
        there = util.find_spec(package) is not None
        parts.append(f"{package} {metadata.version(package)}" if there else f"{package} absent (pip install {package})")
    return ", ".join(parts)


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
    across_N36 = (J_N36 - u_N3[:, :, None] * np.einsum("ni,nij->nj", u_N3, J_N36)[:, None]) / view.sigma_1hw.reshape(
        -1, 1, 1
    )
    information = np.einsum("nij,nik->jk", across_N36, across_N36)
    covariance = np.linalg.inv(information)[3:, 3:]
    return float(np.linalg.norm(rng.multivariate_normal(np.zeros(3), covariance)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=range(len(ROWS)), help="which of the noise / outlier rows")
    parser.add_argument("--first_seed", type=int, default=0, help="of the problems (the solver was tuned on 0 to 199)")
    parser.add_argument("--quick", action="store_true", help="ours and PoseLib by its own stop rule only")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    peers = {name: run for name, run in installed_peers().items() if not arguments.quick or name == OWN_STOP}
    print(f"{versions()}; {arguments.problems} problems a row")
    rng = np.random.default_rng(0)
    for noise_m, outlier_share in (ROWS[row] for row in arguments.rows):
        views = [
            make_view(seed, noise_m, outlier_share)
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.problems)
        ]
        bound = statistics.median(cramer_rao_metres(view, rng) for view in views for _ in range(20))
        print(f"\nnoise {noise_m:g} m, outliers {outlier_share:.0%}; Cramer-Rao bound {bound:.3f} m")
        print(f"  {'':22}{'CPU ms':>9}{'median m':>10}{'90 % m':>9}{'deg':>8}{'/ bound':>9}{'PoseLib / it':>14}", flush=True)
        table = {}
        for name in (*OURS, *peers):
            seconds, errors = [], []
            for view in views:
                matches = matches_of(view)
                start = time.process_time()
                if name in OURS:
                    pose = OURS[name](view, matches)
                else:
                    answer = peers[name](matches)
                    pose = np.eye(4) if answer is None else answer[0]
                seconds.append(time.process_time() - start)
                errors.append(pose_error(pose, view.world_from_cam_44))
            table[name] = (
                1e3 * statistics.mean(seconds),
                *np.median(errors, axis=0),
                np.quantile([m for m, _ in errors], 0.9),
            )
        against = table.get(OWN_STOP, (float("nan"),))[0]
        for name, (ms, metres, degrees, worst) in table.items():
            print(
                f"  {name:22}{ms:9.2f}{metres:10.3f}{worst:9.2f}{degrees:8.3f}{metres / bound:9.2f}{against / ms:14.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
