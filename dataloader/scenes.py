"""Scene statistics: published constants for the benchmark scenes, measured once for any other scene."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataloader.images import decode_image
from dataloader.labels import read_label
from tasks import TASKS

STATISTICS_NAME = "statistics.json"
# Grey input of every scene.
GREY_MEAN, GREY_STD = (0.4308,), (0.1724,)
_URBANSCAPE_RGB = {"rgb_mean": (0.4245, 0.4375, 0.3836), "rgb_std": (0.1823, 0.1701, 0.1854)}
_MAX_SAMPLES = 200


@dataclass(frozen=True)
class SceneStatistics:
    """What normalisation and the network's `mean` buffer need to know of a scene.

    Attributes:
        mean_coord: mean scene coordinate, metres.
        coord_spread: root mean square distance per axis from the mean coordinate, metres.
        mean_depth, depth_spread: mean and standard deviation of the z-buffer depth, metres.
        mean_normal: mean azimuth and elevation of the camera-frame normal, radians.
        rgb_mean, rgb_std: of images in [0, 1].
    """

    mean_coord: tuple[float, float, float]
    coord_spread: float
    mean_depth: float
    depth_spread: float
    mean_normal: tuple[float, float]
    rgb_mean: tuple[float, float, float]
    rgb_std: tuple[float, float, float]


# Published means. Both scenes are normalised with urbanscape's colours. The spreads are not published: they only set
# the units in which the last layer trains, so the extent of the scenes (several hundred metres) is enough.
PUBLISHED_SCENES: dict[str, SceneStatistics] = {
    "naturescape": SceneStatistics(
        (-455.934, 417.50, 520.31), 200.0, 241.47, 80.0, (-0.7943, -0.9986), **_URBANSCAPE_RGB
    ),
    "urbanscape": SceneStatistics(
        (-29.34, 184.17, 91.96), 200.0, 136.24, 60.0, (-1.0454, -0.9858), **_URBANSCAPE_RGB
    ),
}


def scene_statistics(scene: str, scene_dir: Path, sections: list[Path]) -> SceneStatistics:
    """Statistics of a scene: published, else read from `statistics.json`, else measured from `sections` and kept there.

    Raises:
        ValueError: the kept file is damaged, or the sections hold no valid label.
    """
    if scene in PUBLISHED_SCENES:
        return PUBLISHED_SCENES[scene]
    kept = scene_dir / STATISTICS_NAME
    if kept.is_file():
        return _read(kept)
    statistics = measure(sections)
    temporary = kept.with_suffix(f".{os.getpid()}.part")
    temporary.write_text(json.dumps(asdict(statistics), indent=1) + "\n")
    temporary.replace(kept)
    return statistics


def _read(path: Path) -> SceneStatistics:
    try:
        values = json.loads(path.read_text())
        return SceneStatistics(**{k: tuple(v) if isinstance(v, list) else float(v) for k, v in values.items()})
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"scene statistics {path} are damaged ({error}); delete the file to measure them again") from None


def measure(sections: list[Path]) -> SceneStatistics:
    """Measures the statistics over at most 200 samples, evenly spread over the sorted stems of the sections."""
    stems = [(section, path.stem) for section in sections for path in sorted((section / "init").glob("*.dat"))]
    if not stems:
        raise ValueError(f"no init/*.dat labels to measure scene statistics from in {[str(s) for s in sections]}")
    chosen = [stems[i] for i in np.unique(np.linspace(0, len(stems) - 1, _MAX_SAMPLES).astype(int))]
    coords, depths, normals, colours = [], [], [], []
    for section, stem in tqdm(chosen, desc="scene statistics", unit="image", leave=False):
        for folder, values in (("coord", coords), ("depth", depths), ("normal", normals)):
            path = section / TASKS[folder].label_folder / f"{stem}.dat"
            if path.is_file():
                label, valid_1hw = read_label(path, TASKS[folder])
                values.append(label[:, valid_1hw[0]].double())
        image = next(iter(sorted((section / "rgb").glob(f"{stem}.*"))), None)
        if image is not None:
            colours.append(torch.from_numpy(decode_image(image)[::4, ::4].reshape(-1, 3).T / 255.0))
    coord_3N = torch.cat(coords, 1)
    if coord_3N.shape[1] == 0:
        raise ValueError(f"no valid scene coordinate in {[str(s) for s in sections]}")
    depth_N = torch.cat(depths, 1)[0] if depths else torch.ones(1, dtype=torch.float64)
    normal_3N = torch.cat(normals, 1).mean(1) if normals else torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    colour_3N = torch.cat(colours, 1) if colours else torch.full((3, 2), 0.5, dtype=torch.float64)
    mean_coord = coord_3N.mean(1)
    x, y, z = normal_3N.tolist()
    return SceneStatistics(
        mean_coord=tuple(mean_coord.tolist()),
        coord_spread=float((coord_3N - mean_coord[:, None]).square().mean().sqrt()),
        mean_depth=float(depth_N.mean()),
        depth_spread=float(depth_N.std(correction=0)),
        mean_normal=(float(np.arctan2(y, x)), float(np.arctan2(z, np.hypot(x, y)))),
        rgb_mean=tuple(colour_3N.mean(1).tolist()),
        rgb_std=tuple(colour_3N.std(1, correction=0).clamp(min=0.02).tolist()),
    )
