"""Judgements of synthetic photos whose errors are known to follow, or not to follow, what the solver says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from localization.answer import Answer
from localization.calibration import (
    Calibration,
    Sample,
    auroc,
    calibration_of,
    calibration_path,
    fit,
    judged,
    normalised_squared_errors,
    raw_probability,
    reliability,
    write_calibration,
)

COVARIANCE = np.diag([1e-4] * 3 + [0.25, 1.0, 0.5])
UNKNOWN = np.full((6, 6), np.inf)


def photos(count: int, *, scale=1.0, confidence=0.95, wrong=0.0, seed=0, covariance=COVARIANCE) -> list[Sample]:
    """Photos whose errors are `scale` times what the covariance says, but for a share that is wrong by 40 m."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        is_wrong = rng.random() < wrong
        error_6 = scale * rng.multivariate_normal(np.zeros(6), covariance)
        position_3 = error_6[3:] + (40.0 if is_wrong else 0.0)
        samples.append(Sample(confidence, covariance, True, position_3, error_6[:3]))
    return samples


def test_probability_of_an_isotropic_normal_error():
    covariance = np.diag([1e-4] * 3 + [4.0] * 3)
    for bound in (1.0, 3.0, 6.0):
        expected = 0.8 * chi2.cdf(bound**2 / 4, 3)
        assert raw_probability(0.8, covariance, True, bound) == pytest.approx(expected, abs=0.02)
    assert raw_probability(0.8, covariance, False, 6.0) == raw_probability(0.8, UNKNOWN, True, 6.0) == 0.0


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_covariance_is_scaled_by_what_the_errors_are(scale):
    calibration = fit(photos(300, scale=scale, wrong=0.1), [3.0], 3.0, {})
    assert calibration.position_scale == pytest.approx(scale, rel=0.2)
    assert calibration.rotation_scale == pytest.approx(scale, rel=0.2)
    scaled = calibration.judge(0.9, COVARIANCE, True).covariance_66
    assert scaled[4, 4] == pytest.approx(calibration.position_scale**2)
    assert scaled[0, 0] == pytest.approx(1e-4 * calibration.rotation_scale**2)


def test_few_photos_teach_little():
    """Photos that are ten times as wrong as the solver says: two are hardly believed, forty are."""
    two, forty = (fit(photos(count, scale=10.0), [3.0], 3.0, {}) for count in (2, 40))
    assert 1.5 < two.position_scale < 6 < 8 < forty.position_scale < 12
    assert 1.2 < two.rotation_scale < 4 < 7 < forty.rotation_scale < 12
    assert "2 photos are few" in str(two) and "few" not in str(forty)


def with_sigma(count: int, common: float, seed=0) -> list[Sample]:
    """Photos whose cells err in common by `common` times the network's deviation, which differs from photo to photo."""
    rng = np.random.default_rng(seed)
    tight = np.diag([1e-4] * 3 + [0.01] * 3)
    samples = photos(count, covariance=tight, seed=seed)
    sigmas_m = rng.uniform(0.2, 3.0, count)
    return [
        replace(s, position_error_3=s.position_error_3 + common * sigma_m * rng.normal(size=3), sigma_m=float(sigma_m))
        for s, sigma_m in zip(samples, sigmas_m, strict=True)
    ]


@pytest.mark.parametrize("common", [0.3, 2.0])
def test_what_cells_err_in_common_is_learned_from_the_predicted_deviation(common):
    calibration = fit(with_sigma(200, common), [3.0], 3.0, {})
    assert calibration.common == pytest.approx(common, rel=0.15)
    C_66 = calibration.judge(0.95, np.diag([1e-4] * 3 + [0.01] * 3), True, 2.0).covariance_66
    expected = (calibration.common * 2.0) ** 2 + 0.01 * calibration.position_scale**2
    assert C_66[3, 3] == pytest.approx(expected) and C_66[0, 0] == pytest.approx(1e-4 * calibration.rotation_scale**2)
    held = reliability(with_sigma(200, common, seed=9), calibration)
    assert held.within_two_sigma == pytest.approx(0.74, abs=0.1)
    if common == 2.0:
        assert held.auroc > 0.75
        # Of six degrees of freedom the three of the position are off by what is in common.
        assert np.mean(normalised_squared_errors(with_sigma(200, common))) > 100
    assert np.mean(normalised_squared_errors(with_sigma(200, common), calibration)) == pytest.approx(1.0, abs=0.2)
    assert len(normalised_squared_errors([Sample(0.0, UNKNOWN, False, np.zeros(3), np.zeros(3))])) == 0


@pytest.mark.parametrize("common", [0.3, 2.0])
def test_what_refined_poses_err_in_common_is_learned_in_units_of_the_maps_error(common):
    """Covariances hold the map's error as it is assumed; the network's deviation, which is far larger, has no say."""
    rng, map_m, own = np.random.default_rng(0), 0.2, np.diag([1e-4] * 3 + [0.01] * 3)
    held = own + np.diag([0.0] * 3 + [map_m**2] * 3)
    samples = [
        replace(s, position_error_3=s.position_error_3 + common * map_m * rng.normal(size=3), sigma_m=5.0, map_m=map_m,
                covariance_66=held)
        for s in photos(300, covariance=own)
    ]  # fmt: skip
    calibration = fit(samples, [3.0], 3.0, {})
    total = calibration.believed(held, 5.0, map_m)[3, 3]
    assert total == pytest.approx((calibration.common * map_m) ** 2 + 0.01 * calibration.position_scale**2)
    assert total == pytest.approx((common * map_m) ** 2 + 0.01, rel=0.15)
    assert calibration.judge_sample(samples[0]).covariance_66[3, 3] == pytest.approx(total)
    # Without photos of which anything is known, a pose is believed as it says itself.
    untaught = fit([Sample(0.0, UNKNOWN, False, np.zeros(3), np.zeros(3))], [3.0], 3.0, {})
    assert np.allclose(untaught.believed(held, 5.0, map_m), held)


def test_beyond_what_validation_has_seen_nothing_is_ok():
    samples = [replace(s, sigma_m=0.4) for s in photos(20, covariance=COVARIANCE / 100)]
    calibration = fit(samples, [3.0], 3.0, {})
    assert calibration.most_sigma_m == 0.8
    verdicts = [calibration.judge(0.95, COVARIANCE / 100, True, sigma_m).verdict for sigma_m in (0.4, 0.79, 0.81)]
    assert verdicts == ["ok", "ok", "doubtful"]


def test_an_overconfident_solver_is_talked_down():
    """It is 0.95 sure of everything, and one in three is wrong."""
    samples = photos(200, wrong=1 / 3)
    calibration = fit(samples, [3.0, 10.0], 10.0, {})
    probability = calibration.judge(0.95, COVARIANCE, True).probability
    share_right = np.mean([s.error_m < 10 for s in samples])
    assert probability == pytest.approx(share_right, abs=0.06)


def test_probabilities_of_unseen_photos_are_frequencies():
    """Half of the photos are vague and often wrong; the calibration learns from others than it is tested on."""

    def mixed(seed: int) -> list[Sample]:
        return photos(300, wrong=0.05, seed=seed) + photos(300, wrong=0.5, seed=seed + 1, confidence=0.4)

    calibration = fit(mixed(0), [3.0], 3.0, {})
    held = reliability(mixed(10), calibration)
    assert held.auroc > 0.75
    for count, mean, right in held.bins:
        if count >= 50:
            assert right == pytest.approx(mean, abs=0.1)
    assert held.within_two_sigma == pytest.approx(0.74 * 0.725, abs=0.06)  # 27.5 % are 40 m off


def test_nine_in_ten_of_what_validation_calls_ok_were_right():
    """Those that the solver was sure of were right but for a few; those it was less sure of were wrong."""
    samples = photos(30, wrong=0.05) + photos(8, wrong=1.0, confidence=0.7, seed=3)
    calibration = fit(samples, [3.0], 3.0, {"section": "val"})
    verdicts = [calibration.judge(s.confidence, s.covariance_66, s.success).verdict for s in samples]
    assert verdicts[:30] == ["ok"] * 30 and "ok" not in verdicts[30:]
    assert calibration.photos == 38 and calibration.wrong == sum(s.error_m >= 3.0 for s in samples)


def test_one_wrong_photo_among_few_raises_the_bar():
    few = photos(5) + photos(1, wrong=1.0, confidence=0.949)
    calibration = fit(few, [3.0], 3.0, {})
    assert calibration.judge(0.949, COVARIANCE, True).verdict == "doubtful"
    assert calibration.judge(0.95, COVARIANCE, True).verdict == "ok"


def test_verdicts():
    calibration = fit(photos(60), [3.0], 3.0, {})
    assert calibration.judge(0.95, COVARIANCE, True).verdict == "ok"
    assert calibration.judge(0.95, COVARIANCE * 400, True).verdict in ("doubtful", "failed")
    assert calibration.judge(0.95, COVARIANCE, False).verdict == "failed"
    assert calibration.judge(0.0, COVARIANCE, True).verdict == "failed"


def test_a_wider_bound_is_never_less_likely():
    calibration = fit(photos(60, wrong=0.3), [1, 3, 5, 10, 20], 5.0, {})
    for confidence in (0.05, 0.5, 0.99):
        values = list(calibration.judge(confidence, COVARIANCE, True).probabilities.values())
        assert len(values) == 5 and values == sorted(values)


def test_photos_without_a_pose_and_one_kind_alone_are_no_problem():
    failed = Sample(0.0, UNKNOWN, False, np.zeros(3), np.zeros(3))
    calibration = fit([failed] * 3, [3.0], 3.0, {})
    assert calibration.position_scale == 1.0 and calibration.judge(0.0, UNKNOWN, False).probability < 0.1
    held = reliability([failed] * 3, calibration)
    assert held.auroc is None and held.within_one_sigma is None and held.verdicts == {"failed": (3, 0.0)}
    with pytest.raises(ValueError, match="no photo to calibrate on"):
        fit([], [3.0], 3.0, {})


def test_auroc_by_hand():
    assert auroc(np.array([0.9, 0.8, 0.3, 0.3]), np.array([True, False, True, False])) == pytest.approx(
        (1 + 1 + 0 + 0.5) / 4
    )


def test_a_judged_answer():
    answer = Answer("a", np.eye(4), np.eye(3), (4, 3), "ok", 0.95, COVARIANCE, 0.5, 1.0, None, "coarse", 0.1)
    calibration = fit(photos(60, scale=2.0), [3.0], 3.0, {})
    believed = judged(answer, calibration)
    assert believed.covariance_66[4, 4] == pytest.approx(calibration.position_scale**2)
    assert believed.confidence == calibration.judge(0.95, COVARIANCE, True).probability
    assert judged(replace(answer, confidence=None), calibration).verdict == "ok"


def test_it_is_kept_beside_the_weights_and_bound_to_them(tmp_path):
    weights = tmp_path / "model-sc-1.00.net"
    weights.write_bytes(b"weights")
    assert calibration_of(weights) is None
    calibration = fit(photos(20), [1.0, 3.0], 3.0, {"section": "val_drone_real"})
    path = write_calibration(weights, calibration)
    assert path == calibration_path(weights) == tmp_path / "model-sc-1.00.calibration.json"
    assert calibration_of(weights) == calibration and isinstance(calibration_of(weights), Calibration)
    write_calibration(weights, replace(calibration, ok_above=0.9), "refined")
    assert calibration_of(weights) == calibration and calibration_of(weights, "refined").ok_above == 0.9
    weights.write_bytes(b"other weights")
    with pytest.raises(ValueError, match="learned with other weights"):
        calibration_of(weights)
    write_calibration(weights, calibration)  # what was learned with the old ones is gone
    assert calibration_of(weights, "refined") is None
    path.write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="is not a calibration of version 2: calibrate again"):
        calibration_of(weights)
