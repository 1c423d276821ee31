"""The flags of the test and selection commands."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import pytest

from evaluation.options import SHORT_FLAGS, EvaluationOptions, parse_options, without_keywords
from localization.solving import SolverOptions


def test_every_published_flag_arrives_where_it_belongs():
    options = parse_options(
        [
            "town",
            "--task",
            "coord",
            "--section",
            "val_sim",
            "real_all",
            "--network_in",
            "w/model.net",
            "--grayscale",
            "--tiny",
            "--fullsize",
            "--uncertainty",
            "MLE",
            "--session",
            "s1",
            "--min_ckpt_iter",
            "1600000",
            "--max_ckpt_iter",
            "1e99",
            "--keywords",
            "town",
            "-tiny",
            "--plot",
            "--save_pred",
            "--hypotheses",
            "65",
            "--threshold",
            "11",
            "--inlieralpha",
            "101",
            "--maxpixelerror",
            "102",
        ]
    )
    assert (options.scene, options.task, options.section) == ("town", "coord", ("val_sim", "real_all"))
    assert options.network_in == Path("w/model.net") and options.search_dir is None
    assert options.asserted == {"in_channels": 1, "tiny": True, "fullsize": True, "uncertainty": "mle"}
    assert (options.session, options.min_ckpt_iter, options.max_ckpt_iter) == ("s1", 1600000, 1e99)
    assert options.runs.keywords == ("town", "-tiny") and options.plot and options.save_pred
    assert options.solver == SolverOptions("dsacstar", 65, 11.0, 101.0, 102.0, 2021)
    short = parse_options(["town", "--task", "coord", "-hyps", "3", "-t", "4", "-ia", "5", "-maxerrr", "6", "-sid", "s2"])
    assert short.solver == SolverOptions(hypotheses=3, threshold=4.0, inlieralpha=5.0, maxpixelerror=6.0)
    assert short.session == "s2"


def test_defaults_are_the_published_ones(monkeypatch):
    monkeypatch.setenv("DATASETS_DIR", "elsewhere")
    options = parse_options(["town", "--task", "depth"])
    assert options.section == ("val_drone_sim", "val_drone_real") and options.scene_dir == Path("elsewhere/town")
    assert options.solver == SolverOptions("dsacstar", 64, 10.0, 100.0, 100.0, 2021)
    assert options.asserted == {} and options.precision is None and options.image_height is None
    # Published: evaluation reads the plain scene folder, for full-size networks too.
    assert parse_options(["town", "--task", "depth", "--fullsize"]).scene_dir == Path("elsewhere/town")


def test_search_dir_is_a_switch_or_a_folder():
    assert parse_options(["town", "--task", "coord", "--search_dir", "--network_in", "runs"]).search_dir == ""
    assert parse_options(["town", "--task", "coord", "--search_dir", "runs", "--tiny"]).search_dir == "runs"


def test_a_search_is_for_the_scene_the_task_and_what_else_is_asked_for():
    options = parse_options([
        "town-fullsize", "--task", "coord", "--search_dir", "runs", "--stage", "finetune", "--kind", "pairs", "--domain",
        "out_of_place", "--size", "full", "--keywords", "a", "!b",
    ])  # fmt: skip
    assert vars(options.criteria) == {
        "scene": "town", "task": "coord", "stage": "finetune", "kind": "pairs", "domain": "out_of_place", "size": "full",
        "keywords": ("a", "!b"),
    }  # fmt: skip
    assert parse_options(["town", "--task", "coord", "--search_dir", "runs", "--tiny"]).criteria.size == "tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "pose"], "--task 'pose'.*coord"),
        (["--task", "coord", "--uncertainty", "laplace"], "--uncertainty 'laplace'.*mle"),
        (["--task", "coord", "--solver", "pnp"], "--solver 'pnp'.*published"),
        (["--task", "coord", "--precision", "half"], "--precision 'half'.*bf16"),
        (["--task", "coord", "--stage", "second"], "--stage 'second'.*finetune"),
        (["--task", "coord", "--hypotheses", "0"], "--hypotheses must be positive, got 0"),
        (["--task", "coord", "--threshold", "nan"], "--threshold"),
        (["--task", "coord", "--min_ckpt_iter", "nan"], "--min_ckpt_iter"),
        (["--task", "coord", "--num_workers", "-1"], "--num_workers"),
        (["--task", "coord", "--image_height", "0"], "--image_height"),
        (["--task", "coord", "--overview", "o.png", "--section", "a", "b"], "one section"),
        (["--task", "depth", "--overview", "o.png", "--section", "a"], "coord task"),
        (["--task", "coord", "--tiny", "--size", "full"], "--tiny and --size full"),
        (["--task", "coord", "--threshold", "200"], "--maxpixelerror 100 is below --threshold 200"),
        (["--task", "coord", "--error_bound", "3"], "--error_bound is for --calibrate"),
        (
            ["--task", "coord", "--section", "validation", "--calibrate", "--solver", "published"],
            "calibrate with --solver dsacstar",
        ),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse_options(["town", *arguments])


def test_keywords_may_begin_with_a_dash():
    flags = ("-t",)
    assert without_keywords(["town", "--keywords", "coord", "-tiny", "--plot", "-t", "3"], flags) == (
        ["town", "--plot", "-t", "3"], ("coord", "-tiny"),
    )  # fmt: skip
    assert without_keywords(["--keywords", "a", "-t", "3", "-tiny"], flags) == (["-t", "3", "-tiny"], ("a",))
    assert without_keywords(["--keywords=-tiny", "--keywords", "b", "-t=3"], flags) == (["-t=3"], ("-tiny", "b"))
    assert without_keywords(["--keywords", "--plot"], flags) == (["--keywords", "--plot"], ())
    with pytest.raises(SystemExit):
        parse_options(["town", "--task", "coord", "--keywords"])


def test_no_short_flag_is_taken_for_a_keyword():
    declared = [
        flag for cls in (EvaluationOptions, SolverOptions) for field in fields(cls) if "option" in field.metadata
        for flag in field.metadata["option"].flags
    ]  # fmt: skip
    assert set(SHORT_FLAGS) == {"-h", *declared}


def test_infinite_ranges_are_allowed():
    assert parse_options(["town", "--task", "coord", "--max_ckpt_iter", "inf"]).max_ckpt_iter == math.inf
