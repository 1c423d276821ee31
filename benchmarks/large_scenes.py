"""Does the cost of a view grow with the scene? Generated terrain of 1 to 100 km2 in tiles of 1 km2, read where views look.

Views are drawn anywhere over the scene and rendered in that order, so hardly any finds its part in memory. Seconds are of the
processor, so that neighbours do not count.

usage: python -m benchmarks.large_scenes [--km2 1 9 25 100] [--views 12]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

from datagen.cameras import centred_intrinsics
from datagen.flights import pose_of
from datagen.large_scene import LargeRenderer, LargeScene

_TILE_M, _STEP_M, _PIXEL_M = 1000.0, 1.0, 0.5
_LEFT, _TOP = 2_600_000.0, 1_200_000.0
_SIZE, _K_33 = (720, 480), centred_intrinsics(480.0, 720, 480)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--km2", type=int, nargs="+", default=[1, 9, 25, 100])
    parser.add_argument("--views", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        layers = Path(folder) / "surface", Path(folder) / "ortho"
        for layer in layers:
            layer.mkdir()
        written = 0
        print(f"{'km2':>4} {'files':>6} {'opening s':>10} {'s a view':>9} {'at most':>8} {'peak MiB':>9}")
        for km2 in sorted(args.km2):
            side = round(km2**0.5)
            written = _write_tiles(layers, side, written)
            opening, middle, largest, peak = _measure(layers, side, args.views)
            count = side * side
            print(f"{count:4d} {2 * count:6d} {opening:10.2f} {middle:9.2f} {largest:8.2f} {peak:9.0f}", flush=True)


def _write_tiles(layers: tuple[Path, Path], side: int, written: int) -> int:
    """Adds the tiles that make the square larger."""
    for row in range(side):
        for col in range(side):
            if max(row, col) >= written:
                _write_tile(layers, row, col)
    return side


def _write_tile(layers: tuple[Path, Path], row: int, col: int) -> None:
    for layer, step in zip(layers, (_STEP_M, _PIXEL_M), strict=True):
        index = (np.arange(round(_TILE_M / step)) + 0.5) * step
        x, y = (col * _TILE_M + index)[None], -(row * _TILE_M + index)[:, None]
        wave = np.sin(x / 57) * np.cos(y / 71) + 0.4 * np.sin(x / 13 + y / 17)
        bands = (400 + 15 * wave)[None].astype(np.float32)
        if layer.name == "ortho":
            bands = np.stack([np.clip(128 + 50 * wave * k, 0, 255).astype(np.uint8) for k in (1.0, 0.8, -0.6)])
        profile = {"driver": "GTiff", "count": len(bands), "height": len(index), "width": len(index), "dtype": bands.dtype}
        profile |= {"crs": "EPSG:2056", "tiled": True}
        profile["transform"] = Affine(step, 0, _LEFT + col * _TILE_M, 0, -step, _TOP - row * _TILE_M)
        with rasterio.open(layer / f"{row:02d}_{col:02d}.tif", "w", **profile) as raster:
            raster.write(bands)


def _measure(layers: tuple[Path, Path], side: int, views: int) -> tuple[float, float, float, float]:
    """Processor seconds to open, median and largest of a view, peak memory of the process so far."""
    start = time.process_time()
    scene = LargeScene.open(*layers)
    renderer = LargeRenderer(scene)
    opening = time.process_time() - start
    rng, seconds = np.random.default_rng(0), []
    left, bottom, right, top = scene.grid.bounds
    for _ in range(views):
        place = rng.uniform((left + 200, bottom + 200, 0), (right - 200, top - 200, 0))
        pose_44 = pose_of(place, (rng.uniform(0, 360), -60.0, 0.0))
        start = time.process_time()
        pose_44[2, 3] = scene.height_at(*place[:2])[0] + 120
        renderer.render(pose_44, _K_33, *_SIZE)
        seconds.append(time.process_time() - start)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return opening, float(np.median(seconds)), max(seconds), peak_mib


if __name__ == "__main__":
    main()
