"""Which weights are found: by what their runs are, by folder name and by iteration."""

from __future__ import annotations

import re

import pytest

from evaluation.checkpoints import find_weights, named_encoders, run_of, weights_in
from evaluation.options import parse_options
from evaluation.sections import section_for
from runs.record import write_record, write_sidecar
from tests.evaluation.conftest import make_record


@pytest.fixture
def runs(tmp_path):
    """Four runs of two scenes whose names begin alike, and one of the published system; weights are empty files."""
    root = tmp_path / "checkout-tiny" / "runs"
    for name, changes in {
        "town-coord-sim_only-tiny": {},
        "town-coord-ip": {
            "stage": "finetune",
            "kind": "pairs",
            "domain": "in_place",
            "options": {"session": "ft", "seed": 1},
        },
        "town-coord-oop": {
            "stage": "finetune",
            "kind": "pairs",
            "domain": "out_of_place",
            "options": {"session": "ft2", "seed": 1},
        },
        "town-depth-sim_only": {"task": "depth"},
        "town-b-coord-sim_only-tiny": {"scene": "town-b"},
    }.items():
        folder = root / name
        folder.mkdir(parents=True)
        write_record(folder, make_record(name, **{"scene": "town", **changes}))
    published = root / "deep" / "town-coord-sclean_training-unc-MLE-e150-lr0.0002-sim_only-sc1.00"
    published.mkdir(parents=True)
    for folder in [*root.iterdir(), published]:
        if folder.name == "deep":
            continue
        for name in ("model.net", "model_resume.net", "ckpt_iter_0000020.net", "ckpt_iter_0000003.net", "resume_state.pt"):
            (folder / name).touch()
    return root


def find(*arguments, task="coord"):
    return find_weights(parse_options(["town", "--task", task, *(str(a) for a in arguments)]))


def names(weights):
    return [f"{w.path.parent.name}/{w.path.name}" for w in weights]


def folders(weights):
    return sorted({w.path.parent.name for w in weights})


def test_a_folder_means_its_numbered_checkpoints_and_latest_weights(runs):
    assert [w.path.name for w in find("--network_in", runs / "town-coord-ip")] == [
        "ckpt_iter_0000003.net", "ckpt_iter_0000020.net", "model.net",
    ]  # fmt: skip


@pytest.mark.parametrize("kept", ["model.net", "ckpt_iter_0000003.net"])
def test_latest_and_numbered_weights_may_lie_in_different_folders(runs, kept):
    for path in (runs / "town-coord-ip").glob("*.net"):
        if path.name != kept:
            path.unlink()
    assert names(find("--network_in", runs / "town-coord-ip")) == [f"town-coord-ip/{kept}"]
    assert f"town-coord-ip/{kept}" in names(find("--search_dir", runs))


def test_a_search_finds_the_runs_of_scene_and_task_only(runs):
    assert folders(find("--search_dir", runs)) == [
        "town-coord-ip", "town-coord-oop", "town-coord-sclean_training-unc-MLE-e150-lr0.0002-sim_only-sc1.00",
        "town-coord-sim_only-tiny",
    ]  # fmt: skip
    assert folders(find("--search_dir", runs, task="depth")) == ["town-depth-sim_only"]
    found = find_weights(parse_options(["town-b", "--task", "coord", "--search_dir", str(runs)]))
    assert folders(found) == ["town-b-coord-sim_only-tiny"]


def test_the_published_switch_searches_the_direct_subfolders(runs):
    (runs / ".trash").mkdir()
    write_record(runs / ".trash", make_record("town-coord-thrown-away", scene="town"))
    (runs / ".trash" / "model.net").touch()
    (runs / "notes.txt").touch()
    assert folders(find("--search_dir", "--network_in", runs)) == [
        "town-coord-ip",
        "town-coord-oop",
        "town-coord-sim_only-tiny",
    ]
    assert len(find("--search_dir", "--network_in", runs / "deep")) == 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--domain", "out_of_place"], ["town-coord-oop"]),
        (["--kind", "sim_only", "--size", "full"], ["town-coord-sclean_training-unc-MLE-e150-lr0.0002-sim_only-sc1.00"]),
        (["--stage", "finetune"], ["town-coord-ip", "town-coord-oop"]),
        (["--session", "ft"], ["town-coord-ip"]),
        (["--session", "clean_training"], ["town-coord-sclean_training-unc-MLE-e150-lr0.0002-sim_only-sc1.00"]),
        (["--keywords", "sim_only", "-tiny"], ["town-coord-sim_only-tiny"]),
        # The checkout's folder is called ...-tiny, which says nothing about the runs in it.
        (["--keywords", "!-tiny", "!oop", "!sim_only"], ["town-coord-ip"]),
    ],
)
def test_flags_narrow_the_search_by_record_and_keywords_by_folder_name(runs, flags, expected):
    assert folders(find("--search_dir", runs, *flags)) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(3, None, [20]), (2, 20, [3]), (None, 21, [3, 20]), (0, "1e99", [3, 20])]
)
def test_both_ends_of_the_range_are_exclusive_and_unnumbered_weights_drop_out(runs, low, high, expected):
    limits = [
        *(["--min_ckpt_iter", low] if low is not None else []),
        *(["--max_ckpt_iter", high] if high is not None else []),
    ]
    found = find("--network_in", runs / "town-coord-ip", *limits)
    assert [w.path.name for w in found] == [f"ckpt_iter_{n:07d}.net" for n in expected]


@pytest.mark.parametrize("name", ["model.net", "model-sc-1.00.net", "my_ckpt_best.net", "crossloc_se.net"])
def test_files_are_accepted_by_the_name_rule(tmp_path, name):
    (tmp_path / name).touch()
    found = find("--network_in", tmp_path / name)
    assert [w.path for w in found] == [tmp_path / name] and found[0].run is None


def test_named_weights_must_be_what_the_flags_say(runs):
    folder = runs / "town-coord-ip"
    assert len(find("--network_in", folder, "--session", "ft", "--kind", "pairs", "--keywords", "coord", "!-tiny")) == 3
    for flags in (["--kind", "sim_only"], ["--session", "ft2"], ["--domain", "out_of_place"], ["--size", "full"]):
        with pytest.raises(ValueError, match="town-coord-ip, which is not of"):
            find("--network_in", folder, *flags)
    with pytest.raises(FileNotFoundError, match="keywords oop"):
        find("--network_in", folder, "--keywords", "oop")
    (runs / "deep" / "model.net").touch()
    with pytest.raises(ValueError, match="nothing says what run"):
        find("--network_in", runs / "deep" / "model.net", "--kind", "pairs")


def test_what_cannot_be_found_is_named(runs):
    (runs / "weights.net").touch()
    with pytest.raises(ValueError, match=r"weights\.net.*model\*\.net"):
        find("--network_in", runs / "weights.net")
    with pytest.raises(FileNotFoundError, match=re.escape(str(runs / "absent"))):
        find("--network_in", runs / "absent")
    with pytest.raises(FileNotFoundError, match="absent"):
        find("--search_dir", runs / "absent")
    with pytest.raises(FileNotFoundError, match="winter"):
        find("--search_dir", runs, "--keywords", "winter")
    with pytest.raises(FileNotFoundError, match="3 weights files, none beyond 20"):
        find("--network_in", runs / "town-coord-ip", "--min_ckpt_iter", 20)
    with pytest.raises(FileNotFoundError, match="session other"):
        find("--search_dir", runs, "--session", "other")
    for flags in (
        [],
        ["--network_in", runs, "--search_dir", runs],
        ["--search_dir"],
        ["--search_dir", "--network_in", runs / "weights.net"],
    ):
        with pytest.raises(ValueError, match="--network_in"):
            find(*flags)


def test_sections_follow_from_the_run(runs, tmp_path):
    def sections(folder):
        weights = runs / folder / "model.net"
        return [section_for(name, run_of(weights), weights) for name in ("validation", "val_drone_sim")]

    assert sections("town-coord-sim_only-tiny") == ["val_sim", "val_drone_sim"]
    assert sections("town-coord-ip") == ["val_drone_real", "val_drone_sim"]
    assert sections("town-coord-oop") == ["val_oop_drone_real", "val_drone_sim"]
    assert sections("deep/town-coord-sclean_training-unc-MLE-e150-lr0.0002-sim_only-sc1.00")[0] == "val_sim"
    for folder, expected in (("town-coord-ip", "test_drone_real"), ("town-coord-oop", "test_oop_drone_real")):
        assert section_for("test", run_of(runs / folder / "model.net"), runs) == expected
    with pytest.raises(ValueError, match="sim_only data, which has no test section"):
        section_for("test", run_of(runs / "town-coord-sim_only-tiny" / "model.net"), runs)
    with pytest.raises(ValueError, match="foreign.net.*validation"):
        section_for("validation", None, runs / "foreign.net")
    # Exported weights keep their record.
    exported = tmp_path / "w" / "model-sc-1.00.net"
    exported.parent.mkdir()
    exported.write_bytes(b"weights")
    write_sidecar(exported, make_record("town-coord-oop", kind="pairs", domain="out_of_place"))
    assert section_for("validation", run_of(exported), exported) == "val_oop_drone_real"


def test_exported_weights_bring_their_own_record(tmp_path):
    """They lie in a folder with the run's name but without its record: what they are stands beside the file."""
    name = "town-coord-decoder_coord_free_depth_normal-senc-pt1.00-ip-ft1.00-unc-MLE-e9-lr0.0001-pairwise-ip-rc1.00-tiny"
    folder = tmp_path / "decoders" / name
    folder.mkdir(parents=True)
    (folder / "model.net").write_bytes(b"weights")
    record = make_record(name, scene="town", stage="decoder", kind="pairs", domain="in_place")
    write_sidecar(folder / "model.net", record)
    asked = ("--search_dir", tmp_path, "--stage", "decoder", "--kind", "pairs", "--domain", "in_place", "--size", "tiny")
    (found,) = find(*asked, "--session", "enc-pt1.00-ip-ft1.00", "--keywords", "decoder_coord_free_depth_normal")
    assert found.run.record == record
    (folder / "model.json").unlink()
    (found,) = find(*asked)
    assert found.run.record is None and found.run.domain == "in_place"


def test_published_names_of_fused_networks(tmp_path):
    for name in (
        "crossloc.net",
        "model_crossloc_se.net",
        "model.safetensors",
        "other.net",
        "crossloc.txt",
        "ckpt_iter_0000002.net",
    ):
        (tmp_path / name).touch()
    assert [p.name for p in weights_in(tmp_path)] == [
        "ckpt_iter_0000002.net", "model.safetensors", "crossloc.net", "model_crossloc_se.net",
    ]  # fmt: skip
    (tmp_path / "model.net").touch()
    assert [p.name for p in weights_in(tmp_path)][1] == "model.net"
    assert [w.path.name for w in find("--network_in", tmp_path / "crossloc.net")] == ["crossloc.net"]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("crossloc.net", 3), ("model_crossloc_se.net", 4), ("model.net", None), ("ckpt_iter_0000004.net", None),
        ("model-decoder_coord_free_semantics-senc-x.net", 2), ("m-decoder_coord_free_depth_normal_semantics-senc-x.net", 4),
    ],
)  # fmt: skip
def test_what_a_published_name_says_of_the_encoders(tmp_path, name, number):
    assert named_encoders(tmp_path / name) == number
