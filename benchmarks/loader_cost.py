#!/usr/bin/env python3
"""Cost of a prepared training batch against decoding its PNG files alone, measured in turns in one run.

    python benchmarks/loader_cost.py [--section DIR] [--height 480] [--batch_size 4] [--rounds 20] [--stride 1]

Decode, resize, jitter, scale, rotation, normalisation and label resampling together should cost no more than twice the
decoding. Without --section a section of 720 x 480 images with natural noise is made in a temporary folder.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch

from dataloader.augmentation import AugmentationOptions, draw_augmentation
from dataloader.images import decode_image
from dataloader.prepare import collate, prepare_for_training
from dataloader.preprocessing import Preprocessing
from dataloader.section import SectionDataset


def make_section(folder: Path, count: int, stride: int) -> Path:
    """Images with the compressibility of photos: a smooth picture plus sensor noise."""
    import cv2

    rng = np.random.default_rng(0)
    for name in ("rgb", "poses", "calibration", "init"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        coarse = rng.uniform(0, 255, (60, 90, 3)).astype(np.float32)
        image = cv2.resize(coarse, (720, 480), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 4, (480, 720, 3))
        cv2.imwrite(str(folder / "rgb" / f"{index}.png"), np.clip(image, 0, 255).astype(np.uint8))
        pose = np.diag([1.0, -1.0, -1.0, 1.0])
        pose[2, 3] = 100
        np.savetxt(folder / "poses" / f"{index}.txt", pose)
        (folder / "calibration" / f"{index}.txt").write_text("480\n")
        torch.save(torch.zeros(3, 480 // stride, 720 // stride), folder / "init" / f"{index}.dat")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", type=Path)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--stride", type=int, choices=(8, 1), default=8, help="1: full-size labels")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        section = args.section or make_section(Path(temporary) / "section", args.batch_size, args.stride)
        dataset = SectionDataset([section], "coord", args.height)
        indices = list(range(min(args.batch_size, len(dataset))))
        options = AugmentationOptions()
        decode_s, whole_s = [], []
        for round_index in range(args.rounds + 1):
            start = time.perf_counter()
            for i in indices:
                decode_image(dataset.files[i].image)
            middle = time.perf_counter()
            raw = collate(dataset.__getitems__(indices)).to(args.device)
            draws = draw_augmentation(options, seed=0, epoch=0, images_seen=round_index, indices=raw.indices)
            prepare_for_training(raw, Preprocessing(args.height), "coord", options, draws, args.stride)
            if args.device.startswith("cuda"):
                torch.cuda.synchronize()
            end = time.perf_counter()
            if round_index:  # the first round warms up
                decode_s.append(middle - start)
                whole_s.append(end - middle)
        ratios = [whole / decode for whole, decode in zip(whole_s, decode_s)]
        n = len(indices)
        threads = torch.get_num_threads()
        print(f"batch of {n} at {args.height} px, {threads} threads, device {args.device}, medians of {args.rounds}")
        print(f"PNG decoding alone:    {1e3 * statistics.median(decode_s) / n:6.2f} ms an image")
        print(f"complete prepared batch: {1e3 * statistics.median(whole_s) / n:4.2f} ms an image")
        lower, median, upper = statistics.quantiles(ratios)
        print(f"ratio: {median:.2f} (quartiles {lower:.2f} to {upper:.2f})")


if __name__ == "__main__":
    main()
