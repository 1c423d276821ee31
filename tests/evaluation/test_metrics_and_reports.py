"""Metrics against numbers worked out by hand; reports in the published wording; files complete and readable."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from evaluation.metrics import (
    DEPTH_BATCH,
    Spread,
    coord_summary,
    depth_summary,
    depth_sums,
    semantics_scores,
    semantics_summary,
)
from evaluation.reports import (
    coord_report,
    depth_report,
    normal_report,
    read_evaluations,
    semantics_report,
    write_estimated_positions,
    write_results,
)

SUMMARY = coord_summary([1.0, 4.0, 8.0, 25.0], [1.0, 4.0, 8.0, 9.0], np.array([1.0, 2.0, 6.0]))


def test_coord_report_is_the_published_text():
    assert coord_report(SUMMARY) == (
        "Accuracy:\n"
        "30m10deg: 100.0%\n"
        "20m10deg: 75.0%\n"
        "10m7deg: 50.0%\n"
        "10m10deg: 75.0%\n"
        "5m5deg: 50.0%\n"
        "3m3deg: 25.0%\n"
        "Median Error: 6.0 deg, 6.00 m\n"
        "Mean Errors: 5.5 plus-minus 3.2 deg, 9.50 plus-minus 9.29 m\n"
        "Coordinate regression error: mean 3.0, std 2.2, median 2.0"
    )


def test_thresholds_are_exclusive():
    accuracy = coord_summary([3.0, 2.9, 2.9], [1.0, 3.0, 2.9], np.ones(1)).accuracy_percent
    assert accuracy["3m3deg"] == pytest.approx(100 / 3)
    assert accuracy["5m5deg"] == 100


def test_images_without_a_pose_count_as_infinitely_wrong_but_not_in_the_means():
    inf = float("inf")
    summary = coord_summary([1.0, inf, inf, 3.0, 5.0], [2.0, inf, inf, 2.0, 2.0], np.ones(1))
    assert summary.translation_m.median == 5.0 and summary.translation_m.mean == 3.0
    assert summary.accuracy_percent["30m10deg"] == 60 and summary.failures == 2
    assert coord_report(summary).splitlines()[-1] == "No pose found: 2 of 5 images (not in the mean errors)"
    assert coord_summary([1.0, inf], [1.0, inf], np.ones(1)).translation_m.median == inf
    nothing = coord_summary([inf], [inf], np.zeros(0))
    assert nothing.translation_m.median == inf and np.isnan(nothing.translation_m.mean)
    with pytest.raises(ValueError, match="cannot summarise 0"):
        coord_summary([], [], np.ones(1))


def test_depth_figures_are_per_batch_of_four():
    valid = np.array([[True, True, False]])
    truth = np.array([[10.0, 20.0, -1.0]])
    off_by_one = [depth_sums(truth + 1, truth, valid)] * DEPTH_BATCH
    off_by_three = [depth_sums(truth + 3, truth, valid)]
    summary = depth_summary(off_by_one + off_by_three)
    assert summary["rms_m"].mean == pytest.approx(2) and summary["rms_m"].median == pytest.approx(2)
    assert summary["absolute_relative_percent"].mean == pytest.approx(100 * (2 * (1 / 10 + 1 / 20) / 2))
    assert depth_report(summary) == (
        "absolute relative error, mean: 15.00%, median: 15.00%\nRMS error, mean: 2.00m, median: 2.00m"
    )
    nothing = [depth_sums(truth, truth, np.zeros_like(valid))]
    assert np.isnan(depth_summary(nothing)["rms_m"].mean)


def test_normal_report_is_the_published_text():
    summary = {"angle_deg": Spread.of([1.0, 2.0, 6.0])}
    assert normal_report(summary) == "angular prediction error, mean: 3.0 deg, median: 2.0 deg"


def test_semantics_scores_by_hand():
    truth = np.array([[0, 0, 1, 1], [1, 1, 2, 2]])
    predicted = np.array([[0, 1, 1, 1], [1, 1, 2, 5]])
    scores = semantics_scores(predicted, truth, 6)
    iou = np.array([1 / 2, 4 / 5, 1 / 2, 0.0])  # classes 0, 1, 2 and 5; 3 and 4 do not occur
    assert scores.pixel_accuracy == pytest.approx(75)
    assert scores.mean_iou == pytest.approx(100 * iou.mean())
    assert scores.frequency_weighted_iou == pytest.approx(100 * (2 * iou[0] + 4 * iou[1] + 2 * iou[2]) / 8)
    perfect = semantics_scores(truth, truth, 6)
    summary = semantics_summary([scores, perfect])
    assert semantics_report(summary).splitlines() == [
        "Pixel accuracy, mean: 87.50, median: 87.50",
        "Mean IoU, mean: 72.50, median: 72.50",
        "Frequency weighted IoU, mean: 82.50, median: 82.50",
    ]


def test_results_are_appended_and_kept_for_machines(tmp_path):
    weights = tmp_path / "ckpt_iter_0000123.net"
    rows = [{"section": "val_sim", "stem": "a", "translation_error_m": "1.0"}]
    write_results(weights, "coord", "val_sim", SUMMARY, {"seed": 1}, rows)
    block = write_results(weights, "coord", "test_drone_real", SUMMARY, {"seed": 1}, rows)
    text = (tmp_path / "results_ckpt_iter_0000123_task_coord.txt").read_text()
    assert text.count("====================") == 4
    assert text.startswith("==================== Evaluation on section val_sim ====================\nAccuracy:\n30m10deg:")
    assert text.endswith(block) and "section test_drone_real" in block
    evaluations = read_evaluations(tmp_path / "results_ckpt_iter_0000123_task_coord.json")
    assert [e["section"] for e in evaluations] == ["val_sim", "test_drone_real"]
    assert evaluations[1]["summary"]["translation_m"]["median"] == 6.0
    with (tmp_path / "test_drone_real_ckpt_iter_0000123_task_coord.csv").open() as stream:
        assert list(csv.DictReader(stream)) == rows
    assert not list(tmp_path.glob(".*"))


def test_what_is_not_finite_is_null_in_json(tmp_path):
    summary = coord_summary([float("inf")], [float("inf")], np.ones(1))
    write_results(tmp_path / "model.net", "coord", "val_sim", summary, {}, [{"stem": "a"}])
    content = json.loads((tmp_path / "results_model_task_coord.json").read_text(), parse_constant=pytest.fail)
    assert content["evaluations"][0]["summary"]["translation_m"]["median"] is None


def test_damaged_results_are_named(tmp_path):
    twin = tmp_path / "results_model_task_coord.json"
    twin.write_text("{")
    with pytest.raises(ValueError, match="results_model_task_coord.json"):
        write_results(tmp_path / "model.net", "coord", "val_sim", SUMMARY, {}, [{"stem": "a"}])
    assert [path.name for path in tmp_path.iterdir()] == [twin.name]


def test_estimated_positions(tmp_path):
    positions = np.array([[1.0, 2.0, 3.456], [np.nan, np.nan, np.nan]])
    write_estimated_positions(tmp_path / "model.net", "val_sim", ["a", "b"], positions)
    np.testing.assert_array_equal(np.load(tmp_path / "val_sim_model_out_xyz_poses.npy"), positions)
    assert (tmp_path / "val_sim_model_out_xyz_poses.txt").read_text() == "a 1.00 2.00 3.46\nb nan nan nan\n"
