"""Whole pictures as data, looked at once: every panel, line, colour, label and limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation import error_curves, overview, pictures
from evaluation.error_curves import Errors, draw_errors, errors_table
from evaluation.measures import DenseResult
from evaluation.metrics import coord_summary
from evaluation.overview import choose_rows, draw_overview, plan_axes
from evaluation.pictures import draw_coord, draw_depth, draw_normal, draw_prediction, draw_semantics
from tests.evaluation.test_pictures import coord_result
from tests.figures import described
from tests.kept import assert_kept

IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
LEFT = np.array([[True, True, False]])
DENSE = {
    "depth": (draw_depth, np.array([[11.0, 18.0, 5.0]]), np.array([[10.0, 30.0, 0.0]])),
    "normal": (
        draw_normal,
        np.array([[[0.0, 0.6, 1.0]], [[0.0, 0.0, 0.0]], [[1.0, 0.8, 0.0]]]),
        np.array([[[0.0, 0.0, 0.0]], [[0.6, 0.0, 0.0]], [[-0.8, 1.0, 0.0]]]),
    ),
    "semantics": (draw_semantics, np.array([[0, 1, 2]]), np.array([[0, 3, 5]])),
}  # fmt: skip


@pytest.fixture
def saved(monkeypatch):
    """The figures that would have been written, with their paths and further arguments."""
    kept = []
    for module in (pictures, overview, error_curves):
        monkeypatch.setattr(module, "save_figure", lambda made, path, **more: kept.append((described(made), path, more)))
    return kept


@pytest.mark.parametrize("task", ["coord", *DENSE])
def test_pictures_of_a_prediction(saved, task):
    sigma_hw = np.array([[1.0, 2.5, 3.0]])
    if task == "coord":
        draw, results = draw_coord, [coord_result(), replace(coord_result(sigma_hw=sigma_hw), valid_hw=LEFT & False)]
    else:
        draw, predicted, true = DENSE[task]
        results = [DenseResult("s/a", IMAGE, predicted, true, LEFT, None)]
        results += [DenseResult("s/b", IMAGE, predicted, true, LEFT & False, sigma_hw)]
    for result in results:
        draw_prediction(result, draw, Path("x.png"))
    assert_kept(f"picture-{task}", [figure for figure, _, _ in saved])


def test_the_picture_of_a_section(saved, tmp_path):
    results = [coord_result(f"s/{i}", off_m=off, x=10.0 * i) for i, off in enumerate((0.5, 2.0, 1.0, 1.5, 0.7, 3.0))]
    results += [coord_result("s/none", success=False, x=5.0)]
    for chosen in (results, results[:1]):
        errors = [r.translation_m for r in chosen], [r.rotation_deg for r in chosen]
        draw_overview(chosen, coord_summary(*errors, np.array([3.0, 4.0])), "a title", tmp_path / "new" / "x.png")
    assert_kept("overview", [figure for figure, _, _ in saved])
    assert [r.stem for r in choose_rows(results)] == ["s/0", "s/2", "s/1", "s/none"]
    assert [r.stem for r in choose_rows(results, 2)] == ["s/0", "s/none"]


def test_the_plane_of_the_track():
    """x and y up to 30 degrees from level, else the two widest directions, the widest first."""
    rng = np.random.default_rng(0)
    flat_3M = rng.normal(size=(3, 500)) * np.array([[50.0], [20.0], [1.0]])

    def tilted(angle_deg):
        c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ flat_3M

    for level in (flat_3M[:, :2], flat_3M, tilted(27.0)):
        np.testing.assert_array_equal(plan_axes(level), [[1, 0, 0], [0, 1, 0]])
    widest_3, second_3 = plan_axes(tilted(33.0))
    assert abs(widest_3 @ [np.cos(np.radians(33)), 0, np.sin(np.radians(33))]) > 0.999 and abs(second_3[1]) > 0.999


def test_the_ground_of_the_track_is_thinned(monkeypatch):
    """Every cell with its image's colour, and only so many."""
    result = replace(coord_result(), image_HW3=np.arange(8 * 24 * 3, dtype=np.uint8).reshape(8, 24, 3))
    points_3M, colours_M3 = overview._ground([result] * 3)
    np.testing.assert_array_equal(points_3M, np.tile(result.coord_true_3hw[:, result.valid_hw], 3))
    np.testing.assert_allclose(255 * colours_M3[:2], result.image_HW3[4, [4, 12]])
    monkeypatch.setattr(overview, "_GROUND_POINTS", 2)
    assert overview._ground([result] * 3)[0].shape == (3, 2)


def test_pictures_of_cumulative_errors(saved, tmp_path):
    coord = {"rotation_error_deg": np.array([1.0, 2.0, 4.0]), "translation_error_m": np.array([3.0, 500.0, np.inf])}
    none = {name: np.full(2, np.inf) for name in coord}
    depth = {"rms_m": np.array([1.0, 3.0]), "absolute_relative_percent": np.array([5.0, 7.0])}
    results = [Errors("a", "coord", coord), Errors("b", "coord", none), Errors("c", "depth", depth)]
    written = draw_errors(results, tmp_path, ending="svg")
    assert [path.name for path in written] == ["results_info.svg", "results_info_depth.svg"]
    assert_kept("cumulative-errors", [[figure, path.name, more] for figure, path, more in saved])
    assert_kept("cumulative-errors-table", errors_table(results))
