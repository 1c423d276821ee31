"""`python -m datagen sections`: what it writes, repeatability, and one clear error for each bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from datagen.__main__ import main

from .synthetic import LEFT, TOP, write_raster
from .test_labels import pose
from .test_sampling import preset_document

SMALL = ["--width", "96", "--height", "64", "--focal", "80"]


@pytest.fixture
def run(hills, tmp_path):
    """Runs the sections command into tmp_path/NAME and returns (exit code, scene folder)."""
    preset = tmp_path / "preset.json"
    preset.write_text(json.dumps(preset_document()))

    def command(*more, out="data", views=("--preset", str(preset)), geodata=None):
        words = ["sections", *(geodata or hills.arguments()), *views, "--scene", "s", *SMALL]
        return main([*words, "--output_dir", str(tmp_path / out), *more]), tmp_path / out / "s"

    return command


def content(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_sections_from_a_preset(run):
    code, scene_dir = run()
    assert code == 0
    assert sorted(p.name for p in scene_dir.iterdir()) == ["s_lhs_split.txt", "scene.json", "train_sim", "val_sim"]
    folders = {"rgb", "poses", "calibration", "init", "depth", "normal", "semantics"}
    for section, count in (("train_sim", 18), ("val_sim", 2)):
        assert {p.name for p in (scene_dir / section).iterdir()} == folders
        listed = [{p.stem for p in (scene_dir / section / folder).iterdir()} for folder in folders]
        assert len(listed[0]) == count and all(names == listed[0] for names in listed)
    stem = next(iter(listed[0]))
    image = cv2.imread(str(scene_dir / "val_sim" / "rgb" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape == (64, 96, 3)
    assert torch.load(scene_dir / "val_sim" / "init" / f"{stem}.dat", weights_only=True).shape == (3, 8, 12)
    assert np.load(scene_dir / "val_sim" / "semantics" / f"{stem}.npy").shape == (64, 96)
    record = json.loads((scene_dir / "scene.json").read_text())
    assert record["origin_xyz"] == [LEFT + 100, TOP - 100, 0] and "LV95" in record["crs"]
    made = record["sections"]["train_sim"]
    assert (made["images"], made["seed"], made["focal"], made["preset"]["nbImages"]) == (20, 2021, 80, 20)


def test_threads_do_not_change_a_byte_and_the_seed_does(run):
    results = [run(*more, out=out)[1] for out, more in (("a", ["--workers", "1"]), ("b", ["--workers", "3"]))]
    assert content(results[0]) == content(results[1])
    _, other = run("--seed", "7", out="c")
    assert content(other / "val_sim") != content(results[0] / "val_sim")


def test_poses_and_one_named_section(run, tmp_path):
    folder = tmp_path / "poses"
    folder.mkdir()
    np.savetxt(folder / "first.txt", pose(0, 0, 50, 0, -90, 0))
    np.savetxt(folder / "second.txt", pose(5, 5, 50, 30, -80, 0))
    code, scene_dir = run("--section", "extra", views=("--poses", str(folder)))
    assert code == 0 and sorted(p.name for p in scene_dir.iterdir()) == ["extra", "scene.json"]
    assert sorted(p.stem for p in (scene_dir / "extra" / "rgb").iterdir()) == ["first", "second"]
    assert np.allclose(np.loadtxt(scene_dir / "extra" / "poses" / "second.txt"), pose(5, 5, 50, 30, -80, 0))
    # The same poses from a cameras.json lie in the CRS.
    entries = []
    for name in ("first", "second"):
        moved = np.loadtxt(folder / f"{name}.txt")
        moved[:3, 3] += [LEFT + 100, TOP - 100, 0]
        entries.append({"file": f"{name}.jpg", "cam_to_world": moved.tolist()})
    cameras = tmp_path / "cameras.json"
    cameras.write_text(json.dumps({"width": 10, "height": 10, "focal_length_px": 9, "photos": entries}))
    code, other_dir = run("--section", "extra", views=("--poses", str(cameras)), out="other")
    assert code == 0 and content(other_dir / "extra") == content(scene_dir / "extra")


def test_around_the_training_photos_of_a_flight(run, tmp_path):
    entries = []
    for i, x in enumerate((-30, -10, 10, 90)):
        moved = pose(x, 0.1 * x, 50, 0, -90, 0)
        moved[:3, 3] += [LEFT + 100, TOP - 100, 0]
        entries.append({"file": f"P{i}.jpg", "cam_to_world": moved.tolist()})
    cameras = tmp_path / "cameras.json"
    cameras.write_text(json.dumps({"width": 96, "height": 64, "focal_length_px": 80, "photos": entries}))
    views = ["--around", str(cameras), "--split", "train=P0,P1,P2", "test=P3"]
    code, scene_dir = run("--num_images", "12", "--position_margin", "5", views=views)
    assert code == 0
    positions = np.stack([np.loadtxt(p)[:3, 3] for p in scene_dir.glob("*_sim/poses/*.txt")])
    assert len(positions) == 12 and positions[:, 0].max() <= 15.01 and positions[:, 0].min() >= -35.01


def test_backdrop_changes_pixels_beyond_the_data_only(run, tmp_path):
    folder = tmp_path / "poses"
    folder.mkdir()
    np.savetxt(folder / "border.txt", pose(90, 0, 50, 0, -90, 0))
    views, kinds = ("--poses", str(folder)), {"a": "plain", "b": "elsewhere", "c": "elsewhere"}
    made = {out: run("--section", "x", "--backdrop", kind, views=views, out=out)[1] for out, kind in kinds.items()}
    plain, elsewhere, again = (content(scene_dir / "x") for scene_dir in made.values())
    assert {name for name in plain if plain[name] != elsewhere[name]} == {"rgb/border.png"}
    assert again == elsewhere


def test_fullsize_labels_have_their_own_scene_folder(run, tmp_path):
    code, scene_dir = run("--fullsize", "--num_images", "2")
    assert code == 0 and not scene_dir.exists()
    labels = sorted((tmp_path / "data" / "s-fullsize").glob("*_sim/depth/*.dat"))
    assert torch.load(labels[0], weights_only=True).shape == (64, 96)


def test_existing_output(run, capsys):
    _, scene_dir = run("--num_images", "3")
    before = content(scene_dir)
    assert run("--num_images", "3")[0] == 2
    assert "already there" in capsys.readouterr().err
    assert run("--num_images", "3", "--resume")[0] == 0
    assert run("--num_images", "4", "--resume")[0] == 2
    assert "other settings (num_images); use --overwrite" in capsys.readouterr().err
    assert content(scene_dir) == before
    assert run("--num_images", "4", "--overwrite")[0] == 0
    assert len(list(scene_dir.glob("*_sim/rgb/*.png"))) == 4


def test_further_sections_keep_the_scene_frame(run, hills, tmp_path, capsys):
    _, scene_dir = run("--num_images", "3", "--section", "a", "--origin", "2600000", "1200000", "10")
    assert run("--num_images", "3", "--section", "b")[0] == 0
    record = json.loads((scene_dir / "scene.json").read_text())
    assert record["origin_xyz"] == [2600000, 1200000, 10] and set(record["sections"]) == {"a", "b"}
    assert run("--num_images", "3", "--section", "c", "--origin", "2600000", "1200000", "0")[0] == 2
    assert "has the origin" in capsys.readouterr().err
    assert not (scene_dir / "c").exists()


def test_bad_input_is_one_error_and_leaves_nothing(run, hills, tmp_path, capsys):
    def refused(message, *more, **options):
        code, _ = run(*more, **options)
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert code == 2 and error.startswith("error: ") and message in error, error
        assert not (tmp_path / "data").exists(), "something was left behind"

    flat = np.ones((200, 200), np.float32)
    no_crs = str(write_raster(tmp_path / "no_crs.tif", flat, 1.0, crs=None))
    far = str(write_raster(tmp_path / "far.tif", np.ones((3, 9, 9), np.uint8), 1.0, left=LEFT + 9000))
    ortho = ["--ortho", str(hills.ortho)]
    refused("none.tif: no such file", geodata=["--surface", "none.tif", *ortho])
    refused("no coordinate reference system", geodata=["--surface", no_crs, *ortho])
    refused("does not overlap", geodata=["--surface", str(hills.surface), "--ortho", far])
    refused("preset nowhere.json: no such file", views=("--preset", "nowhere.json"))
    refused("cameras file nowhere.json: no such file", views=("--around", "nowhere.json"))
    bad = tmp_path / "bad"
    bad.mkdir()
    np.savetxt(bad / "p.txt", np.eye(4)[:3])
    refused("p.txt: expected 4 rows of 4 numbers", views=("--poses", str(bad)))
    np.savetxt(bad / "p.txt", pose(0, 0, -30, 0, -90, 0))
    refused("below the surface", views=("--poses", str(bad)))
    np.savetxt(bad / "p.txt", pose(5000, 0, 30, 0, -90, 0))
    refused("sees none of the surface model", views=("--poses", str(bad)))
    (tmp_path / "preset.json").write_text(json.dumps(preset_document(xRange=[0, 1])))
    refused("check the ranges against the geodata")


def test_output_that_cannot_be_written(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(out="file/data")[0] == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(run, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert run(out="locked/data")[0] == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--scene", "a/b"], ["--width", "0"], ["--focal", "-1"], ["--min_valid", "60"]])
def test_bad_options_are_refused_by_the_parser(run, words):
    with pytest.raises(SystemExit) as refusal:
        run(*words)
    assert refusal.value.code == 2


def test_interrupt_leaves_nothing(hills, repository, tmp_path):
    preset = tmp_path / "preset.json"
    preset.write_text(json.dumps(preset_document(nbImages=5000)))
    words = ["sections", *hills.arguments(), "--preset", str(preset), "--scene", "s", *SMALL, "--workers", "1"]
    command = [sys.executable, "-m", "datagen", *words, "--output_dir", str(tmp_path / "data")]
    process = subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "data").rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "data" / "s").is_dir() and process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error
    assert not (tmp_path / "data").exists()
