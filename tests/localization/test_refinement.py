"""Poses refined by the map: how near they come, and when they are left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geometry.poses import pose_error
from localization.geodata import Geodata
from localization.refinement import refine

from .conftest import Landscape, moved, pose


@pytest.fixture(scope="module")
def geodata(landscape: Landscape) -> Geodata:
    return Geodata.open(landscape.surface, landscape.ortho, landscape.frame)


def errors(estimate_44: np.ndarray, true_44: np.ndarray) -> tuple[float, float]:
    return pose_error(torch.from_numpy(estimate_44), torch.from_numpy(true_44))


@pytest.mark.parametrize(("metres", "degrees"), [(1.5, 0.8), (6.0, 4.0)])
def test_a_wrong_pose_comes_home_over_a_season(landscape, geodata, metres, degrees):
    found = []
    for number, (x, y) in enumerate([(-40.0, 0.0), (30.0, 20.0), (10.0, -50.0)]):
        true_44 = pose(landscape, x, y)
        refined = refine(landscape.photo(true_44, number), landscape.K_33, moved(true_44, metres, degrees, number), geodata)
        assert refined.accepted and not refined.reason, refined
        assert refined.agreement > 0.4 and refined.gain > 0.05
        found.append(errors(refined.world_from_cam_44, true_44))
        distance_m = refined.world_from_cam_44[:3, 3] - true_44[:3, 3]
        assert distance_m @ np.linalg.inv(refined.covariance_66[3:, 3:]) @ distance_m < 30
    # A pixel is 0.69 m wide on the ground.
    assert np.median(found, axis=0)[0] < 0.3 and np.median(found, axis=0)[1] < 0.15
    assert np.max(found, axis=0)[0] < 0.7


def test_twice_is_the_same(landscape, geodata):
    true_44 = pose(landscape, 0.0, 0.0)
    photo, start_44 = landscape.photo(true_44), moved(true_44, 2.0, 1.0, 3)
    first, second = (refine(photo, landscape.K_33, start_44, geodata, seed=4) for _ in range(2))
    assert np.array_equal(first.world_from_cam_44, second.world_from_cam_44)


def test_at_another_place_the_coarse_pose_stays(landscape, geodata, make_landscape):
    elsewhere = make_landscape(6)
    for number, (x, y) in enumerate([(-40.0, 0.0), (30.0, 20.0), (10.0, -50.0), (0.0, 40.0)]):
        start_44 = pose(landscape, x, y)
        refined = refine(elsewhere.photo(pose(elsewhere, x, y), number), landscape.K_33, start_44, geodata)
        assert not refined.accepted and refined.reason and refined.covariance_66 is None
        assert np.array_equal(refined.world_from_cam_44, start_44)


def test_off_the_map_and_in_the_fog_the_coarse_pose_stays(landscape, geodata):
    true_44 = pose(landscape, 0.0, 0.0)
    far_44 = true_44.copy()
    far_44[:3, 3] += (5000.0, 0.0, 0.0)
    off = refine(landscape.photo(true_44), landscape.K_33, far_44, geodata)
    assert not off.accepted and "hardly anything of the map" in off.reason and np.array_equal(off.world_from_cam_44, far_44)
    fog = refine(np.full((160, 240, 3), 200, np.uint8), landscape.K_33, true_44, geodata)
    assert not fog.accepted and fog.reason


def test_a_perfect_pose_is_not_made_worse(landscape, geodata):
    true_44 = pose(landscape, 20.0, -20.0)
    refined = refine(landscape.photo(true_44), landscape.K_33, true_44, geodata)
    assert errors(refined.world_from_cam_44, true_44)[0] < 0.3


def test_the_prior_holds_a_pose_that_little_is_seen_of(landscape, geodata):
    """A covariance of millimetres, inflated, still allows half a metre; without it the pose is free."""
    true_44 = pose(landscape, 20.0, 20.0)
    start_44 = moved(true_44, 3.0, 0.0, 1)
    photo = landscape.photo(true_44)
    free = refine(photo, landscape.K_33, start_44, geodata)
    held = refine(photo, landscape.K_33, start_44, geodata, covariance_66=1e-6 * np.eye(6))
    from_start = [np.linalg.norm(r.world_from_cam_44[:3, 3] - start_44[:3, 3]) for r in (free, held)]
    assert from_start[1] <= from_start[0]


def test_geodata_of_another_crs_or_without_a_frame_are_refused(landscape):
    with pytest.raises(ValueError, match="WGS 84 / UTM zone 32N, the network's coordinates in WGS 84 / UTM zone 33N"):
        Geodata.open(landscape.surface, landscape.ortho, {**landscape.frame, "crs": "EPSG:32633"})
    with pytest.raises(ValueError, match="no CRS and origin"):
        Geodata.open(landscape.surface, landscape.ortho, None)
