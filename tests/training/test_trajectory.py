"""A few steps of every kind of training against recorded figures: whatever changes the numbers of a training shows here.

The figures were recorded with this code; what they rest on is pinned elsewhere (losses, networks and optimizers by golden
and closed-form values, augmentation by geometry). After a change that is meant: `UPDATE_EXPECTED=1 pytest` on this file.
"""

import csv
import json
import os
from pathlib import Path

import pytest

from networks import load_network
from tests.training.small_runs import SMALL, options
from training.loop import train

STORED = Path(__file__).parent / "trajectories.json"
PAIRS = ["--real_data_chunk", 1, "--real_share", 0.4]
CASES = {
    "coord, adam": ("coord", []),
    "coord without uncertainty, muon": ("coord", ["--optimizer", "muon", "--uncertainty", "none"]),
    "coord, the miniature recipe on pairs": (
        "coord",
        [*PAIRS, "--optimizer", "muon", "--lr_schedule", "onecycle", "--depth_relative", "--inittolerance", 0.25,
         "--mindepth", 0.2, "--softclamp", 20, "--max_angle", 10, "--max_tilt", 3, "--max_shift", 0.1, "--scale_range", 0.9,
         1.1, "--jitter", 0.2, "--colour_jitter", 0.1, "--shading", 0.35],
    ),
    "coord, grey": ("coord", ["--grayscale"]),
    "depth, adam": ("depth", ["--hardclamp", 10]),
    "normal, adam": ("normal", ["--hardclamp", 10]),
    "semantics, adam": ("semantics", ["--fullsize", "--uncertainty", "none"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_first_steps_are_the_recorded_ones(tmp_path, plane_section, name):
    task, extra = CASES[name]
    plane_section(5, sky_rows=1)
    for section in ("train_drone_sim", "train_drone_real"):
        plane_section(2, f"scene/{section}", seed=1)
    run = train(options(tmp_path, *SMALL, "--precision", "float32", "-lr", 1e-3, "--epochs", 2, *extra, task=task))
    assert load_network(run.latest).architecture.task == task
    rows = list(csv.DictReader((run.output / "training_log.csv").open()))
    columns = [c for c in rows[0] if c != "seconds_per_image"]
    found = {column: [float(row[column]) for row in rows[:5]] for column in columns}
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if os.environ.get("UPDATE_EXPECTED"):
        STORED.write_text(json.dumps(stored | {name: found}, indent=1) + "\n")
        return
    assert found.keys() == stored[name].keys()
    for column, values in found.items():
        # Another number of parts (cores), instruction set or version of torch rounds otherwise; five steps amplify that.
        assert values == pytest.approx(stored[name][column], rel=1.5e-2, abs=5e-3), column
