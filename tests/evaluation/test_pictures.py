"""What is drawn where: panels are looked at as data, without rendering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation import overview, pictures
from evaluation.coord import CoordResult
from evaluation.measures import DenseResult
from evaluation.metrics import CoordSummary, coord_summary
from evaluation.pictures import (
    coordinate_colours,
    coordinate_range,
    draw_coord,
    draw_depth,
    draw_normal,
    draw_prediction,
    draw_semantics,
    figure,
)
from localization.solving import EstimatedPose
from tasks import CLASS_NAMES

IMAGE = np.zeros((8, 16, 3), np.uint8)


def panels(draw, result):
    """(title, array) of the second to fourth panel."""
    axes = figure(8, 3).subplots(1, 4)
    draw(axes, result)
    assert not axes[0].images and not axes[0].get_title()
    return [(axis.get_title(), np.ma.filled(axis.images[0].get_array(), np.nan)) for axis in axes[1:]]


def test_depth_panels():
    result = DenseResult("s/a", IMAGE, np.array([[11.0, 18.0]]), np.array([[10.0, 30.0]]), np.array([[True, True]]), None)
    (true, true_hw), (predicted, predicted_hw), (difference, difference_hw) = panels(draw_depth, result)
    assert (true, predicted, difference) == ("true depth", "predicted depth", "difference")
    np.testing.assert_array_equal(true_hw, [[10, 30]])
    np.testing.assert_array_equal(predicted_hw, [[11, 18]])
    np.testing.assert_array_equal(difference_hw, [[1, 12]])


def test_normal_panels():
    up, sideways = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
    predicted, true = np.stack([up, sideways], 1)[:, None], np.stack([up, up], 1)[:, None]
    result = DenseResult("s/a", IMAGE, predicted, true, np.array([[True, True]]), None)
    (title, true_hw3), (title_predicted, predicted_hw3), (angle, angle_hw) = panels(draw_normal, result)
    assert (title, title_predicted, angle) == ("true normals", "predicted normals", "angle")
    np.testing.assert_allclose(true_hw3, [[[0.5, 0.5, 1], [0.5, 0.5, 1]]])
    np.testing.assert_allclose(predicted_hw3, [[[0.5, 0.5, 1], [1, 0.5, 0.5]]])
    np.testing.assert_allclose(angle_hw, [[0, 90]], atol=1e-6)


def test_semantics_panels():
    truth, predicted = np.array([[0, 1]]), np.array([[0, 2]])
    result = DenseResult("s/a", IMAGE, predicted, truth, truth >= 0, None)
    (title, true_hw3), (title_predicted, predicted_hw3), (wrong, wrong_hw) = panels(draw_semantics, result)
    assert (title, title_predicted, wrong) == ("true classes", "predicted", "wrong pixels")
    np.testing.assert_array_equal(true_hw3[0, 0], predicted_hw3[0, 0])
    assert not np.array_equal(true_hw3[0, 1], predicted_hw3[0, 1])
    axes = figure(8, 3).subplots(1, 4)
    draw_semantics(axes, result)
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == list(CLASS_NAMES)
    np.testing.assert_array_equal(wrong_hw, [[0, 1]])


def test_colours_of_coordinates():
    coords = np.array([[[0.0, 5.0, 20.0]], [[0.0, 5.0, 20.0]], [[0.0, 5.0, 20.0]]])
    colours = coordinate_colours(coords, np.array([[True, True, False]]), np.zeros(3), np.full(3, 10.0))
    np.testing.assert_allclose(colours[0], [[0] * 3, [0.5] * 3, [0.25] * 3])
    low, high = coordinate_range(np.linspace(0, 100, 101)[None].repeat(3, 0))
    assert low == pytest.approx([1] * 3) and high == pytest.approx([99] * 3)
    low, high = coordinate_range(np.zeros((3, 0)))
    assert low.tolist() == [0, 0, 0] and high.tolist() == [1, 1, 1]


def coord_result(stem="s/a", *, off_m=0.5, x=0.0, success=True, sigma_hw=None):
    """Two labelled cells whose prediction is off by 3 and 4 m, and one without a label; a camera at x."""
    true_3hw = np.array([[[x, x + 10.0, 0.0]], [[0.0, 10.0, 0.0]], [[0.0, 0.0, 0.0]]])
    predicted_3hw = true_3hw + np.array([[[3.0, 0.0, 1.0]], [[0.0, 4.0, 1.0]], [[0.0, 0.0, 1.0]]])
    true_44, estimated_44 = np.eye(4), np.eye(4)
    true_44[:3, 3], estimated_44[:3, 3] = (x, 0, 0), (x + off_m, 0, 0)
    image_HW3 = np.full((8, 24, 3), 77, np.uint8)
    errors = (off_m, 0.25) if success else (np.inf, np.inf)
    pose = EstimatedPose(estimated_44 if success else np.eye(4), success, 7)
    return CoordResult(
        stem, image_HW3, predicted_3hw, true_3hw, np.array([[True, True, False]]), sigma_hw, pose, true_44, *errors
    )


def test_coord_panels():
    (true, true_hw3), (predicted, predicted_hw3), (distance, distance_hw) = panels(draw_coord, coord_result())
    assert (true, predicted, distance) == ("true coordinates", "predicted; pose off by 0.50 m, 0.2 deg", "distance")
    np.testing.assert_allclose(true_hw3[0, 1, :2], [1, 1])
    np.testing.assert_allclose(true_hw3[0, 2], true_hw3[0, 2, ::-1])  # grey: no label
    assert predicted_hw3[0, 0, 0] > true_hw3[0, 0, 0] and predicted_hw3[0, 0, 1] == true_hw3[0, 0, 1]
    np.testing.assert_array_equal(distance_hw, [[3, 4, np.nan]])


def drawn(monkeypatch, module, draw):
    """The figure that `draw` would have saved."""
    kept = []
    monkeypatch.setattr(module, "save_figure", lambda made, path: kept.append(made))
    draw()
    return kept[0]


@pytest.mark.parametrize("sigma_hw", [None, np.array([[1.0, 2.0, 3.0]])])
def test_a_prediction_is_drawn_beside_its_image(monkeypatch, sigma_hw):
    result = coord_result(sigma_hw=sigma_hw)
    made = drawn(monkeypatch, pictures, lambda: draw_prediction(result, draw_coord, Path("unused.png")))
    axes = [axis for axis in made.axes if axis.get_label() != "<colorbar>"]
    assert len(axes) == 4 + (sigma_hw is not None) and axes[0].get_title() == "s/a"
    np.testing.assert_array_equal(axes[0].images[0].get_array(), result.image_HW3)
    if sigma_hw is not None:
        np.testing.assert_array_equal(axes[4].images[0].get_array(), sigma_hw)
        assert axes[4].get_title() == "predicted standard deviation"


def test_the_overview_as_data(monkeypatch, tmp_path):
    """Rows from best to worst, one scale of error for all, the track, and failures counted instead of drawn."""
    results = [coord_result(f"s/{i}", off_m=off, x=10.0 * i) for i, off in enumerate((0.5, 2.0, 1.0))]
    results += [coord_result("s/far", off_m=1e4, x=20.0), coord_result("s/none", success=False, x=5.0)]
    summary = coord_summary([r.translation_m for r in results], [r.rotation_deg for r in results], np.array([3.0, 4.0]))
    made = drawn(
        monkeypatch, overview, lambda: overview.draw_overview(results, summary, "a title", tmp_path / "o" / "x.png")
    )
    assert isinstance(summary, CoordSummary) and made.get_suptitle() == "a title"
    left, right = made.subfigs
    assert left.bbox.width == pytest.approx(1.5 * right.bbox.width)
    rows = [axis for axis in left.axes if axis.get_label() != "<colorbar>"]
    assert [axis.get_title() for axis in rows[:4]] == ["image", "true coordinates", "predicted coordinates", "error"]
    assert rows[0].get_ylabel() == "0\npose off by 0.50 m, 0.2 deg" and rows[-4].get_ylabel() == "none\nno pose"
    for axis in rows[3::4]:
        assert axis.images[0].get_clim() == pytest.approx((0.0, 4.0))
    bars = [axis for axis in left.axes if axis.get_label() == "<colorbar>"]
    assert [bar.get_ylabel() for bar in bars] == ["distance to the true coordinate, m"]
    plan, text = right.axes
    marks = {line.get_label(): line.get_xydata() for line in plan.lines if not line.get_label().startswith("_")}
    np.testing.assert_allclose(marks["true position"][:, 0], [0, 10, 20, 20, 5])
    np.testing.assert_allclose(marks["estimated position"][:3, 0], [0.5, 12, 21])
    assert plan.get_title() == "from above; 1 estimates outside the frame, 1 images without a pose"
    assert (plan.get_xlabel(), plan.get_ylabel()) == ("x, m", "y, m")
    assert plan.get_xlim()[1] < 40 and "Median Error" in text.texts[0].get_text()


def test_an_overview_of_one_image_has_one_row(monkeypatch, tmp_path):
    only = coord_result("s/only")
    summary = coord_summary([only.translation_m], [only.rotation_deg], np.array([3.0, 4.0]))
    made = drawn(monkeypatch, overview, lambda: overview.draw_overview([only], summary, "one", tmp_path / "x.png"))
    left, right = made.subfigs
    assert len([axis for axis in left.axes if axis.get_label() != "<colorbar>"]) == 4
    joined = [line.get_xydata() for line in right.axes[0].lines if line.get_linestyle() == "-"]
    np.testing.assert_allclose(joined[0], [[0, 0], [0.5, 0]])  # from the true to the estimated position
