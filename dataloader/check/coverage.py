"""How much of the ground that held-out images see is seen by training images, and a map of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.check.across import part_of
from dataloader.check.finding import Finding
from dataloader.check.sample import Seen

# Side of a cell of the map, as a share of the median depth: a view is a handful of cells wide.
_CELL_DEPTHS = 0.2
_LOW = 0.5
# The ground's flattest direction may lean so much (cosine) and z still counts as up.
_UPRIGHT = 0.8


@dataclass(frozen=True)
class Coverage:
    """The ground seen from above.

    Attributes:
        cell_m: side of a cell. shares: held-out section to the share of its cells that training sees.
        cells: part to the cells [N, 2] that its images see. axes: names of the map's axes.
    """

    cell_m: float
    shares: dict[str, float]
    cells: dict[str, np.ndarray]
    axes: tuple[str, str]

    def findings(self) -> list[Finding]:
        """Held-out sections that look elsewhere."""
        return [
            Finding("low-coverage", name, "", f"training images see {100 * share:.0f} % of the ground that these images see")
            for name, share in self.shares.items()
            if share < _LOW
        ]


def coverage_of(sections: dict[str, list[Seen]]) -> Coverage | None:
    """Coverage of held-out sections by all training sections; None without scene coordinates or training images."""
    points = {
        name: np.concatenate([sample.ground_N3 for sample in samples if sample.ground_N3 is not None])
        for name, samples in sections.items()
        if any(sample.ground_N3 is not None for sample in samples)
    }
    depths = [sample.depth_m for samples in sections.values() for sample in samples if sample.depth_m is not None]
    if not any(part_of(name) == "train" for name in points) or not np.median(depths) > 0:
        return None
    cell_m = float(_CELL_DEPTHS * np.median(depths))
    plan_32, axes = _plan(np.concatenate(list(points.values())))
    cells = {name: np.unique(np.floor(p_N3 @ plan_32 / cell_m).astype(int), axis=0) for name, p_N3 in points.items()}
    parts = {
        part: np.unique(np.concatenate(found), axis=0)
        for part in ("train", "val", "test")
        if (found := [cells[name] for name in cells if part_of(name) == part])
    }
    trained = set(map(tuple, parts["train"].tolist()))
    shares = {
        name: float(np.mean([tuple(cell) in trained for cell in found.tolist()]))
        for name, found in cells.items()
        if part_of(name) in ("val", "test")
    }
    return Coverage(cell_m, shares, parts, axes)


def _plan(points_N3: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Two directions [3, 2] that span the ground: x and y where z is up, else the two along which it is widest."""
    centred_N3 = (points_N3 - points_N3.mean(0)).astype(np.float64)
    _, directions_33 = np.linalg.eigh(centred_N3.T @ centred_N3)
    if abs(directions_33[2, 0]) > _UPRIGHT:
        return np.eye(3)[:, :2], ("x (m)", "y (m)")
    return directions_33[:, :0:-1], ("along the ground's longest side (m)", "across it (m)")


def draw(coverage: Coverage, path: Path) -> None:
    """Writes the map as a picture: ground seen by training images only, by held-out ones only, and by both."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    every = np.concatenate(list(coverage.cells.values()))
    low_2 = every.min(0)
    shown = np.ones((*(every.max(0) - low_2 + 1)[::-1], 3))
    held_out = [coverage.cells[part] for part in ("val", "test") if part in coverage.cells]
    colours = {"training only": (0.75, 0.85, 0.95), "both": (0.2, 0.45, 0.8), "val or test only": (0.9, 0.35, 0.2)}
    trained = set(map(tuple, coverage.cells["train"].tolist()))
    for x, y in (coverage.cells["train"] - low_2).tolist():
        shown[y, x] = colours["training only"]
    for cell in np.unique(np.concatenate(held_out), axis=0).tolist() if held_out else ():
        x, y = cell - low_2
        shown[y, x] = colours["both" if tuple(cell) in trained else "val or test only"]
    figure, axis = pyplot.subplots(figsize=(8, 8), dpi=100)
    ends = [(low_2[i] + shift) * coverage.cell_m for i in (0, 1) for shift in (0, shown.shape[1 - i])]
    axis.imshow(shown, origin="lower", extent=ends, interpolation="nearest")
    axis.set(xlabel=coverage.axes[0], ylabel=coverage.axes[1], title=f"ground seen, cells of {coverage.cell_m:.3g} m")
    axis.legend(handles=[Patch(color=colour, label=text) for text, colour in colours.items()], loc="upper right")
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)
