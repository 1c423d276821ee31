"""Presets: values of what the command line leaves out; and images that are small at first."""

import argparse

import pytest
import torch

import training.loop as loop
from records.options import deciding
from runs import read_record
from runs.record import RECORD_NAME
from tests.training.small_runs import SMALL, flat, options, parsed
from training.loop import train
from training.options import add_decoder_arguments, decoder_options_from
from training.presets import PRESETS
from training.schedule import image_scale


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_all_of_its_values_and_nothing_else(preset):
    plain, chosen = flat(parsed()), flat(parsed("--preset", preset))
    assert chosen == plain | PRESETS[preset] | {"preset": preset}


@pytest.mark.parametrize(
    "words",
    [
        # Every one of these is what the option would be without a preset.
        ["--preset", "fast", "--epochs", "50", "--scale_range", "0.6", "1.5", "-lr", "2e-4", "--jitter", "0.1"],
        ["--epochs", "50", "--scale_range", "0.6", "1.5", "-lr", "2e-4", "--jitter", "0.1", "--preset", "fast"],
    ],
)
def test_what_the_command_line_names_wins_wherever_it_stands(words):
    values = flat(parsed(*words))
    assert [values[name] for name in ("epochs", "scale_range", "learningrate", "jitter")] == [50, (0.6, 1.5), 2e-4, 0.1]
    assert values["optimizer"] == "muon" and values["max_tilt"] == 3.0  # the preset's


def test_an_unknown_preset_is_refused_by_name():
    with pytest.raises(ValueError, match=r"unknown --preset 'slow'; choose from \['fast'\]"):
        parsed("--preset", "slow")


def test_a_preset_holds_for_the_decoder_too():
    parser = argparse.ArgumentParser()
    add_decoder_arguments(parser)
    weights = [word for task in ("coord", "depth", "normal", "semantics") for word in (f"--{task}_weight", "w.net")]
    args = parser.parse_args(["town", "--task", "coord", *weights, "--preset", "fast"])
    assert decoder_options_from(args).optimizer == "muon"


def test_the_fast_preset_augments_and_weighs_as_the_quickstart_does(repository):
    recipe = (repository / "setup" / "miniature_recipe.txt").read_text().split()
    quickstart = deciding(parsed(*recipe))
    same = [name for name in PRESETS["fast"] if f"--{name}" in recipe]
    assert len(same) == sum(word.startswith("--") for word in recipe)
    assert {name: PRESETS["fast"][name] for name in same} == {name: quickstart[name] for name in same}


def test_the_record_keeps_the_preset_and_what_it_said(tmp_path, plane_section):
    plane_section(2)
    run = train(options(tmp_path, *SMALL, "--preset", "fast", "--epochs", 1, "--start_scale", 0.5))
    record = read_record(run.checkpoints / RECORD_NAME)
    kept = {name: record.options[name] for name in ("preset", "start_scale", "optimizer", "epochs", "batch_size")}
    assert kept == {"preset": "fast", "start_scale": 0.5, "optimizer": "muon", "epochs": 1, "batch_size": 2}
    assert record.preprocessing.image_height == 32  # the flag's, not the preset's


def test_images_are_small_in_the_first_half():
    assert [image_scale(0.5, progress) for progress in (0.0, 0.499, 0.5, 1.0)] == [0.5, 0.5, 1.0, 1.0]
    assert [image_scale(None, progress) for progress in (0.0, 1.0)] == [1.0, 1.0]


@pytest.mark.parametrize("value", ["0", "1.01", "nan"])
def test_a_start_scale_out_of_bounds_is_named(value):
    with pytest.raises(ValueError, match=rf"--start_scale must lie in \(0, 1\], got {value}"):
        parsed("--start_scale", value)


def test_the_loop_trains_on_small_images_first_and_resumes_to_the_same_bits(tmp_path, plane_section, monkeypatch):
    plane_section(4)
    arguments = [*SMALL, "--image_height", 64, "--start_scale", 0.5, "--scale_range", 1, 1, "--epochs", 2]
    heights, original = [], loop.prepare_for_training

    def prepared(*args):
        batch = original(*args)
        heights.append(batch.images_B3HW.shape[2])
        assert batch.labels_BChw.shape[2] == batch.images_B3HW.shape[2] // 8
        if stop_at == len(heights):
            raise ValueError("the disk is on fire")
        return batch

    monkeypatch.setattr(loop, "prepare_for_training", prepared)
    stop_at = 0
    whole = train(options(tmp_path, *arguments, "--session", "whole"))
    assert heights == [32, 32, 64, 64]
    heights.clear()
    stop_at = 2
    with pytest.raises(ValueError, match="on fire"):
        train(options(tmp_path, *arguments, "--session", "parts"))
    stop_at = 0
    parts = train(options(tmp_path, *arguments, "--session", "parts", "--auto_resume"))
    assert heights == [32, 32, 32, 64, 64]  # the step that failed once more
    names = [max(run.checkpoints.glob("ckpt_iter_*.net")) for run in (whole, parts)]
    first, second = (torch.load(name, weights_only=True) for name in names)
    assert all(torch.equal(first[key], second[key]) for key in first)
