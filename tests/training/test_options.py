"""What the training commands are told: defaults, bounds, and what of it decides the result."""

from __future__ import annotations

import argparse
from dataclasses import fields, is_dataclass, replace

import pytest

from records.options import deciding
from runs.record import RunRecord
from tests.training import small_runs
from tests.training.small_runs import flat, parsed
from training.loop import train
from training.options import (
    add_decoder_arguments,
    add_refinement_arguments,
    refinement_options_from,
)
from training.state import Position, load_state, save_contents

DEFAULTS = {
    "sim_data_chunk": 1.0, "real_data_chunk": 1.0, "real_data_domain": "in_place", "real_only": False, "real_share": None,
    "batch_size": 4, "grayscale": False, "image_height": None, "num_workers": None, "cache_gb": 4.0, "network_in": None,
    "tiny": False, "fullsize": False, "uncertainty": "none", "epochs": 50, "optimizer": "adam", "learningrate": 0.0002,
    "no_lr_scheduling": False, "lr_schedule": "step", "depth_relative": False, "device": "auto", "precision": "auto",
    "compile": False, "seed": 2021, "session": "", "ckpt_dir": None, "auto_resume": False, "epoch_plus": False,
    "debug": False, "preset": None, "start_scale": None,
    # The published augmentation and thresholds, metres and pixels.
    "scale_range": (2 / 3, 1.5), "max_angle": 30.0, "max_tilt": 0.0, "max_shift": 0.0, "jitter": 0.1, "colour_jitter": 0.0,
    "shading": 0.0, "inittolerance": 50.0, "mindepth": 0.1, "softclamp": 100.0, "hardclamp": 1000.0,
}  # fmt: skip
# How a run is carried out, and where its files lie: may change between two parts of one run.
IRRELEVANT = {
    "datasets_dir", "num_workers", "cache_gb", "network_in", "device", "compile", "output_dir", "ckpt_dir", "auto_resume",
    "epoch_plus", "debug", "image_height", "no_lr_scheduling",
}  # fmt: skip


def test_defaults():
    values = flat(parsed())
    assert {name: values[name] for name in DEFAULTS} == DEFAULTS
    assert values.keys() - DEFAULTS.keys() <= {"scene", "task", "datasets_dir", "output_dir", "gradclip", "softness"}


def test_what_may_change_between_two_parts_of_a_run():
    options = parsed()
    names = {field.name for field in fields(options) if not is_dataclass(getattr(options, field.name))}
    assert names - deciding(options).keys() == IRRELEVANT


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sim_data_chunk", "1.5"], "--sim_data_chunk.*1.5"),
        (["--sim_data_chunk", "-0.5"], "--sim_data_chunk.*-0.5"),
        (["--real_data_chunk", "1.01"], "--real_data_chunk.*1.01"),
        (["--real_share", "2"], "--real_share.*2"),
        (["--batch_size", "0"], "--batch_size.*0"),
        (["--epochs", "0"], "--epochs.*0"),
        (["--learningrate", "0"], "--learningrate.*0"),
        (["--learningrate", "nan"], "--learningrate.*nan"),
        (["--seed", "-1"], "--seed.*-1"),
        (["--uncertainty", "MAP"], "--uncertainty.*map"),
        (["--auto_resume", "--epoch_plus"], "--auto_resume and --epoch_plus exclude each other"),
    ],
)
def test_values_out_of_bounds_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        parsed(*arguments)


@pytest.mark.parametrize("arguments", [["--sim_data_chunk", "0"], ["--sim_data_chunk", "1"], ["--real_share", "1"]])
def test_the_bounds_themselves_are_allowed(arguments):
    assert flat(parsed(*arguments))[arguments[0].removeprefix("--")] == float(arguments[1])


def test_refinement_and_decoder_train_on_pairs_unless_told():
    for add in (add_decoder_arguments, add_refinement_arguments):
        parser = argparse.ArgumentParser()
        add(parser)
        assert parser.get_default("sim_data_chunk") in (None, 0.0)
    with pytest.raises(ValueError, match="poses come out of the task coord, not of depth"):
        parsed("--task", "depth", "--network_in", "w.net", add=add_refinement_arguments, complete=refinement_options_from)
    with pytest.raises(FileNotFoundError, match="--network_in: weights file not found: w.net"):
        parsed("--network_in", "w.net", add=add_refinement_arguments, complete=refinement_options_from)


def test_the_log_begins_with_everything_that_decides(tmp_path, plane_section):
    plane_section(3, "scene/train_sim")
    run = train(small_runs.options(tmp_path, *small_runs.SMALL, "--epochs", 2))
    text = (run.output / "output.log").read_text()
    assert "***** A new training has been started *****" in text and "Images per epoch: 3" in text
    for line in ("seed: 2021", "batch_size: 2", "learningrate: 0.0002", "sim_data_chunk: 1.0"):
        assert f"{line}\n" in text, line


def test_the_state_says_where_it_stands_in_epochs_and_batches(tmp_path, plane_section):
    plane_section(3, "scene/train_sim")
    run = train(small_runs.options(tmp_path, *small_runs.SMALL, "--epochs", 1))
    start = load_state(run.state)
    position = replace(Position(0), images_seen=5)  # the second epoch's first batch is done
    save_contents(run.state, RunRecord.from_json(start["record"], "record"), position, {})
    state = load_state(run.state)
    assert (state["images_seen"], state["epoch"], state["batch"]) == (5, 1, 1)
