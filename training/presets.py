"""Named sets of options: `--preset NAME` takes their values for every option that the command line does not name."""

from __future__ import annotations

from typing import Any

# By option. What an option means stands in training/options.py, what a preset is for and came to in docs/speed.md.
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {
        "tiny": True,
        "uncertainty": "mle",
        "image_height": 112,
        "batch_size": 8,
        "epochs": 3,
        "optimizer": "muon",
        "learningrate": 8e-4,
        "lr_schedule": "onecycle",
        "depth_relative": True,
        "inittolerance": 0.25,
        "mindepth": 0.2,
        "softclamp": 20.0,
        "max_angle": 10.0,
        "max_tilt": 3.0,
        "max_shift": 0.1,
        "scale_range": (0.9, 1.1),
        "jitter": 0.2,
        "colour_jitter": 0.1,
        "shading": 0.35,
    },
}
