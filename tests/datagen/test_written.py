"""Every command ends with the check of what it wrote, beside what the scene has already."""

import logging
import shutil

import numpy as np
import pytest

from datagen.benchmark.command import chunk_main
from datagen.sections import write_section_record
from datagen.written import check_written
from tests.conftest import write_plane_section


@pytest.fixture
def scene(tmp_path):
    """Two sections of ours, and one of somebody else that is not finished."""
    scene = tmp_path / "scene"
    for seed, (name, count) in enumerate({"train_sim": 3, "test_drone_sim": 2}.items()):
        write_plane_section(scene / name, count, seed=seed)
        write_section_record(scene / name, {"settings": {}})
    (scene / "unfinished" / "rgb").mkdir(parents=True)
    return scene


def change_poses(section, function):
    for path in (section / "poses").iterdir():
        np.savetxt(path, function(np.loadtxt(path)))


def test_right_sections_are_said_to_be(scene, caplog):
    caplog.set_level(logging.INFO)
    check_written(scene, ["train_sim"])
    assert caplog.messages == [
        "checked: 5 samples of test_drone_sim, train_sim; the labels lie 0.00 px from where pose and calibration see them"
    ]


def test_the_first_error_is_named_and_the_others_are_counted(scene):
    change_poses(scene / "train_sim", np.linalg.inv)
    said = (
        "what was written is wrong: train_sim/view_000: world-to-camera: .*world-to-camera; .*; 2 more: python -m dataloader"
    )
    with pytest.raises(ValueError, match=said):
        check_written(scene, ["train_sim"])


def test_sections_are_held_against_those_of_the_scene(scene, caplog):
    """New training views that have the pose of a test photo; views nearly at one are worth a look."""
    caplog.set_level(logging.INFO)
    shutil.copytree(scene / "test_drone_sim", scene / "train_more")
    change_poses(scene / "train_more", lambda T: T + np.outer([0.1, 0, 0, 0], [0, 0, 0, 1]))
    for path in (scene / "train_more" / "rgb").iterdir():
        path.write_bytes((scene / "train_sim" / "rgb" / path.name).read_bytes())
    check_written(scene, ["train_more"])
    assert f"; worth a look (python -m dataloader.check {scene}): near-pose (2)" in caplog.text
    change_poses(scene / "train_more", lambda T: T - np.outer([0.1, 0, 0, 0], [0, 0, 0, 1]))
    with pytest.raises(ValueError, match="test_drone_sim/view_000: same-pose: train_more/view_000 has the same pose"):
        check_written(scene, ["train_more"])


def test_chunks_end_with_the_check(scene, capsys):
    arguments = ["--section_dir", str(scene / "train_sim"), "--chunk_size", "0.5"]
    change_poses(scene / "train_sim", lambda T: T @ np.diag([1.0, -1, -1, 1]))
    assert chunk_main(arguments) == 2
    assert "error: what was written is wrong: train_sim/view_000: opengl-axes: " in capsys.readouterr().err
