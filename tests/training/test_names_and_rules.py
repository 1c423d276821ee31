"""Names of runs, rules of flags and where runs go on, without a training."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

import training.run_folder as run_folder
from tests.evaluation.conftest import make_record
from tests.kept import assert_kept
from training.curriculum import Stage, _Attempts, _cells, _images_seen, _journal, _number, _state, _validates
from training.names import run_name
from training.options import (
    DecoderOptions,
    RefinementOptions,
    TrainingOptions,
    add_arguments,
    add_decoder_arguments,
    decoder_options_from,
    options_from,
)
from training.run_folder import DONE_FLAG, RunFolder, check_same_run

WEIGHTS = {f"{task}_weight": "w.net" for task in ("coord", "depth", "normal", "semantics")}


def made(cls=TrainingOptions, **of):
    return cls(**{"scene": "town", "task": "coord", "lr_schedule": "step", **of})


def test_names_of_all_kinds_of_runs():
    pairs = {"sim_data_chunk": 0.0, "real_data_chunk": 0.5}
    chosen = [
        made(real_data_chunk=0.0, sim_data_chunk=0.333), made(**pairs),
        made(**pairs, real_only=True, real_data_domain="out_of_place"),
        made(tiny=True, fullsize=True, grayscale=True, debug=True, uncertainty="mle", session="a b"),
        made(network_in="w.net", learningrate=1e-4), made(learningrate=9.9e-5), made(learningrate=0.5, epochs=7),
        made(RefinementOptions, network_in="w.net"), made(RefinementOptions, network_in="w.net", real_data_chunk=0.0),
        made(DecoderOptions, **WEIGHTS), made(DecoderOptions, **WEIGHTS, reuse_coord_encoder=True, tiny=True, debug=True),
        made(DecoderOptions, **WEIGHTS, reuse_coord_encoder=True, unfreeze_coord_encoder=True,
             encoders=("coord", "semantics")),
        made(DecoderOptions, **WEIGHTS, encoders=("coord",), real_data_chunk=0.0, session="x-ft0.00", network_in="w.net"),
        made(DecoderOptions, **WEIGHTS, encoders=("coord",), real_data_chunk=0.0, sim_data_chunk=1.0),
        made(DecoderOptions, **WEIGHTS, real_only=True, real_data_domain="out_of_place"),
    ]  # fmt: skip
    assert_kept("run-names", [[run_name(options), run_name(options, epochs="N")] for options in chosen], exact=True)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--task semantics --uncertainty none", "^task semantics needs --fullsize$"),
        ("--task semantics --fullsize --uncertainty mle", "^task semantics supports --uncertainty none only$"),
        ("--task coord --auto_resume --epoch_plus", "^--auto_resume and --epoch_plus exclude each other$"),
        ("--task semantics --fullsize --uncertainty none", None), ("--task depth --auto_resume", None),
        ("--task depth --epoch_plus", None),
    ],
)  # fmt: skip
def test_rules_of_a_training(words, message):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["town", *words.split()])
    if message is None:
        options_from(args)
    else:
        with pytest.raises(ValueError, match=message):
            options_from(args)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--encoders depth normal", "^--encoders must list coord, got depth normal$"),
        ("--unfreeze_coord_encoder", "^--unfreeze_coord_encoder needs --reuse_coord_encoder$"),
        ("--sim_data_chunk 0.5", r"^--real_data_chunk 1 needs --sim_data_chunk 0, got 0\.5$"),
        ("--sim_data_chunk 0.5 --real_data_chunk 0", None), ("--reuse_coord_encoder --unfreeze_coord_encoder", None),
        ("--encoders normal coord depth", None),
    ],
)  # fmt: skip
def test_rules_of_a_decoder(words, message):
    parser = argparse.ArgumentParser()
    add_decoder_arguments(parser)
    weights = [word for name in WEIGHTS for word in (f"--{name}", "w.net")]
    args = parser.parse_args(["town", "--task", "coord", *weights, *words.split()])
    if message is None:
        assert decoder_options_from(args).encoders == ("coord", "depth", "normal")
    else:
        with pytest.raises(ValueError, match=message):
            decoder_options_from(args)


def completed(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return options_from(parser.parse_args(["town", "--task", "coord", *words]))


def test_what_follows_from_several_flags(tmp_path, monkeypatch):
    assert (completed().lr_schedule, completed("--no_lr_scheduling").lr_schedule) == ("step", "constant")
    assert completed("--no_lr_scheduling", "--lr_schedule", "onecycle").lr_schedule == "onecycle"
    assert completed("--ckpt_dir", "").ckpt_dir is None and completed("--ckpt_dir", ".").ckpt_dir is None
    assert completed("--ckpt_dir", "x").ckpt_dir.name == "x" and completed().ckpt_dir is None
    monkeypatch.setenv("DATASETS_DIR", "here")
    monkeypatch.setenv("OUTPUT_DIR", "there")
    assert str(completed().datasets_dir) == "here" and str(completed().output_dir) == "there"
    monkeypatch.delenv("DATASETS_DIR"), monkeypatch.delenv("OUTPUT_DIR")
    assert str(completed().datasets_dir) == "datasets" and str(completed().output_dir) == "output"
    assert completed("--grayscale").architecture.in_channels == 1 and completed().architecture.in_channels == 3
    for value in ("-0.1", "inf", "nan"):
        with pytest.raises(ValueError, match=f"cannot be negative, got {value}"):
            completed("--cache_gb", value)


# ---- where a run goes on


def test_another_run_is_told_by_every_difference(tmp_path, caplog):
    run = RunFolder(tmp_path, tmp_path)
    before = make_record("r", software={"torch": "1", "numpy": "1", "gone": "1"})
    check_same_run(before, replace(before, software={"torch": "1", "numpy": "1", "new": "2"}), run)
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        check_same_run(before, replace(before, software={"torch": "2", "numpy": "1"}), run)
    assert "continues with other software (torch 1 -> 2): the last bits" in caplog.text
    other = replace(before, options={**before.options, "seed": 1, "session": "x"})
    with pytest.raises(
        ValueError, match=r"holds another run of this name: --\w+ was .*; --\w+ was .*\. Ask .* own with --name"
    ):
        check_same_run(before, other, run, name_flag="--name")
    check_same_run(before, replace(before, options={**before.options, "seed": 1}), run, ignore=("seed",))


def test_the_longest_finished_run_is_extended(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "load_state", lambda path: {"of": path.parent.name})
    options = made(epochs=30, output_dir=tmp_path / "out", ckpt_dir=tmp_path / "ckpt", epoch_plus=True)
    name = run_name(options)
    with pytest.raises(FileNotFoundError, match=f"--epoch_plus: no finished run like {name} with fewer epochs in .*ckpt$"):
        run_folder._predecessor(options, None)
    for epochs, done in ((9, True), (20, True), (25, False), (30, True), (40, True)):
        folder = tmp_path / "ckpt" / run_name(options, epochs=epochs)
        folder.mkdir(parents=True)
        (folder / (DONE_FLAG if done else "x")).touch()
    (tmp_path / "ckpt" / f"{name}-more").mkdir()
    found = run_folder._predecessor(options, None)
    assert found.checkpoints.name == run_name(options, epochs=20) and found.output.parent.name == "out"
    with pytest.raises(FileNotFoundError, match="holds neither a training state nor weights"):
        run_folder._extended(found, None)
    found.state.touch()
    start = run_folder._extended(found, None)
    assert start.state == {"of": found.checkpoints.name} and start.logs_from == found.output
    fresh = replace(options, session="new")
    (tmp_path / "ckpt" / run_name(fresh, epochs=3)).mkdir()
    (tmp_path / "ckpt" / run_name(fresh, epochs=3) / DONE_FLAG).touch()
    (tmp_path / "ckpt" / run_name(fresh, epochs=3) / "resume_state.pt").touch()
    run, start = run_folder.choose_start(fresh, run_folder.folder_of(fresh), SimpleNamespace(name="r"))
    assert run.latest_name == "model_epoch_plus_resume.net" and start.state is not None


# ---- the table of a curriculum


def test_states_of_stages():
    done, failed, stopped, never = (_Attempts(5, status) for status in (0, 2, 130, None))
    for attempts, finished, state in (
        ((done,), True, "done"), ((done,), False, "open"), ((done, never), True, "open"), ((done, failed), True, "failed"),
        ((stopped, failed), True, "interrupted"), ((never,), True, "open"), ((done, done), True, "done"),
    ):  # fmt: skip
        assert _state(*attempts, done=finished) == state, (attempts, finished)


def test_journals_logs_and_cells(tmp_path):
    (tmp_path / "j").write_text("a,1,100,2\nb,1,x,0\na,2,30,0\nb,1,7\nc,1,5,130\n\n")
    assert _journal(tmp_path / "j") == {"a": _Attempts(130, 0), "c": _Attempts(5, 130)}
    assert _journal(tmp_path / "none") == {} and _images_seen(tmp_path / "none") is None
    (tmp_path / "log").write_text("images_seen,epoch\n4,0\n8,1\n9")
    assert _images_seen(tmp_path / "log") == 8
    assert _validates("validate decoder", "decoder crossloc") and _validates("validate a b", "a b")
    assert not _validates("validate decoder x", "decoder crossloc") and not _validates("test a", "a")
    assert not _validates("validate deco", "decoder crossloc")
    assert (_number(1.23456), _number(float("inf"))) == ("1.235", "none")
    bare = Stage("s", "open", None, None)
    assert list(_cells(bare)) == ["s", "open", "", "", "", "", ""]
    full = Stage("s", "done", 3661, 59, 1234567, tmp_path / "run" / "model.net", "error", 1.5, "m", "val")
    assert list(_cells(full)) == ["s", "done", "1:01:01", "0:00:59", "1,234,567", "error 1.500 m on val", "run/model.net"]
    assert list(_cells(replace(full, selected=tmp_path / "ckpt_iter_1.net")))[-1] == "ckpt_iter_1.net"
