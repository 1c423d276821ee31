"""Networks for other runtimes: `python -m exports.onnx WEIGHTS OUT.onnx` (or OUT.pt2, as torch.export keeps it).

The exported network takes uint8 RGB images [B, 3, H, W] of any size, as they come out of a decoder and a resize to the
training's image height; the normalisation is inside. It gives what the network gives: the prediction and, with an
uncertainty, its standard deviation.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geometry.grid import FULL_SIZE_STRIDE, STRIDE
from networks import load_network
from records.command import exit_status
from records.files import check_writable, plain, replacing
from records.options import add_options, option, options_from
from runs.preprocessing import preprocessing_for
from runs.record import record_of

log = logging.getLogger(__name__)

# Largest difference from PyTorch's own result, in units of the largest value of it.
TOLERANCE = 1e-3
_EXAMPLE_WIDTH_PER_HEIGHT = 1.5
METADATA_KEY = "crossloc"


class Deployed(nn.Module):
    """A network with its normalisation: uint8 RGB [B, 3, H, W] to (prediction [B, C, h, w], deviation [B, 1, h, w])."""

    def __init__(self, network: nn.Module, preprocessing: Any):
        super().__init__()
        self.network, self.preprocessing = network, preprocessing

    def forward(self, images_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        prediction, sigma = self.network(self.preprocessing.normalise(images_B3HW))
        return (prediction,) if sigma is None else (prediction, sigma)


@dataclass(frozen=True)
class ExportOptions:
    """One export; the fields are the flags."""

    weights: Path = option(positional=True, help="weights file, with its record")
    out: Path = option(positional=True, help="file to write: .onnx, or .pt2 for torch.export")


def export_network(options: ExportOptions) -> float:
    """Writes the file after comparing it with PyTorch on an image of another size than it was traced with.

    Returns:
        the largest difference, in units of the largest value.
    Raises:
        ValueError, OSError: bad weights, weights without a record, an unknown ending, a missing package, or a difference
            above TOLERANCE; nothing is written then.
    """
    if options.out.suffix not in _WRITERS:
        raise ValueError(f"unknown ending {options.out.suffix!r} of {options.out}; choose from {sorted(_WRITERS)}")
    check_writable(options.out.parent, options.out.name)
    network = load_network(options.weights).eval()
    record = record_of(options.weights)
    if record is None:
        raise ValueError(f"{options.weights} has no record: nothing says what its images are normalised by")
    preprocessing = preprocessing_for(
        options.weights, grayscale=network.architecture.in_channels == 1, scene=record.scene, scene_dir=Path()
    )
    deployed = Deployed(network, preprocessing).eval()
    height = preprocessing.image_height
    example = _images(2, height, round(_EXAMPLE_WIDTH_PER_HEIGHT * height))
    with torch.inference_mode():
        deployed(example)  # constants that are made on first use must not be made while tracing
    options.out.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "task": record.task,
        "image_height": height,
        "stride": FULL_SIZE_STRIDE if network.architecture.fullsize else STRIDE,
        "frame": record.frame,
    }
    with replacing(options.out) as temporary:
        run = _WRITERS[options.out.suffix](deployed, example, json.dumps(plain(metadata)), temporary)
        probe = _images(1, height + 9, height + 22)
        with torch.inference_mode():
            expected = deployed(probe)
        off = max(_difference(found, true.numpy()) for found, true in zip(run(probe.numpy()), expected, strict=True))
        if not off <= TOLERANCE:
            raise ValueError(f"{options.out} would differ from PyTorch by {off:.2g} of the largest value: not written")
    return off


def _images(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def _difference(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(found - true).max() / np.abs(true).max())


def _dynamic_shapes() -> tuple[dict[int, Any]]:
    auto = torch.export.Dim.AUTO
    return ({0: auto, 2: auto, 3: auto},)


def _write_onnx(deployed: Deployed, example: torch.Tensor, metadata: str, path: Path):
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it, and says so less clearly)
    except ImportError as error:
        raise ValueError(f"ONNX needs the optional package {error.name} (setup/requirements-extras.txt)") from None
    names = ["prediction", "sigma"][: 1 if deployed.network.architecture.uncertainty == "none" else 2]
    program = torch.onnx.export(
        deployed, (example,), dynamo=True, input_names=["image"], output_names=names, dynamic_shapes=_dynamic_shapes(),
        verbose=False,
    )  # fmt: skip
    model = program.model_proto
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata})
    path.write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})


def _write_pt2(deployed: Deployed, example: torch.Tensor, metadata: str, path: Path):
    with torch.no_grad():
        program = torch.export.export(deployed, (example,), dynamic_shapes=_dynamic_shapes())
    torch.export.save(program, str(path), extra_files={METADATA_KEY: metadata})
    module = torch.export.load(str(path)).module()

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [value.numpy() for value in module(torch.from_numpy(images))]

    return run


_WRITERS = {".onnx": _write_onnx, ".pt2": _write_pt2}


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for tracer in ("onnxscript", "onnx_ir"):  # which tell of every constant that they fold
        logging.getLogger(tracer).setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(prog="python -m exports.onnx", description=__doc__.splitlines()[0])
    add_options(parser, ExportOptions)
    args = parser.parse_args()

    def work() -> None:
        options = options_from(ExportOptions, args)
        off = export_network(options)
        log.info("%s: differs from PyTorch by %.1e of the largest value", options.out, off)

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
