#!/usr/bin/env python3
"""Training beside neighbours: `python benchmarks/contention.py --seconds 8 --rounds 3`.

Steps of the tiny network (8 images at 112 px, forward, loss, backward, Muon) a second: one training alone, two at once, one
beside a process that computes without end, and one beside two of these; by lanes (networks/lanes.py) and, for comparison, by
threads within the operations with each waiting policy. Every line gives the median of the rounds, which alternate between
all settings, and how many times longer than the same setting alone a step takes. "two take" is what the README's claim is
about: the time of two trainings at once over that of one alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SETTINGS = {
    "lanes": {},
    "threads, default": {"BY_THREADS": "1"},
    "threads, short spin": {"BY_THREADS": "1", "GOMP_SPINCOUNT": "1000"},
    "threads, passive": {"BY_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
}
BATCH, HEIGHT, WIDTH, FOCAL = 8, 112, 168, 112.0


def train(seconds: float) -> None:
    """The child process: prints steps per second and processor seconds per second."""
    from threads import available_cores, configure_threads

    by_threads = "BY_THREADS" in os.environ
    cores = available_cores() if by_threads else configure_threads()

    import torch

    from dataloader.batch import Batch
    from geometry.cameras import intrinsics_matrix
    from loss import LossOptions, loss_for
    from networks import Architecture, TransPoseNet
    from networks.lanes import Lanes
    from training.optimizer import build_optimizer

    torch.manual_seed(0)
    torch.set_num_threads(cores if by_threads else 1)
    net = TransPoseNet(Architecture(tiny=True)).to(memory_format=torch.channels_last)
    optimizer = build_optimizer("muon", net, 1e-3)
    lanes = Lanes(net, parts=1 if by_threads else available_cores(), lanes=cores)
    h, w = HEIGHT // 8, WIDTH // 8
    pose_44 = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    pose_44[2, 3] = 100.0  # looks straight down from 100 m
    batch = Batch(
        images_B3HW=torch.randn(BATCH, 3, HEIGHT, WIDTH), labels_BChw=torch.randn(BATCH, 3, h, w) * 10,
        valid_B1hw=torch.ones(BATCH, 1, h, w, dtype=torch.bool), world_from_cam_B44=pose_44.repeat(BATCH, 1, 1),
        K_B33=intrinsics_matrix(FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2).float().repeat(BATCH, 1, 1), stems=("random",) * BATCH,
    )  # fmt: skip
    coord_loss = loss_for("coord")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            prediction, sigma = lanes(batch.images_B3HW)
        coord_loss(prediction, sigma, batch, LossOptions()).total.backward()
        lanes.backward()
        optimizer.step()

    for _ in range(3):
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    start, processor, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < start + seconds:
        step()
        steps += 1
    wall = time.perf_counter() - start
    print(steps / wall, (time.process_time() - processor) / wall)


def measure(environment: dict[str, str], *, trainings: int, hogs: int, seconds: float) -> tuple[float, float]:
    """Mean steps per second of one of the trainings that run at once, and its processor seconds per second."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(seconds)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "CROSSLOC_"))}
    children = [
        subprocess.Popen(command, env={**clean, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(trainings)
    ]
    neighbours = []
    try:
        for child in children:
            if child.stdout.readline() != "ready\n":
                sys.exit("the training of the benchmark failed")
        neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(hogs)]
        for child in children:  # all are told before the first one is waited for: their seconds must overlap
            child.stdin.write("\n")
            child.stdin.flush()
        results = [child.communicate()[0] for child in children]
    finally:
        for process in neighbours + children:
            process.kill()
            process.wait()
    numbers = [tuple(map(float, result.split())) for result in results]
    return statistics.mean(n[0] for n in numbers), statistics.mean(n[1] for n in numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.child)
        return
    situations = {"alone": (1, 0), "two trainings": (2, 0), "beside one hog": (1, 1), "beside two hogs": (1, 2)}
    found = {(setting, situation): [] for setting in args.settings for situation in situations}
    for _ in range(args.rounds):
        for (setting, situation), results in found.items():
            trainings, hogs = situations[situation]
            results.append(measure(SETTINGS[setting], trainings=trainings, hogs=hogs, seconds=args.seconds))
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{len(os.sched_getaffinity(0))} cores, load {load}, {args.rounds} rounds of {args.seconds:g} s")
    print(f"{'setting':22s}{'situation':18s}{'steps/s':>8s}{'cores':>7s}{'times as long':>15s}")
    for setting in args.settings:
        alone = statistics.median(rate for rate, _ in found[setting, "alone"])
        for situation in situations:
            rate = statistics.median(rate for rate, _ in found[setting, situation])
            cores = statistics.median(cores for _, cores in found[setting, situation])
            print(f"{setting:22s}{situation:18s}{rate:8.2f}{cores:7.2f}{alone / rate:15.2f}")


if __name__ == "__main__":
    main()
