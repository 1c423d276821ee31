"""`python -m datagen sections`: what it writes, repeatability, and one clear error for each bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from rasterio.vrt import WarpedVRT

from datagen import sections, splits, staging
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


def names_in(folder) -> list[str]:
    """What is seen in a scene folder; the lock stays."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".scene.json.lock")


def content(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_sections_from_a_preset(run):
    code, scene_dir = run()
    assert code == 0
    assert names_in(scene_dir) == ["s_lhs_split.txt", "scene.json", "train_sim", "val_sim"]
    folders = {"rgb", "poses", "calibration", "init", "depth", "normal", "semantics"}
    for section, count in (("train_sim", 18), ("val_sim", 2)):
        assert {p.name for p in (scene_dir / section).iterdir()} == folders | {"section.json"}
        listed = [{p.stem for p in (scene_dir / section / folder).iterdir()} for folder in folders]
        assert len(listed[0]) == count and all(names == listed[0] for names in listed)
    stem = next(iter(listed[0]))
    image = cv2.imread(str(scene_dir / "val_sim" / "rgb" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape == (64, 96, 3)
    assert torch.load(scene_dir / "val_sim" / "init" / f"{stem}.dat", weights_only=True).shape == (3, 8, 12)
    assert np.load(scene_dir / "val_sim" / "semantics" / f"{stem}.npy").shape == (64, 96)
    record = json.loads((scene_dir / "scene.json").read_text())
    assert record["origin_xyz"] == [LEFT + 100, TOP - 100, 0] and "LV95" in record["crs"]
    made = json.loads((scene_dir / "train_sim" / "section.json").read_text())
    assert made["images"] == 18 and made["inputs"]["preset"]["content"]["nbImages"] == 20
    assert (made["settings"]["seed"], made["settings"]["focal"], made["settings"]["width"]) == (2021, [80], 96)
    assert "workers" not in made["settings"] and made["frame"]["origin_xyz"] == record["origin_xyz"]


def test_what_was_assumed_of_the_geodata_is_on_record(run):
    """Values of the synthetic scene: 1 m cells and 0.25 m pixels in EPSG:2056, heights of no declared unit or datum."""
    made = json.loads((run()[1] / "val_sim" / "section.json").read_text())["assumptions"]
    assert (made["crs"], made["metres_per_height_unit"], made["vertical_datum"]) == ("EPSG:2056", 1.0, "")
    assert made["height_unit"] == "metres (assumed)" and made["undeclared_nodata"] == []
    assert (made["surface_holes"], made["orthophoto_coverage"]) == (0.0, 1.0)
    assert made["surface_cell_m"] == [1.0, 1.0] and made["ground_sampling_m"] == [0.25, 0.25]


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
    assert code == 0 and names_in(scene_dir) == ["extra", "scene.json"]
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
    assert code == 0
    made, again = (content(folder / "extra") for folder in (scene_dir, other_dir))
    assert made.pop("section.json") != again.pop("section.json") and made == again


def write_flight(path, xs=(-30, -10, 10, 90), prefix="P"):
    """A cameras.json of photos that look down from 50 m at these x."""
    entries = []
    for i, x in enumerate(xs):
        moved = pose(x, 0.1 * x, 50, 0, -90, 0)
        moved[:3, 3] += [LEFT + 100, TOP - 100, 0]
        entries.append({"file": f"{prefix}{i}.jpg", "cam_to_world": moved.tolist()})
    path.write_text(json.dumps({"width": 96, "height": 64, "focal_length_px": 80, "photos": entries}))
    return path


def positions(scene_dir) -> np.ndarray:
    return np.stack([np.loadtxt(path)[:3, 3] for path in sorted(scene_dir.glob("*_sim/poses/*.txt"))])


FEW = ["--num_images", "12", "--position_margin", "5"]


def test_around_the_training_photos_of_a_flight(run, tmp_path):
    views = ["--around", str(write_flight(tmp_path / "cameras.json")), "--split", "train=P0,P1,P2", "test=P3"]
    code, scene_dir = run(*FEW, views=views)
    assert code == 0
    found = positions(scene_dir)
    assert len(found) == 12 and found[:, 0].max() <= 15.01 and found[:, 0].min() >= -35.01
    made = json.loads((scene_dir / "train_sim" / "section.json").read_text())
    assert made["inputs"]["around"]["stems"] == ["P0", "P1", "P2"]


def record_split(tmp_path, **parts):
    (tmp_path / "data" / "s").mkdir(parents=True)
    splits.write_split_record(tmp_path / "data" / "s" / "s_drone_split.txt", parts)


@pytest.mark.parametrize("more", [[], ["--fullsize"], ["--section", "train_more_sim"], ["--section", "other_sim"]])
def test_a_recorded_split_is_obeyed_around_a_flight(run, tmp_path, more):
    """Without --split no view is drawn around a photo that was held out, whatever is made."""
    record_split(tmp_path, train=["P0", "P1"], val=["P2"], test=["P3"])
    code, scene_dir = run(*FEW, *more, views=["--around", str(write_flight(tmp_path / "cameras.json"))])
    assert code == 0
    found = positions(scene_dir.with_name("s-fullsize") if more == ["--fullsize"] else scene_dir)
    assert found[:, 0].min() >= -35.01 and found[:, 0].max() <= -4.99


def test_a_flight_without_a_usable_split(run, tmp_path, capsys, caplog):
    """Said when nothing is held out yet; refused when something is, or when the record leaves it open."""
    around = ["--around", str(write_flight(tmp_path / "cameras.json"))]

    def refused(message, *more):
        assert run(*FEW, *more, views=around)[0] == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error, error
        assert not (tmp_path / "data" / "s" / "train_sim").exists()

    assert run("--num_images", "3", views=around, out="free")[0] == 0
    assert caplog.text.count("no --split and no split record") == 1
    (tmp_path / "data" / "s" / "test_drone_real" / "poses").mkdir(parents=True)
    refused("test_drone_real holds photos out, but there is no split record")
    record = tmp_path / "data" / "s" / "s_drone_split.txt"
    splits.write_split_record(record, {"train": ["P0"], "test": ["P1", "P2"]})
    refused("says nothing about P3; give --split")
    splits.write_split_record(record, {"train": ["P0"], "test": ["P1", "P2", "P3"]})
    refused("--split calls P1 training photos, but the split record", "--split", "train=P0,P1", "test=P2,P3")
    refused("--split: no training photo is left", "--split", "test=P0,P1,P2,P3")
    splits.write_split_record(record, {"val": ["P0"], "test": ["P1", "P2", "P3"]})
    refused("no training photo is left to draw views around")
    assert run("--num_images", "3", "--section", "views", views=around)[0] == 0
    assert "never train on it" in caplog.text


def test_views_for_training_at_the_pose_of_a_held_out_photo_are_refused(run, tmp_path, capsys):
    """Whatever the photo is called there, and for pose lists too; a section that is not for training may have them."""
    held_out = tmp_path / "data" / "s" / "test_drone_real" / "poses"
    held_out.mkdir(parents=True)
    np.savetxt(held_out / "DJI_7.txt", pose(10, 1, 50, 0, -90, 0), fmt="%.12g")
    record = tmp_path / "data" / "s" / "s_drone_split.txt"
    splits.write_split_record(record, {"test": ["DJI_7"]})
    flight = str(write_flight(tmp_path / "cameras.json"))
    for views in (["--around", flight], ["--poses", flight], ["--poses", str(held_out)]):
        for section in ([], ["--section", "train_more_sim"]):
            assert run(*section, views=views)[0] == 2
            error = capsys.readouterr().err.strip().splitlines()[-1]
            assert "has the pose of the held-out photo" in error and "DJI_7.txt" in error
    assert run("--section", "again", views=["--poses", flight])[0] == 0


def test_two_focal_lengths(run, tmp_path, capsys):
    code, scene_dir = run("--num_images", "2", "--section", "x", "--focal", "80", "90")
    assert code == 0
    calibration = next((scene_dir / "x" / "calibration").iterdir())
    assert calibration.read_text() == "80 90 48 32\n"
    init = torch.load(scene_dir / "x" / "init" / f"{calibration.stem}.dat", weights_only=True).double().flatten(1)
    pose_44 = np.loadtxt(scene_dir / "x" / "poses" / calibration.name)
    camera_3N = pose_44[:3, :3].T @ (init.numpy() - pose_44[:3, 3:])
    columns, rows = np.meshgrid(np.arange(12) * 8 + 4, np.arange(8) * 8 + 4)
    valid = (init != -1).any(0).numpy()
    assert valid.any()
    assert np.allclose((80 * camera_3N[0] / camera_3N[2] + 48)[valid], columns.ravel()[valid], atol=0.01)
    assert np.allclose((90 * camera_3N[1] / camera_3N[2] + 32)[valid], rows.ravel()[valid], atol=0.01)
    assert run("--section", "y", "--focal", "1", "2", "3")[0] == 2
    assert "--focal takes one or two numbers" in capsys.readouterr().err


def test_hidden_files_beside_poses_are_ignored(run, tmp_path):
    folder = tmp_path / "poses"
    folder.mkdir()
    np.savetxt(folder / "first.txt", pose(0, 0, 50, 0, -90, 0))
    for name in ("._first.txt", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"\0\5\x16\7\xff")
    code, scene_dir = run("--section", "extra", views=("--poses", str(folder)))
    assert code == 0 and [path.name for path in (scene_dir / "extra" / "rgb").iterdir()] == ["first.png"]


def test_backdrop_changes_pixels_beyond_the_data_only(run, tmp_path):
    folder = tmp_path / "poses"
    folder.mkdir()
    np.savetxt(folder / "border.txt", pose(90, 0, 50, 0, -90, 0))
    views, kinds = ("--poses", str(folder)), {"a": "plain", "b": "elsewhere", "c": "elsewhere"}
    made = {out: run("--section", "x", "--backdrop", kind, views=views, out=out)[1] for out, kind in kinds.items()}
    plain, elsewhere, again = (content(scene_dir / "x") for scene_dir in made.values())
    assert plain.pop("section.json") != elsewhere.pop("section.json") == again.pop("section.json")
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
    assert record["origin_xyz"] == [2600000, 1200000, 10] and "sections" not in record
    frames = [json.loads((scene_dir / name / "section.json").read_text())["frame"]["origin_xyz"] for name in "ab"]
    assert frames == [record["origin_xyz"]] * 2
    assert run("--num_images", "3", "--section", "c", "--origin", "2600000", "1200000", "0")[0] == 2
    assert "has the origin" in capsys.readouterr().err
    assert not (scene_dir / "c").exists()


def test_a_scene_record_of_an_older_version_gives_the_frame(run, tmp_path, capsys):
    """Its sections cannot say what they were made from, so they are neither kept silently nor replaced unasked."""
    _, scene_dir = run("--num_images", "3", "--section", "a", "--origin", "2600000", "1200000", "10")
    (scene_dir / "a" / "section.json").unlink()
    record = json.loads((scene_dir / "scene.json").read_text())
    old = {"crs": record["crs"], "origin_xyz": record["origin_xyz"], "sections": {"a": {"command": "sections"}}}
    (scene_dir / "scene.json").write_text(json.dumps(old))
    assert run("--num_images", "3", "--section", "a", "--resume")[0] == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a was made by an older version, or by hand" in error and "use --overwrite" in error
    assert run("--num_images", "3", "--section", "b")[0] == 0
    assert json.loads((scene_dir / "b" / "section.json").read_text())["frame"]["origin_xyz"] == old["origin_xyz"]


def test_the_command_ends_with_the_check_of_what_it_wrote(run, monkeypatch, capsys):
    monkeypatch.setattr(sections, "calibration_text", lambda K_33, width, height: f"{2 * K_33[0, 0]}\n")
    assert run("--num_images", "3", "--section", "a")[0] == 2
    error = "error: what was written is wrong: a/s_00000: focal-length: .*the focal length were 2 times what the labels say"
    assert re.search(f"^{error}", capsys.readouterr().err, re.MULTILINE)


def test_two_runs_at_once_keep_one_frame(run, hills_scene, tmp_path):
    """The second to end finds the frame of the first; its own is refused."""
    scene_dir = tmp_path / "data" / "s"
    with pytest.raises(ValueError, match="has the origin"), staging.new_sections(scene_dir, ["b"]) as staged:
        sections.write_scene_record(staged["scene.json"], hills_scene)
        assert run("--num_images", "2", "--section", "a", "--origin", "2600000", "1200000", "10")[0] == 0
    assert names_in(scene_dir) == ["a", "scene.json"]


def test_resume_after_a_kill_in_the_swap_ends_it(run, tmp_path, capsys):
    """The commit file is there, nothing moved yet: the new sections are complete, so they are what is found."""
    _, scene_dir = run("--num_images", "4")
    dead = scene_dir / ".making-dead"
    (dead / "new").mkdir(parents=True)
    for name in ("train_sim", "val_sim"):
        (scene_dir / name).rename(dead / "new" / name)
    (dead / "commit.json").write_text('["train_sim", "val_sim"]')
    assert run("--num_images", "4")[0] == 2 and "already there" in capsys.readouterr().err
    assert run("--num_images", "4", "--resume")[0] == 0
    assert names_in(scene_dir) == ["s_lhs_split.txt", "scene.json", "train_sim", "val_sim"]


def test_a_mosaic_is_as_old_as_its_tiles(run, hills, tmp_path, capsys):
    """A VRT does not change when one of its tiles does; statistics beside a raster are not its content."""
    tile = tmp_path / "tile.tif"
    tile.write_bytes(hills.surface.read_bytes())
    vrt = tmp_path / "surface.vrt"
    with rasterio.open(tile) as source, WarpedVRT(source) as warped:
        rasterio.shutil.copy(warped, vrt, driver="VRT")
    geodata = ["--surface", str(vrt), "--ortho", str(hills.ortho)]
    assert run("--num_images", "2", geodata=geodata)[0] == 0
    (tmp_path / "surface.vrt.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert run("--num_images", "2", "--resume", geodata=geodata)[0] == 0
    with rasterio.open(tile, "r+") as raster:
        raster.write(raster.read() + np.float32(1))
    assert run("--num_images", "2", "--resume", geodata=geodata)[0] == 2
    assert "another surface model (surface.vrt)" in capsys.readouterr().err


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
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in error
    assert not (tmp_path / "data").exists()
