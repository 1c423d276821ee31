"""The loop on small analytic sections: files, names, resume, interruption, bad input."""

import csv
import dataclasses
import os
import re
import sys

import pytest
import torch

from dataloader.prepare import collate, prepare_for_evaluation
from dataloader.section import SectionDataset
from networks import load_network, load_state_dict
from runs import read_record, record_of
from tests.training.small_runs import SMALL, options
from training.loop import train
from training.names import run_name


@pytest.mark.parametrize(
    "scene, arguments, expected",
    [
        (
            "naturescape",
            "--uncertainty mle --session clean_training --epochs 100 -lr 2e-4 --real_data_chunk 0",
            "naturescape-coord-sclean_training-unc-MLE-e100-lr0.0002-sim_only-sc1.00",
        ),
        (
            "naturescape",
            "--uncertainty MLE --session clean_training_pt1.00 --epochs 800 -lr 1e-4 --sim_data_chunk 0 --network_in x.net",
            "naturescape-coord-sclean_training_pt1.00-unc-MLE-e800-lr0.0001-pairs-ip-rc1.00-finetune",
        ),
        (
            "urbanscape",
            "--uncertainty NONE --grayscale --tiny -lr 2e-5 --sim_data_chunk 0 --real_only --debug "
            "--real_data_chunk 0.25 --real_data_domain out_of_place",
            "urbanscape-coord-gray-no_unc-e50-lr0.000020-real_only-oop-rc0.25-tiny-DEBUG",
        ),
    ],
)
def test_run_names(tmp_path, scene, arguments, expected):
    assert run_name(options(tmp_path, *arguments.split(), scene=scene)) == expected


def test_a_run_leaves_the_documented_files(tmp_path, plane_section):
    plane_section(5)
    run = train(options(tmp_path, *SMALL, "--epochs", 5))
    names = {path.name for path in run.checkpoints.iterdir() if not path.name.startswith(".")}
    assert names == {
        "model.net",
        "ckpt_iter_0000002.net",
        "ckpt_iter_0000025.net",
        "output.log",
        "training.json",
        "training_log.csv",
        "tensorboard",
        "resume_state.pt",
        "FLAG_training_done.nodata",
    }
    log = (run.output / "output.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, INFO: ", line) for line in log)
    text = [line.split(", INFO: ", 1)[1] for line in log]
    assert "***** A new training has been started *****" in text and text[-1] == "Done without errors."
    steps = [line for line in text if line.startswith("Iteration: ")]
    assert [int(line[11:18]) for line in steps] == [2, 4, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20, 22, 24, 25]
    assert re.fullmatch(r"Iteration:       2, Epoch:   0, Total loss: -?[\d.]+, Valid: [\d.]+%, Avg Time: [\d.]+s", steps[0])
    residual = text[text.index(steps[0]) - 1]
    assert re.fullmatch(r"Regression error: coord:  [\d.]+, reprojection:  [\d.]+", residual)
    rows = list(csv.DictReader((run.output / "training_log.csv").open()))
    assert [int(row["images_seen"]) for row in rows] == [int(line[11:18]) for line in steps]
    figures = [value for row in rows for name, value in row.items() if name not in ("images_seen", "epoch")]
    assert all(value == f"{float(value):.6g}" for value in figures) and len(figures) > 5 * len(rows) - 1
    record = read_record(run.checkpoints / "training.json")
    assert record.preprocessing.image_height == 32 and record.scene == "scene" and record.images_per_epoch == 5
    assert (record.stage, record.kind, record.domain, record.size, record.seed) == (
        "pretrain",
        "sim_only",
        None,
        "tiny",
        2021,
    )


def test_logs_and_latest_weights_lie_in_the_output_folder_numbered_ones_in_the_checkpoint_folder(tmp_path, plane_section):
    plane_section(2)
    run = train(options(tmp_path, *SMALL, "--epochs", 1, "--ckpt_dir", tmp_path / "ckpt"))
    assert run.output.parent == tmp_path / "out" and run.checkpoints.parent == tmp_path / "ckpt"
    assert {p.name for p in run.output.iterdir()} == {
        "model.net",
        "output.log",
        "training.json",
        "training_log.csv",
        "tensorboard",
        "FLAG_training_done.nodata",
    }
    assert {p.name for p in run.checkpoints.iterdir() if not p.name.startswith(".")} == {
        "ckpt_iter_0000002.net",
        "resume_state.pt",
        "training.json",
        "FLAG_training_done.nodata",
    }


def test_the_weights_are_those_of_the_last_checkpoint(tmp_path, plane_section):
    plane_section(5)
    run = train(options(tmp_path, *SMALL, "--epochs", 5))
    assert load_network(run.latest).architecture.tiny
    latest, last = load_state_dict(run.latest), load_state_dict(run.checkpoints / "ckpt_iter_0000025.net")
    assert all(torch.equal(latest[key], last[key]) for key in last)


def test_training_overfits_one_image(tmp_path, plane_section):
    section = plane_section(1)
    arguments = [
        *SMALL,
        "--epochs",
        50,
        "--lr_schedule",
        "onecycle",
        "-lr",
        2e-3,
        "--jitter",
        0,
        "--max_angle",
        0,
        "--scale_range",
        1,
        1,
        "--precision",
        "float32",
        "--uncertainty",
        "none",
        "--image_height",
        64,
    ]
    run = train(options(tmp_path, *arguments))
    preprocessing = record_of(run.latest).preprocessing
    dataset = SectionDataset([section], "coord", 64, stride=8)
    batch = prepare_for_evaluation(collate([dataset[0]]), preprocessing, "coord", 8)
    with torch.no_grad():
        prediction, _ = load_network(run.latest)(batch.images_B3HW)
    spread = batch.labels_BChw.std()
    assert (prediction - batch.labels_BChw).norm(dim=1).median() < 0.1 * spread


def test_a_finished_run_is_not_repeated(tmp_path, plane_section):
    plane_section(2)
    run = train(options(tmp_path, *SMALL, "--epochs", 1))
    before = run.latest.stat().st_mtime_ns
    again = train(options(tmp_path, *SMALL, "--epochs", 1, "--auto_resume"))
    assert again.done and run.latest.stat().st_mtime_ns == before


def test_an_existing_output_folder_is_an_error_and_stays_as_it_was(tmp_path, plane_section):
    plane_section(2)
    run = train(options(tmp_path, *SMALL, "--epochs", 1))
    before = {path: path.stat().st_mtime_ns for path in run.output.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="auto_resume"):
        train(options(tmp_path, *SMALL, "--epochs", 1))
    assert {path: path.stat().st_mtime_ns for path in run.output.rglob("*") if path.is_file()} == before


def test_fine_tuning_starts_from_the_given_weights_and_inherits_their_preprocessing(tmp_path, plane_section):
    plane_section(2)
    pretrained = train(options(tmp_path, *SMALL, "--epochs", 1))
    plane_section(2, "scene/train_drone_sim", seed=1)
    plane_section(2, "scene/train_drone_real", seed=1)
    arguments = [
        "--tiny",
        "--uncertainty",
        "mle",
        "--batch_size",
        2,
        "--device",
        "cpu",
        "--sim_data_chunk",
        0,
        "--epochs",
        1,
        "-lr",
        1e-9,
        "--network_in",
        pretrained.latest,
        "--precision",
        "float32",
    ]
    tuned = train(options(tmp_path, *arguments))
    assert tuned.latest_name == "model_resume.net"
    record = read_record(tuned.checkpoints / "training.json")
    assert record.preprocessing == read_record(pretrained.checkpoints / "training.json").preprocessing
    assert (record.stage, record.kind, record.domain) == ("finetune", "pairs", "in_place")
    assert record.sim_chunk == 1.0 and record.real_chunk == 1.0
    assert [p.name for p in record.parents] == [pretrained.checkpoints.name]
    a, b = load_state_dict(pretrained.latest), load_state_dict(tuned.latest)
    assert all(torch.allclose(a[key], b[key], atol=1e-4) for key in a)


def _break_pose(section):
    (section / "poses" / "view_001.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n")


def _drop_label(section):
    (section / "init" / "view_001.dat").unlink()


def _truncate_image(section):
    path = section / "rgb" / "view_001.png"
    path.write_bytes(path.read_bytes()[:-200])


def _nan_calibration(section):
    (section / "calibration" / "view_001.txt").write_text("nan\n")


def _foreign_label(section):
    torch.save({"a": 1}, section / "init" / "view_001.dat")


@pytest.mark.parametrize(
    "damage, message",
    [
        (_break_pose, "poses/view_001.txt"),
        (_drop_label, "init/view_001"),
        (_truncate_image, "rgb/view_001.png"),
        (_nan_calibration, "calibration/view_001.txt"),
        (_foreign_label, "init/view_001.dat"),
    ],
)
def test_bad_data_is_named(tmp_path, plane_section, damage, message):
    damage(plane_section(3))
    with pytest.raises((ValueError, OSError), match=message):
        train(options(tmp_path, *SMALL, "--epochs", 1))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--task", "colour"], "unknown --task 'colour'; choose from"),
        (["--task", "coord", "--uncertainty", "maybe"], "maybe"),
        (["--task", "coord", "--epochs", "0"], "--epochs"),
        (["--task", "coord", "--optimizer", "sgd"], "sgd"),
        (["--task", "coord", "--sim_data_chunk", "2"], "sim_data_chunk"),
        (["--task", "coord", "--real_only"], "real_only"),
        (["--task", "coord", "--real_data_domain", "mars"], "mars"),
        (["--task", "semantics", "--uncertainty", "none"], "--fullsize"),
        (["--task", "coord", "--device", "abacus"], "abacus"),
        (["--task", "coord", "--precision", "int3"], "int3"),
        (["--task", "coord", "--network_in", "/nowhere/model.net"], "/nowhere/model.net"),
        (["--task", "coord", "--sim_data_chunk", "0.5"], "train_sim_chunk_0.50"),
    ],
)
def test_bad_flags_give_one_line_and_leave_nothing(tmp_path, plane_section, capsys, monkeypatch, arguments, message):
    import train_single_task

    plane_section(2)
    real = [] if "--real_only" in arguments else ["--real_data_chunk", "0"]
    folders = ["--datasets_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["train_single_task.py", "scene", *folders, *real, *arguments])
    assert train_single_task.main() == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("error: ") and message in errors[-1]
    assert not (tmp_path / "out").exists()


def test_a_flag_that_contradicts_the_weights_is_an_error(tmp_path, plane_section):
    plane_section(2)
    run = train(options(tmp_path, *SMALL, "--epochs", 1))
    with pytest.raises(ValueError, match="uncertainty"):
        train(options(tmp_path, *SMALL, "--epochs", 1, "--uncertainty", "none", "--network_in", run.latest))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_named(tmp_path, plane_section):
    plane_section(2)
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="out"):
        train(options(tmp_path, *SMALL, "--epochs", 1))


def test_a_file_in_place_of_the_output_folder_is_named(tmp_path, plane_section):
    plane_section(2)
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="out"):
        train(options(tmp_path, *SMALL, "--epochs", 1))


def test_options_are_immutable(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        options(tmp_path).epochs = 3
