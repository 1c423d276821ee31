"""Complete samples per second of the renderer: image, all labels, PNG and files written. Target: 5 on 2 cores.

    python benchmarks/datagen_throughput.py [--workers 2] [--surface DSM --ortho ORTHO --landcover COVER] [--json FILE]

Without geodata a landscape of 600 m with relief and blocks is made (0.5 m surface cells, 0.2 m orthophoto).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.transform import Affine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datagen import sampling, sections
from datagen.cameras import Camera, centred_intrinsics
from datagen.render import Renderer
from datagen.scene import GeoScene

EXTENT, HEIGHT_STEP, COLOUR_STEP = 600.0, 0.5, 0.2


def write_landscape(folder: Path) -> tuple[Path, Path, Path]:
    """Writes surface, orthophoto and land cover of the synthetic landscape."""
    rng = np.random.default_rng(0)
    n = round(EXTENT / HEIGHT_STEP)
    x, y = np.meshgrid(np.arange(n) * HEIGHT_STEP, np.arange(n) * HEIGHT_STEP)
    heights = 15 * np.sin(x / 90) * np.cos(y / 70) + rng.normal(0, 0.03, (n, n))
    codes = np.full((n, n), 3, np.uint8)
    for row, column in rng.integers(0, n - 60, (150, 2)):
        size = rng.integers(12, 50, 2)
        block = np.s_[row : row + size[0], column : column + size[1]]
        heights[block], codes[block] = heights[block].max() + rng.uniform(4, 15), 6
    m = round(EXTENT / COLOUR_STEP)
    noise = sum(
        cv2.resize(rng.normal(0, 1, (max(m // s, 2), max(m // s, 2), 3)), (m, m), interpolation=cv2.INTER_LINEAR)
        for s in (1, 4, 16, 64)
    )
    colour = np.clip(120 + 22 * noise, 0, 255).astype(np.uint8).transpose(2, 0, 1)
    paths = folder / "surface.tif", folder / "ortho.tif", folder / "landcover.tif"
    layers = (heights.astype(np.float32)[None], HEIGHT_STEP), (colour, COLOUR_STEP), (codes[None], HEIGHT_STEP)
    for path, (bands, step) in zip(paths, layers, strict=True):
        options = dict(driver="GTiff", count=len(bands), dtype=bands.dtype, crs="EPSG:32632")
        transform = Affine(step, 0, 500_000, 0, -step, 5_000_000)
        with rasterio.open(path, "w", height=bands.shape[1], width=bands.shape[2], transform=transform, **options) as out:
            out.write(bands)
    return paths


def views(scene: GeoScene, renderer: Renderer, K_33: np.ndarray, size: tuple[int, int], count: int) -> np.ndarray:
    """Views over the middle of the scene: 60 to 120 m above ground, any heading, pitch -90 to -45 degrees."""
    left, bottom, right, top = scene.grid.bounds
    dx, dy = scene.origin_xyz[:2]
    horizontal = tuple(
        (a + 0.25 * (b - a) + d, b - 0.25 * (b - a) + d) for a, b, d in ((left, right, dx), (bottom, top, dy))
    )
    height = min(60.0, 0.3 * (right - left))
    preset = sampling.Preset(
        count, False, horizontal, (height, 2 * height), "ground", (0, 360), (-90, -45), (-5, 5)
    )  # fmt: skip
    propose = sampling.preset_proposal(preset, scene)
    return sampling.sample_views(propose, renderer, K_33, size, count, min_valid=0.6, seed=0)[0]


def measure(paths, count: int, workers: int, folder: Path) -> dict:
    """Times opening, sampling, and rendering with writing."""
    width, height = 720, 480
    K_33 = centred_intrinsics(480.0, width, height)
    started = time.perf_counter()
    scene = GeoScene.open(*paths)
    renderer = Renderer(scene)
    opened = time.perf_counter()
    poses_N44 = views(scene, renderer, K_33, (width, height), count)
    cameras = [Camera(f"v_{k:05d}", pose_44, K_33, width, height) for k, pose_44 in enumerate(poses_N44)]
    # The clock starts with warm caches, as in a run of thousands.
    sections.write_sample(folder / "warm", cameras[0], renderer.render(poses_N44[0], K_33, width, height))
    sampled, cpu = time.perf_counter(), time.process_time()
    sections.write_section(
        folder / "section",
        cameras,
        lambda camera: renderer.render(camera.world_from_cam_44, K_33, width, height),
        workers=workers,
    )
    elapsed, cpu = time.perf_counter() - sampled, time.process_time() - cpu
    size = sum(path.stat().st_size for path in (folder / "section").rglob("*") if path.is_file())
    return {
        "samples": count,
        "size": [width, height],
        "workers": workers,
        "open_s": round(opened - started, 2),
        "samples_per_s": round(count / elapsed, 2),
        "cpu_s_per_sample": round(cpu / count, 3),
        "MB_per_sample": round(size / count / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--surface", type=Path)
    parser.add_argument("--ortho", type=Path)
    parser.add_argument("--landcover", type=Path)
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = (args.surface, args.ortho, args.landcover) if args.surface else write_landscape(Path(folder))
        result = measure(paths, args.samples, args.workers, Path(folder))
    print(f"{result['samples_per_s']:.2f} complete 720x480 samples/s with {args.workers} threads "
          f"({result['cpu_s_per_sample']:.3f} CPU s and {result['MB_per_sample']:.2f} MB each)")  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
