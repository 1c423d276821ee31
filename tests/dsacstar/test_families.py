"""The problems and the bookkeeping of benchmarks/solver_structured.py, against what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest

import benchmarks.solver_structured as structured
from benchmarks.solver_families import FAMILIES
from benchmarks.solver_peers import OWN_STOP, cell_pixels
from benchmarks.solver_problems import smooth_field


def reprojection_px(problem, pose_44, coords_3hw) -> np.ndarray:
    """[h, w] distance between the projected coordinates and the cells' centres."""
    height, width = coords_3hw.shape[1:]
    x, y, z = pose_44[:3, :3].T @ (coords_3hw.reshape(3, -1) - pose_44[:3, 3:])
    fx, fy, cx, cy = problem.intrinsics
    pixels_N2 = cell_pixels(height, width, problem.subsampling)
    return np.hypot(fx * x / z + cx - pixels_N2[:, 0], fy * y / z + cy - pixels_N2[:, 1]).reshape(height, width)


def test_the_truth_lies_on_the_rays_of_the_right_pose():
    for name, family in FAMILIES.items():
        problem = family.make(7)
        if problem.right_poses and "pixel noise" not in name:
            assert reprojection_px(problem, problem.right_poses[0], problem.truth_3hw).max() < 1e-6, name


def test_the_seed_is_the_problem():
    first, again, other = (FAMILIES["moved 35 %"].make(seed).coords_3hw for seed in (7, 7, 8))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_moved_cells_agree_with_the_other_pose_and_the_rest_with_the_right_one():
    problem = FAMILIES["moved 45 %, accurate"].make(3)
    moved_hw = problem.wrong_hw
    assert moved_hw.mean() == pytest.approx(0.45, abs=0.01)
    assert np.linalg.norm(problem.other_poses[0][:3, 3] - problem.right_poses[0][:3, 3]) == pytest.approx(30.0)
    under_other = reprojection_px(problem, problem.other_poses[0], problem.coords_3hw.astype(np.float64))
    under_right = reprojection_px(problem, problem.right_poses[0], problem.coords_3hw.astype(np.float64))
    assert under_other[moved_hw].max() < 10 < np.median(under_other[~moved_hw])
    assert under_right[~moved_hw].max() < 10 < np.median(under_right[moved_hw])


def test_equal_structures_are_both_right():
    problem = FAMILIES["two equal structures 25/25"].make(3)
    for pose in problem.right_poses:
        agree_hw = reprojection_px(problem, pose, problem.coords_3hw.astype(np.float64)) < 20
        assert 0.18 < agree_hw.mean() < 0.36


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.without_sigma])
def test_sigma_is_all_that_differs_between_paired_families(name):
    told, bare = FAMILIES[name].make(5), FAMILIES[FAMILIES[name].without_sigma].make(5)
    assert np.array_equal(told.coords_3hw, bare.coords_3hw)
    assert bare.sigma_hw is None and (told.sigma_hw > 0).all()


def test_a_right_sigma_is_the_spread_of_the_errors():
    normalised = []
    for seed in range(5):
        problem = FAMILIES["white uneven, right sigma"].make(seed)
        error_3hw = (problem.coords_3hw - problem.truth_3hw) / problem.sigma_hw
        normalised.append(error_3hw[:, ~problem.wrong_hw].std())
    assert np.mean(normalised) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("length", [3.0, 10.0])
def test_smooth_fields_have_unit_variance_and_their_length(length):
    fields = smooth_field(np.random.default_rng(0), 200, 60, 90, length)
    assert fields.var() == pytest.approx(1.0, rel=0.15)
    # White noise under a Gaussian of that length: correlation exp(-d^2 / 4 length^2) at distance d.
    lag = int(length)
    correlation = (fields[..., lag:] * fields[..., :-lag]).mean() / fields.var()
    assert correlation == pytest.approx(np.exp(-0.25), abs=0.05)


def test_auroc_counts_ties_half():
    wrong = np.array([True, True, False, False])
    assert structured.auroc(np.array([0.0, 1.0, 1.0, 2.0]), wrong) == pytest.approx(3.5 / 4)
    assert np.isnan(structured.auroc(np.array([0.0, 1.0]), np.array([False, False])))


def row(**changed) -> structured.Row:
    nothing = float("nan")
    values = {"cells": 5400, "ms": 1.0, "median_m": 1.0, "worst_m": 2.0, "median_deg": 0.1, "failures": 0.0, "refused": 0.0}
    return structured.Row(**(values | {"believed": nothing, "nees": 1.0, "alternative": nothing} | changed))


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, None),
        ({"median_m": 1.2}, "best peer"),
        ({"failures": 0.04}, "failures"),
        ({"ms": 3.0}, "as fast"),
        ({"refused": 0.1}, "refused"),
        ({"nees": 9.0}, "NEES"),
    ],
)
def test_the_verdict_names_every_loss(changed, word):
    table = {"clean, 1 m": {structured.SOLVE: row(**changed), OWN_STOP: row(ms=40.0, failures=0.02)}}
    losses = structured.losses_of("clean, 1 m", structured.SOLVE, table)
    assert losses == [] if word is None else len(losses) == 1 and word in losses[0]


def test_sigma_that_hurts_is_a_loss():
    table = {
        "white uneven": {structured.SOLVE: row()},
        "white uneven, unrelated sigma": {structured.SOLVE: row(median_m=1.06)},
    }
    assert "unrelated sigma: 1.06" in structured.losses_of("white uneven, unrelated sigma", structured.SOLVE, table)[0]


def test_the_covariance_is_judged_in_its_own_frame():
    """Errors drawn from the covariance itself: rotation vector in the camera frame, centre in the world."""
    import cv2

    rng = np.random.default_rng(0)
    spread = np.diag([1e-3] * 3 + [0.1] * 3) @ (np.eye(6) + 0.9 * np.eye(6, k=3))
    covariance = spread @ spread.T
    truth = FAMILIES["exact"].make(0).right_poses[0]
    values = []
    for error_6 in rng.multivariate_normal(np.zeros(6), covariance, 2000, method="cholesky"):
        estimate = truth.copy()
        estimate[:3, :3] = truth[:3, :3] @ cv2.Rodrigues(error_6[:3])[0].T
        estimate[:3, 3] = truth[:3, 3] - error_6[3:]
        values.append(structured.normalised_error(structured.Answer(estimate, True, None, covariance), truth))
    assert np.mean(values) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    "arguments",
    [["--first_seed", "9950"], ["--first_seed", "100000"], ["--final", "--first_seed", "5"], ["--families", "nope"]],
)
def test_seeds_kept_for_the_final_table_are_asked_for_by_name_only(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        structured.parsed(arguments)
    assert stop.value.code == 2
    assert structured.parsed(["--final", "--problems", "3"]).seeds == range(100_000, 100_003)


def test_one_family_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["x", "--problems", "2", "--families", "14x21, clean", "--peers", "--out", str(tmp_path / "t")]
    )
    structured.main()
    assert "VERDICT on ours, solve" in capsys.readouterr().out
    assert (tmp_path / "t.csv").read_text().count("14x21, clean") == 4
    assert '"median_m"' in (tmp_path / "t.json").read_text()
