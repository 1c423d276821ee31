"""The demo's sections on disk, and its command."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datagen.__main__ import main
from datagen.cameras import centred_intrinsics, read_pose_file
from datagen.demo import build
from datagen.demo.settings import DemoSettings, FlightSettings, WorldSettings
from datagen.demo.world import GeodataPaths
from datagen.render import Renderer
from datagen.scene import GeoScene

SMALL = DemoSettings(
    seed=3,
    num_images=20,
    num_photos=20,
    width=96,
    height=64,
    focal_px=64.0,
    world=WorldSettings(texel_m=1.35, surface_factor=1),
    gap=1.0,
    flight=FlightSettings(headings_deg=(90.0, 270.0), pitches_deg=(-80.0, -58.0), span=0.42),
)
PARTS = ("train", "val", "test")


def stems(section: Path, folder: str = "rgb") -> list[str]:
    return sorted(path.stem for path in (section / folder).iterdir())


def image(section: Path, stem: str) -> np.ndarray:
    return cv2.imread(str(section / "rgb" / f"{stem}.png"))


def fingerprint(scene_dir: Path) -> dict[str, str]:
    files = sorted(path for path in scene_dir.rglob("*") if path.is_file())
    return {str(path.relative_to(scene_dir)): hashlib.sha1(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return build.build_demo(SMALL, tmp_path_factory.mktemp("datasets"), workers=2)


def test_sections_have_the_spec_s_shares(demo):
    counts = {path.name: len(stems(path)) for path in demo.iterdir() if (path / "rgb").is_dir()}
    assert counts == {
        "train_sim": 18, "val_sim": 2,
        "train_drone_real": 8, "val_drone_real": 2, "test_drone_real": 10,
        "train_drone_sim": 8, "val_drone_sim": 2, "test_drone_sim": 10,
    }  # fmt: skip
    assert not list(demo.glob(".making-*"))


def test_pairs_share_pose_and_labels_but_not_the_image(demo):
    differences = []
    for part in PARTS:
        real, sim = demo / f"{part}_drone_real", demo / f"{part}_drone_sim"
        assert stems(real) == stems(sim)
        for stem in stems(real):
            for folder, suffix in (
                ("poses", "txt"),
                ("calibration", "txt"),
                ("init", "dat"),
                ("depth", "dat"),
                ("normal", "dat"),
                ("semantics", "npy"),
            ):
                name = f"{folder}/{stem}.{suffix}"
                assert (real / name).read_bytes() == (sim / name).read_bytes(), name
            differences.append(np.abs(image(real, stem).astype(float) - image(sim, stem)).mean())
    assert min(differences) > 8.0 and np.mean(differences) > 25.0


def test_labels_of_real_are_of_the_surveyed_world(demo):
    """The trees grew before the flight: the labels must not know."""
    scenes = {}
    for name in (build.SURVEYED_NAME, build.FLOWN_NAME):
        paths = GeodataPaths.under(demo / build.GEODATA, name)
        scenes[name] = Renderer(GeoScene.open(paths.surface, paths.ortho, paths.landcover, origin_xyz=_origin(demo)))
    section = demo / "test_drone_real"
    K_33 = centred_intrinsics(SMALL.focal_px, SMALL.width, SMALL.height)
    worst = dict.fromkeys(scenes, 0.0)
    for stem in stems(section):
        label = torch.load(section / "depth" / f"{stem}.dat", weights_only=True).numpy()
        pose_44 = read_pose_file(section / "poses" / f"{stem}.txt")
        for name, renderer in scenes.items():
            depth = np.nan_to_num(renderer.render(pose_44, K_33, SMALL.width, SMALL.height).depth_hw, nan=-1.0)
            worst[name] = max(worst[name], float(np.abs(depth - label).max()))
    assert worst[build.SURVEYED_NAME] < 0.05
    assert worst[build.FLOWN_NAME] > 0.5


def _origin(demo: Path) -> tuple[float, float, float]:
    return tuple(json.loads((demo / "scene.json").read_text())["origin_xyz"])


def test_all_six_classes_and_sky_reach_the_sections(demo):
    seen, sky = set(), 0
    for section in [path for path in demo.iterdir() if (path / "semantics").is_dir()]:
        for path in (section / "semantics").iterdir():
            codes = np.load(path)
            seen |= set(np.unique(codes).tolist())
            init = torch.load(section / "init" / f"{path.stem}.dat", weights_only=True)
            sky += int(((init == -1).all(0) & torch.from_numpy(codes[4::8, 4::8] == 0)).sum())
    assert seen == {0, 1, 2, 3, 6, 9, 17}
    assert sky > 0


def test_second_run_reuses_everything(demo, caplog):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    caplog.set_level("INFO")
    build.build_demo(SMALL, demo.parent, workers=1)
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before
    assert caplog.text.count("reusing") == 4


def test_same_seed_same_files_whatever_the_threads(demo, tmp_path):
    again = build.build_demo(SMALL, tmp_path, workers=1)
    assert fingerprint(again) == fingerprint(demo)


def test_other_settings_are_refused_and_replaced_on_request(demo, tmp_path):
    few = replace(SMALL, num_images=4, num_photos=6)
    scene_dir = build.build_demo(few, tmp_path, workers=1)
    before = fingerprint(scene_dir)
    for other in (replace(few, gap=0.0), replace(few, num_images=5), replace(few, num_photos=7), replace(few, seed=4)):
        with pytest.raises(FileExistsError, match="was made with other settings|made with other settings, or changed"):
            build.build_demo(other, tmp_path)
    assert fingerprint(scene_dir) == before
    build.build_demo(replace(few, gap=0.0), tmp_path, overwrite=True)
    after = fingerprint(scene_dir)
    unchanged = {name for name in before if name.split("/")[0] in ("train_sim", "val_sim") or "surveyed" in name}
    assert unchanged and all(before[name] == after[name] for name in unchanged)
    real, sim = scene_dir / "train_drone_real", scene_dir / "train_drone_sim"
    for stem in stems(real):
        assert np.abs(image(real, stem).astype(float) - image(sim, stem)).max() <= 1.0


def test_small_flights_leave_no_section_empty(tmp_path):
    scene_dir = build.build_demo(replace(SMALL, num_images=2, num_photos=4), tmp_path, workers=1)
    counts = {path.name: len(stems(path)) for path in scene_dir.iterdir() if (path / "rgb").is_dir()}
    assert counts == {
        "train_sim": 1, "val_sim": 1,
        "train_drone_real": 1, "val_drone_real": 1, "test_drone_real": 2,
        "train_drone_sim": 1, "val_drone_sim": 1, "test_drone_sim": 2,
    }  # fmt: skip


def test_changed_geodata_are_noticed(demo, tmp_path):
    """A raster that changed under its name, with and without its record."""
    few = replace(SMALL, num_images=2, num_photos=4)
    scene_dir = build.build_demo(few, tmp_path, workers=1)
    record = json.loads((scene_dir / "train_sim" / "section.json").read_text())
    assert record["settings"]["command"] == "demo" and record["images"] == 1 and set(record["inputs"]) == {"surveyed"}
    surface = GeodataPaths.under(scene_dir / build.GEODATA, build.SURVEYED_NAME).surface
    surface.write_bytes(surface.read_bytes() + b" ")
    with pytest.raises(FileExistsError, match="surveyed.json: made with other settings, or changed since"):
        build.build_demo(few, tmp_path, workers=1)
    kept = scene_dir / build.GEODATA / "surveyed.json"
    document = json.loads(kept.read_text())
    document["contents"] = build._contents(GeodataPaths.under(scene_dir / build.GEODATA, build.SURVEYED_NAME))
    kept.write_text(json.dumps(document))
    with pytest.raises(FileExistsError, match="train_sim was made from another --surveyed"):
        build.build_demo(few, tmp_path, workers=1)


def test_a_missing_section_is_made_again(demo, tmp_path):
    few = replace(SMALL, num_images=4, num_photos=6)
    scene_dir = build.build_demo(few, tmp_path, workers=1)
    before = fingerprint(scene_dir)
    (scene_dir / "val_drone_sim").rename(tmp_path / "gone")
    build.build_demo(few, tmp_path, workers=1)
    assert fingerprint(scene_dir) == before


@pytest.mark.parametrize(
    "options, named",
    [
        (["--gap", "-1"], "--gap"),
        (["--num_images", "1"], "--num_images"),
        (["--num_photos", "2"], "--num_photos"),
        (["--height", "8"], "--height"),
        (["--width", "5"], "--width"),
        (["--pitches", "-10"], "--pitches"),
        (["--flying_height", "5"], "--flying_height"),
        (["--span", "2"], "--span"),
    ],
)
def test_values_out_of_range_are_named_and_leave_nothing(options, named, tmp_path, capsys):
    assert main(["demo", "--output_dir", str(tmp_path / "datasets"), *options]) == 2
    assert f"error: {named}" in capsys.readouterr().err
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize("options", [["--scene", "../up"], ["--focal", "0"], ["--seed", "x"], ["--workers", "0"]])
def test_malformed_options_end_with_usage(options, capsys):
    with pytest.raises(SystemExit) as end:
        main(["demo", *options])
    assert end.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_output_that_cannot_be_written_is_one_error(tmp_path, capsys):
    blocker = tmp_path / "datasets"
    blocker.write_text("a file, not a folder")
    assert main(["demo", "--output_dir", str(blocker), "--num_images", "4", "--num_photos", "4"]) == 2
    assert "error:" in capsys.readouterr().err
