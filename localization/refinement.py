"""A coarse pose refined by the map: render it there, find patches of the photo in the render, solve, and hold it to a test.

The test is on patches that took no part in the pose: where they are found in the render must agree with the refined pose,
clearly better than with the coarse one. Otherwise the coarse pose stays: a refinement may be refused, but must not make a
pose worse.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np

import dsacstar
from localization.geodata import Geodata
from localization.matchers import Matcher
from localization.patches import PatchGrid, Peaks, edge_directions, find_peaks, similarities, values_at
from localization.wide_start import pose_from_pairs
from localization.working import REFERENCE_HEIGHT, WorkingPhoto

REFINEMENTS = ("off", "ncc", "sift", "aliked")
REFINE_HELP = (
    "ncc: by patches; sift, aliked: by patches, with a start from keypoints where they find nothing (aliked: an optional "
    "package); default: ncc with --surface (localize.py: or geodata recorded with the weights), else off; asked for without "
    "--surface, it takes the geodata that the data set was made from"
)
WORKING_HEIGHTS = (240, 480)
# Cells of this size, patches of twice this half, px at the reference height.
_STRIDE_PX, _HALF_PX = 12, 15
# How far patches are searched, in units of the image height, and what the solver takes as agreeing, px; round by round. The
# last round is repeated until the pose stands still.
_RADII, _THRESHOLDS_PX = (0.12, 0.05, 0.03), (6.0, 3.0, 2.0)
_MOST_ROUNDS = 6
_STANDS_STILL_PX = 1.0
# Where that finds nothing, a search this far in pictures of this share of the size (at least so high) gives a new start.
_WIDE_RADIUS, _WIDE_SHARE, _LEAST_HEIGHT = 0.3, 0.5, 64
_NOTHING_SEEN = "the photo shows hardly anything of the map there"
# Share of a patch that must show the map, in the render.
_LEAST_SEEN = 0.7
# Peaks lower than this are chance (measured on photos beside renders of other places).
_LEAST_SIMILARITY = 0.3
# A peak whose rival comes this near is believed to be this many times less certain.
_RIVAL_MARGIN, _RIVAL_FACTOR = 0.05, 3.0
_FEWEST_PATCHES, _FEWEST_BLOCKS = 12, 4
# Every fourth block of 3 x 3 patches is held out: neighbours overlap, blocks hardly do.
_BLOCK, _HELD_OUT_EVERY = 3, 4
# What the test asks of the patches held out: that the share whose own best place is within so many pixels of where the pose
# says is this large; that they come nearer by so much, in the mean of distances cut off at the former, and by so many
# standard errors over the blocks; and that they are not less alike by as many.
_AGREES_PX, _LEAST_AGREEING = 1.5, 0.25
_LEAST_NEARER_PX, _LEAST_SIGMAS = 0.03, 2.0
# The prior covariance is a network's word for itself, and not independent of the photo: it counts for less.
_PRIOR_INFLATION, _PRIOR_FLOOR_M = 3.0, 0.5
_CLAMP_PX = 20.0
# Season and light move all patches a little, together: squared errors over what the solver makes of the residuals, in the
# median (photos of the demo that are not its test photos).
_VARIANCE_FACTOR = 2.3


@dataclass(frozen=True)
class Refinement:
    """What refining a pose gave.

    Attributes:
        accepted: whether the refined pose passed the test; reason: why not, else empty.
        world_from_cam_44: the refined pose, or the coarse one where it was refused.
        covariance_66: as of `dsacstar.Result`, of the refined pose, with the map's own error; None where it was refused.
        confidence: the solver's; inlier_share: of the patches that could be matched. 0 where it came to no pose.
        score: mean similarity of the patches held out, at the pose that is kept.
        gain: what they gained in similarity from the coarse to the refined pose; nearer_px: by how much nearer it is to
            their own best places; agreement: share of them whose own best place agrees with the refined pose; NaN where it
            came to no test.
        rounds: renders that it took. seconds: time.
        map_m: the map's error in the covariance, standard deviation per axis, metres: it shows in no residual.
    """

    accepted: bool
    reason: str
    world_from_cam_44: np.ndarray
    covariance_66: np.ndarray | None
    confidence: float
    inlier_share: float
    score: float
    gain: float
    nearer_px: float
    agreement: float
    rounds: int
    seconds: float
    map_m: float = 0.0


@dataclass(frozen=True)
class _Round:
    """The photo's patches against one render.

    Attributes:
        similarity_PSS, peaks: see `localization.patches`.
        points_P3: what the patches show according to their peaks, NaN where that is not certain.
        usable_P: whether the solver may have them.
        seen_P: whether the render shows the map there. ahead_P3: what it shows at the patches' own centres.
    """

    similarity_PSS: np.ndarray
    peaks: Peaks
    points_P3: np.ndarray
    usable_P: np.ndarray
    seen_P: np.ndarray
    ahead_P3: np.ndarray


def refine(
    image_HW3: np.ndarray,
    K_33: np.ndarray,
    world_from_cam_44: np.ndarray,
    geodata: Geodata,
    *,
    height: int = REFERENCE_HEIGHT,
    covariance_66: np.ndarray | None = None,
    matcher: Matcher | None = None,
    seed: int = 0,
) -> Refinement:
    """Refines a pose by matching a pinhole photo with renders of the map.

    Args:
        image_HW3: uint8 RGB photo, undistorted. K_33: its intrinsics, pixels.
        world_from_cam_44: coarse pose, float64, in the geodata's frame.
        height: shorter side at which photo and render are compared, px; smaller photos are compared as they are.
        covariance_66: of the coarse pose; its position keeps the refined one from leaving without evidence.
        matcher: finds a new start where patches find nothing at the coarse pose, before a wider search by patches does.
        seed: of the solver.
    """
    started = time.perf_counter()
    coarse_44, K_33 = np.asarray(world_from_cam_44, np.float64), np.asarray(K_33, np.float64)
    photo = WorkingPhoto.of(image_HW3, K_33, height)
    patches = _PatchMatcher(photo, geodata)
    attempt = _Attempt(patches, coarse_44, _position_prior(coarse_44, covariance_66), seed)
    outcome, renders = attempt.start_from(coarse_44), 0
    if outcome.lost and matcher is not None:
        outcome, renders = attempt.again(outcome, attempt.start_by(matcher)), 1
    if outcome.lost:
        small = WorkingPhoto.of(image_HW3, K_33, max(_LEAST_HEIGHT, round(_WIDE_SHARE * photo.shorter_side)))
        outcome, renders = attempt.again(outcome, attempt.wide_start(_PatchMatcher(small, geodata))), renders + 1
    verdict, result, accepted = outcome.verdict, outcome.result, outcome.accepted
    return Refinement(
        accepted,
        outcome.reason,
        result.pose if accepted else world_from_cam_44,
        _with_map(_VARIANCE_FACTOR * result.covariance, geodata.error_m) if accepted else None,
        0.0 if result is None else result.confidence,
        0.0 if result is None else result.inliers / outcome.patches,
        verdict.refined if accepted else verdict.coarse,
        verdict.refined - verdict.coarse,
        verdict.nearer_px,
        verdict.agreement,
        patches.renders + renders,
        time.perf_counter() - started,
        geodata.error_m,
    )


@dataclass(frozen=True)
class _Verdict:
    """The test on patches held out: their mean similarity at either pose; see `Refinement`. NaN where it came to none."""

    coarse: float = np.nan
    refined: float = np.nan
    nearer_px: float = np.nan
    agreement: float = np.nan


@dataclass(frozen=True)
class _Outcome:
    """reason: why the pose is refused, else empty. result: the solver's with all patches, of which it had `patches`."""

    reason: str
    verdict: _Verdict = _Verdict()
    result: dsacstar.Result | None = None
    patches: int = 0

    @property
    def accepted(self) -> bool:
        return not self.reason

    @property
    def lost(self) -> bool:
        """Whether nothing was found, rather than the coarse pose being good already or nothing being there."""
        return self.reason != _NOTHING_SEEN and not self.verdict.agreement >= _LEAST_AGREEING


class _Attempt:
    """Refining one coarse pose, from it or from what a wider search makes of it."""

    def __init__(self, patches: _PatchMatcher, coarse_44: np.ndarray, priors: dsacstar.Priors | None, seed: int):
        self._patches, self._coarse_44, self._priors, self._seed = patches, coarse_44, priors, seed
        self._at_coarse = patches.match(coarse_44, _RADII[0])

    def start_from(self, start_44: np.ndarray) -> _Outcome:
        """Rounds of matching until the pose stands still, and the test."""
        patches, pose_44, fit_P = self._patches, start_44, ~self._patches.held_out_P
        if self._at_coarse.seen_P.sum() < _FEWEST_PATCHES:
            return _Outcome(_NOTHING_SEEN)
        for number in range(_MOST_ROUNDS):
            stage = min(number, len(_RADII) - 1)
            matches = self._at_coarse if pose_44 is self._coarse_44 else patches.match(pose_44, _RADII[stage])
            result = patches.solve(matches, fit_P, _THRESHOLDS_PX[stage], self._priors, self._seed)
            if result is None or not result.success:
                return _Outcome("no pose agrees with the matches")
            moved_px = patches.moved_px(matches, pose_44, result.pose)
            pose_44 = result.pose
            if number >= len(_RADII) - 1 and moved_px < _STANDS_STILL_PX * patches.scale:
                break
        else:
            return _Outcome("it does not converge")
        reason, verdict = patches.test(self._at_coarse, self._coarse_44, matches, pose_44)
        final = patches.solve(matches, np.ones_like(fit_P), _THRESHOLDS_PX[-1], self._priors, self._seed)
        if not reason and patches.moved_px(matches, pose_44, final.pose) > _STANDS_STILL_PX * patches.scale:
            reason = "the patches held out lead to another pose"
        return _Outcome(reason, verdict, final, int(matches.usable_P.sum()))

    def again(self, outcome: _Outcome, start_44: np.ndarray | None) -> _Outcome:
        """What another start gives, where that is accepted; else the outcome that there is."""
        other = outcome if start_44 is None else self.start_from(start_44)
        return other if other.accepted else outcome

    def start_by(self, matcher: Matcher) -> np.ndarray | None:
        """A pose from keypoints, to start from; None where there is none."""
        patches = self._patches
        return pose_from_pairs(patches.photo, self._coarse_44, patches.geodata, matcher, self._priors, self._seed)

    def wide_start(self, wide: _PatchMatcher) -> np.ndarray | None:
        """A pose from a wide search in small pictures, to start from; None where there is none."""
        matches = wide.match(self._coarse_44, _WIDE_RADIUS)
        result = wide.solve(matches, ~wide.held_out_P, _THRESHOLDS_PX[0], self._priors, self._seed)
        return result.pose if result is not None and result.success else None


def _with_map(covariance_66: np.ndarray, map_m: float) -> np.ndarray:
    """The covariance of a pose that is as wrong as its map, over what the map's residuals say."""
    return covariance_66 + np.diag([0.0] * 3 + [map_m**2] * 3)


def _position_prior(world_from_cam_44: np.ndarray, covariance_66: np.ndarray | None) -> dsacstar.Priors | None:
    if covariance_66 is None or not np.isfinite(covariance_66).all():
        return None
    covariance_33 = _PRIOR_INFLATION**2 * covariance_66[3:, 3:] + _PRIOR_FLOOR_M**2 * np.eye(3)
    return dsacstar.Priors(position=(world_from_cam_44[:3, 3], (covariance_33 + covariance_33.T) / 2))


class _PatchMatcher:
    """The patches of one photo, and the rounds of matching them."""

    def __init__(self, photo: WorkingPhoto, geodata: Geodata):
        self.photo, self.geodata, self.scale = photo, geodata, photo.scale
        height, width = photo.image_HW3.shape[:2]
        stride = max(2, 2 * round(_STRIDE_PX * self.scale / 2))
        self.grid = PatchGrid.of_image(height, width, stride, max(4, round(_HALF_PX * self.scale)))
        self._features = edge_directions(photo.image_HW3)
        rows, columns = self.grid.rows_P // _BLOCK, self.grid.columns_P // _BLOCK
        self.block_P = rows * (self.grid.shape[1] // _BLOCK + 1) + columns
        # Shifted from row to row, so that no direction goes without.
        self.held_out_P = (columns + 2 * rows) % _HELD_OUT_EVERY == 0
        self.renders = 0

    def match(self, world_from_cam_44: np.ndarray, radius: float) -> _Round:
        """Matches all patches with a render at a pose; radius in units of the shorter side."""
        margin = max(3, round(radius * self.photo.shorter_side))
        around = self.photo.render(self.geodata, world_from_cam_44, margin)
        view = around.view
        self.renders += 1
        similarity_PSS = similarities(self._features, edge_directions(view.rgb_HW3), self.grid, margin)
        peaks = find_peaks(similarity_PSS)
        centres_P2 = self.grid.centres_P2 + margin
        side = 2 * self.grid.half
        share_HW = cv2.boxFilter(view.valid_hw.astype(np.float32), -1, (side, side))
        seen_P = share_HW[centres_P2[:, 1], centres_P2[:, 0]] > _LEAST_SEEN
        points_P3 = around.points(centres_P2 + peaks.offset_P2)
        usable_P = seen_P & peaks.sharp_P & (peaks.similarity_P > _LEAST_SIMILARITY) & np.isfinite(points_P3).all(axis=1)
        return _Round(similarity_PSS, peaks, points_P3, usable_P, seen_P, around.points(centres_P2, certain=False))

    def solve(
        self, matches: _Round, chosen_P: np.ndarray, threshold_px: float, priors: dsacstar.Priors | None, seed: int
    ) -> dsacstar.Result | None:
        """The pose that the chosen patches agree with; None where they are too few."""
        usable_P = matches.usable_P & chosen_P
        if usable_P.sum() < _FEWEST_PATCHES:
            return None
        grid, peaks = self.grid, matches.peaks
        sigma_P = peaks.sigma_P * np.where(peaks.margin_P < _RIVAL_MARGIN, _RIVAL_FACTOR, 1.0)
        options = dsacstar.RansacOptions(
            threshold_px=threshold_px * self.scale,
            max_reprojection_px=_CLAMP_PX * max(self.scale, threshold_px / _CLAMP_PX),
            subsampling=grid.stride,
            residual="pixel",
            threads=1,
        )
        points_P3 = np.where(usable_P[:, None], matches.points_P3, 0.0)
        return dsacstar.solve(
            grid.spread(points_P3, 0.0).transpose(2, 0, 1)[None],
            self.photo.K_33,
            options=options,
            sigma=grid.spread(np.where(usable_P, sigma_P, 1.0).astype(np.float32), 1.0)[None],
            mask=grid.spread(usable_P, False)[None],
            priors=priors,
            seed=seed,
        )[0]

    def _flow(self, matches: _Round, world_from_cam_44: np.ndarray) -> np.ndarray:
        """By how much a pose moves what the render of a round shows at the patches' centres, [P, 2] px; NaN for nothing."""
        R_33, t_3 = world_from_cam_44[:3, :3], world_from_cam_44[:3, 3]
        image_P3 = (matches.ahead_P3 - t_3) @ R_33 @ self.photo.K_33.T
        depth_P1 = np.where(image_P3[:, 2:] > 0.1, image_P3[:, 2:], np.nan)
        return image_P3[:, :2] / depth_P1 - self.grid.centres_P2

    def moved_px(self, matches: _Round, before_44: np.ndarray, after_44: np.ndarray) -> float:
        """Median distance in the image between what two poses show."""
        steps_P2 = self._flow(matches, after_44) - self._flow(matches, before_44)
        lengths_P = np.linalg.norm(steps_P2, axis=1)
        return float(np.nanmedian(lengths_P)) if np.isfinite(lengths_P).any() else np.inf

    def test(self, first: _Round, coarse_44: np.ndarray, last: _Round, refined_44: np.ndarray) -> tuple[str, _Verdict]:
        """Compares patches that the refined pose was not made from, at both poses: why it is refused, and the figures.

        Args:
            first: matches at the coarse pose. last: near the refined pose.
        """
        # What moves by the flow in the render is found where the flow came from.
        expected_P2 = -self._flow(last, refined_44)
        refined_P = values_at(last.similarity_PSS, expected_P2)
        coarse_P = values_at(first.similarity_PSS, -self._flow(first, coarse_44))
        both_P = self.held_out_P & first.seen_P & last.seen_P & np.isfinite(refined_P) & np.isfinite(coarse_P)
        blocks, counts = np.unique(self.block_P[both_P], return_counts=True)
        if len(blocks) < _FEWEST_BLOCKS or counts.sum() < _FEWEST_PATCHES:
            return "too few patches are left to test it on", _Verdict()

        def mean_and_error(values_P: np.ndarray) -> tuple[float, float]:
            mean_B = np.bincount(np.searchsorted(blocks, self.block_P[both_P]), values_P[both_P]) / counts
            return float(values_P[both_P].mean()), float(mean_B.std(ddof=1) / np.sqrt(len(blocks)))

        limit_px = _AGREES_PX * self.scale
        own_P2 = last.peaks.offset_P2
        apart_P, coarse_apart_P = (
            np.minimum(np.nan_to_num(np.linalg.norm(own_P2 + self._flow(last, pose_44), axis=1), nan=np.inf), limit_px)
            for pose_44 in (refined_44, coarse_44)
        )
        gain, gain_error = mean_and_error(refined_P - coarse_P)
        nearer_px, nearer_error = mean_and_error(coarse_apart_P - apart_P)
        agreement = float((apart_P[both_P] < limit_px).mean())
        reason = ""
        if agreement < _LEAST_AGREEING:
            reason = "too few of the patches held out agree"
        elif nearer_px < max(_LEAST_NEARER_PX * self.scale, _LEAST_SIGMAS * nearer_error):
            reason = "the patches held out are no nearer"
        elif gain < -_LEAST_SIGMAS * gain_error:
            reason = "the patches held out are less alike"
        return reason, _Verdict(float(coarse_P[both_P].mean()), float(refined_P[both_P].mean()), nearer_px, agreement)
