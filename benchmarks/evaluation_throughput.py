#!/usr/bin/env python3
"""Images per second of evaluating many checkpoints, against a loop that takes one image at a time.

    python benchmarks/evaluation_throughput.py [--section DIR] [--checkpoints 8] [--images 8] [--height 480] [--full] [--rounds 3]

One line is what `test_single_task.py` does (one pass over the photos for all checkpoints, batches, the training's
precision, poses solved beside the network), the other decodes, predicts and solves one photo at a time, checkpoint by
checkpoint, in float32 by the plain network with PyTorch's own threads. Both in turns, in processes of their own, on the same
weights: random ones, whose coordinates are replaced by the label plus 1 m noise before the solver, which would otherwise
search in vain. Without --section photos of 720 x 480 are made in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def measured(args: argparse.Namespace) -> None:
    """The child process: prints seconds, and seconds of all processors."""
    if args.measure == "ours":
        from threads import configure_threads

        configure_threads()

    import torch

    from dataloader.preprocessing import Preprocessing
    from dataloader.section import SectionDataset
    from networks import Architecture, build

    dataset = SectionDataset([args.section], "coord", args.height)
    dataset.files = dataset.files[: args.images]
    preprocessing = Preprocessing(args.height)
    nets = []
    for seed in range(args.checkpoints):
        torch.manual_seed(seed)
        nets.append(build(Architecture(tiny=not args.full)))
    run = _all_at_once if args.measure == "ours" else _one_at_a_time
    run(nets[:1], dataset, preprocessing)  # warm up: libraries, and the photos in the system's memory
    started, processors = time.perf_counter(), time.process_time()
    poses = run(nets, dataset, preprocessing)
    seconds, processors = time.perf_counter() - started, time.process_time() - processors
    assert poses == args.checkpoints * len(dataset), poses
    print(seconds, processors)


def _solvable(predictions: Iterator) -> Iterator:
    """Coordinates that a trained network might have predicted."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for p in predictions:
        noise_B3hw = torch.randn(p.batch.labels_BChw.shape, generator=generator)
        yield replace(p, prediction_BChw=p.batch.labels_BChw + noise_B3hw, sigma_B1hw=torch.ones_like(noise_B3hw[:, :1]))


def _all_at_once(nets: list, dataset, preprocessing) -> int:
    import torch

    from evaluation.coord import coord_results
    from evaluation.predict import predictions_of_many
    from localization.solving import SolverOptions

    stream = predictions_of_many(nets, dataset, preprocessing, device=torch.device("cpu"), precision="auto")
    return sum(1 for _ in coord_results(_solvable(stream), SolverOptions()))


def _one_at_a_time(nets: list, dataset, preprocessing) -> int:
    import torch

    from dataloader.prepare import collate, prepare_for_evaluation
    from localization.solving import SolverOptions, solve_poses

    generator, poses = torch.Generator().manual_seed(0), 0
    for net in nets:
        net.eval()
        for index in range(len(dataset)):
            batch = prepare_for_evaluation(collate([dataset[index]]), preprocessing, "coord")
            with torch.no_grad():
                net.decoder(
                    net.features(batch.images_B3HW), tuple(batch.images_B3HW.shape[-2:])
                )  # as stored, not channels-last
            noisy_B3hw = batch.labels_BChw + torch.randn(batch.labels_BChw.shape, generator=generator)
            poses += len(solve_poses(noisy_B3hw, torch.ones_like(noisy_B3hw[:, :1]), batch.K_B33, SolverOptions(), stride=8))
    return poses


def flat_section(folder: Path, images: int) -> Path:
    """Photos of flat ground from 100 m, with their coordinates."""
    import torch

    from benchmarks.loader_cost import make_section
    from geometry.grid import cell_centres

    make_section(folder, images, 8)
    x_hw, y_hw = (cell_centres(60, 90, 8) - torch.tensor([360.0, 240.0])[:, None, None]) * (100 / 480)
    for path in (folder / "init").iterdir():
        torch.save(torch.stack((x_hw, -y_hw, torch.zeros_like(x_hw))), path)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", type=Path)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--full", action="store_true", help="the 512-channel network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=("ours", "loop"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measured(args)
        return
    with tempfile.TemporaryDirectory() as temporary:
        if args.section is None:
            args.section = flat_section(Path(temporary) / "section", args.images)
        seconds_of: dict[str, list[tuple[float, float]]] = {"loop": [], "ours": []}
        for _ in range(args.rounds):
            for name, found in seconds_of.items():
                found.append(_in_a_process(name, args))
    images = args.checkpoints * args.images
    print(
        f"{args.checkpoints} checkpoints, {args.images} photos, {args.height} px, {'full' if args.full else 'tiny'} network"
    )
    for name, found in seconds_of.items():
        wall, processors = (statistics.median(seconds) for seconds in zip(*found))
        title = {"loop": "one at a time", "ours": "in one pass"}[name]
        print(f"{title:14s}{images / wall:7.1f} images/s, {processors / images:.3f} processor seconds an image")
    ratios = sorted(loop[0] / ours[0] for loop, ours in zip(seconds_of["loop"], seconds_of["ours"]))
    print(f"ratio: median {statistics.median(ratios):.1f}, from {ratios[0]:.1f} to {ratios[-1]:.1f}")


def _in_a_process(name: str, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds, and seconds of all processors, of one of the two ways."""
    words = [sys.executable, __file__, "--measure", name, "--section", str(args.section), "--checkpoints",
             str(args.checkpoints), "--images", str(args.images), "--height", str(args.height),
             *(["--full"] if args.full else [])]  # fmt: skip
    # The loop's threads are PyTorch's own choice.
    environment = {k: v for k, v in os.environ.items() if name == "ours" or not k.endswith("_NUM_THREADS")}
    result = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    wall, processors = map(float, result.stdout.split())
    return wall, processors


if __name__ == "__main__":
    main()
