"""The usual mistakes of prepared data: each is found, measured and explained."""

import logging
import time

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dataloader.geometry_check import check_geometry
from dataloader.section import SectionDataset
from geometry.attitude import enu_from_camera, yaw_pitch_roll_from_enu_camera


def dataset(section, task="coord"):
    return SectionDataset([section], task, 32)


def change_poses(section, function, which="*"):
    for path in (section / "poses").glob(f"{which}.txt"):
        np.savetxt(path, function(np.loadtxt(path)))


def write_calibrations(section, text):
    for path in (section / "calibration").iterdir():
        path.write_text(text)


@pytest.mark.parametrize("task", ["coord", "depth", "normal", "semantics"])
@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"calibration": "60 70 45 30"}, {"sky_rows": 4}])
def test_right_data_pass_whatever_the_task(plane_section, task, options):
    assert check_geometry(dataset(plane_section(3, **options), task)) < 1e-3


def test_labels_of_the_pixel_beside_pass(plane_section):
    """The benchmark's labels are half a pixel off."""
    section = plane_section(3)
    write_calibrations(section, "64 64 48.5 32.5")
    assert check_geometry(dataset(section)) == pytest.approx(0.5**0.5, abs=1e-3)


def test_the_largest_distance_of_all_images_is_returned(plane_section):
    section = plane_section(3)
    (section / "calibration" / "view_001.txt").write_text("64 64 49 32")
    assert check_geometry(dataset(section)) == pytest.approx(1.0, abs=1e-3)


def test_inverse_poses_are_explained(plane_section):
    section = plane_section(3)
    change_poses(section, np.linalg.inv)
    with pytest.raises(
        ValueError,
        match=(
            r"labels of train_sim/view_000 do not project onto their cells with its pose and calibration: they lie "
            r"\d+\.\d px from their cells in the median, at most 2\.0 px is right \(3 of 3 images looked at disagree\)\. "
            r"It looks as if the pose were world-to-camera; "
            r"poses/ wants camera-to-world, its inverse: with that put right, the distance is 0\.00 px"
        ),
    ):
        check_geometry(dataset(section))


@pytest.mark.parametrize("text, factor, stated", [("128", "2", "128"), ("32 32 48 32", "0.5", "32"), ("96", "1.5", "96")])
def test_wrong_focal_lengths_are_explained_with_both_numbers(plane_section, text, factor, stated):
    section = plane_section(3)
    write_calibrations(section, text)
    with pytest.raises(
        ValueError,
        match=(
            rf"the focal length were {factor} times what the labels say "
            rf"\({stated} px in calibration/, 64 px by the labels\); "
            r"calibration/ wants that of the stored image, 96 x 64 px: .* the distance is 0\.00 px"
        ),
    ):
        check_geometry(dataset(section))


def test_the_stated_distance_is_the_median(plane_section):
    """Twice the focal length doubles each cell's distance from the centre."""
    section = plane_section(1)
    write_calibrations(section, "128")
    y, x = np.mgrid[:8, :12] * 8 + 4.0
    # The lower of the two middle ones, as torch counts.
    expected = torch.from_numpy(np.hypot(x - 48, y - 32)).flatten().median().item()
    with pytest.raises(ValueError, match=rf"they lie {expected:.1f} px from"):
        check_geometry(dataset(section))


def test_the_calibration_of_the_full_size_photo_is_explained(plane_section):
    section = plane_section(2)
    write_calibrations(section, "256 256 192 128")
    with pytest.raises(ValueError, match=r"the calibration were of an image of 384 px in width, .* 96 x 64 px"):
        check_geometry(dataset(section))


@pytest.mark.parametrize(
    "function, said",
    [
        (lambda T: T @ np.diag([1.0, -1, -1, 1]), r"y and z axes were flipped \(OpenGL\)"),
        (
            lambda T: T @ np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            "the camera's axes were swapped: the pose's -y, x and z are right, down and forward",
        ),
        (
            lambda T: np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]) @ T,
            "world axes were swapped: x, y and z of the labels are the pose's x, z and -y",
        ),
        (
            lambda T: np.linalg.inv(T) @ np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
            "the pose were world-to-camera; .*; and world axes were swapped: x, y and z of .* are the pose's x, -z and y:",
        ),
        (
            lambda T: np.linalg.inv(T @ np.diag([1.0, -1, -1, 1])),
            "the pose were world-to-camera; .*; and the camera's axes were swapped: the pose's x, -y and -z are right",
        ),
    ],
)
def test_other_axes_are_explained(plane_section, function, said):
    section = plane_section(2)
    change_poses(section, function)
    with pytest.raises(ValueError, match=said):
        check_geometry(dataset(section))


def test_labels_with_two_swapped_coordinates_are_explained(plane_section):
    section = plane_section(2)
    for path in (section / "init").iterdir():
        torch.save(torch.load(path)[[1, 0, 2]], path)
    with pytest.raises(ValueError, match="world axes were swapped: x, y and z of the labels are the pose's y, x and z"):
        check_geometry(dataset(section))


def test_two_mistakes_at_once_are_explained(plane_section):
    section = plane_section(2)
    change_poses(section, np.linalg.inv)
    write_calibrations(section, "128")
    with pytest.raises(ValueError, match=r"world-to-camera.*; and the focal length were 2 times .*128 px.*64 px by the"):
        check_geometry(dataset(section))


def test_a_principal_point_at_the_corner_is_refused_too(plane_section):
    section = plane_section(1)
    write_calibrations(section, "64 64 0 0")
    with pytest.raises(ValueError, match=r"they lie 57\.\d px.*principal point were the image's centre, not 0 0: .* 0.00"):
        check_geometry(dataset(section))


def test_labels_of_other_images_have_another_pose(plane_section):
    section = plane_section(4)
    labels = sorted((section / "init").iterdir())
    moved = [torch.load(path) for path in labels]
    for path, label in zip(labels, moved[1:] + moved[:1], strict=True):
        torch.save(label, path)
    with pytest.raises(
        ValueError, match=r"4 of 4 images .*\. Another pose fits the labels \(75\.7 m and 12\.1 degrees away; 0\.00"
    ):
        check_geometry(dataset(section))


def test_what_has_no_usual_explanation_is_refused_all_the_same(plane_section):
    section = plane_section(2)
    for path in sorted((section / "init").iterdir()):
        torch.save(torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(0)) * 50, path)
    with pytest.raises(ValueError, match=r"2 of 2 images looked at disagree\)\. No usual mistake"):
        check_geometry(dataset(section))


def test_mirrored_label_maps_are_explained(plane_section):
    section = plane_section(2)
    for path in (section / "init").iterdir():
        torch.save(torch.load(path).flip(1), path)
    with pytest.raises(ValueError, match=r"label map were mirrored: its rows run from bottom to top: .* 0\.00 px"):
        check_geometry(dataset(section))


def in_degrees(T):
    """The attitude's angles in degrees where radians belong."""
    wrong = T.copy()
    angles_deg = np.array(yaw_pitch_roll_from_enu_camera(T[:3, :3]))
    wrong[:3, :3] = enu_from_camera(*np.rad2deg(angles_deg))
    return wrong


def euler_in_degrees(T):
    wrong = T.copy()
    wrong[:3, :3] = Rotation.from_euler("zyx", Rotation.from_matrix(T[:3, :3]).as_euler("zyx", degrees=True)).as_matrix()
    return wrong


@pytest.mark.parametrize("function", [in_degrees, euler_in_degrees])
def test_degrees_for_radians_are_explained(plane_section, function):
    section = plane_section(2)
    change_poses(section, function)
    with pytest.raises(ValueError, match="as if degrees were taken for radians when the rotation was made: .* 0.00 px"):
        check_geometry(dataset(section))


def test_another_origin_is_explained_and_a_wrong_position_is_none(plane_section):
    section = plane_section(4)
    shift = np.array([[0, 0, 0, 300], [0, 0, 0, -200.0], [0, 0, 0, 5], [0, 0, 0, 0]])
    change_poses(section, lambda T: T + shift)
    with pytest.raises(
        ValueError, match="different origins: with the camera moved by -300 200 -5 m, the distance is 0.00 px"
    ):
        check_geometry(dataset(section))
    for number in range(4):
        change_poses(section, lambda T, number=number: T - (1 + number) * shift, f"view_00{number}")
    with pytest.raises(ValueError, match="every camera is moved, each by another way"):
        check_geometry(dataset(section))


def test_every_section_is_looked_at(plane_section):
    synthetic, real = plane_section(40), plane_section(2, name="scene/train_drone_real", seed=3)
    change_poses(real, np.linalg.inv, "view_001")
    both = SectionDataset([synthetic, real], "coord", 32)
    with pytest.raises(ValueError, match=r"train_drone_real/view_001 .*1 of 6 images"):
        check_geometry(both)
    change_poses(synthetic, np.linalg.inv, "view_030")
    with pytest.raises(ValueError, match=r"train_sim/view_030 .*2 of 6 images"):
        check_geometry(both)


def test_images_without_labels_are_left_out_and_said(plane_section, caplog):
    section = plane_section(3)
    change_poses(section, np.linalg.inv)
    for path in sorted((section / "init").iterdir()):
        torch.save(torch.full((3, 8, 12), -1.0), path)
    assert check_geometry(dataset(section, "depth")) is None
    for path in (section / "init").iterdir():
        path.unlink()
    with caplog.at_level(logging.INFO):
        assert check_geometry(dataset(section, "depth")) is None
    assert "not checked" in caplog.text


def test_depths_and_normals_are_held_against_the_coordinates(plane_section):
    section = plane_section(3)
    for path in (section / "depth").iterdir():
        torch.save(1000 * torch.load(path), path)
    for path in (section / "normal").iterdir():
        torch.save(-torch.load(path), path)
    check_geometry(dataset(section))
    with pytest.raises(
        ValueError, match="labels of train_sim/view_000: depth/ contradicts .*: it holds millimetres instead of"
    ):
        check_geometry(dataset(section, "depth"))
    with pytest.raises(ValueError, match="labels of train_sim/view_000: normals .* they point away from the camera"):
        check_geometry(dataset(section, "normal"))


def test_it_takes_less_than_a_second(plane_section):
    both = dataset(plane_section(3, height=480, width=720, focal=480.0))
    start = time.perf_counter()
    check_geometry(both)
    assert time.perf_counter() - start < 1.0
