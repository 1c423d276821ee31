#!/usr/bin/env python3
"""Time of one forward and backward pass: `python benchmarks/network_step.py --tiny --size 4 240 360`.

Compares memory layouts and group normalisations; the network as it trains is `channels_last, ours`.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from networks import Architecture, TransPoseNet
from networks.group_norm import group_norm


def plain_group_norm(x, norm, *, relu=True):
    """PyTorch's own modules, in place of ours."""
    return torch.relu_(norm(x)) if relu else norm(x)


def step_ms(net, images, layout, normalise, steps, bf16):
    """Median milliseconds (forward, forward and backward)."""
    net = net.to(memory_format=layout)
    images = images.contiguous(memory_format=layout)
    forward, whole = [], []
    with mock.patch("networks.encoder.group_norm", normalise), mock.patch("networks.decoder.group_norm", normalise):
        for _ in range(steps + 2):
            start = time.perf_counter()
            with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
                prediction, sigma = net.decoder(net.encoder(images), tuple(images.shape[-2:]))
            middle = time.perf_counter()
            (prediction.square().mean() + sigma.log().mean()).backward()
            net.zero_grad()
            forward.append(1000 * (middle - start))
            whole.append(1000 * (time.perf_counter() - start))
    return statistics.median(forward[2:]), statistics.median(whole[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--size", type=int, nargs=3, default=(4, 240, 360), metavar=("BATCH", "HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    batch, height, width = args.size
    images = torch.randn(batch, 3, height, width)
    net = TransPoseNet(Architecture(tiny=args.tiny))
    layouts = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    print(f"{batch} x {height} x {width}, {args.threads} threads, median of {args.steps} steps")
    for bf16 in (True, False):
        for layout_name, layout in layouts.items():
            for name, normalise in (("ours", group_norm), ("plain", plain_group_norm)):
                forward, whole = step_ms(net, images, layout, normalise, args.steps, bf16)
                precision = "bf16" if bf16 else "float32"
                print(f"{precision:8s} {layout_name:14s} {name:6s} forward {forward:6.0f} ms, with backward {whole:6.0f} ms")


if __name__ == "__main__":
    main()
