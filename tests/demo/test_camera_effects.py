"""The simulated camera."""

import numpy as np
import pytest

from datagen.demo.camera_effects import photograph
from datagen.demo.settings import CameraEffects

QUIET = CameraEffects(
    blur_px=0.01, motion_px=0.0, vignetting=0.0, exposure_std=0.0, white_balance_std=0.0, contrast=0.0, haze=0.0,
    shot_noise=0.0, read_noise=0.0, jpeg_quality=100,
)  # fmt: skip


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def render():
    smooth = np.linspace(40, 200, 120)[None, :, None] * np.ones((80, 1, 3))
    smooth[20:40, 30:60] = (200, 60, 40)
    return smooth.astype(np.uint8)


def test_strength_zero_changes_nothing(render):
    photo = photograph(render, CameraEffects(), 0.0, rng())
    assert np.array_equal(photo, render) and photo is not render


def test_without_effects_only_jpeg_rounding_remains(render):
    difference = photograph(render, QUIET, 1.0, rng()).astype(int) - render
    assert np.abs(difference).mean() < 1.5


def test_seed_is_the_only_source_of_chance(render):
    first, again, other = (photograph(render, CameraEffects(), 1.0, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.uint8 and first.shape == render.shape


def test_vignetting_darkens_the_corners_by_its_amount():
    grey = np.full((80, 120, 3), 200, np.uint8)
    photo = photograph(grey, CameraEffects(**{**vars(QUIET), "vignetting": 0.4}), 1.0, rng()).astype(float)
    assert photo[40, 60].mean() == pytest.approx(200, abs=3)
    for corner in (photo[:3, :3], photo[-3:, -3:], photo[:3, -3:]):
        assert corner.mean() == pytest.approx(0.6 * 200, abs=6)


def test_noise_has_the_asked_size():
    grey = np.full((120, 180, 3), 128, np.uint8)
    photo = photograph(grey, CameraEffects(**{**vars(QUIET), "read_noise": 0.03}), 1.0, rng())
    # JPEG thins the noise of the colours, not that of the brightness: a weighted sum of three independent channels.
    brightness_HW = photo.astype(float) @ (0.299, 0.587, 0.114)
    assert brightness_HW.std() == pytest.approx(0.03 * 255 * np.linalg.norm((0.299, 0.587, 0.114)), rel=0.1)


def test_blur_softens_edges(render):
    photo = photograph(render, CameraEffects(**{**vars(QUIET), "blur_px": 4.0, "motion_px": 6.0}), 1.0, rng())
    assert (
        np.abs(np.diff(photo[..., 0].astype(int), axis=0)).max()
        < np.abs(np.diff(render[..., 0].astype(int), axis=0)).max() - 40
    )
