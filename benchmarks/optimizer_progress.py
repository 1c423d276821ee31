#!/usr/bin/env python3
"""What an optimizer reaches with how many images and seconds, on one data set, one run after the other.

    python benchmarks/optimizer_progress.py demo --runs muon:4:8e-4 adam:4:1e-3 adam:12:1e-3 muon:4:8e-4:0.5

A run is OPTIMIZER:EPOCHS:RATE, and :START_SCALE where it trains on small images first. Each pre-trains the tiny network by
the quickstart's flags in a temporary folder and is then tested on val_sim, which it has not seen. Seconds of all cores
together (cpu) say more than those on the clock when other work is running.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTING = ["--tiny", "--image_height", "112", "--real_data_chunk", "0"]
# The quickstart's, but for the optimizer, which comes after it and wins.
RECIPE = (ROOT / "setup" / "miniature_recipe.txt").read_text().split()


def run(*command: str) -> None:
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stderr[-2000:]}")


def cpu_seconds() -> float:
    """Of all cores, by the commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def reached(scene: str, datasets_dir: str, batch_size: int, specification: str) -> tuple[int, float, float, dict]:
    """Images, seconds of training on the clock and of all cores, and the summary on val_sim."""
    optimizer, epochs, rate, *start_scale = specification.split(":")
    with tempfile.TemporaryDirectory() as folder:
        start, cpu_before = time.perf_counter(), cpu_seconds()
        run(
            "train_single_task.py",
            scene,
            "--task",
            "coord",
            "--datasets_dir",
            datasets_dir,
            "--output_dir",
            folder,
            *SETTING,
            *RECIPE,
            "--optimizer",
            optimizer,
            "--epochs",
            epochs,
            "-lr",
            rate,
            "--batch_size",
            str(batch_size),
            *(word for scale in start_scale for word in ("--start_scale", scale)),
        )
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu_before
        weights = max(Path(folder).glob("*/ckpt_iter_*.net"), key=lambda path: int(path.stem.rsplit("_", 1)[1]))
        run(
            "test_single_task.py",
            scene,
            "--task",
            "coord",
            "--section",
            "val_sim",
            "--datasets_dir",
            datasets_dir,
            "--network_in",
            str(weights),
        )
        report = json.loads(next(weights.parent.glob("results_*.json")).read_text())
        return int(weights.stem.rsplit("_", 1)[1]), seconds, cpu, report["evaluations"][0]["summary"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene")
    parser.add_argument("--datasets_dir", default=os.environ.get("DATASETS_DIR", "datasets"))
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--runs", nargs="+", default=["muon:4:8e-4", "adam:4:1e-3", "adam:12:1e-3"])
    args = parser.parse_args()
    print("optimizer:epochs:rate     images  seconds      cpu  val_sim median")
    for specification in args.runs:
        images, seconds, cpu, summary = reached(
            args.scene, os.path.abspath(args.datasets_dir), args.batch_size, specification
        )
        position_m, rotation_deg = summary["translation_m"]["median"], summary["rotation_deg"]["median"]
        print(
            f"{specification:24} {images:7d} {seconds:8.0f} {cpu:8.0f}  {position_m:.2f} m, {rotation_deg:.2f} deg",
            flush=True,
        )


if __name__ == "__main__":
    main()
