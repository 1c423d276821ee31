"""Poses refined by the map: how near they come, and when they are left alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from geometry.poses import pose_error
from localization import refinement
from localization.geodata import Geodata
from localization.matchers import sift_pairs
from localization.patches import PatchGrid, edge_directions, find_peaks, similarities, values_at
from localization.refinement import refine
from localization.working import WorkingPhoto

from .conftest import HEIGHT, WIDTH, Landscape, moved, pose


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


def test_far_poses_come_home_by_the_wide_start(landscape, geodata, monkeypatch):
    true_44 = pose(landscape, -30.0, 10.0)
    start_44 = true_44.copy()
    start_44[:3, 3] += (0.0, 20.0, 0.0)  # 29 px, beyond the 19 px that the first round searches
    photo_HW3 = landscape.photo(true_44)
    refined = refine(photo_HW3, landscape.K_33, start_44, geodata)
    assert refined.accepted and errors(refined.world_from_cam_44, true_44)[0] < 0.5
    monkeypatch.setattr(refinement._Attempt, "wide_start", lambda self, wide: None)
    assert not refine(photo_HW3, landscape.K_33, start_44, geodata).accepted


def test_far_poses_come_home_by_keypoints(landscape, geodata, monkeypatch):
    monkeypatch.setattr(refinement._Attempt, "wide_start", lambda self, wide: None)
    true_44 = pose(landscape, -30.0, 10.0)
    start_44 = moved(true_44, 20.0, 15.0, 0)
    photo_HW3 = geodata.render(true_44, landscape.K_33, WIDTH, HEIGHT).rgb_HW3
    assert not refine(photo_HW3, landscape.K_33, start_44, geodata).accepted
    refined = refine(photo_HW3, landscape.K_33, start_44, geodata, matcher=sift_pairs)
    assert refined.accepted and errors(refined.world_from_cam_44, true_44)[0] < 0.3


def test_twice_is_the_same_and_no_matcher_is_asked_where_patches_find_the_pose(landscape, geodata):
    true_44 = pose(landscape, 0.0, 0.0)
    photo, start_44 = landscape.photo(true_44), moved(true_44, 2.0, 1.0, 3)
    first, second = (refine(photo, landscape.K_33, start_44, geodata, seed=4, matcher=m) for m in (None, pytest.fail))
    assert np.array_equal(first.world_from_cam_44, second.world_from_cam_44)
    # The orthophoto's pixels are 0.45 m wide.
    assert geodata.error_m == first.map_m == pytest.approx(0.45 / 12**0.5)
    assert np.linalg.eigvalsh(first.covariance_66[3:, 3:]).min() > first.map_m**2


def test_at_another_place_the_coarse_pose_stays(landscape, geodata):
    for number, (x, y) in enumerate([(-60.0, -40.0), (50.0, 60.0), (10.0, -50.0)]):
        photo_HW3 = landscape.photo(pose(landscape, -x, -y, yaw=-60.0), number)
        start_44 = pose(landscape, x, y)
        refined = refine(photo_HW3, landscape.K_33, start_44, geodata, matcher=sift_pairs)
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


def test_the_prior_holds_the_position(landscape, geodata, monkeypatch):
    true_44 = pose(landscape, 20.0, 20.0)
    start_44 = moved(true_44, 3.0, 0.0, 1)
    free = refine(landscape.photo(true_44), landscape.K_33, start_44, geodata, covariance_66=np.eye(6))
    monkeypatch.setattr(refinement, "_PRIOR_FLOOR_M", 1e-4)
    held = refine(landscape.photo(true_44), landscape.K_33, start_44, geodata, covariance_66=1e-12 * np.eye(6))
    from_start = [np.linalg.norm(r.world_from_cam_44[:3, 3] - start_44[:3, 3]) for r in (free, held)]
    assert from_start[0] > 2.5 and from_start[1] < 0.05


def test_seen_from_much_nearer_patches_follow_the_image(landscape, geodata):
    """At twice the height the same photo gives cells and patches of twice the size, and no fewer of them."""
    true_44 = pose(landscape, 0.0, 20.0)
    photo_HW3 = landscape.photo(true_44)
    photos = [WorkingPhoto.of(photo_HW3, landscape.K_33, height) for height in (80, 160, 500)]
    sizes = [refinement._PatchMatcher(photo, geodata).grid for photo in photos]
    assert [(g.stride, g.half, g.shape) for g in sizes] == [(4, 5, (20, 30)), (8, 10, (20, 30)), (8, 10, (20, 30))]


def test_peaks_are_found_between_the_pixels():
    y, x = np.mgrid[-4:5, -4:5].astype(np.float32)
    dome = 0.9 - 0.02 * ((x - 1.3) ** 2 + 2 * (y + 0.4) ** 2)
    border = 0.5 + 0.1 * x
    both = np.maximum(dome, 0.85 - 0.05 * ((x + 3) ** 2 + (y - 3) ** 2))
    peaks = find_peaks(np.stack((dome, border, both)))
    assert peaks.sharp_P.tolist() == [True, False, True]
    assert np.allclose(peaks.offset_P2[[0, 2]], (1.3, -0.4), atol=1e-5)
    assert peaks.similarity_P[0] == pytest.approx(dome.max())
    assert peaks.margin_P[2] == pytest.approx(dome.max() - 0.85, abs=1e-6)
    # -trace of the inverse Hessian, diag(-0.04, -0.08), times what the peak lacks to one.
    assert peaks.sigma_P[0] == pytest.approx(np.sqrt((25 + 12.5) * (1 - dome.max())), rel=1e-4)
    assert np.isinf(peaks.sigma_P[1])


def test_similarity_is_blind_to_which_side_of_an_edge_is_bright():
    rng = np.random.default_rng(0)
    grey = cv2.GaussianBlur(rng.uniform(0, 255, (80, 120)).astype(np.float32), (0, 0), 3)
    grey = np.clip(127 + 6 * (grey - grey.mean()), 0, 255).astype(np.uint8)
    photo, negative = (np.repeat(g[..., None], 3, 2) for g in (grey, 255 - grey))
    grid = PatchGrid.of_image(80, 120, 12, 12)
    assert grid.centres_P2[0].tolist() == [18, 18] and len(grid.rows_P) == 5 * 8
    wide = np.pad(negative, ((7, 3), (2, 8), (0, 0)), mode="reflect")  # moved by (-3, 2) from the middle of a margin of 5
    similarity = similarities(edge_directions(photo), edge_directions(wide), grid, 5)
    peaks = find_peaks(similarity)
    assert (peaks.similarity_P > 0.9).mean() > 0.8
    assert np.allclose(np.median(peaks.offset_P2, axis=0), (-3, 2), atol=0.05)
    assert np.allclose(values_at(similarity, np.tile([[-3.0, 2.0]], (40, 1))), similarity[:, 7, 2])
    assert np.isnan(values_at(similarity, np.full((40, 2), 5.1))).all()


def test_geodata_of_another_crs_or_without_a_frame_are_refused(landscape):
    with pytest.raises(ValueError, match="WGS 84 / UTM zone 32N, the network's coordinates in WGS 84 / UTM zone 33N"):
        Geodata.open(landscape.surface, landscape.ortho, {**landscape.frame, "crs": "EPSG:32633"})
    with pytest.raises(ValueError, match="no CRS and origin"):
        Geodata.open(landscape.surface, landscape.ortho, None)
