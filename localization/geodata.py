"""The map that poses are refined against: geodata opened in the frame that the network's coordinates are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyproj

from datagen import frames
from datagen.mosaic import Sources, tile_paths
from datagen.render import Renderer, View
from datagen.scene import GeoScene, OriginTooFarError
from records import fingerprint


class Geodata:
    """Renders what the map shows at a pose. Thread-safe.

    Attributes:
        scene: surface and orthophoto in the frame of the poses.
        contents: fingerprints of the files that it was read from, by what they are and their name.
    """

    def __init__(self, scene: GeoScene, contents: Mapping[str, str] | None = None):
        self.scene, self.contents = scene, dict(contents or {})
        self._renderer = Renderer(scene, label_stride=1)

    @classmethod
    def open(
        cls, surface: Sources, ortho: Sources, frame: Mapping[str, Any] | None, height_unit: str | None = None
    ) -> Geodata:
        """Reads a surface model and an orthophoto.

        Args:
            surface, ortho, height_unit: as for `GeoScene.open`.
            frame: CRS and origin of the poses, as the record of a run keeps them.
        Raises:
            FileNotFoundError, ValueError: files that are no geodata, of another CRS than the poses, or no frame.
        """
        if not frame or frame.get("origin_xyz") is None:
            raise ValueError(
                "nothing says which frame the network's coordinates are in (its record has no CRS and origin), so that the "
                "geodata have no place there; localise without --surface and --ortho, or with weights that have a record"
            )
        sources = {"surface": surface, "ortho": ortho}
        # Files without a CRS are in the network's, which the user had to name when the data set was made.
        origin_xyz, crs = tuple(frame["origin_xyz"]), frame.get("crs")
        try:
            scene = GeoScene.open(surface, ortho, origin_xyz=origin_xyz, declared_crs=crs, height_unit=height_unit)
        except OriginTooFarError:
            where = ", ".join(f"{value:.0f}" for value in origin_xyz)
            raise ValueError(
                f"the geodata are of another place: they lie hundreds of kilometres from the origin ({where}) of the "
                "network's coordinates"
            ) from None
        if frame.get("crs"):
            wanted, found = pyproj.CRS.from_user_input(frame["crs"]).to_2d(), frames.full(scene.crs).to_2d()
            if not wanted.equals(found, ignore_axis_order=True):
                raise ValueError(f"the geodata are in {found.name}, the network's coordinates in {wanted.name}")
        files = {f"{what}/{path.name}": path for what in sources for path in tile_paths(sources[what], what)}
        return cls(scene, fingerprint.digests(files))

    def render(self, world_from_cam_44: np.ndarray, K_33: np.ndarray, width: int, height: int) -> View:
        """Colour, and world coordinates of every pixel; see `Renderer.render`. Depth edges are not smoothed."""
        return self._renderer.render(world_from_cam_44, K_33, width, height, smooth_edges=False)

    @property
    def error_m(self) -> float:
        """How far off the map is taken to have things, standard deviation per axis, metres, where nothing says more.

        A map says no better where things are than its orthophoto's pixels do.
        """
        grid = self.scene.ortho_grid
        return float(max(grid.step_x, grid.step_y) / np.sqrt(12))

    def check_place(self, centre_3: Sequence[float]) -> None:
        """Raises ValueError unless a point, such as the middle of what a network knows, lies on the surface model."""
        left, bottom, right, top = self.scene.grid.bounds
        x, y = centre_3[:2]
        if not (left <= x <= right and bottom <= y <= top):
            ox, oy, _ = self.scene.origin_xyz
            raise ValueError(
                f"the geodata are of another place: they cover x {left + ox:.0f} to {right + ox:.0f}, "
                f"y {bottom + oy:.0f} to {top + oy:.0f}, and the network was trained around ({x + ox:.0f}, {y + oy:.0f})"
            )
