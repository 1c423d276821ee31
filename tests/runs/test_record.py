import dataclasses
import json
import shutil

import pytest
import torch

from dataloader.preprocessing import Preprocessing
from dataloader.scenes import SceneStatistics
from networks import Architecture
from runs import (
    ParentRecord,
    RunFilter,
    RunRecord,
    SectionRecord,
    find_runs,
    read_record,
    record_of,
    write_record,
    write_sidecar,
)
from runs.preprocessing import preprocessing_for
from runs.record import CameraRecord, differences, section_record

STATISTICS = SceneStatistics((1.0, 2.0, 3.0), 40.0, 50.0, 5.0, (0.1, -1.2), (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))


def make_record(**changes) -> RunRecord:
    values = dict(
        name="field-coord-unc-MLE-e5-lr0.0002-sim_only-sc1.00-tiny", scene="field", task="coord", stage="pretrain",
        kind="sim_only", domain=None, sim_chunk=1.0, real_chunk=0.0, architecture=Architecture(tiny=True),
        options={"batch_size": 4, "seed": 1, "scale_range": (0.9, 1.1)}, sections=(SectionRecord("train_sim", 9, "aa"),),
        images_per_epoch=9, preprocessing=Preprocessing(112), statistics=STATISTICS, frame={"crs": "EPSG:2056"},
        cameras=CameraRecord(1.0, 1.1, 1.5, 1.5), parents=(ParentRecord("--network_in", "/a.net", "bb", None),),
        software={"torch": "2.9"},
    )  # fmt: skip
    return RunRecord(**{**values, **changes})


def test_a_record_survives_its_file(tmp_path):
    record = make_record(options={"batch_size": 4, "seed": 1, "scale_range": [0.9, 1.1]})
    write_record(tmp_path, record)
    assert read_record(tmp_path / "training.json") == record
    assert record.seed == 1 and record.size == "tiny"


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"format": "else"},
        {"statistics": {}},
        {"sections": 3},
        {"surprise": 1},
        {"architecture": {"tiny": 1, "x": 2}},
    ],
)
def test_what_is_not_such_a_record_is_named(tmp_path, damage):
    write_record(tmp_path, make_record())
    path = tmp_path / "training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(ValueError, match="training.json"):
        read_record(path)


def test_differences_are_named_field_by_field():
    a = make_record()
    assert differences(a, make_record(software={"torch": "3"}, name="other")) == []
    b = make_record(
        options={"batch_size": 8, "seed": 1, "scale_range": [0.9, 1.1]},
        sections=(SectionRecord("train_sim", 9, "ab"),),
        preprocessing=Preprocessing(160),
        frame=None,
        parents=(ParentRecord("--network_in", "/b.net", "cc", None),),
    )
    assert [d.field for d in differences(a, b)] == [
        "--batch_size",
        "section train_sim",
        "the weights of --network_in",
        "preprocessing.image_height",
        "frame",
    ]
    assert str(differences(a, b)[0]) == "--batch_size was 4, now 8"
    assert differences(a, b, ignore=("batch_size", "preprocessing", "frame"))[0].field == "section train_sim"


def weights(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"a": torch.ones(2)}, path)
    return path


def test_the_sidecar_comes_before_the_folder(tmp_path):
    path = weights(tmp_path / "model.net")
    assert record_of(path) is None
    write_record(tmp_path, make_record(name="folder"))
    assert record_of(path).name == "folder"
    write_sidecar(path, make_record(name="sidecar"))
    assert record_of(path).name == "sidecar"


def test_a_sidecar_belongs_to_the_content_of_its_weights(tmp_path):
    path = weights(tmp_path / "model.net")
    write_sidecar(path, make_record())
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="record of other weights"):
        record_of(path)


def test_somebody_elses_json_is_passed_over(tmp_path, caplog):
    path = weights(tmp_path / "model.net")
    for content in ("[1, 2]", '{"hello": 1}', "no json"):
        (tmp_path / "model.json").write_text(content)
        assert record_of(path) is None
    assert "somebody else" in caplog.text


def test_a_section_record_knows_its_content(plane_section):
    section = plane_section(3)
    before = section_record(section, "init", 3)
    assert (before.name, before.samples) == ("train_sim", 3)
    assert section_record(section, "init", 3) == before != section_record(section, "depth", 3)
    plane_section(3, seed=1)
    assert section_record(section, "init", 3).fingerprint != before.fingerprint


def folder_with(root, name, record=None, file="ckpt_iter_0000009.net"):
    weights(root / name / file)
    if record is not None:
        write_record(root / name, dataclasses.replace(record, name=name))
    return root / name


def test_runs_are_found_by_their_records_whatever_folders_are_called(tmp_path):
    root = tmp_path / "field2-coord-finetune-tiny"  # words of the published names above the runs
    folder_with(root, "a", make_record())
    folder_with(root, "b", make_record(scene="field2"))
    folder_with(root, "c", make_record(stage="finetune", kind="pairs", domain="out_of_place"))
    folder_with(root, "d", make_record(architecture=Architecture(tiny=False)))
    folder_with(root, "e", make_record(task="depth"))

    def names(**criteria):
        return [run.name for run in find_runs(tmp_path, RunFilter(**criteria))]

    assert names(scene="field", task="coord", stage="pretrain", kind="sim_only", size="tiny") == ["a"]
    assert names(scene="field2") == ["b"]
    assert names(stage="finetune") == ["c"] == names(domain="out_of_place")
    assert names(scene="field", task="coord", size="full") == ["d"]
    assert names(keywords=("d",)) == ["d"] and names(task="coord", keywords=("!a", "!b", "!c")) == ["d"]
    with pytest.raises(FileNotFoundError, match="is of scene field, keyword tiny; there are: a, b"):
        find_runs(tmp_path, RunFilter(scene="field", keywords=("tiny",)))


@pytest.mark.parametrize(
    "name, expected",
    [
        ("urbanscape-coord-sclean_training-unc-MLE-e150-lr0.0002-sim_only-sc1.00", ("pretrain", "sim_only", None, "full")),
        (
            "urbanscape-coord-sx-unc-MLE-e400-lr0.0001-pairs-oop-rc1.00-tiny-finetune",
            ("finetune", "pairs", "out_of_place", "tiny"),
        ),
        ("urbanscape-coord-sx-unc-MLE-e400-lr0.0001-real_only-ip-rc1.00", ("pretrain", "real_only", "in_place", "full")),
        (
            "urbanscape-coord-decoder_coord_free_depth_normal-senc-pt1.00-oop-ft1.00-unc-MLE-e1000-lr0.0001-pairwise-oop-rc1.00",
            ("decoder", "pairs", "out_of_place", "full"),
        ),
        (
            "urbanscape-coord-decoder_coord_free_depth-senc-pt1.00-oop-ft1.00-unc-MLE-e1000-lr0.0001-pairwise-ip-rc1.00",
            ("decoder", "pairs", "in_place", "full"),
        ),
    ],
)
def test_published_runs_are_known_by_their_names(tmp_path, name, expected):
    folder_with(tmp_path, name)
    run = find_runs(tmp_path, RunFilter(scene="urbanscape", task="coord"))[0]
    assert (run.stage, run.kind, run.domain, run.size) == expected and run.record is None


def test_a_damaged_record_hides_no_other_run(tmp_path, caplog):
    folder_with(tmp_path, "a", make_record())
    folder_with(tmp_path, "b", make_record())
    (tmp_path / "a" / "training.json").write_text("{")
    assert [run.name for run in find_runs(tmp_path)] == ["b"] and "passed over" in caplog.text


def test_preprocessing_is_the_recorded_one(tmp_path):
    path = weights(tmp_path / "model.net")
    arguments = dict(grayscale=False, scene="field", scene_dir=tmp_path)
    with pytest.raises(ValueError, match="has no record"):
        preprocessing_for(path, **arguments)
    published = preprocessing_for(path, grayscale=False, scene="naturescape", scene_dir=tmp_path)
    assert published == Preprocessing(480, False, (0.4245, 0.4375, 0.3836), (0.1823, 0.1701, 0.1854))
    assert preprocessing_for(path, grayscale=True, scene="naturescape", scene_dir=tmp_path).rgb_mean == (0.4084,)
    assert preprocessing_for(path, grayscale=True, scene="urbanscape", scene_dir=tmp_path).rgb_mean == (0.4308,)
    write_sidecar(path, make_record(preprocessing=Preprocessing(112, False, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))))
    assert preprocessing_for(path, **arguments) == Preprocessing(112, False, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert preprocessing_for(path, **arguments, image_height=240).image_height == 240
    with pytest.raises(ValueError, match="grayscale"):
        preprocessing_for(path, grayscale=True, scene="field", scene_dir=tmp_path)


def test_without_a_record_colours_come_from_the_scenes_training_sections(tmp_path, plane_section, caplog):
    section = plane_section(2)
    path = weights(tmp_path / "w" / "model.net")
    found = preprocessing_for(path, grayscale=False, scene="scene", scene_dir=section.parent)
    assert "train_sim" in caplog.text and found.image_height == 480
    shutil.rmtree(section)
    with pytest.raises(ValueError, match="no training section"):
        preprocessing_for(path, grayscale=False, scene="scene", scene_dir=tmp_path / "scene")
