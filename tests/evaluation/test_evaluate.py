"""From weights and sections to poses and files."""

from __future__ import annotations

import csv
import errno
import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluation.coord as coord_module
from dataloader.batch import Batch
from dataloader.prepare import collate, prepare_for_evaluation
from dataloader.preprocessing import Preprocessing
from dataloader.scenes import PUBLISHED_SCENES
from dataloader.section import SectionDataset
from evaluation.coord import CoordFigures, CoordResult, coord_results
from evaluation.dense import dense_results
from evaluation.metrics import Spread
from evaluation.options import parse_options
from evaluation.overview import choose_rows, draw_overview, plan_axes
from evaluation.predict import Prediction, predictions, sample_at_centres
from evaluation.run import evaluate
from evaluation.sections import section_dirs
from geometry.cameras import pixel_rays
from geometry.grid import cell_centres
from geometry.poses import transform_points
from localization.solving import EstimatedPose, SolverOptions
from networks import Architecture, TransPoseNet, init_head
from tests.evaluation.conftest import COLOURS, TINY, make_run
from training.optimizer import build_optimizer

CPU = torch.device("cpu")
NAME = "ckpt_iter_0000004.net"


def parse(*arguments):
    return parse_options([str(a) for a in arguments])


def on_val_sim(tmp_path, *arguments, scene="scene", task="coord"):
    """Options of an evaluation of the run in `run` on val_sim."""
    run = [] if "--search_dir" in arguments else ["--network_in", tmp_path / "run"]
    return parse(scene, "--task", task, "--section", "val_sim", "--datasets_dir", tmp_path, *run, *arguments)


def entries(folder: Path, task: str = "coord", name: str = NAME) -> list[dict]:
    return json.loads((folder / f"results_{name}_task_{task}.json").read_text())["evaluations"]


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
    assert summary.translation_m.median < 0.15 and summary.rotation_deg.median < 0.15
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

    assert median_m(True) < 0.85 * median_m(False)


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
    run = tmp_path / "run"
    make_run(run)
    options = parse(
        "scene", "--task", "coord", "--section", "val_drone_sim", "test_real_all", "--datasets_dir", tmp_path,
        "--network_in", run, "--tiny", "--uncertainty", "MLE", "--save_pred",
    )  # fmt: skip
    outcome = evaluate(options, CPU)
    assert outcome.evaluated == [run / NAME] and not outcome.damaged and not outcome.skipped
    assert (run / f"results_{NAME}_task_coord.txt").read_text().count("Evaluation on section") == 2
    assert np.load(run / f"val_drone_sim_{NAME}_out_xyz_poses.npy").shape == (3, 3)
    positions = (run / f"val_drone_sim_{NAME}_out_xyz_poses.txt").read_text().splitlines()
    assert [line.split()[0] for line in positions] == ["view_000.png", "view_001.png", "view_002.png"]
    group = (run / f"test_real_all_{NAME}_out_xyz_poses.txt").read_text().splitlines()
    assert [line.split()[0] for line in group] == [
        f"{section}_drone_real/view_{i:03d}.png" for section in ("val", "test") for i in range(2)
    ]  # fmt: skip
    with (run / f"val_drone_sim_{NAME}_task_coord.csv").open() as stream:
        assert [row["stem"] for row in csv.DictReader(stream)] == ["view_000", "view_001", "view_002"]
    saved = np.load(run / f"coord_pred_{NAME}_val_drone_sim" / "view_001.npz")
    shapes = {key: saved[key].shape for key in saved}
    assert shapes == {
        "coord_pred": (3, 8, 12), "coord_gt": (3, 8, 12), "coord_unc": (8, 12), "pose_pred": (4, 4), "pose_gt": (4, 4),
        "pose_t_err": (), "pose_r_err": (),
    }  # fmt: skip
    np.testing.assert_allclose(saved["pose_gt"], np.loadtxt(tmp_path / "scene/val_drone_sim/poses/view_001.txt"), atol=1e-4)
    # In a group of sections equal stems keep apart.
    assert len(list((run / f"coord_pred_{NAME}_test_real_all").iterdir())) == 4
    assert not list(run.glob(".part-*"))
    entry, of_group = entries(run)
    assert [section["name"] for section in entry["sections"]] == ["val_drone_sim"] and entry["sections"][0]["samples"] == 3
    assert [section["name"] for section in of_group["sections"]] == ["val_drone_real", "test_drone_real"]
    assert entry["settings"]["precision"] == "float32" and entry["settings"]["solver"]["hypotheses"] == 64
    assert entry["settings"]["preprocessing"]["rgb_mean"] == [0.3, 0.4, 0.5]


def test_every_image_is_drawn(plane_section, tmp_path):
    plane_section(2, "scene/val_sim")
    make_run(tmp_path / "run")
    for _ in range(2):  # again, over those that are there
        evaluate(on_val_sim(tmp_path, "--plot"), CPU)
    pictures = sorted((tmp_path / "run" / f"val_sim_{NAME}_coord_plots").iterdir())
    assert [p.name for p in pictures] == ["view_000.png", "view_001.png"]
    assert pictures[0].read_bytes().startswith(b"\x89PNG")


def coord_result(*, success=True, inliers=7, valid=((True, True, False),)):
    """One image, three cells: off by 3 and 4 m; the third has no label."""
    true = np.zeros((3, 1, 3), np.float32)
    predicted = np.array([[[3.0, 0, 9]], [[0.0, 0, 9]], [[0.0, 4, 9]]], np.float32)
    pose = np.eye(4)
    pose[:3, 3] = 1.0, 2.0, 3.0
    truth = np.eye(4)
    truth[:3, 3] = 1.5, 2.0, 3.0
    errors = (0.5, 0.25) if success else (np.inf, np.inf)
    estimate = EstimatedPose(pose if success else np.eye(4), success, inliers)
    picture = np.zeros((8, 24, 3), np.uint8)
    return CoordResult("val_sim/a", picture, predicted, true, np.array(valid), None, estimate, truth, *errors)


def test_the_row_of_an_image():
    position = {"x": "1.0000", "y": "2.0000", "z": "3.0000", "x_true": "1.5000", "y_true": "2.0000", "z_true": "3.0000"}
    expected = {
        "section": "val_sim", "stem": "a", "translation_error_m": "0.5000", "rotation_error_deg": "0.2500", "success": 1,
        "inliers": 7, "cells": 3, "labelled_cells": 2, "coord_error_mean_m": "3.5000", "coord_error_median_m": "3.5000",
        **position,
    }  # fmt: skip
    assert coord_result().row() == expected
    lost = coord_result(success=False, inliers=None, valid=((False, False, False),)).row()
    assert lost == expected | {
        "translation_error_m": "inf", "rotation_error_deg": "inf", "success": 0, "inliers": "", "labelled_cells": 0,
        "coord_error_mean_m": "", "coord_error_median_m": "", "x": "nan", "y": "nan", "z": "nan",
    }  # fmt: skip


def test_the_figures_of_a_section():
    figures = CoordFigures()
    for result in (coord_result(), coord_result(success=False, valid=((True, False, False),))):
        figures.add(result)
    summary = figures.summary()
    assert (summary.images, summary.failures) == (2, 1) and summary.translation_m == Spread(0.5, 0.0, np.inf)
    assert summary.rotation_deg == Spread(0.25, 0.0, np.inf) and summary.accuracy_percent["3m3deg"] == 50
    assert summary.coord_error_m == Spread.of([3.0, 4.0, 3.0])
    np.testing.assert_array_equal(figures.positions_N3, [[1, 2, 3], [np.nan] * 3])


def test_the_arrays_of_an_image():
    arrays = coord_result().arrays("coord")
    np.testing.assert_array_equal(arrays["coord_gt"][:, 0], [[0, 0, -1]] * 3)
    np.testing.assert_array_equal(arrays["coord_pred"][:, 0, 1], [0, 0, 4])
    assert arrays["pose_pred"][0, 3] == 1.0 and arrays["pose_gt"][0, 3] == 1.5 and "coord_unc" not in arrays
    assert (arrays["pose_t_err"], arrays["pose_r_err"]) == (0.5, 0.25)


@pytest.mark.parametrize("task", ["depth", "normal", "semantics"])
def test_the_dense_tasks_are_evaluated_too(plane_section, tmp_path, task):
    plane_section(2, "scene/val_sim", sky_rows=2, height=96, width=144)  # not stored at the network's 64 px
    uncertainty, fullsize = ("none", True) if task == "semantics" else ("mle", False)
    architecture = Architecture.for_task(task, tiny=True, uncertainty=uncertainty, fullsize=fullsize, in_channels=1)
    run = tmp_path / "run"
    make_run(run, task=task, architecture=architecture, preprocessing=Preprocessing(64, True, (0.43,), (0.17,)))
    options = parse(
        "scene", "--task", task, "--section", "val_sim", "--datasets_dir", tmp_path, "--network_in", run, "--grayscale",
        "--save_pred", "--plot", *(["--fullsize"] if fullsize else []),
    )  # fmt: skip
    evaluate(options, CPU)
    text = (run / f"results_{NAME}_task_{task}.txt").read_text()
    assert "nan" not in text and "mean: " in text
    saved = np.load(run / f"{task}_pred_{NAME}_val_sim/view_000.npz")
    assert saved[f"{task}_pred"].shape == saved[f"{task}_gt"].shape
    assert saved["valid"].shape == ((64, 96) if fullsize else (8, 12))
    assert len(list((run / f"val_sim_{NAME}_{task}_plots").glob("*.png"))) == 2
    assert not list(run.glob("*out_xyz_poses*")) and "solver" not in entries(run, task)[0]["settings"]


class _Recorder(torch.nn.Module):
    """Stands for a network: keeps what it was given and predicts nothing in particular."""

    architecture = TINY

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images_B3HW):
        self.seen.append(images_B3HW)
        B, _, H, W = images_B3HW.shape
        return torch.ones(B, 3, H // 8, W // 8), torch.ones(B, 1, H // 8, W // 8)


def seen_by_the_network(monkeypatch, options):
    net = _Recorder()
    monkeypatch.setattr("evaluation.run.load_network", lambda path: net)
    evaluate(options, CPU)
    return net.seen[0]


def test_images_get_the_colours_of_the_training(plane_section, tmp_path, monkeypatch):
    section = plane_section(1, "scene/val_sim")
    plane_section(2, "scene/train_sim", seed=3)
    make_run(tmp_path / "run")
    options = on_val_sim(tmp_path)
    pixels = np.asarray(Image.open(section / "rgb" / "view_000.png")).astype(np.float64) / 255
    expected = (pixels - np.array([0.3, 0.4, 0.5])) / np.array([0.2, 0.25, 0.3])
    seen = seen_by_the_network(monkeypatch, options)
    np.testing.assert_allclose(seen[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert entries(tmp_path / "run")[-1]["settings"]["preprocessing"]["rgb_std"] == [0.2, 0.25, 0.3]


def test_weights_of_others_get_the_published_colours(plane_section, tmp_path, monkeypatch):
    section = plane_section(1, "urbanscape/val_sim", height=480, width=496, focal=480.0)
    make_run(tmp_path / "run")
    (tmp_path / "run" / "training.json").unlink()
    options = on_val_sim(tmp_path, scene="urbanscape")
    published = PUBLISHED_SCENES["urbanscape"]
    pixels = np.asarray(Image.open(section / "rgb" / "view_000.png")).astype(np.float64) / 255
    expected = (pixels - np.array(published.rgb_mean)) / np.array(published.rgb_std)
    seen = seen_by_the_network(monkeypatch, options)
    assert seen.shape == (1, 3, 480, 496)
    np.testing.assert_allclose(seen[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_a_height_flag_replaces_the_recorded_one(plane_section, tmp_path, monkeypatch):
    plane_section(1, "scene/val_sim")
    make_run(tmp_path / "run")
    options = on_val_sim(tmp_path, "--image_height", 48)
    assert seen_by_the_network(monkeypatch, options).shape == (1, 3, 48, 72)


def test_every_solver_flag_reaches_its_place(plane_section, tmp_path, monkeypatch):
    plane_section(1, "scene/val_sim", calibration="64 64 47 33")
    make_run(tmp_path / "run")
    flags = ["--hypotheses", 65, "--threshold", 11, "--inlieralpha", 101, "--maxpixelerror", 102, "--seed", 7]
    common = [
        "scene",
        "--task",
        "coord",
        "--section",
        "val_sim",
        "--datasets_dir",
        tmp_path,
        "--network_in",
        tmp_path / "run",
    ]
    calls = []
    import dsacstar

    real_solve, real_forward = dsacstar.solve, dsacstar.forward_rgb
    monkeypatch.setattr(dsacstar, "solve", lambda *a, **k: calls.append((a, k)) or real_solve(*a, **k))
    monkeypatch.setattr(dsacstar, "forward_rgb", lambda *a: calls.append(a) or real_forward(*a))
    evaluate(parse(*common, *flags), CPU)
    (coords, K), keywords = calls[0]
    options = keywords["options"]
    assert (options.hypotheses, options.threshold_px, options.inlier_alpha, options.max_reprojection_px) == (
        65,
        11,
        101,
        102,
    )
    assert options.subsampling == 8 and keywords["seed"] == 7 and coords.shape == (1, 3, 8, 12)
    evaluate(parse(*common, *flags, "--solver", "published"), CPU)
    # coordinates, pose, hypotheses, threshold, focal, cx, cy, alpha, max error, subsampling
    assert calls[1][2:] == (65, 11, 64.0, 47.0, 33.0, 101, 102, 8)
    assert entries(tmp_path / "run")[0]["settings"]["solver"] == {
        "solver": "dsacstar", "hypotheses": 65, "threshold": 11.0, "inlieralpha": 101.0, "maxpixelerror": 102.0, "seed": 7,
    }  # fmt: skip


def full_size_truth(batch) -> torch.Tensor:
    """Exact coordinates of every pixel: where its ray meets the ground z = 0.1 x."""
    B, _, H, W = batch.images_B3HW.shape
    rays_B3N = pixel_rays(batch.K_B33, cell_centres(H, W, 1).flatten(1))
    normal_3 = torch.tensor([-0.1, 0.0, 1.0])
    centre_B3 = batch.world_from_cam_B44[:, :3, 3]
    world_rays_B3N = batch.world_from_cam_B44[:, :3, :3] @ rays_B3N
    depth_B1N = -(centre_B3 @ normal_3)[:, None, None] / torch.einsum("bcn,c->bn", world_rays_B3N, normal_3)[:, None]
    return transform_points(batch.world_from_cam_B44, rays_B3N * depth_B1N).reshape(B, 3, H, W)


def test_a_full_size_prediction_is_solved_whole_and_compared_on_the_labels_grid(plane_section):
    section = plane_section(2, "scene/val_sim", calibration="66 64 47 33")
    dataset = SectionDataset([section], "coord", 64)
    for p in predictions(TransPoseNet(TINY), dataset, COLOURS, device=CPU):
        whole = replace(p, prediction_BChw=full_size_truth(p.batch), sigma_B1hw=torch.ones(2, 1, 64, 96), stride=1)
    results = list(coord_results([whole], SolverOptions()))
    assert [r.coord_pred_3hw.shape for r in results] == [(3, 8, 12)] * 2 and results[0].sigma_hw.shape == (8, 12)
    for result in results:
        # Sampled at the centres of the cells, not half a pixel (over half a metre) beside them.
        assert np.nanmax(result.error_hw) < 0.02
        assert result.translation_m < 0.01 and result.rotation_deg < 0.01
        assert result.pose.inliers == 64 * 96
    # With the wrong stride the pose is far off: the solver is told the network's grid.
    wrong = list(coord_results([replace(whole, prediction_BChw=p.batch.labels_BChw, sigma_B1hw=None)], SolverOptions()))
    assert all(r.translation_m > 10 for r in wrong)


@pytest.mark.parametrize("stride", [8, 1])
@pytest.mark.parametrize("task", ["coord", "depth", "normal"])
def test_full_size_networks_are_evaluated_on_labels_of_both_sizes(plane_section, tmp_path, task, stride):
    scene = "scene" if stride == 8 else "scene-fullsize"
    plane_section(1, f"{scene}/val_sim", stride=stride)
    run = tmp_path / "run"
    make_run(run, task=task, architecture=Architecture.for_task(task, tiny=True, fullsize=True))
    evaluate(on_val_sim(tmp_path, "--fullsize", "--save_pred", "--search_dir", run, scene=scene, task=task), CPU)
    saved = np.load(run / f"{task}_pred_{NAME}_val_sim/view_000.npz")
    size = (64 // stride, 96 // stride)
    assert saved[f"{task}_pred"].shape[-2:] == saved[f"{task}_gt"].shape[-2:] == size


def test_networks_of_the_grid_are_evaluated_on_full_size_labels_too(plane_section, tmp_path):
    plane_section(1, "scene-fullsize/val_sim", stride=1)
    make_run(tmp_path / "run")
    evaluate(on_val_sim(tmp_path, "--save_pred", scene="scene-fullsize"), CPU)
    saved = np.load(tmp_path / f"run/coord_pred_{NAME}_val_sim/view_000.npz")
    assert saved["coord_pred"].shape == saved["coord_gt"].shape == (3, 8, 12)


def test_sampling_at_centres_of_cells():
    ramp = cell_centres(20, 24, 1)[None]  # every pixel holds its own centre
    torch.testing.assert_close(sample_at_centres(ramp, 2, 3, 8), cell_centres(2, 3, 8)[None])
    # The last cells of sizes that 8 does not divide look beyond the border: the border's value.
    assert sample_at_centres(ramp, 3, 3, 8)[0, :, 2, 0].tolist() == pytest.approx([4.0, 19.5])


def test_resampled_normals_are_unit_vectors_and_do_not_mind_the_half_turn():
    batch = next(iter(_fake_batches()))
    logits = torch.zeros(1, 2, 16, 16)
    logits[:, 0, :, ::2], logits[:, 0, :, 1::2] = 20.0, -20.0  # azimuths of just below and just above the half turn
    prediction = Prediction(batch, np.zeros((1, 16, 16, 3), np.uint8), logits, None, 1)
    result = next(dense_results([prediction], "normal"))
    np.testing.assert_allclose(np.linalg.norm(result.prediction, axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(result.prediction[0], -1, atol=1e-5)


def _fake_batches():
    yield Batch(
        images_B3HW=torch.zeros(1, 3, 16, 16), K_B33=torch.eye(3)[None], stems=("val_sim/a",), stride=8,
        labels_BChw=torch.zeros(1, 3, 2, 2), valid_B1hw=torch.ones(1, 1, 2, 2, dtype=torch.bool),
        world_from_cam_B44=torch.eye(4)[None],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("recorded", "flags", "expected"),
    [
        ("float32", [], "float32"), ("bf16", [], "bf16"), ("bf16", ["--precision", "float32"], "float32"),
        (None, [], "float32"), (None, ["--precision", "bf16"], "bf16"),
    ],
)  # fmt: skip
def test_the_network_computes_as_in_training(plane_section, tmp_path, monkeypatch, recorded, flags, expected):
    plane_section(1, "scene/val_sim")
    options = {"seed": 1} if recorded is None else {"seed": 1, "precision": recorded}
    make_run(tmp_path / "run", options=options)
    seen = []
    real = TransPoseNet.forward

    def forward(net, images):
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        return real(net, images)

    monkeypatch.setattr(TransPoseNet, "forward", forward)
    evaluate(on_val_sim(tmp_path, *flags), CPU)
    assert seen == [(expected == "bf16", torch.bfloat16)]
    assert entries(tmp_path / "run")[0]["settings"]["precision"] == expected


def learned_by_heart(section, steps: int) -> TransPoseNet:
    """A network that knows the one image of a section to a few decimetres."""
    dataset = SectionDataset([section], "coord", 48)
    batch = prepare_for_evaluation(collate(list(dataset)), COLOURS, "coord")
    torch.manual_seed(0)
    net = TransPoseNet(TINY, batch.labels_BChw.mean((0, 2, 3)))
    init_head(net, 30.0)
    optimizer = build_optimizer("muon", net, 5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 5) * (1 - step / steps))
    for _ in range(steps):
        prediction, sigma = net(batch.images_B3HW)
        squared = (prediction - batch.labels_BChw).square().sum(1, keepdim=True)
        (3 * sigma.log() + squared / (2 * sigma.square())).mean().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return net


def test_poses_by_bf16_are_those_by_float32(plane_section):
    section = plane_section(1, "scene/val_sim", height=48, width=72, focal=48.0)
    net = learned_by_heart(section, 20)
    dataset = SectionDataset([section], "coord", 48)
    exact, rounded = (
        next(coord_results(predictions(net, dataset, COLOURS, device=CPU, precision=precision), SolverOptions()))
        for precision in ("float32", "bf16")
    )
    difference_m = np.linalg.norm(exact.coord_pred_3hw - rounded.coord_pred_3hw, axis=0)
    assert 0 < np.median(difference_m) < 0.3  # of 80 m of height
    # The pose of 54 cells of a network that has learned for seconds is a rough one in either arithmetic.
    assert exact.translation_m < 3.0 and rounded.translation_m < 3.0
    assert np.linalg.norm(exact.position_3 - rounded.position_3) < 3.0


def test_images_of_all_kinds_in_one_section(plane_section, tmp_path):
    kinds = [
        {"height": 64, "width": 96, "focal": 64}, {"height": 96, "width": 64, "focal": 64},
        {"height": 75, "width": 101, "focal": 70}, {"height": 120, "width": 130, "calibration": "90 99 55 66"},
    ]  # fmt: skip
    section = tmp_path / "scene/val_sim"
    for index, options in enumerate(kinds):
        for folder in plane_section(1, f"part{index}", seed=index, **options).iterdir():
            (section / folder.name).mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                file.rename(section / folder.name / f"view{index}{file.suffix}")
    for index, mode in ((0, "RGBA"), (2, "L")):
        path = section / "rgb" / f"view{index}.png"
        Image.open(path).convert(mode).save(path)
    make_run(tmp_path / "run")
    evaluate(on_val_sim(tmp_path, "--plot", "--save_pred"), CPU)
    assert (tmp_path / "run" / f"val_sim_{NAME}_out_xyz_poses.txt").read_text().count("\n") == 4
    # True coordinates put every camera where it is, whatever its size, shape and intrinsics.
    results = list(coord_results(noisy_truth(section, 0.001), SolverOptions()))
    assert [r.coord_pred_3hw.shape for r in results] == [(3, 8, 12), (3, 12, 8), (3, 8, 11), (3, 8, 9)]
    assert max(r.translation_m for r in results) < 0.05


def test_a_repeated_evaluation_is_skipped_when_it_would_say_the_same(plane_section, tmp_path, caplog):
    caplog.set_level("INFO")
    section = plane_section(2, "scene/val_sim")
    run = tmp_path / "run"
    make_run(run)
    command = [
        "scene",
        "--task",
        "coord",
        "--section",
        "val_sim",
        "--datasets_dir",
        tmp_path,
        "--network_in",
        run,
        "--resume",
    ]
    evaluate(parse(*command), CPU)
    outcome = evaluate(parse(*command), CPU)
    assert outcome.skipped == [(run / NAME, "val_sim")] and not outcome.evaluated and len(entries(run)) == 1
    assert f"{run / NAME} on val_sim: evaluated already" in caplog.text
    evaluate(parse(*command, "--hypotheses", 65), CPU)  # other settings
    evaluate(parse(*command, "--save_pred"), CPU)  # asks for files
    assert len(entries(run)) == 3
    torch.save(torch.load(section / "depth" / "view_000.dat") + 1, section / "depth" / "view_000.dat")
    assert evaluate(parse(*command), CPU).skipped  # the coord task does not read depth
    pose = np.loadtxt(section / "poses" / "view_000.txt")
    pose[0, 3] += 1e-3
    np.savetxt(section / "poses" / "view_000.txt", pose)
    evaluate(parse(*command), CPU)
    make_run(run, mean=torch.ones(3))
    evaluate(parse(*command), CPU)
    found = entries(run)
    assert len(found) == 5 and not evaluate(parse(*command), CPU).evaluated
    assert len({e["section_fingerprint"] for e in found}) == 2 and len({e["weights_fingerprint"] for e in found}) == 2


def test_a_search_validates_every_run_on_its_own_section_and_leaves_other_scenes_alone(plane_section, tmp_path):
    for seed, name in enumerate(("val_sim", "val_drone_real", "val_oop_drone_real")):
        plane_section(1 + seed, f"scene/{name}", seed=seed)
    root = tmp_path / "checkout-tiny" / "runs"
    make_run(root / "sim")
    make_run(root / "ip", kind="pairs", domain="in_place", stage="finetune")
    make_run(root / "oop", kind="pairs", domain="out_of_place", stage="finetune")
    make_run(root / "scene-b-sim", scene="scene-b")
    command = ["scene", "--task", "coord", "--section", "validation", "--datasets_dir", tmp_path, "--search_dir", root]
    evaluate(parse(*command, "--keywords", "!-tiny", "--min_ckpt_iter", 3), CPU)
    assert {f.name: entries(f)[0]["section"] for f in sorted(root.iterdir()) if list(f.glob("results_*.json"))} == {
        "ip": "val_drone_real", "oop": "val_oop_drone_real", "sim": "val_sim",
    }  # fmt: skip


def test_damaged_weights_are_reported_and_the_others_evaluated(plane_section, tmp_path, repository):
    plane_section(1, "scene/val_sim")
    run = tmp_path / "run"
    make_run(run, iterations=(4, 8))
    (run / NAME).write_bytes(b"half a file")
    command = ["scene", "--task", "coord", "--section", "val_sim", "--datasets_dir", tmp_path, "--network_in", run]
    outcome = evaluate(parse(*command), CPU)
    assert list(outcome.damaged) == [run / NAME] and outcome.evaluated == [run / "ckpt_iter_0000008.net"]
    done = subprocess.run([sys.executable, str(repository / "test_single_task.py"), *map(str, command), "--device", "cpu"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and done.stderr.strip().endswith(f"error: not evaluated, cannot be read: {run / NAME}")
    assert len(entries(run, name="ckpt_iter_0000008.net")) == 2
    (run / "ckpt_iter_0000008.net").unlink()
    with pytest.raises(ValueError, match=f"{NAME} is damaged"):
        evaluate(parse(*command), CPU)


@pytest.mark.parametrize("mistake", ["pose", "focal length"])
def test_sections_whose_poses_and_labels_disagree_are_refused(plane_section, tmp_path, mistake):
    section = plane_section(2, "scene/val_sim")
    make_run(tmp_path / "run")
    for path in (section / "poses").glob("*.txt"):
        if mistake == "pose":
            np.savetxt(path, np.linalg.inv(np.loadtxt(path)))
        else:
            (section / "calibration" / path.name).write_text("128\n")
    with pytest.raises(ValueError, match="val_sim/view_000 do not project onto their cells"):
        evaluate(
            on_val_sim(tmp_path),
            CPU,
        )
    assert not list((tmp_path / "run").glob("results_*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "depth"], "task coord"),
        (["--task", "coord", "--grayscale"], "in_channels = 3"),
        (["--task", "coord", "--fullsize"], "fullsize = False"),
        (["--task", "coord", "--uncertainty", "none"], "uncertainty = mle"),
        (["--task", "coord", "--section", "val_nowhere"], "val_nowhere"),
        (["--task", "coord", "--session", "other"], "session other"),
        (["--task", "coord", "--section", "test"], "no test section"),
        (["--task", "coord", "--datasets_dir", "nowhere"], "nowhere/scene"),
    ],
)
@pytest.mark.parametrize("with_record", [True, False])
def test_contradictions_are_refused_before_anything_is_written(plane_section, tmp_path, arguments, message, with_record):
    plane_section(1, "scene/val_sim")
    make_run(tmp_path / "run")
    if not with_record:
        (tmp_path / "run" / "training.json").unlink()
        message = {"session other": "nothing says what run", "no test section": "nothing says what run"}.get(
            message, message
        )
    before = sorted((tmp_path / "run").iterdir())
    sections = [] if "--section" in arguments else ["--section", "val_sim"]
    common = ["--datasets_dir", tmp_path] if "--datasets_dir" not in arguments else []
    with pytest.raises((ValueError, OSError), match=message):
        evaluate(parse("scene", *arguments, *sections, *common, "--network_in", tmp_path / "run"), CPU)
    assert sorted((tmp_path / "run").iterdir()) == before


def test_a_folder_that_takes_no_results_is_found_out_before_the_work(plane_section, tmp_path, monkeypatch):
    plane_section(1, "scene/val_sim")
    make_run(tmp_path / "run")

    def refuse(*, dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr("evaluation.run.load_network", None)
    with pytest.raises(PermissionError, match=rf"cannot write results into {tmp_path / 'run'}: Read-only file system"):
        evaluate(on_val_sim(tmp_path), CPU)


@pytest.mark.parametrize("flag", ["--report", "--overview"])
def test_a_picture_that_cannot_be_written_is_found_out_before_the_work(plane_section, tmp_path, monkeypatch, flag):
    plane_section(1, "scene/val_sim")
    make_run(tmp_path / "run", iterations=(4,))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("evaluation.run.load_network", None)
    words = ["scene", "--task", "coord", "--section", "val_sim", "--datasets_dir", tmp_path, flag, tmp_path / "file/x.html"]
    with pytest.raises(PermissionError, match=r"cannot write x.html into .*/file: it is a file"):
        evaluate(parse(*words, "--network_in", tmp_path / "run"), CPU)


def test_the_overview_is_of_one_weights_file(plane_section, tmp_path):
    plane_section(2, "scene/val_sim")
    make_run(tmp_path / "run", iterations=(4, 8))
    common = [
        "scene",
        "--task",
        "coord",
        "--section",
        "val_sim",
        "--datasets_dir",
        tmp_path,
        "--overview",
        tmp_path / "new/o.png",
    ]
    with pytest.raises(ValueError, match="2 were chosen"):
        evaluate(parse(*common, "--network_in", tmp_path / "run"), CPU)
    evaluate(parse(*common, "--network_in", tmp_path / "run" / NAME), CPU)
    assert (tmp_path / "new/o.png").read_bytes().startswith(b"\x89PNG")


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


def test_a_scene_with_full_size_labels_only_is_pointed_out(plane_section, tmp_path):
    plane_section(1, "scene-fullsize/val_sim")
    with pytest.raises(FileNotFoundError, match="scene-fullsize: name that"):
        section_dirs(tmp_path / "scene", "val_sim")


def test_the_command_reports_errors_in_one_line(repository, tmp_path):
    make_run(tmp_path / "run")
    command = [sys.executable, str(repository / "test_single_task.py"), "scene", "--datasets_dir", str(tmp_path), "--task"]
    done = subprocess.run([*command, "coord", "--network_in", str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.strip() == f"error: scene folder not found: {tmp_path / 'scene'}"
    done = subprocess.run([*command, "pose"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: unknown --task 'pose'")


def test_weights_as_safetensors_give_the_same_results(tmp_path, plane_section, caplog):
    pytest.importorskip("safetensors", reason="the package safetensors is not installed")
    from runs.convert import convert

    plane_section(2, "scene/val_sim")
    make_run(tmp_path / "run")
    names = (NAME, "crossloc.safetensors")
    convert(tmp_path / "run" / NAME, tmp_path / "run" / names[1])
    for name in names:
        evaluate(parse("scene", "--task", "coord", "--section", "val_sim", "--datasets_dir", tmp_path,
                       "--network_in", tmp_path / "run" / name), CPU)  # fmt: skip
    first, second = (entries(tmp_path / "run", name=name)[-1] for name in names)
    assert first["summary"] == second["summary"] and first["settings"] == second["settings"]
    assert "crossloc.safetensors is named like a network of 3 encoders, but holds 0" in caplog.text


def test_many_checkpoints_are_evaluated_in_one_pass_as_each_alone(plane_section, tmp_path, monkeypatch):
    plane_section(3, "scene/val_sim", height=48, width=80)
    plane_section(2, "scene/val_drone_sim", seed=1)
    decoded = []
    original = SectionDataset.__getitem__
    monkeypatch.setattr(SectionDataset, "__getitem__", lambda self, i: decoded.append(i) or original(self, i))
    make_run(tmp_path / "run", iterations=range(1, 11))  # more than are in memory at once
    sections = ["--section", "val_sim", "val_drone_sim"]
    common = ["scene", "--task", "coord", "--datasets_dir", tmp_path, *sections, "--network_in"]
    (tmp_path / "run" / "ckpt_iter_0000005.net").write_bytes(b"damaged")
    outcome = evaluate(parse(*common, tmp_path / "run"), CPU)
    names = [f"ckpt_iter_{n:07d}.net" for n in (1, 2, 3, 4, 6, 7, 8, 9, 10)]
    assert [path.name for path in outcome.evaluated] == names and len(outcome.damaged) == 1
    checks = decoded.count(0) - 2 * 2  # the geometry check looks at the photos, too
    assert checks <= 2, "two passes over each section, whatever the number of checkpoints"
    for name in names[3:6]:
        together = [(e["section"], e["summary"]) for e in entries(tmp_path / "run", name=name)]
        alone = tmp_path / "alone"
        alone.mkdir(exist_ok=True)
        for file in (name, "training.json"):
            (alone / file).write_bytes((tmp_path / "run" / file).read_bytes())
        evaluate(parse(*common, alone / name), CPU)
        assert [(e["section"], e["summary"]) for e in entries(alone, name=name)] == together
        assert [section for section, _ in together] == ["val_sim", "val_drone_sim"]
        tables = [(folder / f"val_sim_{name}_task_coord.csv").read_text() for folder in (alone, tmp_path / "run")]
        assert tables[0] == tables[1]


def test_poses_are_solved_beside_the_network(plane_section, monkeypatch):
    """While the network computes the third batch, the solver may still be busy with the first; the order stays."""
    section = plane_section(6)
    order, first_solved = [], threading.Event()

    def stream():
        for number, p in enumerate(noisy_truth(section, 0.02)):
            order.append(("network", number))
            if number == 1:
                assert first_solved.wait(20), "the solver waits for the consumer"
            yield p

    original = coord_module.solve_poses

    def solve(*arguments, **keywords):
        poses = original(*arguments, **keywords)
        first_solved.set()
        return poses

    monkeypatch.setattr(coord_module, "solve_poses", solve)
    results = list(coord_results(stream(), SolverOptions()))
    assert [r.stem for r in results] == [f"train_sim/view_{i:03d}" for i in range(6)]
    assert max(r.translation_m for r in results) < 0.1 and len(order) == 2
