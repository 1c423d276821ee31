"""The table at the end of the quickstart: of the weights that lie there, on the same images."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from evaluation.metrics import coord_summary
from evaluation.reports import write_results
from setup import quickstart_summary
from tests.evaluation.conftest import subject


def evaluated(folder, name, errors_m, stems="abc"):
    weights = folder / name
    weights.write_bytes(name.encode())
    rows = [
        {"section": "test_drone_real", "stem": stem, "translation_error_m": f"{m:.4f}", "rotation_error_deg": f"{2 * m:.4f}"}
        for stem, m in zip(stems, errors_m, strict=True)
    ]
    summary = coord_summary(errors_m, errors_m, np.ones(1))
    write_results(weights, "coord", subject(weights, "test_drone_real"), summary, rows)
    return weights


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["quickstart_summary.py", *map(str, arguments)])
    status = quickstart_summary.main()
    return status, *capsys.readouterr()


def test_medians_and_their_ratio(tmp_path, monkeypatch, capsys):
    before, after = evaluated(tmp_path, "before.net", [3.0, 8.0, 4.0]), evaluated(tmp_path, "after.net", [1.0, 2.0, 2.5])
    status, output, _ = run(monkeypatch, capsys, before, after)
    assert status == 0 and output.splitlines()[-2].split() == ["MEDIAN", "4.00", "8.00", "2.00", "4.00"]
    assert output.splitlines()[-1] == "fine-tuning made the median position error 2.0 times smaller"


@pytest.mark.parametrize(
    ("errors_m", "sentence"),
    [
        (([1, 1, 1], [np.inf, np.inf, 1]), "after fine-tuning there is no pose for half of the images"),
        (([np.inf, np.inf, 1], [1, 1, 1]), "before fine-tuning there was no pose for half of the images"),
    ],
)
def test_no_ratio_without_poses(tmp_path, monkeypatch, capsys, errors_m, sentence):
    pair = [evaluated(tmp_path, f"{i}.net", values) for i, values in enumerate(errors_m)]
    assert run(monkeypatch, capsys, *pair)[1].splitlines()[-1] == sentence


def test_stale_and_unequal_evaluations_are_refused(tmp_path, monkeypatch, capsys):
    before, after = evaluated(tmp_path, "before.net", [1, 2, 3]), evaluated(tmp_path, "after.net", [1, 2], stems="ab")
    status, _, errors = run(monkeypatch, capsys, before, after)
    assert status == 2 and "different images: 3 and 2" in errors
    before.write_bytes(b"trained again")
    assert "before.net was replaced after its evaluation" in run(monkeypatch, capsys, before, after)[2]
    status, _, errors = run(monkeypatch, capsys, after, after, "--section", "val_sim")
    assert status == 2 and "val_sim_after.net_task_coord.csv; run test_single_task.py" in errors
