"""How images become input for given weights: one rule, for evaluation and for continuing to train."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from dataloader.preprocessing import DEFAULT_IMAGE_HEIGHT, Preprocessing
from dataloader.scenes import PUBLISHED_SCENES, SceneStatistics, measure
from runs.record import record_of

logger = logging.getLogger(__name__)

_TRAINING_SECTIONS = ("train_sim", "train_drone_sim", "train_drone_real")


def preprocessing_from_statistics(
    statistics: SceneStatistics, *, grayscale: bool, image_height: int | None
) -> Preprocessing:
    """Of a network that starts from scratch on a scene."""
    height = image_height or DEFAULT_IMAGE_HEIGHT
    if grayscale:
        return Preprocessing(height, True, statistics.grey_mean, statistics.grey_std)
    return Preprocessing(height, False, statistics.rgb_mean, statistics.rgb_std)


def preprocessing_for(
    weights: Path, *, grayscale: bool, scene: str, scene_dir: Path, image_height: int | None = None
) -> Preprocessing:
    """Image size and normalisation that weights were trained with.

    By their record; weights without one are the published system's: 480 px and the published colours of the scene, or of
    the scene's own training sections where it is not a published one (with a warning).

    Args:
        grayscale: whether the network takes grey images.
        image_height: replaces the recorded one.
    Raises:
        ValueError: the record contradicts the weights, or nothing says how the weights were trained.
    """
    record = record_of(weights)
    if record is not None:
        if record.preprocessing.grayscale != grayscale:
            raise ValueError(
                f"the record of {weights} says grayscale = {record.preprocessing.grayscale}; the network differs"
            )
        return replace(record.preprocessing, image_height=image_height or record.preprocessing.image_height)
    statistics = PUBLISHED_SCENES.get(scene)
    if statistics is None:
        sections = [scene_dir / name for name in _TRAINING_SECTIONS if (scene_dir / name).is_dir()]
        if not sections:
            raise ValueError(f"{weights} has no record, and {scene_dir} no training section to take the colours from")
        logger.warning("%s has no record: colours are measured on %s", weights, ", ".join(s.name for s in sections))
        statistics = measure(sections)
    return preprocessing_from_statistics(statistics, grayscale=grayscale, image_height=image_height)
