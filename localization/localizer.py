"""From photos to poses.

from localization.localizer import Localizer

localizer = Localizer.from_weights("model.net", surface="dsm.tif", ortho="ortho.tif")
answer = localizer("photo.jpg")
print(answer.verdict, answer.world_from_cam_44, answer.covariance_66)
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

import dsacstar
from dataloader.prepare import collate_views, prepare_views
from dataloader.preprocessing import Preprocessing
from dataloader.section import view_of
from localization.answer import Answer
from localization.calibration import STAGES, Calibration, calibration_of, judged
from localization.forward import BATCH_SIZE, Forward, precision_for
from localization.geodata import Geodata
from localization.intrinsics import Intrinsics, intrinsics_from
from localization.judge import verdict_of, verdict_of_refined
from localization.matchers import Matcher, matcher_of
from localization.photos import Photo, read_photo, turn_by
from localization.recorded_map import recorded_map
from localization.refinement import REFINEMENTS, WORKING_HEIGHTS, Refinement, refine
from localization.solving import EstimatedPose, SolverOptions, solve_poses
from networks import load_network
from runs.device import choose_device
from runs.preprocessing import preprocessing_for
from runs.record import RunRecord, record_of
from threads import configure_threads

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A coord network ready to predict: weights with what they are used with.

    Attributes:
        record: of the run that made them; None without one.
        calibrations: what validation taught of the answers, by stage, where the weights come with it.
    """

    forward: Forward
    preprocessing: Preprocessing
    record: RunRecord | None
    device: torch.device
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)

    @classmethod
    def load(cls, weights: Path, device: torch.device, precision: str | None = None, scene_dir: Path | None = None) -> Model:
        """Reads weights with their record.

        Args:
            scene_dir: of the scene they are of, for weights without a record.
        Raises:
            FileNotFoundError, ValueError: no weights, of another task, or nothing says how their images are preprocessed.
        """
        net = load_network(weights)
        if net.architecture.task != "coord":
            raise ValueError(f"{weights} is a network for the task {net.architecture.task}; poses come from coord networks")
        record = record_of(weights)
        if record is None and scene_dir is None:
            raise ValueError(
                f"{weights} has no record, so that nothing says how its images were preprocessed; name the scene it is of"
            )
        scene_dir = Path(record.scene) if scene_dir is None else scene_dir
        preprocessing = preprocessing_for(
            weights, grayscale=net.architecture.in_channels == 1, scene=scene_dir.name, scene_dir=scene_dir
        )
        found = {stage: calibration_of(weights, stage) for stage in STAGES}
        calibrations = {stage: calibration for stage, calibration in found.items() if calibration is not None}
        forward = Forward(net, device, precision_for(record, device, precision))
        return cls(forward, preprocessing, record, device, calibrations)


class Localizer:
    """Turns photos into answers: preprocess, predict, solve, refine where there are geodata, judge.

    Attributes:
        record: of the weights' run; None without one. frame: of the poses (CRS and origin), where the record says.
        geodata: what poses are refined by; None: they are the network's.
    """

    def __init__(
        self,
        model: Model,
        *,
        solver: SolverOptions | None = None,
        geodata: Geodata | None = None,
        refine_height: int = WORKING_HEIGHTS[0],
        matcher: Matcher | None = None,
    ):
        """
        Args:
            solver: default: SolverOptions().
            refine_height, matcher: see `localization.refinement.refine`.
        Raises:
            ValueError: geodata of another place than the network's.
        """
        self._model, self._solver, self._refine_height = model, solver or SolverOptions(), refine_height
        self.geodata, self._matcher = geodata, matcher
        for stage, calibration in model.calibrations.items():
            if stage == "coarse" or geodata is not None:
                logger.info("verdicts on %s poses: %s", stage, calibration)
        if geodata is not None and self.record is not None:
            geodata.check_place(self.record.statistics.mean_coord)

    @classmethod
    def from_weights(
        cls,
        weights: Path | str,
        *,
        surface: Path | str | Sequence[Path | str] | None = None,
        ortho: Path | str | Sequence[Path | str] | None = None,
        solver: SolverOptions | None = None,
        refine: str = "ncc",
        refine_height: int = WORKING_HEIGHTS[0],
        device: str = "auto",
        precision: str | None = None,
        scene_dir: Path | str | None = None,
        height_unit: str | None = None,
        recorded: bool = True,
    ) -> Localizer:
        """Of a weights file.

        Args:
            surface, ortho: geodata to refine poses by: GeoTIFFs or folders of tiles; both or none.
            refine: how, where there are geodata: one of `localization.refinement.REFINEMENTS`.
            scene_dir: folder of the scene, for weights without a record; its name may be that of a published scene.
            height_unit: of the surface model, see `GeoScene.open`.
            recorded: without geodata, refine by those that are recorded with the weights, if they are there, unchanged.
        Raises:
            FileNotFoundError, ValueError: bad weights, geodata or options; a message for the user.
        """
        if (surface is None) != (ortho is None):
            raise ValueError("refining by the map needs both, the surface model and the orthophoto")
        if refine not in REFINEMENTS:
            raise ValueError(f"refine must be one of {', '.join(REFINEMENTS)}, got {refine!r}")
        if refine == "off":
            surface, ortho, recorded = None, None, False
        scene_dir = None if scene_dir is None else Path(scene_dir)
        chosen = choose_device(device)
        model = Model.load(Path(weights), chosen, precision, scene_dir)
        if recorded and surface is None and (found := recorded_map(model.record, scene_dir)) is not None:
            surface, ortho, height_unit = found.surface, found.ortho, height_unit or found.height_unit
        geodata, matcher = None, None
        if surface is not None and ortho is not None:
            matcher = matcher_of(refine, chosen)
            geodata = Geodata.open(surface, ortho, None if model.record is None else model.record.frame, height_unit)
        return cls(model, solver=solver, geodata=geodata, refine_height=refine_height, matcher=matcher)

    @property
    def record(self) -> RunRecord | None:
        return self._model.record

    @property
    def frame(self) -> dict | None:
        return None if self.record is None or self.record.frame is None else dict(self.record.frame)

    def intrinsics(self, words: Sequence[str] = ("exif",)) -> Intrinsics:
        """See `localization.intrinsics.intrinsics_from`, with the cameras that the network was trained on."""
        return intrinsics_from(words, None if self.record is None else self.record.cameras)

    def __call__(self, photo: Photo | Path | str) -> Answer:
        """The answer to one photo; a file is read with the intrinsics of its EXIF.

        Raises:
            FileNotFoundError, ValueError: the file is no picture, or its intrinsics are not known.
        """
        if not isinstance(photo, Photo):
            photo = read_photo(Path(photo), self.intrinsics())
        return self.localize([photo])[0]

    def localize(self, photos: Sequence[Photo], priors: Sequence[dsacstar.Priors | None] | None = None) -> list[Answer]:
        """Answers to photos, in their order; what a photo gives does not depend on the others.

        Args:
            priors: what is known beforehand, one (or None) a photo.
        """
        known = [None] * len(photos) if priors is None else list(priors)
        answers: list[Answer] = []
        pairs = list(zip(photos, known, strict=True))
        for _, group in itertools.groupby(pairs, key=lambda pair: pair[0].image_HW3.shape):
            same = list(group)
            for first in range(0, len(same), BATCH_SIZE):
                answers += self._coarse(same[first : first + BATCH_SIZE])
        answers = [
            self._surer_as_stored(photo, prior, answer) for photo, prior, answer in zip(photos, known, answers, strict=True)
        ]
        if self.geodata is not None:
            with ThreadPoolExecutor(configure_threads()) as pool:
                answers = list(pool.map(self._refined, photos, answers))
        # Last, since refinement wants the solver's own covariance, in evaluations too.
        return [self._judged(answer) for answer in answers]

    def _surer_as_stored(self, photo: Photo, prior: dsacstar.Priors | None, found: Answer) -> Answer:
        """The answer to a photo that EXIF turned: as it was stored, where the network is surer of that.

        A camera that looks straight down has no upright; what its EXIF says then is chance, and networks know the headings
        and the shape of the pictures that they were trained on.
        """
        turn_33 = turn_by(photo.orientation)
        if turn_33 is None or photo.orientation == 1:
            return found
        if prior is not None and prior.gravity is not None:
            down_B3, sigma_deg = prior.gravity
            prior = replace(prior, gravity=(down_B3 @ turn_33, sigma_deg))
        (stored,) = self._coarse([(photo.as_stored(), prior)])
        if (stored.success, stored.confidence or 0.0) <= (found.success, found.confidence or 0.0):
            return replace(found, seconds=found.seconds + stored.seconds)
        turn_66, pose_44, covariance_66 = np.eye(6), stored.world_from_cam_44.copy(), stored.covariance_66
        turn_66[:3, :3], pose_44[:3, :3] = turn_33, pose_44[:3, :3] @ turn_33.T
        if np.isfinite(covariance_66).all():
            covariance_66 = turn_66 @ covariance_66 @ turn_66.T
        return replace(
            stored,
            world_from_cam_44=pose_44,
            K_33=found.K_33,
            size_wh=found.size_wh,
            covariance_66=covariance_66,
            seconds=found.seconds + stored.seconds,
        )

    def _coarse(self, pairs: Sequence[tuple[Photo, dsacstar.Priors | None]]) -> list[Answer]:
        """Answers of the network to photos of one size."""
        started = time.perf_counter()
        model, photos = self._model, [photo for photo, _ in pairs]
        raw = collate_views(
            [
                view_of(photo.image_HW3, torch.from_numpy(photo.K_33), model.preprocessing.image_height, photo.name)
                for photo in photos
            ]
        )
        with torch.inference_mode():
            views = prepare_views(raw.to(model.device), model.preprocessing)
        coords_B3hw, sigma_B1hw = model.forward(views.images_B3HW)
        cells = coords_B3hw.shape[2] * coords_B3hw.shape[3]
        prepared_s = (time.perf_counter() - started) / len(photos)
        answers = []
        for i, (photo, prior) in enumerate(pairs):
            sigma_11hw = None if sigma_B1hw is None else sigma_B1hw[i : i + 1]
            before = time.perf_counter()
            pose = solve_poses(
                coords_B3hw[i : i + 1], sigma_11hw, views.K_B33[i : i + 1], self._solver, stride=model.forward.stride,
                priors=prior,
            )[0]  # fmt: skip
            seconds = prepared_s + time.perf_counter() - before
            answers.append(_coarse_answer(photo, pose, cells, sigma_11hw, seconds))
        return answers

    def _judged(self, answer: Answer) -> Answer:
        """By the weights' calibration for answers of its stage, where there is one."""
        calibration = self._model.calibrations.get(answer.stage)
        found = answer if calibration is None else judged(answer, calibration)
        return replace(found, coarse=None if answer.coarse is None else self._judged(answer.coarse))

    def _refined(self, photo: Photo, coarse: Answer) -> Answer:
        if coarse.verdict == "failed" and not np.isfinite(coarse.covariance_66).all():
            return coarse  # there is no place to render from
        refinement = refine(
            photo.image_HW3,
            photo.K_33,
            coarse.world_from_cam_44,
            self.geodata,
            height=self._refine_height,
            covariance_66=coarse.covariance_66,
            matcher=self._matcher,
        )
        if not refinement.accepted:
            logger.debug("%s: not refined, %s", photo.name, refinement.reason)
        return refined_answer(coarse, refinement)


def _coarse_answer(photo: Photo, pose: EstimatedPose, cells: int, sigma_11hw: torch.Tensor | None, seconds: float) -> Answer:
    inlier_share = (pose.inliers or 0) / cells
    return Answer(
        name=photo.name,
        world_from_cam_44=pose.world_from_cam_44,
        K_33=photo.K_33,
        size_wh=(photo.image_HW3.shape[1], photo.image_HW3.shape[0]),
        verdict=verdict_of(pose.success, pose.confidence, inlier_share),
        confidence=pose.confidence,
        covariance_66=np.full((6, 6), np.inf) if pose.covariance_66 is None else pose.covariance_66,
        inlier_share=inlier_share,
        score=float("nan") if pose.score is None else pose.score,
        sigma=None if sigma_11hw is None else float(sigma_11hw.median()),
        stage="coarse",
        seconds=seconds,
        time_s=photo.time_s,
    )


def refined_answer(coarse: Answer, refinement: Refinement) -> Answer:
    """The answer after an attempt to refine it; a refused one costs its time and changes nothing else."""
    seconds = coarse.seconds + refinement.seconds
    if not refinement.accepted:
        return replace(coarse, seconds=seconds)
    return replace(
        coarse,
        world_from_cam_44=refinement.world_from_cam_44,
        covariance_66=refinement.covariance_66,
        verdict=verdict_of_refined(refinement.confidence, refinement.agreement),
        confidence=refinement.confidence,
        inlier_share=refinement.inlier_share,
        score=refinement.score,
        stage="refined",
        seconds=seconds,
        coarse=coarse,
        map_m=refinement.map_m,
    )
