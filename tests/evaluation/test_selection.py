"""The best checkpoint is chosen by JSON or by text alone, flagged and exported whole."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys

import pytest

from evaluation.checkpoints import IterationRange
from evaluation.metrics import Spread
from evaluation.reports import write_results
from evaluation.selection import export, export_path, rank, select, select_and_export
from records.fingerprint import of_file
from runs.record import record_of, write_record
from tests.evaluation.conftest import make_record, subject, write_coord

ROWS = [{"stem": "a"}]


def drop_json(folder):
    for path in folder.glob("results_*.json"):
        path.unlink()


def test_numbered_checkpoints_are_chosen_by_unrounded_figures(run_folder):
    candidates, selected = select(run_folder, "coord")
    assert [c.weights.name for c in candidates] == ["model.net", "ckpt_iter_0000020.net", "ckpt_iter_0000010.net"]
    assert selected.weights.name == "ckpt_iter_0000020.net"
    flag = run_folder / "FLAG_SELECTED_ITER_0000020.nodata"
    assert list(run_folder.glob("FLAG_*")) == [flag]
    assert flag.read_text() == "ckpt_iter_0000020.net was selected by its median position error of 2.001 m on val_sim.\n"
    assert (run_folder / "results_overall.txt").read_text() == (
        "results_ckpt_iter_0000010.net_task_coord.txt\n"
        "results_ckpt_iter_0000020.net_task_coord.txt\n"
        "results_model.net_task_coord.txt\n"
        "\n"
        "median position error (m), median rotation error (deg), 5m5deg (%), 10m7deg (%), 20m10deg (%); best first\n"
        "     1.500     1.000   100.000   100.000   100.000  model.net\n"
        "     2.001     1.000   100.000   100.000   100.000  ckpt_iter_0000020.net\n"
        "     2.004     1.000   100.000   100.000   100.000  ckpt_iter_0000010.net\n"
    )


def test_the_published_text_alone_is_enough(run_folder):
    drop_json(run_folder)
    _, selected = select(run_folder, "coord")
    assert selected.weights.name == "ckpt_iter_0000010.net"  # 2.00 both in the text: the earlier one
    assert selected.figures == (2.0, 1.0, 100.0, 100.0, 100.0)


@pytest.mark.parametrize("text_only", [False, True])
def test_the_last_block_counts_unless_a_section_is_named(run_folder, text_only):
    for name, median_m in (("ckpt_iter_0000010.net", 1.0), ("ckpt_iter_0000020.net", 3.0)):
        write_coord(run_folder, name, median_m, section="test_drone_real")
    if text_only:
        drop_json(run_folder)
    assert select(run_folder, "coord")[1].figure == 1.0
    assert select(run_folder, "coord", "val_sim")[1].figure == pytest.approx(2.001, abs=0.002)
    with pytest.raises(FileNotFoundError, match="val_drone_real"):
        rank(run_folder, "coord", "val_drone_real")


def test_a_new_selection_replaces_the_old_flag(run_folder):
    select(run_folder, "coord")
    write_coord(run_folder, "ckpt_iter_0000030.net", 1.0)
    select(run_folder, "coord")
    assert [p.name for p in run_folder.glob("FLAG_*")] == ["FLAG_SELECTED_ITER_0000030.nodata"]


@pytest.mark.parametrize("text_only", [False, True])
@pytest.mark.parametrize(
    ("task", "summaries", "best"),
    [
        ("depth", [(5.0, 9.0), (6.0, 2.0)], 1),
        ("normal", [(5.0,), (6.0,)], 0),
        ("semantics", [(50.0,), (60.0,)], 1),
    ],
)
def test_every_task_has_its_figure_and_direction(tmp_path, task, summaries, best, text_only):
    for index, values in enumerate(summaries):
        spreads = [Spread(0.0, 0.0, value) for value in values]
        summary = {
            "depth": lambda s: {"absolute_relative_percent": s[0], "rms_m": s[-1]},
            "normal": lambda s: {"batch_angle_deg": s[0], "angle_deg": Spread(0.0, 0.0, -s[0].median)},
            "semantics": lambda s: dict.fromkeys(("mean_iou", "pixel_accuracy", "frequency_weighted_iou"), s[0]),
        }[task](spreads)
        weights = tmp_path / f"ckpt_iter_{index:07d}.net"
        weights.write_bytes(b"weights")
        write_results(weights, task, subject(weights), summary, ROWS)
    if text_only:
        drop_json(tmp_path)
    assert select(tmp_path, task)[1].iteration == best


def test_a_run_that_never_found_a_pose_loses(run_folder):
    write_coord(run_folder, "ckpt_iter_0000001.net", float("inf"))
    assert [c.iteration for c in rank(run_folder, "coord")][-1] == 1
    drop_json(run_folder)
    assert [c.iteration for c in rank(run_folder, "coord")][-1] == 1


def test_a_choice_without_any_pose_is_warned_of(tmp_path, caplog):
    write_coord(tmp_path, "ckpt_iter_0000001.net", float("inf"))
    select(tmp_path, "coord")
    assert "no checkpoint has a finite median position error" in caplog.text


@pytest.mark.parametrize("text_only", [False, True])
def test_equals_are_told_apart_by_their_coordinates_then_by_age(tmp_path, text_only):
    for iteration, coord_m in ((10, 60.0), (20, 40.0), (30, 40.0)):
        write_coord(tmp_path, f"ckpt_iter_{iteration:07d}.net", float("inf"), coord_m=coord_m)
    if text_only:
        drop_json(tmp_path)
    assert [c.iteration for c in rank(tmp_path, "coord")] == [20, 30, 10]


def test_a_semantics_figure_that_is_not_finite_loses_in_the_text_too(tmp_path):
    for index, value in enumerate((float("nan"), 60.0)):
        spread = Spread(0.0, 0.0, value)
        summary = dict.fromkeys(("mean_iou", "pixel_accuracy", "frequency_weighted_iou"), spread)
        weights = tmp_path / f"ckpt_iter_{index:07d}.net"
        weights.write_bytes(b"weights")
        write_results(weights, "semantics", subject(weights), summary, ROWS)
    assert [c.iteration for c in rank(tmp_path, "semantics")] == [1, 0]
    drop_json(tmp_path)
    assert [c.iteration for c in rank(tmp_path, "semantics")] == [1, 0]


def test_a_range_of_iterations_narrows_the_choice(run_folder):
    assert [c.iteration for c in rank(run_folder, "coord", None, IterationRange(10))] == [20]
    assert [c.iteration for c in rank(run_folder, "coord", None, IterationRange(5, 20))] == [10]
    assert [c.iteration for c in rank(run_folder, "coord", None, IterationRange(0, 1e99))] == [20, 10]
    with pytest.raises(FileNotFoundError, match="beyond 20"):
        rank(run_folder, "coord", None, IterationRange(20))


def test_results_of_replaced_weights_do_not_count(run_folder, caplog):
    (run_folder / "ckpt_iter_0000020.net").write_bytes(b"trained again")
    candidates, selected = select(run_folder, "coord")
    assert selected.iteration == 10 and len(candidates) == 2
    assert "other weights" in caplog.text and "ckpt_iter_0000020.net" in caplog.text
    write_coord(run_folder, "ckpt_iter_0000020.net", 1.0)
    assert select(run_folder, "coord")[1].iteration == 20
    for path in run_folder.glob("*.net"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="none is of the weights as they are now"):
        rank(run_folder, "coord")


def test_only_results_on_the_newest_content_of_the_section_are_compared(run_folder, caplog):
    write_coord(run_folder, "ckpt_iter_0000010.net", 9.0, content="c1")
    candidates = rank(run_folder, "coord", "val_sim")
    assert [(c.iteration, c.figure, c.content) for c in candidates] == [(10, 9.0, "c1")]
    assert "another content" in caplog.text and "ckpt_iter_0000020.net" in caplog.text and "model.net" in caplog.text
    write_coord(run_folder, "ckpt_iter_0000020.net", 8.0, content="c1")
    assert [c.iteration for c in rank(run_folder, "coord", "val_sim")] == [20, 10]


def test_results_with_settings_of_their_own_are_passed_over(run_folder, caplog):
    write_coord(run_folder, "ckpt_iter_0000010.net", 0.1, settings={"seed": 2})
    write_coord(run_folder, "ckpt_iter_0000030.net", 0.1, settings={"seed": 2})
    candidates = rank(run_folder, "coord")
    assert [(c.iteration, round(c.figure, 3)) for c in candidates] == [(None, 1.5), (20, 2.001), (10, 2.004)]
    assert "other settings" in caplog.text and "ckpt_iter_0000030.net" in caplog.text


def test_results_without_fingerprints_give_way_to_those_with(run_folder, caplog):
    (run_folder / "results_ckpt_iter_0000020.net_task_coord.json").unlink()
    assert [c.iteration for c in rank(run_folder, "coord")] == [None, 10]
    assert "without fingerprints" in caplog.text


def test_export_takes_the_record_along_bound_to_the_weights(run_folder, tmp_path):
    template = str(tmp_path / "w/{scene}{partial}/{real_domain}/{domain}/{task}/model-sc-{sim_chunk:.2f}-{seed}.net")
    target = export_path(template, run_folder / "model.net")
    assert target == tmp_path / "w/town-partial-finetuning-0.50/in_place/in_place/coord/model-sc-1.00-2021.net"
    for name in ("ckpt_iter_0000010.net", "model.net"):
        export(run_folder / name, target)
        assert target.read_bytes() == name.encode()
        assert record_of(target) == record_of(run_folder / name)
        sidecar = json.loads(target.with_suffix(".json").read_text())
        assert sidecar["weights_fingerprint"] == of_file(target) and sidecar["scene"] == "town"
        assert sorted(p.name for p in target.parent.iterdir()) == [target.with_suffix(".json").name, target.name]
    (run_folder / "training.json").unlink()
    export(run_folder / "model.net", target)
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_an_interrupted_export_leaves_no_wrong_record(run_folder, tmp_path, monkeypatch):
    target = tmp_path / "out.net"
    export(run_folder / "ckpt_iter_0000010.net", target)
    (run_folder / "ckpt_iter_0000020.net").write_bytes(b"other weights")
    replace = __import__("os").replace

    def fail_at_the_weights(source, destination):
        if destination == target:
            raise OSError("disk gone")
        replace(source, destination)

    monkeypatch.setattr("evaluation.selection.os.replace", fail_at_the_weights)
    with pytest.raises(OSError, match="disk gone"):
        export(run_folder / "ckpt_iter_0000020.net", target)
    assert target.read_bytes() == b"ckpt_iter_0000010.net" and not list(tmp_path.glob(".part-*"))
    with pytest.raises(ValueError, match="the file was replaced"):
        record_of(target)


@pytest.mark.parametrize(
    ("changes", "template", "message"),
    [
        ({"sim_chunk": None}, "{scene}/model-sc-{sim_chunk:.2f}.net", "does not know its sim_chunk; give --export a path"),
        ({"domain": None}, "{real_domain}.net", "does not know its real_domain"),
        ({}, "{weather}.net", "weather"),
        ({}, "{scene:.2f}.net", "scene"),
        (None, "model-sc-{sim_chunk:.2f}.net", r"no record.*give --export a path without braces"),
    ],
)
def test_what_the_record_does_not_know_is_not_guessed(run_folder, changes, template, message):
    if changes is None:
        (run_folder / "training.json").unlink()
    else:
        write_record(
            run_folder, make_record(run_folder.name, **{"scene": "town", "kind": "pairs", "domain": "in_place", **changes})
        )
    with pytest.raises(ValueError, match=message):
        export_path(template, run_folder / "model.net")


@pytest.mark.parametrize(("real_chunk", "expected"), [(1.0, ""), (0.0, ""), (0.25, "-partial-finetuning-0.25")])
def test_partial_says_which_share_of_the_photos(run_folder, real_chunk, expected):
    write_record(run_folder, make_record(run_folder.name, real_chunk=real_chunk))
    assert str(export_path("a{partial}.net", run_folder / "model.net")) == f"a{expected}.net"


def two_runs(tmp_path, first_m, second_m, **of_second):
    for name, median_m, of in (("run_a", first_m, {}), ("run_b", second_m, of_second)):
        folder = tmp_path / name
        folder.mkdir()
        weights = folder / "ckpt_iter_0000010.net"
        weights.write_bytes(name.encode())
        write_coord(folder, weights.name, median_m, **of)
        write_record(folder, make_record(name, scene="town"))
    return [tmp_path / "run_a", tmp_path / "run_b"]


@pytest.mark.parametrize(
    ("first_m", "second_m", "better"), [(1.0, 2.0, b"run_a"), (2.0, 1.0, b"run_b"), (1.0, 1.0, b"run_a")]
)
def test_of_two_runs_for_one_path_the_better_one_goes_there(tmp_path, first_m, second_m, better):
    said = []
    folders = two_runs(tmp_path, first_m, second_m)
    select_and_export(folders, "coord", None, str(tmp_path / "{scene}.net"), said.append)
    assert (tmp_path / "town.net").read_bytes() == better
    assert record_of(tmp_path / "town.net").name == better.decode()
    assert any("both go to" in line and f"{better.decode()}/ckpt_iter_0000010.net (1.000" in line for line in said)


def test_two_runs_for_one_path_must_have_been_evaluated_on_the_same(tmp_path):
    folders = two_runs(tmp_path, 1.0, 2.0, content="c1")
    with pytest.raises(ValueError, match="different contents"):
        select_and_export(folders, "coord", None, str(tmp_path / "{scene}.net"), print)
    assert not (tmp_path / "town.net").exists()


def test_validation_stands_for_the_section_that_fits_each_run(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    for name, kind, domain, section in (
        ("sim", "sim_only", None, "val_sim"), ("oop", "pairs", "out_of_place", "val_oop_drone_real"),
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        write_coord(folder, "ckpt_iter_0000010.net", 3.0, section)
        write_coord(folder, "ckpt_iter_0000020.net", 2.0, section)
        for weights, median_m in (("ckpt_iter_0000010.net", 0.1), ("ckpt_iter_0000020.net", 0.2)):
            write_coord(folder, weights, median_m, "val_drone_real")
        write_record(folder, make_record(name, kind=kind, domain=domain))
        select_and_export([folder], "coord", "validation", None, lambda line: None)
        assert (folder / "FLAG_SELECTED_ITER_0000020.nodata").read_text().endswith(f"on {section}.\n")


def test_bad_selections_are_refused(run_folder, tmp_path):
    with pytest.raises(ValueError, match="'weather'"):
        rank(run_folder, "weather")
    with pytest.raises(FileNotFoundError, match="test_single_task.py"):
        rank(run_folder, "depth")
    with pytest.raises(ValueError, match=r"best\.pt"):
        export(run_folder / "model.net", tmp_path / "best.pt")
    with pytest.raises(FileNotFoundError, match="gone.net"):
        export(run_folder / "gone.net", tmp_path / "best.net")
    drop_json(run_folder)
    (run_folder / "results_model.net_task_coord.txt").write_text("nothing\n")
    with pytest.raises(ValueError, match="results_model.net_task_coord.txt"):
        rank(run_folder, "coord")


def test_the_command(run_folder, repository):
    script = repository / "script_clean_validation/select_ckpt.py"
    done = subprocess.run(
        [sys.executable, str(script), "--task", "coord", "--export", "out/best.net"],
        cwd=run_folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "selected: ckpt_iter_0000020.net" in done.stdout
    assert (run_folder / "out/best.net").read_bytes() == b"ckpt_iter_0000020.net"


@pytest.fixture
def command(repository, monkeypatch, capsys):
    """Runs select_ckpt.py in this process: (exit status, output, errors)."""
    path = repository / "script_clean_validation/select_ckpt.py"
    spec = importlib.util.spec_from_file_location("select_ckpt", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(path), "--task", *map(str, arguments)])
        status = module.main()
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--keywords", "run", "-tiny"], "-tiny"),
        (["--scene", "tow"], "scene tow"),
        (["--kind", "sim_only"], "sim_only"),
        (["--domain", "out_of_place"], "out_of_place"),
        (["--size", "full"], "size full"),
        (["--stage", "decoder"], "stage decoder"),
        (["--stage", "second"], "--stage 'second'"),
    ],
)
def test_a_search_that_finds_nothing_says_for_what(run_folder, command, flags, words):
    status, _, errors = command("coord", "--search_dir", run_folder.parent, *flags)
    assert status == 2 and words in errors and errors.count("\n") == 1


def test_a_search_selects_by_record(run_folder, command):
    what = ["--scene", "town", "--stage", "finetune", "--size", "tiny", "--keywords", "run", "!-tiny"]
    status, output, _ = command("coord", "--search_dir", run_folder.parent, *what)
    assert status == 0 and "selected: ckpt_iter_0000020.net" in output
    limits = ["--min_ckpt_iter", 5, "--max_ckpt_iter", 20]
    status, output, _ = command("coord", "--search_dir", run_folder.parent, *limits, "--section", "val_sim")
    assert status == 0 and "selected: ckpt_iter_0000010.net" in output
    assert command("weather")[0] == 2
