"""Metrics against numbers worked out by hand; reports in the published wording; files complete and readable."""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing

import numpy as np
import pytest

from evaluation.dense import DenseFigures, DenseResult
from evaluation.metrics import (
    FIGURE_BATCH,
    Spread,
    coord_summary,
    depth_summary,
    depth_sums,
    normal_summary,
    semantics_scores,
    semantics_summary,
)
from evaluation.reports import REPORTS, Subject, read_evaluations, was_evaluated, write_estimated_positions, write_results
from evaluation.wording import coord_report, depth_report, normal_report, semantics_report
from runs.record import SectionRecord
from tests.evaluation.conftest import subject

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
    assert coord_report(summary).splitlines()[-1] == "Images without a pose: 40.0% (2 of 5; not in the mean errors)"
    assert coord_summary([1.0, inf], [1.0, inf], np.ones(1)).translation_m.median == inf
    nothing = coord_summary([inf], [inf], np.zeros(0))
    assert nothing.translation_m.median == inf and np.isnan(nothing.translation_m.mean)
    with pytest.raises(ValueError, match="cannot summarise 0"):
        coord_summary([], [], np.ones(1))


def test_depth_figures_are_per_batch_of_four():
    valid = np.array([[True, True, False]])
    truth = np.array([[10.0, 20.0, -1.0]])
    off_by_one = [depth_sums(truth + 1, truth, valid)] * FIGURE_BATCH
    off_by_three = [depth_sums(truth + 3, truth, valid)]
    summary = depth_summary(off_by_one + off_by_three)
    assert summary["rms_m"].mean == pytest.approx(2) and summary["rms_m"].median == pytest.approx(2)
    assert summary["absolute_relative_percent"].mean == pytest.approx(100 * (2 * (1 / 10 + 1 / 20) / 2))
    assert depth_report(summary) == (
        "absolute relative error, mean: 15.00%, median: 15.00%\nRMS error, mean: 2.00m, median: 2.00m"
    )
    nothing = [depth_sums(truth, truth, np.zeros_like(valid))]
    assert np.isnan(depth_summary(nothing)["rms_m"].mean)


def test_what_is_not_finite_is_printed_as_a_number_that_published_parsers_read():
    inf = float("inf")
    half = coord_summary([1.0, inf], [2.0, inf], np.array([4.0]))
    assert coord_report(half).splitlines()[7:] == [
        "Median Error: 999999.00 deg, 999999.00 m",
        "Mean Errors: 2.0 plus-minus 0.0 deg, 1.00 plus-minus 0.00 m",
        "Coordinate regression error: mean 4.0, std 0.0, median 4.0",
        "Images without a pose: 50.0% (1 of 2; not in the mean errors)",
    ]
    nothing = coord_report(coord_summary([inf], [inf], np.zeros(0)))
    assert "Mean Errors: 999999.00 plus-minus 999999.00 deg, 999999.00 plus-minus 999999.00 m" in nothing
    assert "mean 999999.00, std 999999.00, median 999999.00" in nothing and "inf" not in nothing and "nan" not in nothing
    empty = Spread.of([])
    assert depth_report({"absolute_relative_percent": empty, "rms_m": empty}) == (
        "absolute relative error, mean: 999999.00%, median: 999999.00%\nRMS error, mean: 999999.00m, median: 999999.00m"
    )


def test_normal_figures_are_published_ones_in_the_text_and_pooled_ones_for_machines():
    # Batches of 4 images: means 2 (of 1, 1, 1, 5) and 9; pooled over the five images' eight cells.
    angles = [np.array([1.0]), np.array([1.0]), np.array([1.0]), np.array([5.0]), np.array([6.0, 9.0, 9.0, 12.0])]
    summary = normal_summary(angles)
    assert summary["batch_angle_deg"] == Spread(5.5, 3.5, 5.5)
    assert summary["angle_deg"].mean == pytest.approx(44 / 8) and summary["angle_deg"].median == 5.5
    assert normal_report(summary) == "angular prediction error, mean: 5.5 deg, median: 5.5 deg"
    uneven = normal_summary([np.array([1.0, 1.0, 4.0])] * 4 + [np.array([8.0])] + [np.zeros(0)] * 4)
    assert uneven["batch_angle_deg"] == Spread(5.0, 3.0, 5.0)  # batch means 2 and 8; the third has no label
    assert uneven["angle_deg"].median == 1.0
    assert normal_report(uneven) == "angular prediction error, mean: 5.0 deg, median: 5.0 deg"


def dense(prediction, truth, valid=None):
    truth = np.asarray(truth, np.float32)
    valid = np.ones(truth.shape[-2:], bool) if valid is None else np.asarray(valid)
    return DenseResult("val_sim/a", np.zeros((8, 8, 3), np.uint8), np.asarray(prediction, np.float32), truth, valid, None)


def test_depth_rows_and_report_from_maps():
    figures = DenseFigures("depth")
    figures.add(dense([[11.0, 18.0, 7.0]], [[10.0, 20.0, 0.0]], [[True, True, False]]))
    assert figures.rows == [{
        "section": "val_sim", "stem": "a", "absolute_relative_percent": "10.0000", "rms_m": "1.5811", "labelled_cells": 2,
    }]  # fmt: skip
    assert REPORTS["depth"](figures.summary()) == (
        "absolute relative error, mean: 10.00%, median: 10.00%\nRMS error, mean: 1.58m, median: 1.58m"
    )


def test_normal_rows_and_report_from_maps():
    figures = DenseFigures("normal")
    turned = np.array(
        [[[np.sin(np.radians(a)) for a in (0, 30, 60)]], [[0.0] * 3], [[np.cos(np.radians(a)) for a in (0, 30, 60)]]]
    )
    up = np.broadcast_to(np.array([0.0, 0.0, 1.0])[:, None, None], (3, 1, 3))
    figures.add(dense(turned, up))
    figures.add(dense(turned, up, [[False, True, False]]))
    assert [(r["angle_mean_deg"], r["angle_median_deg"], r["labelled_cells"]) for r in figures.rows] == [
        ("30.0000", "30.0000", 3), ("30.0000", "30.0000", 1),
    ]  # fmt: skip
    assert REPORTS["normal"](figures.summary()) == "angular prediction error, mean: 30.0 deg, median: 30.0 deg"


def test_semantics_rows_and_report_from_maps():
    figures = DenseFigures("semantics")
    truth = np.array([[0, 0, 1, 1]])
    figures.add(DenseResult("s/a", np.zeros((1, 4, 3), np.uint8), np.array([[0, 1, 1, 1]]), truth, truth >= 0, None))
    assert figures.rows == [{
        "section": "s", "stem": "a", "pixel_accuracy": "75.0000", "mean_iou": "58.3333", "frequency_weighted_iou": "58.3333",
    }]  # fmt: skip
    assert REPORTS["semantics"](figures.summary()).splitlines() == [
        "Pixel accuracy, mean: 75.00, median: 75.00", "Mean IoU, mean: 58.33, median: 58.33",
        "Frequency weighted IoU, mean: 58.33, median: 58.33",
    ]  # fmt: skip


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
    weights.write_bytes(b"weights")
    rows = [{"section": "val_sim", "stem": "a", "translation_error_m": "1.0"}]
    write_results(weights, "coord", subject(weights, "val_sim"), SUMMARY, rows)
    block = write_results(weights, "coord", subject(weights, "test_drone_real"), SUMMARY, rows)
    text = (tmp_path / "results_ckpt_iter_0000123.net_task_coord.txt").read_text()
    assert text == block.replace("test_drone_real", "val_sim") + block
    assert block == (
        "==================== Evaluation on section test_drone_real ====================\n" + coord_report(SUMMARY) + "\n"
    )
    evaluations = read_evaluations(tmp_path / "results_ckpt_iter_0000123.net_task_coord.json")
    assert [e["section"] for e in evaluations] == ["val_sim", "test_drone_real"]
    assert evaluations[1]["summary"]["translation_m"] == {"mean": 9.5, "std": pytest.approx(9.287, abs=1e-3), "median": 6.0}
    assert evaluations[1]["section_fingerprint"] == "c0" and evaluations[1]["settings"] == {"seed": 1}
    assert evaluations[1]["weights_fingerprint"] == hashlib.sha256(b"weights").hexdigest()[:16]
    assert evaluations[0]["time"] < evaluations[1]["time"]
    with (tmp_path / "test_drone_real_ckpt_iter_0000123.net_task_coord.csv").open() as stream:
        assert list(csv.DictReader(stream)) == rows
    assert not list(tmp_path.glob(".part-*"))


def test_a_result_is_of_weights_section_and_settings_alike(tmp_path):
    weights = tmp_path / "model.net"
    weights.write_bytes(b"one")
    done = subject(weights)
    assert not was_evaluated(weights, "coord", done)
    write_results(weights, "coord", done, SUMMARY, [{"stem": "a"}])
    assert was_evaluated(weights, "coord", done)
    for other in (subject(weights, "val_oop"), subject(weights, content="c1"), subject(weights, settings={"seed": 2})):
        assert not was_evaluated(weights, "coord", other)
    weights.write_bytes(b"two")
    assert not was_evaluated(weights, "coord", subject(weights))


def test_a_group_of_sections_is_known_by_all_its_contents(tmp_path):
    def fingerprint(*contents):
        sections = tuple(SectionRecord(f"s{i}", 1, content) for i, content in enumerate(contents))
        return Subject("real_all", "w", sections, {}).section_fingerprint

    assert fingerprint("a") == "a"
    assert len({fingerprint("a", "b"), fingerprint("a", "c"), fingerprint("b", "a"), "a", "b"}) == 5


def _write_many(weights, section):
    for _ in range(40):
        write_results(weights, "coord", subject(weights, section), SUMMARY, [{"stem": "a"}])


def test_two_evaluations_at_once_lose_no_result(tmp_path):
    weights = tmp_path / "model.net"
    weights.write_bytes(b"weights")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(weights, section)) for section in ("val_sim", "val_drone_real")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    sections = [entry["section"] for entry in read_evaluations(tmp_path / "results_model.net_task_coord.json")]
    assert sorted(sections) == ["val_drone_real"] * 40 + ["val_sim"] * 40
    text = (tmp_path / "results_model.net_task_coord.txt").read_text()
    assert [line.split()[4] for line in text.splitlines() if line.startswith("=")] == sections
    assert text.count("Median Error: 6.0 deg, 6.00 m\n") == 80


def test_what_is_not_finite_is_null_in_json(tmp_path):
    summary = coord_summary([float("inf")], [float("inf")], np.ones(1))
    weights = tmp_path / "model.net"
    weights.write_bytes(b"weights")
    write_results(weights, "coord", subject(weights), summary, [{"stem": "a"}])
    content = json.loads((tmp_path / "results_model.net_task_coord.json").read_text(), parse_constant=pytest.fail)
    assert content["evaluations"][0]["summary"]["translation_m"]["median"] is None


@pytest.mark.parametrize("damage", ["{", "[]", '{"evaluations": [1]}'])
def test_damaged_results_are_named_and_left_alone(tmp_path, damage):
    weights, twin = tmp_path / "model.net", tmp_path / "results_model.net_task_coord.json"
    weights.write_bytes(b"weights")
    twin.write_text(damage)
    with pytest.raises(ValueError, match="results_model.net_task_coord.json"):
        write_results(weights, "coord", subject(weights), SUMMARY, [{"stem": "a"}])
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["model.net", twin.name]
    assert twin.read_text() == damage


def test_estimated_positions(tmp_path):
    positions = np.array([[1.0, 2.0, 3.456], [np.nan, np.nan, np.nan]])
    write_estimated_positions(tmp_path / "model.net", "val_sim", ["a.png", "b.jpg"], positions)
    np.testing.assert_array_equal(np.load(tmp_path / "val_sim_model.net_out_xyz_poses.npy"), positions)
    assert (tmp_path / "val_sim_model.net_out_xyz_poses.txt").read_text() == "a.png 1.00 2.00 3.46\nb.jpg nan nan nan\n"
