"""Evaluation with the map: coarse and refined poses side by side."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datagen.provenance import Inputs
from datagen.scene_geodata import geodata_record
from dataloader.prepare import collate, prepare_for_evaluation
from dataloader.scenes import PUBLISHED_SCENES
from dataloader.section import SectionDataset
from evaluation.coord import CoordFigures, coord_results
from evaluation.options import parse_options
from evaluation.predict import Prediction
from evaluation.refining import open_map, refined_results
from evaluation.reports import write_results
from evaluation.run import evaluate
from localization.refinement import Refinement
from localization.solving import SolverOptions
from records.files import write_json
from tests.evaluation.conftest import COLOURS, make_run, subject

from .conftest import FOCAL, HEIGHT, WIDTH, Landscape, pose


@pytest.fixture(scope="module")
def scene_dir(landscape: Landscape, tmp_path_factory) -> Path:
    """A scene with a section of three photos."""
    scene_dir = tmp_path_factory.mktemp("datasets") / "scene"
    section = scene_dir / "val_drone_real"
    for name in ("rgb", "poses", "calibration", "init"):
        (section / name).mkdir(parents=True)
    for number, (x, y) in enumerate([(-30.0, 10.0), (25.0, -15.0), (0.0, 30.0)]):
        true_44 = pose(landscape, x, y)
        view = landscape.flown.render(true_44, landscape.K_33, WIDTH, HEIGHT)
        cv2.imwrite(str(section / "rgb" / f"{number}.png"), landscape.photo(true_44, number)[..., ::-1])
        np.savetxt(section / "poses" / f"{number}.txt", true_44)
        (section / "calibration" / f"{number}.txt").write_text(str(FOCAL))
        torch.save(torch.from_numpy(view.coords_3hw), section / "init" / f"{number}.dat")
    write_json(scene_dir / "scene.json", landscape.frame)
    return scene_dir


def shifted_truth(dataset: SectionDataset) -> list[Prediction]:
    """Predictions that are off by 1.5 m to the east, and by nonsense in the third image."""
    raw = collate(list(dataset))
    batch = prepare_for_evaluation(raw, COLOURS, "coord")
    predicted = batch.labels_BChw + torch.tensor([1.5, 0.0, 0.0])[:, None, None]
    predicted[2] = 100 * torch.randn(predicted[2].shape, generator=torch.Generator().manual_seed(0))
    return [Prediction(batch, raw.images_BHW3.numpy(), predicted, torch.full_like(predicted[:, :1], 0.5), 8)]


def test_coarse_and_refined_side_by_side(landscape, scene_dir, tmp_path):
    dataset = SectionDataset([scene_dir / "val_drone_real"], "coord", HEIGHT)
    geodata = open_map([landscape.surface], [landscape.ortho], scene_dir)
    figures = CoordFigures()
    results = list(refined_results(coord_results(shifted_truth(dataset), SolverOptions()), dataset, geodata, 240))
    for result in results:
        figures.add(result)
    first, second, lost = results
    for result in (first, second):
        assert result.translation_m == pytest.approx(1.5, abs=0.05) and result.refined.translation_m < 0.5
    assert not lost.pose.success and not lost.refined.refinement.accepted and lost.refined.translation_m == np.inf
    summary = figures.refined
    assert (summary.images, summary.accepted, summary.worse, summary.worst_m) == (3, 2, 0, np.inf)
    assert summary.translation_m.median == max(first.refined.translation_m, second.refined.translation_m)

    weights = tmp_path / "model.net"
    weights.write_bytes(b"w")
    block = write_results(weights, "coord", subject(weights), figures.summary(), figures.rows, summary)
    assert "Refined by the map: 2 of 3 images, 0 worse than before; median" in block.splitlines()[-1]
    entry = json.loads((tmp_path / "results_model.net_task_coord.json").read_text())["evaluations"][0]
    assert entry["refined"]["accepted"] == 2 and entry["refined"]["worst_m"] is None
    assert entry["summary"]["translation_m"]["median"] == pytest.approx(1.5, abs=0.05)
    rows = list(csv.DictReader((tmp_path / "val_sim_model.net_task_coord.csv").open()))
    for row, result in zip(rows, results, strict=True):
        assert float(row["translation_error_m"]) == pytest.approx(result.translation_m, abs=1e-4)
        assert float(row["refined_translation_error_m"] or "inf") == pytest.approx(result.refined.translation_m, abs=1e-4)
        assert row["refined"] == str(int(result.refined.refinement.accepted))
        assert bool(row["refused_because"]) == (row["refined"] == "0")
        assert row["sigma_m"] == "0.5000" and 0 <= float(row["confidence"]) <= 1 and row["seconds"] and row["score"]
    assert float(rows[0]["refined_sigma_m"]) < 0.5 and rows[2]["refined_sigma_m"] == ""


def test_the_matcher_is_handed_to_every_refinement(landscape, scene_dir, monkeypatch):
    dataset, asked = SectionDataset([scene_dir / "val_drone_real"], "coord", HEIGHT), []

    def refine(photo_HW3, K_33, pose_44, geodata, **options):
        asked.append(options["matcher"])
        return Refinement(False, "asked only", pose_44, None, *[0.0] * 6, 0, 0.0)

    monkeypatch.setattr("evaluation.refining.refine", refine)
    list(refined_results(coord_results(shifted_truth(dataset), SolverOptions()), dataset, None, 240, len))
    assert asked == [len] * 3


def test_flags_of_the_map(scene_dir):
    words = ["scene", "--task", "coord", "--network_in", "w.net"]
    assert not parse_options(words).refines
    with_map = [*words, "--surface", "a.tif", "b.tif", "--ortho", "c.tif"]
    options = parse_options(with_map)
    assert options.refines and options.surface == (Path("a.tif"), Path("b.tif")) and options.refine_height == 240
    assert not parse_options([*with_map, "--refine", "off"]).refines
    for matcher in ("ncc", "sift"):
        assert parse_options([*words, "--refine", matcher]).refines
    for flags, message in ((["--surface", "a.tif"], "--surface and --ortho go together"),):
        with pytest.raises(ValueError, match=message):
            parse_options([*words, *flags])
    with pytest.raises(ValueError, match="--task depth has none"):
        parse_options([*with_map, "--task", "depth", "--refine", "ncc"])


def test_a_map_of_another_crs_or_a_scene_without_frame(landscape, scene_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"scene record .*scene\.json"):
        open_map([landscape.surface], [landscape.ortho], tmp_path)
    write_json(tmp_path / "scene.json", landscape.frame)
    with pytest.raises(ValueError, match=r"scene\.json names no geodata to refine by: give --surface and --ortho"):
        open_map((), (), tmp_path)
    geodata = geodata_record(tmp_path, landscape.surface, landscape.ortho, Inputs())
    write_json(tmp_path / "scene.json", landscape.frame | {"geodata": geodata})
    named = open_map([landscape.surface], [landscape.ortho], tmp_path)
    assert open_map((), (), tmp_path).contents == named.contents
    write_json(tmp_path / "scene.json", landscape.frame | {"crs": "EPSG:32631"})
    with pytest.raises(ValueError, match="zone 32N, the network's coordinates in WGS 84 / UTM zone 31N"):
        open_map([landscape.surface], [landscape.ortho], tmp_path)


def test_a_map_of_the_neighbour_is_refused_before_the_work(landscape, scene_dir, tmp_path, monkeypatch):
    """The same CRS and scene record, but not the ground that the network was trained on."""
    far = replace(PUBLISHED_SCENES["urbanscape"], mean_coord=(0.0, 5000.0, 0.0))
    make_run(tmp_path / "run", statistics=far, frame=landscape.frame)
    monkeypatch.setattr("evaluation.run.load_network", None)
    words = ["scene", "--task", "coord", "--section", "val_drone_real", "--datasets_dir", scene_dir.parent]
    words += ["--network_in", tmp_path / "run", "--surface", landscape.surface, "--ortho", landscape.ortho]
    with pytest.raises(ValueError, match="the geodata are of another place: .* and the network was trained around"):
        evaluate(parse_options([str(word) for word in words]), torch.device("cpu"))


def test_the_fingerprints_of_the_map_follow_its_content(landscape, scene_dir):
    contents = open_map([landscape.surface], [landscape.ortho], scene_dir).contents
    assert sorted(contents) == [f"ortho/{landscape.ortho.name}", f"surface/{landscape.surface.name}"]
    assert contents != open_map([landscape.surface], [landscape.surface.with_name("flown_ortho.tif")], scene_dir).contents


def test_only_refined_rows_have_the_columns(landscape, scene_dir):
    dataset = SectionDataset([scene_dir / "val_drone_real"], "coord", HEIGHT)
    plain = next(coord_results(shifted_truth(dataset), SolverOptions()))
    assert not any("refined" in name for name in plain.row())
