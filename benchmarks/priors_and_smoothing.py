"""What is known beforehand, and the neighbours on a flight line: what they gain, and that they harm nowhere.

    python benchmarks/priors_and_smoothing.py datasets/demo WEIGHTS --json priors.json

Flight lines are flown over the demo scene as it is when its photos are taken (geodata/flown_*.tif), 8 m a second with a photo
each second, and each photo is made hard with a chance of one half: out of focus, in the dark, half of it covered, or cut off.
The network's poses come without anything; with a GNSS position (its deviation: 3 m east and north), with gravity (1 deg), with
the height flown above the ground below, each as wrong as it says; with all of them; smoothed; and smoothed with all of them.
Answers are believed as `localize.py` does it, by the weights' calibration where there is one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from threads import configure_threads

configure_threads()

import cv2
import numpy as np
import pyproj
import torch
from tqdm import tqdm

from datagen.cameras import centred_intrinsics
from datagen.demo.camera_effects import photograph
from datagen.demo.settings import CameraEffects, FlightSettings
from datagen.render import Renderer
from datagen.scene import GeoScene
from geometry.attitude import enu_from_camera
from geometry.poses import pose_error
from localization.answer import Answer
from localization.localizer import Localizer
from localization.photos import Photo
from localization.priors import PhotoFacts, PriorOptions, priors_of
from localization.smoothing import smooth
from records.files import read_json, write_json

WIDTH, HEIGHT, FOCAL_PX = 360, 240, 240.0
SPEED_M_S, PHOTO_EVERY_S = 8.0, 1.0
# How the drone is off its line: deviations, and for how many seconds it stays so.
_WANDER_M, _WANDER_DEG, _WANDER_S = 0.8, 1.5, 4.0
GNSS_SIGMA_M, GRAVITY_SIGMA_DEG, HEIGHT_SIGMA_M = 3.0, 1.0, 4.0
HARD = ("blurred", "dark", "covered", "cropped")
ONLY = {
    "GNSS position, 3 m": PriorOptions(gnss_sigma=GNSS_SIGMA_M),
    "gravity, 1 deg": PriorOptions(gravity_sigma=GRAVITY_SIGMA_DEG),
    "height above ground, 4 m": PriorOptions(height_above_ground=(FlightSettings().height_m, HEIGHT_SIGMA_M)),
}
ALL = PriorOptions(GNSS_SIGMA_M, None, GRAVITY_SIGMA_DEG, (FlightSettings().height_m, HEIGHT_SIGMA_M))
# Errors beyond are failures, metres.
FAILED_M = 10.0


@dataclass(frozen=True)
class Frame:
    """A photo of the flight, the truth, and what its file would say. kind: easy, or one of HARD."""

    photo: Photo
    true_44: np.ndarray
    facts: PhotoFacts
    kind: str


def flown(scene: GeoScene, renderer: Renderer, lines: int, hard_share: float, seed: int) -> list[Frame]:
    """The photos of parallel lines, all in one direction, as the demo flies them."""
    rng, flight = np.random.default_rng(seed), FlightSettings()
    left, bottom, right, top = scene.grid.bounds
    middle_2, half_m = np.array([left + right, bottom + top]) / 2, flight.span * (right - left) / 2
    ground_m = float(np.nanmedian(scene.heights_rc))
    per_line = int(2 * half_m / (SPEED_M_S * PHOTO_EVERY_S)) + 1
    heading = np.deg2rad(flight.headings_deg[0])
    along_2 = np.array([np.sin(heading), np.cos(heading)])
    across_2 = np.array([abs(along_2[1]), -abs(along_2[0])])
    frames, start_s = [], 1_700_000_000.0
    for line in tqdm(range(lines), desc="flight lines"):
        pitch = flight.pitches_deg[line % len(flight.pitches_deg)]
        wander_N6 = _wander(per_line, rng)
        for step in range(per_line):
            xy_2 = middle_2 + (SPEED_M_S * PHOTO_EVERY_S * step - half_m) * along_2
            xy_2 = xy_2 + half_m * (2 * (line + 0.5) / lines - 1) * across_2
            angles_3 = np.array([flight.headings_deg[0], pitch, 0.0]) + wander_N6[step, :3]
            true_44 = np.eye(4)
            true_44[:3, :3] = enu_from_camera(*angles_3)
            true_44[:3, 3] = np.append(xy_2, ground_m + flight.height_m) + wander_N6[step, 3:]
            time_s = start_s + step * PHOTO_EVERY_S
            frames.append(_frame(len(frames), true_44, angles_3, time_s, scene, renderer, hard_share, rng))
        start_s = time_s + 20.0  # back to the next line's beginning
    return frames


def _wander(count: int, rng: np.random.Generator) -> np.ndarray:
    """Yaw, pitch, roll in degrees and x, y, z in metres [N, 6], off what was planned."""
    keep = np.exp(-PHOTO_EVERY_S / _WANDER_S)
    state_N6 = rng.standard_normal((count, 6))
    for step in range(1, count):
        state_N6[step] = keep * state_N6[step - 1] + np.sqrt(1 - keep**2) * state_N6[step]
    return state_N6 * np.repeat([_WANDER_DEG, _WANDER_M], 3)


def _frame(number: int, true_44, angles_3, time_s, scene: GeoScene, renderer: Renderer, hard_share: float, rng) -> Frame:
    K_33 = centred_intrinsics(FOCAL_PX, WIDTH, HEIGHT)
    photo_HW3 = photograph(renderer.render(true_44, K_33, WIDTH, HEIGHT).rgb_HW3, CameraEffects(), 1.0, rng)
    kind = str(rng.choice(HARD)) if rng.random() < hard_share else "easy"
    photo_HW3, K_33 = _made(kind, photo_HW3, K_33, rng)
    xy_2 = true_44[:2, 3] + np.array(scene.origin_xyz[:2]) + rng.normal(0, GNSS_SIGMA_M, 2)
    to_degrees = pyproj.Transformer.from_crs(scene.crs.to_wkt(), "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*xy_2)
    pitch, roll = angles_3[1:] + rng.normal(0, GRAVITY_SIGMA_DEG, 2)
    return Frame(
        Photo(f"{number:03d}", photo_HW3, K_33, time_s), true_44, PhotoFacts(lon, lat, pitch_deg=pitch, roll_deg=roll), kind
    )


def _made(kind: str, photo_HW3: np.ndarray, K_33: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A photo made hard, with its intrinsics."""
    height, width = photo_HW3.shape[:2]
    if kind == "blurred":
        return cv2.GaussianBlur(photo_HW3, (0, 0), 4.0), K_33
    if kind == "dark":
        dark = 0.12 * photo_HW3 + rng.normal(0, 6.0, photo_HW3.shape)
        return np.clip(np.rint(dark), 0, 255).astype(np.uint8), K_33
    if kind == "covered":
        first, covered = int(rng.integers(0, width // 2)), photo_HW3.copy()
        covered[:, first : first + width // 2] = rng.integers(0, 255, 3)
        return covered, K_33
    if kind == "cropped":
        x, y = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        shifted = K_33 - np.array([[0, 0, x], [0, 0, y], [0, 0, 0]])
        return np.ascontiguousarray(photo_HW3[y : y + height // 2, x : x + width // 2]), shifted
    return photo_HW3, K_33


def localized(localizer: Localizer, frames: Sequence[Frame], options: PriorOptions, scene: GeoScene) -> list[Answer]:
    """Answers with what is known of each photo."""
    priors = [priors_of([frame.facts], localizer.frame, options, scene) for frame in frames]
    return localizer.localize([frame.photo for frame in frames], priors)


def errors_of(answers: Sequence[Answer], frames: Sequence[Frame]) -> np.ndarray:
    """Metres and degrees [N, 2]; infinite without a pose."""
    found = []
    for answer, frame in zip(answers, frames, strict=True):
        pair = pose_error(torch.from_numpy(answer.world_from_cam_44), torch.from_numpy(frame.true_44))
        found.append(pair if answer.success else (np.inf, np.inf))
    return np.array(found)


def figures(error_N2: np.ndarray) -> dict[str, float]:
    """What the table shows of some frames."""
    metres_N, degrees_N = error_N2.T
    return {
        "median_m": float(np.median(metres_N)),
        "median_deg": float(np.median(degrees_N)),
        "quantile_90_m": float(np.quantile(metres_N, 0.9, method="higher")),
        "failed_share": float((metres_N > FAILED_M).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene_dir", type=Path, help="the demo scene")
    parser.add_argument("weights", type=Path, help="a coord network of it")
    parser.add_argument("--lines", type=int, default=6)
    parser.add_argument("--hard", type=float, default=0.5, help="share of the frames that are hard")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="writes the figures there, too")
    args = parser.parse_args()
    localizer = Localizer.from_weights(args.weights, device="cpu", recorded=False)
    geodata, origin_xyz = args.scene_dir / "geodata", read_json(args.scene_dir / "scene.json", "scene record")["origin_xyz"]
    seasons = {
        name: GeoScene.open(geodata / f"{name}_surface.tif", geodata / f"{name}_ortho.tif", origin_xyz=tuple(origin_xyz))
        for name in ("surveyed", "flown")
    }
    frames = flown(seasons["surveyed"], Renderer(seasons["flown"]), args.lines, args.hard, args.seed)
    answers = {"nothing": localized(localizer, frames, PriorOptions(), seasons["surveyed"])}
    for name, options in tqdm([*ONLY.items(), ("all three", ALL)], desc="priors"):
        answers[name] = localized(localizer, frames, options, seasons["surveyed"])
    for name in ("nothing", "all three"):
        answers[f"{name}, smoothed"] = smooth(answers[name])
    is_hard_N = np.array([frame.kind != "easy" for frame in frames])
    table = {}
    for name, found in answers.items():
        error_N2 = errors_of(found, frames)
        groups = {"easy": ~is_hard_N, "hard": is_hard_N, "all": np.ones(len(frames), bool)}
        groups |= {kind: np.array([frame.kind == kind for frame in frames]) for kind in HARD}
        table[name] = {group: figures(error_N2[chosen_N]) for group, chosen_N in groups.items() if chosen_N.any()}
    print(f"{len(frames)} frames, {is_hard_N.sum()} of them hard: median m, median deg, 90 % m, share beyond {FAILED_M:g} m")
    for name, groups in table.items():
        shown = (
            f"{group} {f['median_m']:6.2f} {f['median_deg']:5.2f} {f['quantile_90_m']:7.2f} {100 * f['failed_share']:4.0f} %"
            for group, f in groups.items()
            if group in ("easy", "hard", "all")
        )
        print(f"{name:28s} {'   '.join(shown)}")
    if args.json is not None:
        write_json(args.json, {"frames": len(frames), "hard": int(is_hard_N.sum()), "seed": args.seed, "table": table})


if __name__ == "__main__":
    main()
