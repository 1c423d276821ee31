"""Splits and their records; sections appear whole or not at all."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from datagen import sections, splits, staging


def stems(count: int) -> list[str]:
    return [f"s_{i:03d}" for i in range(count)]


def test_split_is_the_published_permutation():
    names = stems(47)
    parts = splits.split_stems(names[::-1], splits.FLIGHT_SHARES)
    np.random.seed(2021)
    order = np.random.permutation(np.arange(47))
    assert [len(part) for part in parts.values()] == [18, 4, 25]
    assert parts["train"] == [names[i] for i in sorted(order[:18])]
    assert parts["val"] == [names[i] for i in sorted(order[18:22])]
    assert parts["test"] == [names[i] for i in sorted(order[22:])]


@pytest.mark.parametrize("count", [2, 9, 10, 30, 1000])
def test_split_covers_everything_once(count):
    parts = splits.split_stems(stems(count), splits.LHS_SHARES)
    assert sorted(parts["train"] + parts["val"]) == stems(count) and len(parts["train"]) == count * 9 // 10


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(3, (1, 1, 1)), (4, (1, 1, 2)), (5, (2, 1, 2)), (9, (3, 1, 5)), (10, (4, 1, 5)), (20, (8, 2, 10))],
)
def test_few_photos_leave_no_part_empty(count, sizes):
    parts = splits.split_stems(stems(count), splits.FLIGHT_SHARES)
    assert tuple(len(part) for part in parts.values()) == sizes and sorted(sum(parts.values(), [])) == stems(count)


@pytest.mark.parametrize(("count", "shares"), [(2, splits.FLIGHT_SHARES), (1, splits.LHS_SHARES)])
def test_fewer_images_than_parts_are_refused_at_once(count, shares):
    with pytest.raises(ValueError, match=f"{count} image.* too few: train, .*at least one each .*--split"):
        splits.split_stems(stems(count), shares)


def test_split_record_is_obeyed(tmp_path):
    record = tmp_path / "s_lhs_split.txt"
    parts = {"train": ["s_001"], "val": ["s_000", "s_002"]}
    assert splits.obeyed_split(record, stems(3), splits.LHS_SHARES) != parts
    splits.write_split_record(record, parts)
    lines = ["Subset section ***train***", "s_001", "Subset section ***val***", "s_000", "s_002"]
    assert record.read_text().splitlines() == lines
    assert splits.obeyed_split(record, stems(3), splits.LHS_SHARES) == parts
    with pytest.raises(ValueError, match="1 stems are in no part: s_003"):
        splits.obeyed_split(record, stems(4), splits.LHS_SHARES)
    with pytest.raises(ValueError, match="1 stems are not in the data: s_002"):
        splits.obeyed_split(record, stems(2), splits.LHS_SHARES)
    assert splits.obeyed_split(record, stems(4), splits.LHS_SHARES, redraw=True) == splits.split_stems(
        stems(4), splits.LHS_SHARES
    )
    assert splits.obeyed_split(record, stems(3), splits.LHS_SHARES, redraw=True) == parts
    record.write_text("s_001\n" + record.read_text())
    with pytest.raises(ValueError, match="'s_001' stands before any"):
        splits.read_split_record(record)


def test_given_split_forms(tmp_path):
    words = ["train=s_001.jpg", "test=s_000,s_002"]
    expected = {"train": ["s_001"], "test": ["s_000", "s_002"]}
    assert splits.read_split(words, stems(3)) == expected
    path = tmp_path / "split.json"
    path.write_text('{"train": ["s_001"], "val": [], "test": ["photos/s_002.JPG", "s_000"]}')
    assert splits.read_split([str(path)], stems(3)) == expected
    for bad, message in (
        (["train=s_001", "test=s_000"], "in no part: s_002"),
        (["train=s_001,s_000", "test=s_000,s_002"], "listed twice: s_000"),
        (["train=s_001,s_000,s_009", "test=s_002"], "not in the data: s_009"),
        (["training=s_001,s_000,s_002"], "unknown sections \\['training'\\]"),
    ):
        with pytest.raises(ValueError, match=message):
            splits.read_split(bad, stems(3))
    with pytest.raises(FileNotFoundError, match="split .*none.json"):
        splits.read_split([str(tmp_path / "none.json")], stems(3))


def test_photos_of_a_split_may_be_called_by_file_or_folder():
    photos = {"f1_A": "f1/A.JPG", "f2_A": "f2/A.JPG", "DJI (1)": "f1/DJI (1).jpg"}
    called = ["train=f1/A.JPG,f1/DJI (1)", "test=f2_A"]
    assert splits.read_split(called, list(photos), photos) == {"train": ["DJI (1)", "f1_A"], "test": ["f2_A"]}
    with pytest.raises(ValueError, match="'A.JPG' is the name of 2 photos; call them f1_A, f2_A"):
        splits.read_split(["train=A.JPG,DJI (1)", "test=f2_A"], list(photos), photos)
    # Not every A of any folder is one of them.
    with pytest.raises(ValueError, match="not in the data: B"):
        splits.read_split(["train=f1/B.JPG,DJI (1),f1_A", "test=f2_A"], list(photos), photos)


def names_in(folder) -> list[str]:
    """What is seen in a scene folder; the lock stays."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".scene.json.lock")


def make(scene_dir, *names, content="new", overwrite=False, **files):
    """Makes sections with one file of this content each, and files beside them."""
    with staging.new_sections(scene_dir, list(names), overwrite=overwrite) as staged:
        for name in names:
            (staged[name] / "file").write_text(content)
        for name, text in files.items():
            staged[name].write_text(text)


def test_sections_appear_together_at_the_end(tmp_path):
    scene_dir = tmp_path / "data" / "scene"
    with staging.new_sections(scene_dir, ["a", "b"]) as staged:
        for name in ("a", "b"):
            (staged[name] / "file").write_text("new")
        staged["record"].write_text("new")
        assert not any((scene_dir / name).exists() for name in ("a", "b", "record"))
    assert names_in(scene_dir) == ["a", "b", "record"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_nothing(tmp_path, failure):
    scene_dir = tmp_path / "data" / "scene"
    with pytest.raises(failure), staging.new_sections(scene_dir, ["a"]) as staged:
        (staged["a"] / "file").write_text("half")
        raise failure
    assert not (tmp_path / "data").exists()


def test_existing_sections(tmp_path):
    make(tmp_path, "a", content="old")
    with pytest.raises(FileExistsError, match="already there: .*/a"):
        make(tmp_path, "a", "b")
    with pytest.raises(RuntimeError), staging.new_sections(tmp_path, ["a"], overwrite=True):
        raise RuntimeError
    assert (tmp_path / "a" / "file").read_text() == "old", "a failed replacement keeps the old section"
    make(tmp_path, "a", overwrite=True)
    assert (tmp_path / "a" / "file").read_text() == "new" and names_in(tmp_path) == ["a"]


def test_what_another_run_made_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(FileExistsError, match="already there"), staging.new_sections(tmp_path, ["a"]):
        make(tmp_path, "a", content="other")
    assert (tmp_path / "a" / "file").read_text() == "other" and names_in(tmp_path) == ["a"]


def in_a_process_killed_before_call(limit: int, work) -> bool:
    """Runs work in a forked process that kills itself before this many calls that change folders; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        calls = itertools.count()

        def counted(call):
            def counting(*arguments, **options):
                if next(calls) == limit:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return counting

        os.replace, shutil.rmtree, Path.unlink = counted(os.replace), counted(shutil.rmtree), counted(Path.unlink)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_anywhere_in_the_swap_never_mixes_old_and_new(tmp_path):
    finished = set()
    for limit in itertools.count():
        scene_dir = tmp_path / str(limit)
        make(scene_dir, "train", "val", content="old", record="old")
        killed = in_a_process_killed_before_call(
            limit, lambda folder=scene_dir: make(folder, "train", "val", overwrite=True, record="new")
        )
        seen = {path.parent.name: path.read_text() for path in scene_dir.glob("*/file")}
        assert len(set(seen.values())) <= 1, f"killed before call {limit}: {seen}"
        if "new" in seen.values():
            assert (scene_dir / "record").read_text() == "new"
        # A second kill, in the repair, is no worse.
        in_a_process_killed_before_call(1, lambda folder=scene_dir: staging.finish_interrupted(folder))
        staging.finish_interrupted(scene_dir)
        after = {(scene_dir / name).read_text() for name in ("train/file", "val/file", "record")}
        assert len(after) == 1 and names_in(scene_dir) == ["record", "train", "val"]
        finished |= after
        if not killed:
            break
    assert limit > 6 and finished == {"old", "new"}


def test_leftovers_of_a_killed_run_are_removed_and_those_of_a_living_one_are_not(tmp_path):
    dead = tmp_path / ".making-dead" / "new" / "a"
    dead.mkdir(parents=True)
    with staging.new_sections(tmp_path, ["a"]) as staged:
        assert not dead.exists()
        make(tmp_path, "b")
        assert staged["a"].is_dir()
    assert names_in(tmp_path) == ["a", "b"]


def test_calibration_text():
    K_33 = np.array([[480.0, 0, 360], [0, 480, 240], [0, 0, 1]])
    assert sections.calibration_text(K_33, 720, 480) == "480\n"
    assert sections.calibration_text(K_33, 722, 480) == "480 480 360 240\n"
