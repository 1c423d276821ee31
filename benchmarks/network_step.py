#!/usr/bin/env python3
"""Time of one forward and backward pass: `python benchmarks/network_step.py --tiny --size 4 240 360`.

Compares memory layouts and group normalisations; the network as it trains is `channels_last, ours`. With
`--num_encoders 3` it compares what frozen encoders of a fused network cost, each in a process of its own: time, memory that
is kept for the backward pass, and peak memory of the process (`--size 8 480 720`: the published batch).
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from networks import Architecture, build, freeze_encoders
from networks.group_norm import group_norm

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def plain_group_norm(x, norm, *, relu=True):
    """PyTorch's own modules, in place of ours."""
    return torch.relu_(norm(x)) if relu else norm(x)


def step_ms(net, images, normalise, steps, bf16):
    """Median milliseconds (forward, forward and backward)."""
    forward, whole = [], []
    with ExitStack() as patches:
        for module in ("encoder", "decoder", "fused"):
            patches.enter_context(mock.patch(f"networks.{module}.group_norm", normalise))
        for _ in range(steps + 2):
            start = time.perf_counter()
            loss = forward_pass(net, images, bf16)
            middle = time.perf_counter()
            loss.backward()
            net.zero_grad()
            forward.append(1000 * (middle - start))
            whole.append(1000 * (time.perf_counter() - start))
    return statistics.median(forward[2:]), statistics.median(whole[2:])


def forward_pass(net, images, bf16):
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
        prediction, sigma = net.decoder(net.features(images), tuple(images.shape[-2:]))
    return prediction.square().mean() + sigma.log().mean()


def kept_megabytes(net, images, bf16) -> float:
    """What autograd keeps of a forward pass for the backward one, without the parameters."""
    storages = {}

    def pack(tensor):
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward_pass(net, images, bf16)
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values()) / 1e6


def compare_layouts(net, images, steps) -> None:
    for bf16 in (True, False):
        for layout_name, layout in LAYOUTS.items():
            net, images = net.to(memory_format=layout), images.contiguous(memory_format=layout)
            for name, normalise in (("ours", group_norm), ("plain", plain_group_norm)):
                forward, whole = step_ms(net, images, normalise, steps, bf16)
                precision = "bf16" if bf16 else "float32"
                print(f"{precision:8s} {layout_name:14s} {name:6s} forward {forward:6.0f} ms, with backward {whole:6.0f} ms")


def measure_freezing(net, images, steps, frozen) -> None:
    """One line: the last `frozen` encoders take no gradients."""
    net, images = net.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    count = len(net.encoders)
    freeze_encoders(net, range(count - frozen + 1, count + 1))
    before = peak_megabytes()
    forward, whole = step_ms(net, images, group_norm, steps, True)
    peak = peak_megabytes()
    kept = kept_megabytes(net, images, True)
    print(
        f"bf16, {frozen} of {count} encoders frozen: forward {forward:6.0f} ms, backward {whole - forward:6.0f} ms, "
        f"{kept:6.0f} MB kept, peak {peak:6.0f} MB ({before:.0f} before the steps)"
    )


def peak_megabytes() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--size", type=int, nargs=3, default=(4, 240, 360), metavar=("BATCH", "HEIGHT", "WIDTH"))
    parser.add_argument("--num_encoders", type=int, default=0, help="of a fused network; 0: the single-task one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--frozen", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    batch, height, width = args.size
    images = torch.randn(batch, 3, height, width)
    net = build(Architecture(tiny=args.tiny, num_encoders=args.num_encoders))
    if args.frozen is not None:
        measure_freezing(net, images, args.steps, args.frozen)
        return
    print(f"{batch} x {height} x {width}, {args.threads} threads, median of {args.steps} steps", flush=True)
    if not args.num_encoders:
        compare_layouts(net, images, args.steps)
        return
    for frozen in (0, args.num_encoders - 1, args.num_encoders):
        subprocess.run([sys.executable, *sys.argv, "--frozen", str(frozen)], check=True)


if __name__ == "__main__":
    main()
