"""Splits and their records; sections appear whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from datagen import sections


def stems(count: int) -> list[str]:
    return [f"s_{i:03d}" for i in range(count)]


def test_split_is_the_published_permutation():
    names = stems(47)
    parts = sections.split_stems(names[::-1], sections.FLIGHT_SHARES)
    np.random.seed(2021)
    order = np.random.permutation(np.arange(47))
    assert [len(part) for part in parts.values()] == [18, 4, 25]
    assert parts["train"] == [names[i] for i in sorted(order[:18])]
    assert parts["val"] == [names[i] for i in sorted(order[18:22])]
    assert parts["test"] == [names[i] for i in sorted(order[22:])]


@pytest.mark.parametrize("count", [1, 9, 10, 30, 1000])
def test_split_covers_everything_once(count):
    parts = sections.split_stems(stems(count), sections.LHS_SHARES)
    assert sorted(parts["train"] + parts["val"]) == stems(count) and len(parts["train"]) == count * 9 // 10


def test_split_record_is_obeyed(tmp_path):
    record = tmp_path / "s_lhs_split.txt"
    parts = {"train": ["s_001"], "val": ["s_000", "s_002"]}
    assert sections.obeyed_split(record, stems(3), sections.LHS_SHARES) != parts
    sections.write_split_record(record, parts)
    lines = ["Subset section ***train***", "s_001", "Subset section ***val***", "s_000", "s_002"]
    assert record.read_text().splitlines() == lines
    assert sections.obeyed_split(record, stems(3), sections.LHS_SHARES) == parts
    with pytest.raises(ValueError, match="1 stems are in no part: s_003"):
        sections.obeyed_split(record, stems(4), sections.LHS_SHARES)
    with pytest.raises(ValueError, match="1 stems are not in the data: s_002"):
        sections.obeyed_split(record, stems(2), sections.LHS_SHARES)
    record.write_text("s_001\n" + record.read_text())
    with pytest.raises(ValueError, match="'s_001' stands before any"):
        sections.read_split_record(record)


def test_given_split_forms(tmp_path):
    words = ["train=s_001.jpg", "test=s_000,s_002"]
    expected = {"train": ["s_001"], "test": ["s_000", "s_002"]}
    assert sections.read_split(words, stems(3)) == expected
    path = tmp_path / "split.json"
    path.write_text('{"train": ["s_001"], "val": [], "test": ["photos/s_002.JPG", "s_000"]}')
    assert sections.read_split([str(path)], stems(3)) == expected
    for bad, message in (
        (["train=s_001", "test=s_000"], "in no part: s_002"),
        (["train=s_001,s_000", "test=s_000,s_002"], "listed twice: s_000"),
        (["train=s_001,s_000,s_009", "test=s_002"], "not in the data: s_009"),
        (["training=s_001,s_000,s_002"], "unknown sections \\['training'\\]"),
    ):
        with pytest.raises(ValueError, match=message):
            sections.read_split(bad, stems(3))
    with pytest.raises(FileNotFoundError, match="split .*none.json"):
        sections.read_split([str(tmp_path / "none.json")], stems(3))


def test_sections_appear_together_at_the_end(tmp_path):
    scene_dir = tmp_path / "data" / "scene"
    with sections.new_sections(scene_dir, ["a", "b"]) as staged:
        for path in staged.values():
            (path / "file").write_text("new")
            assert not (scene_dir / "a").exists() and not (scene_dir / "b").exists()
    assert sorted(path.name for path in scene_dir.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_nothing(tmp_path, failure):
    scene_dir = tmp_path / "data" / "scene"
    with pytest.raises(failure), sections.new_sections(scene_dir, ["a"]) as staged:
        (staged["a"] / "file").write_text("half")
        raise failure
    assert not (tmp_path / "data").exists()


def test_existing_sections(tmp_path):
    with sections.new_sections(tmp_path, ["a"]) as staged:
        (staged["a"] / "old").write_text("old")
    with pytest.raises(FileExistsError, match="already there: .*/a"), sections.new_sections(tmp_path, ["a", "b"]):
        pass
    with pytest.raises(RuntimeError), sections.new_sections(tmp_path, ["a"], overwrite=True):
        raise RuntimeError
    assert (tmp_path / "a" / "old").is_file(), "a failed replacement keeps the old section"
    with sections.new_sections(tmp_path, ["a"], overwrite=True) as staged:
        (staged["a"] / "new").write_text("new")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    dead = tmp_path / ".a.part-999999999"
    dead.mkdir()
    with sections.new_sections(tmp_path, ["a"]):
        pass
    assert not dead.exists()


def test_calibration_text():
    K_33 = np.array([[480.0, 0, 360], [0, 480, 240], [0, 0, 1]])
    assert sections.calibration_text(K_33, 720, 480) == "480\n"
    assert sections.calibration_text(K_33, 722, 480) == "480 480 360 240\n"
