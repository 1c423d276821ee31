#!/usr/bin/env python3
"""Images per second of a whole training against the bare step on ready tensors.

    python benchmarks/training_throughput.py [--section DIR] [--images 24] [--height 480] [--batch_size 4] [--full] [--steps 3]
        [--epochs 4] [--device auto] [--num_workers N] [--cache_gb 4]

The whole: `train_single_task.py` as it is (reading, decoding or the cache, collating, augmentation, the step, logs, states).
The bare step: network, loss, backward pass and optimizer of the same run on one batch that lies ready, of the same size: zoom
is off, so that all batches are alike. Blocks of steps of both alternate in one process; the first epoch decodes, the others
find the decoded images in the cache. Beside other jobs seconds of the processors say more than seconds. Without --section photos of 720 x 480 are made in a temporary folder.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from threads import configure_threads

configure_threads()

import torch

import training.loop as loop
from benchmarks.evaluation_throughput import flat_section
from runs.device import autocast_for
from training.options import add_arguments, options_from


class Alternating:
    """Takes the place of the trainer's step: measures blocks of it, and bare steps between them."""

    def __init__(self, steps: int, epoch_steps: int):
        self.steps, self.epoch_steps = steps, epoch_steps
        # Position of the block's last step; seconds, and seconds of the processors, of a step.
        self.whole_s: list[tuple[int, float, float]] = []
        self.bare_s: list[tuple[float, float]] = []
        self.done, self.batch, self.started = 0, None, (0.0, 0.0)
        self._step, self._prepare = loop._Trainer._step, loop.prepare_for_training
        measuring = self

        def step(trainer, *arguments):
            measuring._step(trainer, *arguments)
            measuring.after_step(trainer)

        def prepare(*arguments):
            batch = measuring._prepare(*arguments)
            measuring.batch = measuring.batch if measuring.batch is not None else batch
            return batch

        loop._Trainer._step, loop.prepare_for_training = step, prepare

    def after_step(self, trainer) -> None:
        self.done += 1
        if self.done % self.steps:
            return
        now = _times(trainer.device)
        if self.done > self.steps:  # the first block warms up
            self.whole_s.append((self.done, *self._of_a_step(self.started, now)))
        for _ in range(self.steps):
            self.bare(trainer)
        self.started = _times(trainer.device)
        self.bare_s.append(self._of_a_step(now, self.started))

    def _of_a_step(self, start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
        wall, processors = ((b - a) / self.steps for a, b in zip(start, end))
        return wall, processors

    def bare(self, trainer) -> None:
        with autocast_for(trainer.device, trainer.options.precision):
            prediction, sigma = trainer.lanes(self.batch.images_B3HW)
        loss = trainer.objective(prediction, sigma, self.batch, 0).total
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trainer.lanes.backward()
        trainer.optimizer.step()

    def report(self, batch_size: int) -> None:
        bare, bare_processors = (statistics.median(seconds) for seconds in zip(*self.bare_s))
        print(
            f"bare step:    {batch_size / bare:7.1f} images/s, {bare_processors / batch_size:.4f} processor seconds an image"
        )
        for name, first in (("decoding", True), ("from the cache", False)):
            found = [seconds for position, *seconds in self.whole_s if (position <= self.epoch_steps) == first]
            if found:
                whole, processors = (statistics.median(seconds) for seconds in zip(*found))
                print(f"{name:14s}{batch_size / whole:7.1f} images/s, {processors / batch_size:.4f} processor seconds an image: "
                      f"{bare / whole:.2f} of the bare step, {bare_processors / processors:.2f} by processor seconds")  # fmt: skip


def _times(device: torch.device) -> tuple[float, float]:
    """Now, by the clock and by the processors."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--full", action="store_true", help="the 512-channel network")
    parser.add_argument("--steps", type=int, default=3, help="steps in a block")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--num_workers", type=int)
    parser.add_argument("--cache_gb", type=float, default=4.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scene = Path(temporary) / "scene"
        scene.mkdir()
        if args.section is None:
            flat_section(scene / "train_sim", args.images)
        else:
            (scene / "train_sim").symlink_to(args.section.resolve())
            args.images = len(list((args.section / "poses").iterdir()))
        training = argparse.ArgumentParser()
        add_arguments(training)
        words = ["scene", "--task", "coord", "--uncertainty", "mle", "--real_data_chunk", "0", "--scale_range", "1", "1",
                 "--datasets_dir", temporary, "--output_dir", f"{temporary}/out", "--image_height", str(args.height),
                 "--batch_size", str(args.batch_size), "--epochs", str(args.epochs), "--device", args.device, "--cache_gb",
                 str(args.cache_gb), *([] if args.full else ["--tiny"]),
                 *([] if args.num_workers is None else ["--num_workers", str(args.num_workers)])]  # fmt: skip
        measuring = Alternating(args.steps, args.images // args.batch_size)
        loop.train(options_from(training.parse_args(words)))
    print(f"{args.images} photos, {args.height} px, batches of {args.batch_size}, {'full' if args.full else 'tiny'} network")
    measuring.report(args.batch_size)


if __name__ == "__main__":
    main()
