"""Rendered colour: registered to a hundredth of a pixel, filtered to the footprint, smooth at edges."""

from __future__ import annotations

import numpy as np
import pytest

from datagen.cameras import centred_intrinsics
from datagen.render import Backdrop, Renderer
from datagen.texture import Footprint, Texture

from .synthetic import block_height, noise_colour
from .test_labels import pose

FLAT = lambda x, y: np.zeros(np.broadcast_shapes(x.shape, y.shape))  # noqa: E731


def supersampled(scene, camera_pose, focal, width, height, factor) -> np.ndarray:
    """Reference: each pixel the mean of factor x factor rays, each with nearest-texel lookup."""
    K_33 = centred_intrinsics(focal * factor, width * factor, height * factor)
    x = (np.arange(width * factor) + 0.5 - K_33[0, 2]) / K_33[0, 0]
    y = (np.arange(height * factor) + 0.5 - K_33[1, 2]) / K_33[1, 1]
    rays_N3 = np.stack([*np.broadcast_arrays(x[None], y[:, None]), np.ones((len(y), len(x)))], -1).reshape(-1, 3)
    direction_N3 = rays_N3 @ camera_pose[:3, :3].T
    t_N = scene.raycaster.cast(np.broadcast_to(camera_pose[:3, 3], direction_N3.shape), direction_N3).t_N
    assert np.isfinite(t_N).all()
    p_N3 = camera_pose[:3, 3] + t_N[:, None] * direction_N3
    colour_HW3, grid = scene.texture.levels[0], scene.ortho_grid
    columns = np.clip(grid.columns(p_N3[:, 0]).astype(int), 0, grid.cols - 1)
    rows = np.clip(grid.rows_of(p_N3[:, 1]).astype(int), 0, grid.rows - 1)
    sampled = colour_HW3[rows, columns].reshape(height, factor, width, factor, 3)
    return sampled.mean(axis=(1, 3))


def test_colour_is_not_shifted(make_geodata):
    """A ramp in x and one in y, straight down: the colour of each pixel is the ramp at its centre."""

    def ramps(x, y):
        return np.stack(np.broadcast_arrays(127 + x, 127 + y, 127 + 0 * x * y)).round().astype(np.uint8)

    scene = make_geodata(height=FLAT, colour=ramps).open()
    for focal in (160.0, 320.0, 1000.0):
        rendered = Renderer(scene).render(pose(0, 0, 80, 0, -90, 0), centred_intrinsics(focal, 240, 160), 240, 160)
        metres_per_px = 80 / focal
        x = (np.arange(240) + 0.5 - 120) * metres_per_px
        y = (80 - np.arange(160) - 0.5) * metres_per_px
        offset_x = (rendered.rgb_HW3[..., 0] - 127.0 - x[None]).mean() / metres_per_px
        offset_y = (rendered.rgb_HW3[..., 1] - 127.0 - y[:, None]).mean() / metres_per_px
        # One grey level is a metre here, so rounding limits the check to a few hundredths of a metre.
        assert max(abs(offset_x), abs(offset_y)) < 0.05, (focal, offset_x, offset_y)


@pytest.mark.parametrize(
    ("view", "focal"),
    [((0, 0, 80, 30, -90, 0), 75.0), ((0, 0, 70, 10, -75, 0), 110.0), ((0, -60, 40, 5, -40, 0), 130.0)],
    ids=["nadir", "tilted", "oblique"],
)
def test_texture_finer_than_pixels_does_not_alias(make_geodata, view, focal):
    """White noise at texel size: unfiltered sampling would keep its full contrast (a standard deviation of 74)."""
    scene = make_geodata(height=FLAT, colour=noise_colour).open()
    rendered = Renderer(scene).render(pose(*view), centred_intrinsics(focal, 120, 80), 120, 80)
    reference = supersampled(scene, pose(*view), focal, 120, 80, 12)
    image = rendered.rgb_HW3.astype(float)
    assert 0.8 * reference.std() < image.std() < 1.2 * reference.std()
    assert abs(image.mean() - reference.mean()) < 1
    assert np.corrcoef(image.ravel(), reference.ravel())[0, 1] > 0.75


def test_near_views_keep_the_texture(make_geodata):
    scene = make_geodata(height=FLAT, colour=noise_colour).open()
    # 0.05 m per pixel against texels of 0.25 m.
    rendered = Renderer(scene).render(pose(0, 0, 20, 0, -90, 0), centred_intrinsics(400.0, 120, 80), 120, 80)
    assert rendered.rgb_HW3.astype(float).std() > 40


def test_silhouettes_are_smooth(make_geodata):
    """Edges of a block against a supersampled reference: one ray per pixel is off by 69 levels there."""

    def roof(x, y):
        grey = np.where((np.abs(x) < 20.5) & (np.abs(y) < 20.5), 255, 10)
        return np.stack(np.broadcast_arrays(grey, grey, grey)).astype(np.uint8)

    scene = make_geodata(height=block_height, colour=roof).open()
    camera_pose = pose(-5, 3, 75, 17, -82, 0)
    rendered = Renderer(scene).render(camera_pose, centred_intrinsics(80.0, 120, 80), 120, 80)
    reference = supersampled(scene, camera_pose, 80.0, 120, 80, 8)
    difference = np.abs(rendered.rgb_HW3 - reference)[..., 0]
    partial = (reference[..., 0] > 25) & (reference[..., 0] < 230)
    assert partial.sum() > 30
    assert difference[partial].mean() < 15 and difference[~partial].mean() < 1


def test_holes_of_the_orthophoto_take_the_surrounding_colour():
    colour = np.full((64, 64, 3), 200, np.uint8)
    valid = np.ones((64, 64), bool)
    colour[20:40, 20:40], valid[20:40, 20:40] = 0, False
    texture = Texture(colour, valid)
    for level in texture.levels:
        assert (np.abs(level.astype(int) - 200) <= 1).all()


def test_tiles_of_a_large_level_join_without_a_seam(monkeypatch):
    colour = np.random.default_rng(0).integers(0, 256, (100, 130, 3)).astype(np.uint8)
    u, v = (np.random.default_rng(1).uniform(-3, 135, 5000).astype(np.float32) for _ in range(2))
    still = np.full(5000, 0.5, np.float32)
    footprint = Footprint(still, 0 * still, 0 * still, still)
    whole = Texture(colour).sample(u, v, footprint)
    monkeypatch.setattr("datagen.texture._TILE", 32)
    assert np.abs(Texture(colour).sample(u, v, footprint) - whole).max() <= 1


def test_backdrop_shows_other_ground_beyond_the_data_and_nothing_else_changes(make_geodata):
    scene = make_geodata(height=FLAT).open()
    renderer, K_33 = Renderer(scene), centred_intrinsics(120.0, 180, 120)
    # Over the eastern border, looking down and a little to the north: half of the view is off the data.
    camera_pose = pose(100, 0, 60, 0, -80, 0)
    plain = renderer.render(camera_pose, K_33, 180, 120)
    backdrops = [Backdrop(0.0, (0.0, 0.0)), Backdrop(1.0, (0.3, 1.6)), Backdrop.drawn(np.random.default_rng(1))]
    views = [renderer.render(camera_pose, K_33, 180, 120, backdrop) for backdrop in backdrops]
    off = plain.semantics_HW == 0
    off[:, :94] = False  # not the border itself, whose pixels are a mixture
    assert off.mean() == pytest.approx(0.48, abs=0.05) and plain.rgb_HW3[off].std(axis=0).max() == 0
    for view in views:
        assert (view.rgb_HW3[:, :86] == plain.rgb_HW3[:, :86]).all() and view.rgb_HW3[off].std(axis=0).min() > 20
        np.testing.assert_array_equal(view.depth_hw, plain.depth_hw)
    assert np.abs(views[1].rgb_HW3[off].astype(int) - views[2].rgb_HW3[off]).mean() > 20
    # Neither turned nor shifted, it is the mirror image of the data at their border.
    level = renderer.render(pose(100, 0, 60, 0, -90, 0), K_33, 180, 120, backdrops[0]).rgb_HW3.astype(int)
    assert np.abs(level - level[:, ::-1])[:, :85].max() <= 3


def test_backdrop_ends_at_the_horizon(make_geodata):
    scene = make_geodata(height=FLAT).open()
    renderer, K_33 = Renderer(scene), centred_intrinsics(120.0, 180, 120)
    level = pose(0, 90, 20, 0, 0, 0)
    plain = renderer.render(level, K_33, 180, 120)
    view = renderer.render(level, K_33, 180, 120, Backdrop(1.0, (0.3, 0.6)))
    assert (view.rgb_HW3[:59] == plain.rgb_HW3[:59]).all() and (view.rgb_HW3[70:] != plain.rgb_HW3[70:]).any()
    below = renderer.render(pose(0, 0, -20, 0, 0, 0), K_33, 180, 120, Backdrop(1.0, (0.3, 0.6)))
    assert below.rgb_HW3.shape == (120, 180, 3)
