"""From weights and sections to poses and files."""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.preprocessing import Preprocessing, preprocessing_to_record, write_record
from dataloader.section import SectionDataset
from evaluation.coord import CoordFigures, coord_results
from evaluation.options import add_arguments, options_from
from evaluation.overview import choose_rows, draw_overview, plan_axes
from evaluation.predict import predictions
from evaluation.run import evaluate
from evaluation.sections import section_dirs
from evaluation.solving import SolverOptions
from networks import Architecture, TransPoseNet, save_network

CPU = torch.device("cpu")
TINY = Architecture(tiny=True)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return options_from(parser.parse_args([str(a) for a in arguments]))


def weights_in(folder: Path, architecture=TINY, height=64, scene="scene"):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_network(TransPoseNet(architecture), folder / "ckpt_iter_0000004.net")
    record = {"scene": scene, "preprocessing": preprocessing_to_record(Preprocessing(height, architecture.in_channels == 1))}
    if architecture.in_channels == 1:
        record["preprocessing"].update(rgb_mean=[0.43], rgb_std=[0.17])
    write_record(folder, record)
    return folder / "ckpt_iter_0000004.net"


def noisy_truth(section, sigma_m, *, outliers=0.0, seed=0, image_height=64):
    """Predictions that are the labels plus noise, with the noise as uncertainty."""
    dataset = SectionDataset([section], "coord", image_height)
    net = TransPoseNet(TINY)
    generator = torch.Generator().manual_seed(seed)
    for p in predictions(net, dataset, Preprocessing(64), device=CPU):
        truth = p.batch.labels_BChw
        sigma = torch.full_like(truth[:, :1], sigma_m)
        sigma[torch.rand(sigma.shape, generator=generator) < outliers] = 60.0
        noise = torch.randn(truth.shape, generator=generator) * sigma
        yield replace(p, prediction_BChw=truth + noise, sigma_B1hw=sigma)


@pytest.mark.parametrize("solver", ["dsacstar", "published"])
@pytest.mark.parametrize("calibration", ["64", "70 70 44 35"])
def test_poses_come_from_the_coordinates(plane_section, solver, calibration):
    section = plane_section(5, "scene/val_sim", calibration=calibration)
    figures = CoordFigures()
    for result in coord_results(noisy_truth(section, 0.02), SolverOptions(solver)):
        figures.add(result)
        assert result.pose.success
    summary = figures.summary()
    assert summary.translation_m.median < 0.1 and summary.rotation_deg.median < 0.1
    assert summary.coord_error_m.mean == pytest.approx(0.02 * np.sqrt(8 / np.pi), rel=0.05)
    assert summary.accuracy_percent["3m3deg"] == 100


def test_the_predicted_uncertainty_weighs_the_cells(plane_section):
    section = plane_section(6, "scene/val_sim", height=112, width=200, focal=139.0)

    def median_m(keep_sigma):
        poses = []
        for p in noisy_truth(section, 0.0, image_height=112):
            generator = torch.Generator().manual_seed(1)
            sigma = torch.full_like(p.sigma_B1hw, 0.05)
            sigma[torch.rand(sigma.shape, generator=generator) < 0.7] = 2.0
            noise = torch.randn(p.prediction_BChw.shape, generator=generator) * sigma
            noisy = replace(p, prediction_BChw=p.prediction_BChw + noise, sigma_B1hw=sigma if keep_sigma else None)
            poses += [r.translation_m for r in coord_results([noisy], SolverOptions())]
        return np.median(poses)

    assert median_m(True) < 0.7 * median_m(False)


def test_poses_are_the_same_every_time(plane_section):
    section = plane_section(3, "scene/val_sim")
    first, second = (
        np.stack([r.pose.world_from_cam_44 for r in coord_results(noisy_truth(section, 2.0, outliers=0.4), SolverOptions())])
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_hopeless_coordinates_are_a_failure_not_a_crash(plane_section):
    section = plane_section(2, "scene/val_sim")
    stream = (replace(p, prediction_BChw=torch.zeros_like(p.prediction_BChw)) for p in noisy_truth(section, 1.0))
    figures = CoordFigures()
    for result in coord_results(stream, SolverOptions()):
        figures.add(result)
    assert figures.summary().failures == 2 and np.isnan(figures.positions_N3).all()
    assert figures.rows[0]["success"] == 0 and figures.rows[0]["translation_error_m"] == "inf"


def test_images_of_different_sizes_do_not_disturb_each_other(plane_section):
    first = plane_section(1, "scene/a", width=96)
    second = plane_section(1, "scene/b", width=112, seed=1)
    net = TransPoseNet(TINY)

    def outputs(sections):
        return {
            stem: p.prediction_BChw[i]
            for p in predictions(net, SectionDataset(sections, "coord", 64), Preprocessing(64), device=CPU)
            for i, stem in enumerate(p.batch.stems)
        }

    alone = {**outputs([first]), **outputs([second])}
    for stem, prediction in outputs([first, second]).items():
        torch.testing.assert_close(prediction, alone[stem], rtol=1e-4, atol=1e-4)


def test_an_evaluation_leaves_all_its_files(plane_section, tmp_path):
    plane_section(3, "scene/val_drone_sim")
    plane_section(2, "scene/test_drone_real", seed=1)
    plane_section(2, "scene/val_drone_real", seed=2)
    weights = weights_in(tmp_path / "run")
    options = parse(
        "scene", "--task", "coord", "--section", "val_drone_sim", "test_real_all", "--datasets_dir", tmp_path,
        "--network_in", tmp_path / "run", "--tiny", "--uncertainty", "MLE", "--save_pred", "--plot",
    )  # fmt: skip
    assert evaluate(options, CPU) == [weights]
    run, name = tmp_path / "run", "ckpt_iter_0000004"
    assert (run / f"results_{name}_task_coord.txt").read_text().count("Evaluation on section") == 2
    assert np.load(run / f"val_drone_sim_{name}_out_xyz_poses.npy").shape == (3, 3)
    assert len((run / f"test_real_all_{name}_out_xyz_poses.txt").read_text().splitlines()) == 4
    with (run / f"val_drone_sim_{name}_task_coord.csv").open() as stream:
        assert [row["stem"] for row in csv.DictReader(stream)] == ["view_000", "view_001", "view_002"]
    saved = np.load(run / f"coord_pred_{name}_val_drone_sim" / "view_001.npz")
    shapes = {key: saved[key].shape for key in saved}
    assert shapes == {
        "coord_pred": (3, 8, 12), "coord_gt": (3, 8, 12), "coord_unc": (8, 12), "pose_pred": (4, 4), "pose_gt": (4, 4),
        "pose_t_err": (), "pose_r_err": (),
    }  # fmt: skip
    np.testing.assert_allclose(saved["pose_gt"], np.loadtxt(tmp_path / "scene/val_drone_sim/poses/view_001.txt"), atol=1e-4)
    # In a group of sections equal stems keep apart.
    assert len(list((run / f"coord_pred_{name}_test_real_all").iterdir())) == 4
    assert len(list((run / f"val_drone_sim_{name}_coord_plots").glob("*.png"))) == 3
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("task", ["depth", "normal", "semantics"])
def test_the_dense_tasks_are_evaluated_too(plane_section, tmp_path, task):
    plane_section(2, "scene/val_sim", sky_rows=2)
    uncertainty, fullsize = ("none", True) if task == "semantics" else ("mle", False)
    architecture = Architecture.for_task(task, tiny=True, uncertainty=uncertainty, fullsize=fullsize, in_channels=1)
    weights_in(tmp_path / "run", architecture)
    options = parse(
        "scene", "--task", task, "--section", "val_sim", "--datasets_dir", tmp_path, "--network_in", tmp_path / "run",
        "--grayscale", "--save_pred", "--plot", *(["--fullsize"] if fullsize else []),
    )  # fmt: skip
    evaluate(options, CPU)
    text = (tmp_path / f"run/results_ckpt_iter_0000004_task_{task}.txt").read_text()
    assert "nan" not in text and "mean: " in text
    saved = np.load(tmp_path / f"run/{task}_pred_ckpt_iter_0000004_val_sim/view_000.npz")
    assert saved[f"{task}_pred"].shape == saved[f"{task}_gt"].shape
    assert len(list((tmp_path / f"run/val_sim_ckpt_iter_0000004_{task}_plots").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "pose"], "'pose'"),
        (["--task", "depth"], "task coord"),
        (["--task", "coord", "--grayscale"], "in_channels = 3"),
        (["--task", "coord", "--fullsize"], "scene-fullsize"),
        (["--task", "coord", "--uncertainty", "none"], "uncertainty = mle"),
        (["--task", "coord", "--uncertainty", "laplace"], "'laplace'"),
        (["--task", "coord", "--solver", "pnp"], "'pnp'"),
        (["--task", "coord", "--hypotheses", "0"], "hypotheses"),
        (["--task", "coord", "--section", "val_nowhere"], "val_nowhere"),
        (["--task", "coord", "--session", "other"], "-sother"),
        (["--task", "coord", "--overview", "o.png", "--section", "a", "b"], "one section"),
    ],
)
def test_contradictions_are_refused_before_anything_is_written(plane_section, tmp_path, arguments, message):
    plane_section(1, "scene/val_sim")
    weights_in(tmp_path / "run")
    before = sorted((tmp_path / "run").iterdir())
    sections = [] if "--section" in arguments else ["--section", "val_sim"]
    with pytest.raises((ValueError, OSError), match=message):
        evaluate(
            parse("scene", *arguments, *sections, "--datasets_dir", tmp_path, "--network_in", tmp_path / "run"), CPU
        )
    assert sorted((tmp_path / "run").iterdir()) == before


def test_the_overview_shows_rows_ground_and_track(plane_section, tmp_path):
    section = plane_section(6, "scene/val_sim")
    figures, results = CoordFigures(), list(coord_results(noisy_truth(section, 0.5), SolverOptions()))
    for result in results:
        figures.add(result)
    rows = choose_rows(results)
    errors = [r.translation_m for r in rows]
    assert errors == sorted(errors) and errors[0] == min(r.translation_m for r in results) and len(rows) == 4
    draw_overview(results, figures.summary(), "a title", tmp_path / "new" / "overview.png")
    assert (tmp_path / "new" / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_the_plan_keeps_north_up_or_follows_a_tilted_scene():
    rng = np.random.default_rng(0)
    flat = rng.uniform(-1, 1, (3, 500)) * np.array([[200.0], [100.0], [5.0]])
    np.testing.assert_array_equal(plan_axes(flat), np.eye(3)[:2])
    tilted = flat[[2, 0, 1]]  # thin along x
    np.testing.assert_allclose(np.abs(plan_axes(tilted)), [[0, 1, 0], [0, 0, 1]], atol=0.05)


def test_groups_of_sections(tmp_path):
    for name in ("val_drone_real", "test_drone_real", "train_drone_real"):
        (tmp_path / name).mkdir()
    assert [p.name for p in section_dirs(tmp_path, "real_all")] == ["val_drone_real", "test_drone_real", "train_drone_real"]
    with pytest.raises(FileNotFoundError, match="val_drone_sim, val_sim, test_drone_sim"):
        section_dirs(tmp_path, "test_sim_all")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        section_dirs(tmp_path / "nowhere", "val_sim")


def test_the_command_reports_errors_in_one_line(repository, tmp_path):
    command = [sys.executable, str(repository / "test_single_task.py"), "scene", "--task", "coord"]
    done = subprocess.run([*command, "--datasets_dir", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.strip() == f"error: scene folder not found: {tmp_path / 'scene'}"
