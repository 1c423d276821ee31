"""What is drawn where: panels are looked at as data, without rendering."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.measures import DenseResult
from evaluation.pictures import coordinate_colours, coordinate_range, draw_depth, draw_normal, draw_semantics, figure

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
    np.testing.assert_array_equal(wrong_hw, [[0, 1]])


def test_colours_of_coordinates():
    coords = np.array([[[0.0, 5.0, 20.0]], [[0.0, 5.0, 20.0]], [[0.0, 5.0, 20.0]]])
    colours = coordinate_colours(coords, np.array([[True, True, False]]), np.zeros(3), np.full(3, 10.0))
    np.testing.assert_allclose(colours[0], [[0] * 3, [0.5] * 3, [0.25] * 3])
    low, high = coordinate_range(np.linspace(0, 100, 101)[None].repeat(3, 0))
    assert low == pytest.approx([1] * 3) and high == pytest.approx([99] * 3)
    low, high = coordinate_range(np.zeros((3, 0)))
    assert low.tolist() == [0, 0, 0] and high.tolist() == [1, 1, 1]
