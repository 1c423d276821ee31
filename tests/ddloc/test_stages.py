"""The six stages, one after the other: what they hand on, exact resume, overfitting, refusals."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys

import numpy as np
import pytest
import torch

import eval_ddloc
import generate_translated
import train_ddloc
from dataloader.images import decode_image
from dataloader.section import SectionDataset
from ddloc.chain import load_chain, load_translation
from ddloc.evaluate import ChainOptions, evaluate_chain
from ddloc.identity import build_record, open_data
from ddloc.loop import STAGE_CLASSES, train_stage
from ddloc.pairs import collate_pairs
from ddloc.perceptual import OWN, VGG, available_source, vgg_weights_file
from ddloc.stage import Moment
from ddloc.translated import check_translated, draw_photos, generate, translated_photo
from ddloc.validation import Score
from ddloc.weights import best_path, load_best
from networks import head_scale_of, load_state_dict, save_network
from runs.record import read_record
from tests.conftest import write_plane_section
from tests.ddloc.conftest import OF_STAGE, SMALL, STAGES, small_options, stage_options, write_scene

HANDED_ON = {"C": ["C"], "T": ["T"], "A": ["A"], "I": ["I"], "joint": ["C", "A"], "finetune": ["C"]}
CPU = torch.device("cpu")


def project(root):
    return root / "out" / "ddloc-scene"


def copied(trained, tmp_path, *, without=()):
    """The project of `trained` in another place, some stages left out."""
    shutil.copytree(trained / "scene", tmp_path / "scene")
    ignored = shutil.ignore_patterns("tensorboard", *(f"{stage}" for stage in without))
    shutil.copytree(project(trained), project(tmp_path), ignore=ignored)
    return tmp_path


def test_every_stage_keeps_the_weights_that_its_validation_chose(trained):
    for stage, names in HANDED_ON.items():
        folder = project(trained) / stage
        scores = json.loads((folder / "validation.json").read_text())
        assert [entry["epoch"] for entry in scores] == [1, 2]
        best = min(scores, key=lambda e: [math.inf if v is None else v for v in e["figures"].values()])["epoch"]
        for name in names:
            chosen, kept = (load_state_dict(p) for p in (folder / f"epoch-{best}_{name}.pth", best_path(folder, name)))
            assert chosen.keys() == kept.keys() and all(torch.equal(chosen[k], kept[k]) for k in chosen)
        other = load_state_dict(folder / f"epoch-{3 - best}_{names[0]}.pth")
        assert any(not torch.equal(other[k], v) for k, v in load_state_dict(best_path(folder, names[0])).items())
        assert (folder / "FLAG_training_done.nodata").is_file() and (folder / "output.log").stat().st_size > 0


def test_every_stage_starts_from_what_the_ones_before_chose(trained):
    wanted = {"C": [], "T": [], "A": [], "I": ["C/C", "T/T", "A/A"], "joint": ["C/C", "T/T", "A/A", "I/I"],
              "finetune": ["joint/C", "joint/A", "T/T", "I/I"]}  # fmt: skip
    for stage, roles in wanted.items():
        record = read_record(project(trained) / stage / "training.json")
        assert [parent.role for parent in record.parents] == roles and record.stage == stage
        assert record.task == "ddloc" and record.size == "other"  # no search for networks of a task finds it
    sections = [s.name for s in read_record(project(trained) / "T" / "training.json").sections]
    assert sections == ["train_drone_real", "train_drone_sim", "train_sim", "val_drone_real", "val_drone_sim"]


class Killed(BaseException):
    """Ends a training as kill -9 does: nothing is saved on the way out."""


@pytest.mark.parametrize("stage", STAGES)
def test_resume_is_exact(trained, tmp_path, monkeypatch, stage):
    """Ended inside the second epoch, a step after the last state: that step is done again, and logged once."""
    root = copied(trained, tmp_path, without=[stage])
    cls = STAGE_CLASSES[stage]
    original, calls = cls.step, []

    def step(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return original(self, *arguments)

    monkeypatch.setattr(cls, "step", step)
    with pytest.raises(Killed):
        train_stage(small_options(root, stage))
    with pytest.raises(FileExistsError, match="--auto_resume"):
        train_stage(small_options(root, stage))
    train_stage(small_options(root, stage, "--auto_resume"))
    assert len(calls) == 6  # of four steps; the fourth ended it, and the third was done again
    whole, resumed = (torch.load(project(r) / stage / "resume_state.pt", weights_only=True) for r in (trained, root))
    for name, weights in whole["networks"].items():
        assert all(torch.equal(weights[key], resumed["networks"][name][key]) for key in weights), name
    assert whole["scores"] == resumed["scores"]
    rows = [[line.split(",")[:3] for line in (project(r) / stage / "training_log.csv").open()] for r in (trained, root)]
    assert rows[0] == rows[1] and len(rows[0]) == 5


def test_a_state_between_two_checkpoints_holds_the_fakes(trained):
    state = torch.load(project(trained) / "T" / "resume_state.pt", weights_only=True)
    assert {name: len(images) for name, images in state["stage"].items()} == {"synthetic": 6, "real": 6}


def overfitted(root, stage, steps, *arguments):
    """First and last figures of steps on one pair."""
    options = stage_options(root, stage, *SMALL, *arguments)
    data = open_data(options)
    torch.manual_seed(0)
    trainer = STAGE_CLASSES[stage](options, build_record(options, data, None), options.project_dir, CPU)
    real, partner = collate_pairs([data.pairs[0, 0]])
    figures = []
    for index in range(steps):
        result = trainer.step(real, partner, Moment(index, 0, index / steps))
        figures.append({"total": result.total.item(), **{k: v.item() for k, v in result.regression.items()}})
    return figures[0], figures[-1]


@pytest.mark.parametrize(
    "stage, arguments, steps, figure, factor",
    [
        ("C", ("-lr", 1e-2), 12, "coord", 0.75),
        ("T", ("-lr", 4e-3, "--image_height", 24), 12, "cycle", 0.75),
        ("A", ("-lr", 4e-3, "--image_height", 24), 12, "cycle", 0.8),
        ("I", ("-lr", 4e-3), 12, "difference", 0.75),
        ("joint", ("-lr", 1e-2), 10, "coord", 0.8),
    ],
)
def test_one_pair_is_learned(trained, stage, arguments, steps, figure, factor):
    first, last = overfitted(trained, stage, steps, *arguments)
    assert last[figure] < factor * first[figure], (first, last)


def test_the_discriminator_judges_two_thirds_of_the_joint_training(trained):
    options = small_options(trained, "joint")
    data = open_data(options)
    trainer = STAGE_CLASSES["joint"](options, build_record(options, data, None), options.project_dir, CPU)
    real, partner = collate_pairs([data.pairs[0, 0]])
    judged = [trainer.step(real, partner, Moment(0, 0, done)).regression["adversarial"].item() for done in (1.3, 1.4)]
    assert judged[0] > 0 and judged[1] == 0


def test_the_discriminator_sees_both_sides_normalised_alike(trained):
    """With augmented images, too: what it is shown as true is a render as C takes it, as fake what was painted."""
    options = small_options(trained, "joint", "--data_augment")
    data = open_data(options)
    trainer = STAGE_CLASSES["joint"](options, build_record(options, data, None), options.project_dir, CPU)
    shown, painted, regressed = [], [], []
    trainer.networks["D_synthetic"].register_forward_pre_hook(lambda net, inputs: shown.append(inputs[0]))
    trainer.networks["C"].register_forward_pre_hook(lambda net, inputs: regressed.append(inputs[0]))
    trainer.translation.inpainter.register_forward_hook(lambda net, inputs, output: painted.append(output.clamp(0, 1)))
    real, partner = collate_pairs([data.pairs[0, 0]])
    trainer.step(real, partner, Moment(3, 0, 0.0))
    expected = trainer.normalise(painted[0])
    assert torch.equal(shown[0], expected) and torch.equal(shown[2], expected)  # its generator's turn, then its own
    assert torch.equal(shown[1], regressed[1]) and not torch.equal(regressed[1], trainer.normalise(trainer.images(partner)))
    assert painted[0].shape[-2:] != trainer.images(real).shape[-2:]  # scaled before it was translated


def test_poses_turn_with_augmented_images(trained):
    """Labels of an augmented batch still project onto their cells: neither pose nor intrinsics are those of the file."""
    from ddloc.losses import initialisation_loss

    options = small_options(trained, "C")
    data = open_data(options)
    trainer = STAGE_CLASSES["C"](options, build_record(options, data, None), options.project_dir, CPU)
    real, _ = collate_pairs([data.pairs[0, 0]])
    batch = trainer._prepared(real, 1, Moment(3, 0, 0.0))
    turned = batch.world_from_cam_B44[0, :3, :3] - real.world_from_cam_B44[0, :3, :3].float()
    assert turned.abs().max() > 0.05
    result = initialisation_loss(batch.labels_BChw, batch, options.loss)
    assert result.regression["reprojection"].item() < 0.05 and result.regression["coord"].item() == 0


def test_another_stage_of_the_same_name_is_refused(trained):
    with pytest.raises(ValueError, match=r"--rho was 0\.9, now 0\.8\. .* with --project_name"):
        train_stage(small_options(trained, "A", "--auto_resume", "--rho", 0.8))
    with pytest.raises(ValueError, match="stage C was trained with --regressor unet, this one asks for transposenet"):
        train_stage(small_options(trained, "joint", "--auto_resume", "--regressor", "transposenet"))


def test_weights_that_were_replaced_are_noticed(trained, tmp_path):
    root = copied(trained, tmp_path)
    shutil.copy(project(root) / "joint" / "best_A.pth", project(root) / "A" / "best_A.pth")
    with pytest.raises(ValueError, match="the weights of A/A was"):
        train_stage(small_options(root, "joint", "--auto_resume"))
    shutil.copy(project(root) / "T" / "epoch-1_T.pth", project(root) / "I" / "best_I.pth")
    with pytest.raises(ValueError, match="made from other photos or weights: run generate_translated.py again"):
        train_stage(small_options(root, "finetune", "--auto_resume"))


def test_a_stage_before_its_time_says_what_to_train(tmp_path):
    root = write_scene(tmp_path)
    hint = "stage C is not finished in .*ddloc-scene: train it first, python train_ddloc.py C SCENE"
    with pytest.raises(FileNotFoundError, match=hint):
        train_stage(small_options(root, "I"))
    with pytest.raises(FileNotFoundError, match="stage joint is not finished"):
        train_stage(small_options(root, "finetune"))
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    "stage, arguments, message",
    [
        ("T", ("--data_augment",), "--data_augment has an effect in stages C, joint, finetune only, not in T"),
        ("C", ("--network_in", "w.net"), "--network_in starts stage C with --regressor transposenet only"),
        ("C", ("--width", 12), "--width must be a multiple of 8, got 12"),
        ("C", ("--img_normalize", "rural"), "unknown --img_normalize 'rural'"),
        ("B", (), "unknown stage 'B'; choose from"),
        ("T", ("--data_ispaired", "--paired_share", 0.5), "contradict each other"),
    ],
)
def test_refused_options(tmp_path, stage, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        stage_options(tmp_path, stage, *arguments)


def test_a_loss_that_is_not_finite_is_passed_over(tmp_path, monkeypatch, caplog):
    root = write_scene(tmp_path)
    cls = STAGE_CLASSES["C"]
    original, calls = cls._prepared, []

    def prepared(self, *arguments):
        batch = original(self, *arguments)
        calls.append(1)
        if len(calls) == 5:
            batch.images_B3HW[:] = float("nan")
        return batch

    monkeypatch.setattr(cls, "_prepared", prepared)
    train_stage(stage_options(root, "C", *SMALL))
    state = torch.load(project(root) / "C" / "resume_state.pt", weights_only=True)
    assert state["failures"] == 1 and len(state["passed_over"]) == 1
    assert "back to the state after" in caplog.text
    assert all(torch.isfinite(v).all() for v in state["networks"]["C"].values())


def test_our_own_network_takes_the_regressors_place(trained, tmp_path):
    """C from weights as this project's training leaves them; the chain ends with it."""
    root = copied(trained, tmp_path, without=["C", "I", "joint", "finetune", "translated"])
    words = (*SMALL, "--regressor", "transposenet", "--tiny", "--total_epoch_num", 1)
    train_stage(stage_options(root, "C", *words))
    best = best_path(project(root) / "C", "C")
    before = load_best(project(root), "C", "C", CPU)
    spread = read_record(project(root) / "C" / "training.json").statistics.coord_spread
    assert head_scale_of(before) == spread > 1  # joint training goes on in the units that C was trained in
    weights = tmp_path / "model.net"
    save_network(before, weights)
    options = stage_options(root, "C", *words, "--project_name", "again", "--network_in", weights, "-lr", 1e-12)
    again = train_stage(options)
    assert [p.role for p in read_record(again.output / "training.json").parents] == ["--network_in"]
    old, new = load_state_dict(best), load_state_dict(best_path(again.output, "C"))
    assert all(torch.allclose(old[key], new[key], atol=1e-5) for key in old)
    train_stage(stage_options(root, "I", *words))
    record = read_record(project(root) / "I" / "training.json")
    assert record.options["perceptual"] == available_source()
    chain, height = load_chain(project(root), "C", CPU)
    assert height == 64 and chain(torch.rand(1, 3, 64, 96))[0].shape == (1, 3, 8, 12)


def test_features_are_those_that_the_machine_has(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert available_source() == OWN
    vgg_weights_file().parent.mkdir()
    vgg_weights_file().write_bytes(b"no weights")
    assert available_source() == VGG
    options = stage_options(copied(trained, tmp_path, without=["I"]), "I", *SMALL)
    with pytest.raises(ValueError, match=r"weights of VGG-19 .*vgg19-.*\.pth cannot be read"):
        train_stage(options)


def test_translated_photos(trained, tmp_path):
    source, target = trained / "scene" / "train_drone_real", project(trained) / "translated" / "train_drone_real"
    check_translated(project(trained), source)
    for name in ("poses", "calibration", "init"):
        assert {p.name: p.read_bytes() for p in (source / name).iterdir()} == {
            p.name: p.read_bytes() for p in (target / name).iterdir()
        }
    dataset = SectionDataset([source], "coord", 64)
    translation = load_translation(project(trained), CPU)
    for index, files in enumerate(dataset.files):
        result = translated_photo(translation, dataset, index, CPU, "float32")
        assert set(result.mask_B1HW.unique().tolist()) <= {0.0, 1.0}
        mask = result.mask_B1HW
        expected = mask * result.styled_B3HW + (1 - mask) * result.inpainted_B3HW
        written = decode_image(target / "rgb" / files.image.name)
        assert np.abs(written / 255 - expected[0].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
        assert result.styled_B3HW.min() >= 0 and result.styled_B3HW.max() <= 1
    before = {p: p.stat().st_mtime_ns for p in target.rglob("*.png")}
    generate(project(trained), source, CPU)  # made from the same: nothing to do
    assert {p: p.stat().st_mtime_ns for p in target.rglob("*.png")} == before
    draw_photos(project(trained), source, CPU, tmp_path / "photos.png", count=2)
    assert decode_image(tmp_path / "photos.png").shape == (2 * 66 + 2, 4 * 98 + 2, 3)


def test_photos_keep_their_stored_size(trained, tmp_path):
    """Translated at 64 px, stored as the labels' grid wants them."""
    section = tmp_path / "large"
    write_plane_section(section, 1, height=128, width=192, focal=128)
    shutil.copytree(project(trained), tmp_path / "project")
    made = generate(tmp_path / "project", section, CPU)
    assert decode_image(next((made / "rgb").iterdir())).shape == (128, 192, 3)
    assert len(SectionDataset([made], "coord", 64)) == 1


def test_labels_keep_their_digits_in_bf16(tmp_path):
    """Photos larger than the network's images: labels are resampled, by training and by its validation."""
    for name, count in (("train_drone_real", 2), ("train_sim", 2), ("val_drone_real", 1), ("val_drone_sim", 1)):
        write_plane_section(tmp_path / "scene" / name, count, height=128, width=192, focal=128)
    words = [*SMALL, "--precision", "bf16", "--total_epoch_num", 1, "--regressor", "transposenet", "--tiny"]
    run = train_stage(stage_options(tmp_path, "C", *words))
    (entry,) = json.loads((run.output / "validation.json").read_text())
    assert entry["figures"]["median coordinate error (m)"] > 0


def test_the_common_report(trained):
    options = ChainOptions(
        scene="scene", datasets_dir=trained, exp_dir=trained / "out", section=("val_drone_real",), device="cpu"
    )
    (block,) = evaluate_chain(options)
    folder = project(trained) / "finetune"
    assert block in (folder / "results_best_C.pth_task_coord.txt").read_text()
    (entry,) = json.loads((folder / "results_best_C.pth_task_coord.json").read_text())["evaluations"]
    assert entry["settings"]["chain"].keys() == {"joint/C", "joint/A", "T/T", "I/I"}
    # The validation that chose these weights looked at the same photos with the same solver.
    scores = [Score({k: math.inf if v is None else v for k, v in e["figures"].items()})
              for e in json.loads((folder / "validation.json").read_text())]  # fmt: skip
    found = entry["summary"]["coord_error_m"]["median"]
    assert found == pytest.approx(list(min(scores).figures.values())[1], rel=1e-3)
    assert (folder / "val_drone_real_best_C.pth_task_coord.csv").is_file()


@pytest.mark.parametrize(
    "program, arguments, message",
    [
        (train_ddloc, ["T", "scene", "--image_height", "64"], "section folder not found: "),
        (train_ddloc, ["X", "scene"], "unknown stage 'X'"),
        (generate_translated, ["scene", "--section", "train_drone_real"], "scene folder not found: "),
        (eval_ddloc, ["scene"], "stage finetune is not finished in "),
        (eval_ddloc, ["scene", "--stage", "T"], "unknown --stage 'T'"),
    ],
)
def test_commands_refuse_in_one_line(tmp_path, monkeypatch, capsys, program, arguments, message):
    folders = ["--datasets_dir", str(tmp_path), "--exp_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["program", *arguments, *folders])
    assert program.main() == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "out").exists()


def test_the_picture_comes_from_the_command(trained, tmp_path, monkeypatch, capsys):
    root = copied(trained, tmp_path)
    words = ["scene", "--datasets_dir", root, "--exp_dir", root / "out", "--picture", root / "photos.jpg", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    assert generate_translated.main() == 0
    assert "translated: " in capsys.readouterr().out and decode_image(root / "photos.jpg").shape[2] == 3


def test_options_of_the_stages_are_known():
    assert set(OF_STAGE) <= set(STAGES) == set(STAGE_CLASSES)
