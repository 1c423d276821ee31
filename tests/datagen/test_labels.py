"""Every label is consistent with pose, intrinsics and geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datagen.cameras import Camera, centred_intrinsics, intrinsics
from datagen.render import Renderer
from datagen.sections import write_sample
from geometry.attitude import enu_from_camera
from geometry.cameras import project
from geometry.grid import cell_centres, grid_size
from geometry.poses import invert_pose, transform_points

from .synthetic import plane_height, smooth_height

VIEWS = {
    "nadir": (0, 0, 80, 0, -90, 0),
    "slanted": (20, -50, 60, 35, -50, 5),
    "sky": (-60, -60, 30, 40, -8, -12),
    "turned": (10, 30, 45, 170, -75, 90),
}


def pose(x, y, z, yaw, pitch, roll) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = enu_from_camera(yaw, pitch, roll)
    matrix[:3, 3] = x, y, z
    return matrix


def read_sample(section, camera):
    load = lambda folder: torch.load(section / folder / f"{camera.stem}.dat", weights_only=True)  # noqa: E731
    world_from_cam_44 = torch.from_numpy(np.loadtxt(section / "poses" / f"{camera.stem}.txt"))
    calibration = np.loadtxt(section / "calibration" / f"{camera.stem}.txt", ndmin=1)
    return load("init"), load("depth"), load("normal"), world_from_cam_44, calibration


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(240, 160), (221, 163)], ids=["multiple", "odd"])
def test_written_labels_reproject_onto_their_cell_centres(hills_scene, tmp_path, view, size):
    width, height = size
    camera = Camera("a", pose(*VIEWS[view]), centred_intrinsics(160.0, width, height), width, height)
    rendered = Renderer(hills_scene).render(camera.world_from_cam_44, camera.K_33, width, height)
    write_sample(tmp_path, camera, rendered)
    init_3hw, depth_hw, normal_3hw, world_from_cam_44, calibration = read_sample(tmp_path, camera)
    h, w = grid_size(height, width)
    assert (init_3hw.shape, depth_hw.shape, normal_3hw.shape) == ((3, h, w), (h, w), (3, h, w))
    assert init_3hw.dtype == depth_hw.dtype == normal_3hw.dtype == torch.float32
    assert len(calibration) == 1
    valid_hw = depth_hw != -1
    assert ((init_3hw == -1).all(0) == ~valid_hw).all() and ((normal_3hw == -1).all(0) == ~valid_hw).all()
    assert ((init_3hw == -1).any(0) == ~valid_hw).all() and ((normal_3hw == -1).any(0) == ~valid_hw).all()
    assert valid_hw.float().mean() > 0.2 and (valid_hw.all() or view in ("sky", "slanted"))

    cam_from_world_44 = invert_pose(world_from_cam_44)[None]
    p_cam_13N = transform_points(cam_from_world_44, init_3hw.double()[:, valid_hw][None])
    K_133 = torch.from_numpy(centred_intrinsics(float(calibration[0]), width, height))[None]
    pixels_12N, _ = project(p_cam_13N, K_133)
    target_2N = cell_centres(h, w, dtype=torch.float64)[:, valid_hw]
    assert (pixels_12N[0] - target_2N).abs().max() < 0.01
    assert torch.allclose(p_cam_13N[0, 2], depth_hw[valid_hw].double(), rtol=1e-5, atol=1e-4)
    normal_3N = normal_3hw[:, valid_hw].double()
    assert torch.allclose(normal_3N.norm(dim=0), torch.ones(normal_3N.shape[1], dtype=torch.float64), atol=1e-5)
    assert ((normal_3N * p_cam_13N[0]).sum(0) < 0).all(), "a normal points away from the camera"


def test_off_centre_intrinsics_are_written_as_four_numbers_and_honoured(hills_scene, tmp_path):
    camera = Camera("a", pose(*VIEWS["slanted"]), intrinsics(200, 190, 100, 70), 240, 160)
    write_sample(tmp_path, camera, Renderer(hills_scene).render(camera.world_from_cam_44, camera.K_33, 240, 160))
    init_3hw, depth_hw, _, world_from_cam_44, calibration = read_sample(tmp_path, camera)
    assert calibration.tolist() == [200, 190, 100, 70]
    valid_hw = depth_hw != -1
    p_cam_13N = transform_points(invert_pose(world_from_cam_44)[None], init_3hw.double()[:, valid_hw][None])
    pixels_12N, _ = project(p_cam_13N, torch.from_numpy(camera.K_33)[None])
    assert (pixels_12N[0] - cell_centres(20, 30, dtype=torch.float64)[:, valid_hw]).abs().max() < 0.01


@pytest.mark.parametrize("view", ["nadir", "slanted", "turned"])
def test_plane_is_exact(make_geodata, view):
    camera_pose = pose(*VIEWS[view])
    rendered = Renderer(make_geodata(height=plane_height).open()).render(
        camera_pose, centred_intrinsics(200.0, 240, 160), 240, 160
    )
    x, y, z = (channel[rendered.valid_hw].astype(np.float64) for channel in rendered.coords_3hw)
    assert np.abs(z - plane_height(x, y)).max() < 2e-3
    expected_3 = camera_pose[:3, :3].T @ (np.array([-0.2, 0.1, 1.0]) / np.sqrt(1.05))
    cosine = np.einsum("cn,c->n", rendered.normal_3hw[:, rendered.valid_hw], expected_3)
    assert np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).max() < 0.1


def test_points_lie_on_the_first_intersection_of_an_analytic_terrain(hills_scene):
    camera_pose = pose(*VIEWS["slanted"])
    rendered = Renderer(hills_scene).render(camera_pose, centred_intrinsics(160.0, 240, 160), 240, 160)
    centre = camera_pose[:3, 3]
    for row, column in zip(*np.nonzero(rendered.valid_hw), strict=True):
        point = rendered.coords_3hw[:, row, column].astype(np.float64)
        # 1 m facets leave up to 1/8 of the curvature (6 / 17^2) between them and the smooth surface.
        assert abs(point[2] - smooth_height(*point[:2])) < 0.02
        along = centre + np.linspace(0, 0.97, 300)[:, None] * (point - centre)
        assert (along[:, 2] > smooth_height(along[:, 0], along[:, 1]) - 0.05).all(), "the ray passed through terrain"


def test_normals_follow_the_terrain(hills_scene):
    camera_pose = pose(0, 0, 60, 20, -80, 0)
    rendered = Renderer(hills_scene).render(camera_pose, centred_intrinsics(300.0, 240, 160), 240, 160)
    x, y, _ = rendered.coords_3hw.reshape(3, -1).astype(np.float64)
    e = 0.1
    slope_x = (smooth_height(x + e, y) - smooth_height(x - e, y)) / (2 * e)
    slope_y = (smooth_height(x, y + e) - smooth_height(x, y - e)) / (2 * e)
    expected = np.stack((-slope_x, -slope_y, np.ones_like(x))) / np.sqrt(1 + slope_x**2 + slope_y**2)
    cosine = np.einsum("cn,cn->n", rendered.normal_3hw.reshape(3, -1), camera_pose[:3, :3].T @ expected)
    error_deg = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    assert np.median(error_deg) < 0.5 and error_deg.max() < 2


def test_exact_minus_one_stays_valid(make_geodata, tmp_path):
    """Straight down on level ground the camera-frame normal is (0, 0, -1): -1 would read as nodata."""
    scene = make_geodata(height=lambda x, y: np.zeros(np.broadcast_shapes(x.shape, y.shape)) - 1.0).open()
    camera = Camera("a", pose(0, 0, 50, 0, -90, 0), centred_intrinsics(100.0, 64, 48), 64, 48)
    write_sample(tmp_path, camera, Renderer(scene).render(camera.world_from_cam_44, camera.K_33, 64, 48))
    init_3hw, _, normal_3hw, _, _ = read_sample(tmp_path, camera)
    assert torch.allclose(normal_3hw[2], torch.tensor(-1.0)) and torch.allclose(init_3hw[2], torch.tensor(-1.0))
    assert (normal_3hw != -1).all() and (init_3hw != -1).all()


def test_semantics_pixel_and_sky(make_geodata):
    scene = make_geodata(height=lambda x, y: np.zeros(np.broadcast_shapes(x.shape, y.shape))).open()
    # 0.5 m per pixel, north up: the quarters meet at the image centre.
    nadir = Renderer(scene).render(pose(0, 0, 80, 0, -90, 0), centred_intrinsics(160.0, 240, 160), 240, 160)
    expected = np.full((160, 240), 3, np.uint8)
    expected[:80, 120:], expected[80:, :120] = 6, 9
    assert nadir.semantics_HW.dtype == np.uint8 and (nadir.semantics_HW == expected).all()
    level = Renderer(scene).render(pose(0, -90, 20, 0, 0, 0), centred_intrinsics(160.0, 240, 160), 240, 160)
    assert (level.semantics_HW[:78] == 0).all() and (level.semantics_HW[-20:] != 0).all()
    assert not level.valid_hw[:9].any()
    sky, ground = level.rgb_HW3[0, 120].astype(int), level.rgb_HW3[-1, 120].astype(int)
    assert sky[2] > sky[0] + 20, "the sky is blue"
    assert np.abs(sky - ground).max() > 20


def test_holes_are_not_surface(make_geodata):
    scene = make_geodata(height=plane_height, hole=lambda x, y: (np.abs(x) < 15) & (np.abs(y) < 15)).open()
    rendered = Renderer(scene).render(pose(0, 0, 80, 0, -90, 0), centred_intrinsics(160.0, 240, 160), 240, 160)
    assert not rendered.valid_hw[10, 15] and (rendered.semantics_HW[78:82, 118:122] == 0).all()
    hole_share = (rendered.semantics_HW == 0).mean()
    # 31 m between the centres of the cells around the hole, 120 m x 80 m in view.
    assert hole_share == pytest.approx(31 * 31 / (120 * 80), rel=0.1)


def test_fullsize_labels_are_at_pixel_centres(hills_scene):
    camera_pose, K_33 = pose(*VIEWS["slanted"]), centred_intrinsics(60.0, 80, 56)
    rendered = Renderer(hills_scene, label_stride=1).render(camera_pose, K_33, 80, 56)
    assert rendered.coords_3hw.shape == (3, 56, 80)
    p_cam_N3 = (rendered.coords_3hw.reshape(3, -1).T - camera_pose[:3, 3]) @ camera_pose[:3, :3]
    valid_N = rendered.valid_hw.ravel()
    pixels_N2 = p_cam_N3[valid_N, :2] / p_cam_N3[valid_N, 2:] * 60 + [40, 28]
    rows, columns = np.nonzero(rendered.valid_hw)
    assert np.abs(pixels_N2 - np.stack((columns, rows), 1) - 0.5).max() < 0.01
