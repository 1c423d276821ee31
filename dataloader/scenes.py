"""Scene statistics: published constants for the benchmark scenes, measured on a run's own sections for any other scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataloader.images import decode_image
from dataloader.labels import read_label
from dataloader.preprocessing import LUMA
from dataloader.section import stems_in
from geometry.angles import angles_from_normal
from tasks import TASKS

# Grey input of published networks, whatever their scene but naturescape.
GREY_MEAN, GREY_STD = (0.4308,), (0.1724,)
_URBANSCAPE_RGB = {"rgb_mean": (0.4245, 0.4375, 0.3836), "rgb_std": (0.1823, 0.1701, 0.1854)}
_MAX_SAMPLES = 200
_MIN_STD = 0.02


@dataclass(frozen=True)
class SceneStatistics:
    """What normalisation and the network's `mean` buffer need to know of a scene.

    Attributes:
        mean_coord: mean scene coordinate, metres.
        coord_spread: root mean square distance per axis from the mean coordinate, metres.
        mean_depth, depth_spread: mean and standard deviation of the z-buffer depth, metres.
        mean_normal: mean azimuth and elevation of the camera-frame normal, radians.
        rgb_mean, rgb_std: of images in [0, 1]. grey_mean, grey_std: of grey ones, a single number each.
    """

    mean_coord: tuple[float, float, float]
    coord_spread: float
    mean_depth: float
    depth_spread: float
    mean_normal: tuple[float, float]
    rgb_mean: tuple[float, float, float]
    rgb_std: tuple[float, float, float]
    grey_mean: tuple[float] = GREY_MEAN
    grey_std: tuple[float] = GREY_STD


# Both scenes are normalised with urbanscape's colours. The published spreads are those of an image about its own mean,
# averaged over images (coordinates: 46.4 63.7 45.4 and 61.7 100.4 86.2 m, here their root mean square); they only set the
# units in which the last layer trains.
PUBLISHED_SCENES: dict[str, SceneStatistics] = {
    "naturescape": SceneStatistics(
        (-455.934, 417.50, 520.31),
        84.3,
        241.47,
        58.8,
        (-0.7943, -0.9986),
        **_URBANSCAPE_RGB,
        grey_mean=(0.4084,),
        grey_std=(0.1404,),
    ),
    "urbanscape": SceneStatistics((-29.34, 184.17, 91.96), 52.5, 136.24, 43.1, (-1.0454, -0.9858), **_URBANSCAPE_RGB),
}


def measure(section_dirs: Sequence[Path]) -> SceneStatistics:
    """Measures the statistics over at most 200 samples, evenly spread over the sorted stems of the sections.

    Raises:
        ValueError: there is no scene coordinate to measure.
    """
    section_dirs = [Path(section) for section in section_dirs]
    samples = [(section, stem) for section in section_dirs for stem in stems_in(section / "init", {".dat"})]
    if not samples:
        raise ValueError(f"no init/*.dat labels to measure scene statistics from in {[str(s) for s in section_dirs]}")
    chosen = [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, _MAX_SAMPLES).astype(int))]
    values: dict[str, list[torch.Tensor]] = {task: [] for task in ("coord", "depth", "normal")}
    colours: list[torch.Tensor] = []
    images = {section: stems_in(section / "rgb") for section in section_dirs}
    for section, stem in tqdm(chosen, desc="scene statistics", unit="image", leave=False):
        for task, found in values.items():
            path = section / TASKS[task].label_folder / f"{stem}.dat"
            if path.is_file():
                label, valid_1hw = read_label(path, TASKS[task])
                found.append(label[:, valid_1hw[0]].double())
        if stem in images[section]:
            colours.append(torch.from_numpy(decode_image(images[section][stem])[::4, ::4].reshape(-1, 3).T / 255.0))
    coord_3N = torch.cat(values["coord"], 1)
    if coord_3N.shape[1] == 0:
        raise ValueError(f"no valid scene coordinate in {[str(s) for s in section_dirs]}")
    return _summary(coord_3N, values["depth"], values["normal"], colours)


def _summary(
    coord_3N: torch.Tensor, depths: list[torch.Tensor], normals: list[torch.Tensor], colours: list[torch.Tensor]
) -> SceneStatistics:
    depth_1N = torch.cat(depths, 1) if depths else torch.ones(1, 1, dtype=torch.float64)
    normal_3 = torch.cat(normals, 1).mean(1) if normals else torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    colour_3N = torch.cat(colours, 1) if colours else torch.full((3, 2), 0.5, dtype=torch.float64)
    grey_1N = torch.tensor([LUMA], dtype=torch.float64) @ colour_3N
    mean_coord_3 = coord_3N.mean(1)
    return SceneStatistics(
        mean_coord=tuple(mean_coord_3.tolist()),
        coord_spread=float((coord_3N - mean_coord_3[:, None]).square().mean().sqrt()),
        mean_depth=float(depth_1N.mean()),
        depth_spread=float(depth_1N.std(correction=0)),
        mean_normal=tuple(angles_from_normal(normal_3[None, :, None]).flatten().tolist()),
        rgb_mean=tuple(colour_3N.mean(1).tolist()),
        rgb_std=_std(colour_3N),
        grey_mean=tuple(grey_1N.mean(1).tolist()),
        grey_std=_std(grey_1N),
    )


def _std(colour_CN: torch.Tensor) -> tuple[float, ...]:
    """Of channels; images without contrast are not blown up."""
    return tuple(colour_CN.std(1, correction=0).clamp(min=_MIN_STD).tolist())
