"""What was assumed about geodata, said in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datagen import frames
from datagen.frames import Frame
from datagen.rasters import Grid
from datagen.vertical import Vertical


@dataclass(frozen=True)
class Assumptions:
    """What the files of a scene say, and what was assumed where they say nothing.

    Attributes:
        frame: the CRS worked in. vertical: unit and datum of the heights.
        tiles: number of files of surface model and orthophoto. surface_grid, ortho_grid: their cells.
        fills: undeclared nodata values found among the heights. holes: share of the surface model's cells without a height.
        coverage: share of its other cells that the orthophoto shows; None without an orthophoto's cells there.
        colour: remarks on bands and collars.
    """

    frame: Frame
    vertical: Vertical
    tiles: tuple[int, int]
    surface_grid: Grid
    ortho_grid: Grid
    fills: Sequence[float]
    holes: float
    coverage: float
    colour: Sequence[str]

    def record(self) -> dict:
        """The facts in JSON types."""
        return {
            "crs": frames.label(self.frame.crs),
            "crs_reason": self.frame.reason,
            "height_unit": self.vertical.unit,
            "metres_per_height_unit": self.vertical.metres_per_unit,
            "vertical_datum": self.vertical.datum,
            "ellipsoidal": self.vertical.ellipsoidal,
            "undeclared_nodata": [f"{value:.9g}" for value in self.fills],
            "surface_holes": round(self.holes, 4),
            "orthophoto_coverage": round(self.coverage, 4),
            "surface_cell_m": [self.surface_grid.step_x, self.surface_grid.step_y],
            "ground_sampling_m": [self.ortho_grid.step_x, self.ortho_grid.step_y],
            "colour": list(self.colour),
        }

    def __str__(self) -> str:
        """One line for people."""
        frame = frames.label(self.frame.crs) + (f" since {self.frame.reason}" if self.frame.reason else "")
        nodata = f"{self.holes:.1%} of them missing" if self.holes else "none missing"
        if self.fills:
            nodata += f" (undeclared nodata {', '.join(f'{value:.9g}' for value in self.fills)} taken as such)"
        extent = f"surface {self.surface_grid.cols} x {self.surface_grid.rows} cells of {_cell(self.surface_grid)}"
        only = "only " if self.coverage < 0.9 else ""
        ortho = f"orthophoto {_cell(self.ortho_grid)} a pixel, covers {only}{self.coverage:.1%} of the surface"
        files = "" if self.tiles == (1, 1) else f"{self.tiles[0]} surface and {self.tiles[1]} orthophoto files"
        return "; ".join(filter(None, (frame, str(self.vertical), extent, nodata, ortho, *self.colour, files)))


def _cell(grid: Grid) -> str:
    square = abs(grid.step_x / grid.step_y - 1) < 1e-3
    return f"{grid.step_x:.3g} m" if square else f"{grid.step_x:.3g} x {grid.step_y:.3g} m"
