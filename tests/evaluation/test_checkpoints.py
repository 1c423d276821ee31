"""Which weights are found, by name, keyword and iteration."""

from __future__ import annotations

import re

import pytest

from evaluation.checkpoints import CheckpointFilter, find_checkpoints, iteration_of, keywords_as_options


@pytest.fixture
def runs(tmp_path):
    for run in ("town-coord-sim_only-tiny", "town-coord-finetune", "town-depth-sim_only"):
        (tmp_path / run).mkdir()
        for name in ("model.net", "model_resume.net", "ckpt_iter_0000020.net", "ckpt_iter_0000003.net", "resume_state.pt"):
            (tmp_path / run / name).touch()
    return tmp_path


def names(paths):
    return [f"{path.parent.name}/{path.name}" for path in paths]


def test_a_folder_means_its_numbered_checkpoints_and_latest_weights(runs):
    folder = runs / "town-coord-finetune"
    assert [p.name for p in find_checkpoints(folder, None)] == [
        "ckpt_iter_0000003.net", "ckpt_iter_0000020.net", "model.net",
    ]  # fmt: skip


def test_a_search_finds_the_runs_with_all_keywords(runs):
    found = find_checkpoints(None, runs, CheckpointFilter(("town", "coord", "-tiny"), min_iteration=0))
    assert names(found) == ["town-coord-sim_only-tiny/" + n for n in ("ckpt_iter_0000003.net", "ckpt_iter_0000020.net")]
    assert len(find_checkpoints(None, runs, CheckpointFilter(("sim_only",)))) == 6


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(3, None, [20]), (2, 20, [3]), (None, 21, [3, 20]), (0, None, [3, 20])]
)
def test_both_ends_of_the_range_are_exclusive_and_unnumbered_weights_drop_out(runs, low, high, expected):
    found = find_checkpoints(runs / "town-coord-finetune", None, CheckpointFilter((), low, high))
    assert [iteration_of(path) for path in found] == expected


@pytest.mark.parametrize("name", ["model.net", "model-sc-1.00.net", "my_ckpt_best.net", "crossloc_se.net"])
def test_files_are_accepted_by_the_name_rule(tmp_path, name):
    (tmp_path / name).touch()
    assert find_checkpoints(tmp_path / name, None) == [tmp_path / name]


def test_what_cannot_be_found_is_named(runs):
    (runs / "weights.net").touch()
    with pytest.raises(ValueError, match=r"weights\.net.*model\*\.net"):
        find_checkpoints(runs / "weights.net", None)
    with pytest.raises(FileNotFoundError, match=re.escape(str(runs / "absent"))):
        find_checkpoints(runs / "absent", None)
    with pytest.raises(FileNotFoundError, match="absent"):
        find_checkpoints(None, runs / "absent")
    with pytest.raises(FileNotFoundError, match="9 found.*winter"):
        find_checkpoints(None, runs, CheckpointFilter(("winter",)))
    for pair in ((None, None), (runs, runs)):
        with pytest.raises(ValueError, match="--network_in"):
            find_checkpoints(*pair)


def test_keywords_may_begin_with_a_dash():
    flags = ("-t",)
    assert keywords_as_options(["town", "--keywords", "coord", "-tiny", "--plot", "-t", "3"], flags) == [
        "town", "--keywords=coord", "--keywords=-tiny", "--plot", "-t", "3",
    ]  # fmt: skip
    assert keywords_as_options(["--keywords", "a", "-t", "3", "-tiny"], flags) == ["--keywords=a", "-t", "3", "-tiny"]


def test_a_keyword_with_an_exclamation_mark_excludes(tmp_path):
    for name in ("field-coord", "field-coord-tiny"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.net").touch()
    criteria = CheckpointFilter(("field-coord", "!-tiny"))
    assert find_checkpoints(None, tmp_path, criteria) == [tmp_path / "field-coord" / "model.net"]
