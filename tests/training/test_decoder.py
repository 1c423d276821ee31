"""Training of fused networks: what is taken from which weights, what trains, and what is refused."""

import shutil
from argparse import ArgumentParser

import pytest
import torch

from networks import load_network, load_state_dict
from runs import read_record
from runs.convert import convert
from tests.training.small_runs import SMALL, options
from training.loop import train
from training.options import add_decoder_arguments, decoder_options_from
from training.run_folder import folder_of

TASKS = ("coord", "depth", "normal", "semantics")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """A scene and one trained tiny network per task, as weights with their records."""
    from tests.conftest import write_plane_section

    root = tmp_path_factory.mktemp("encoders")
    for name in ("train_sim", "train_drone_sim", "train_drone_real"):
        write_plane_section(root / "scene" / name, 3, seed=len(name))
    weights = {}
    for task in TASKS:
        extra = ["--fullsize", "--uncertainty", "none"] if task == "semantics" else []
        run = train(options(root, *SMALL, *extra, "--epochs", 1, task=task))
        weights[task] = root / f"{task}.net"
        shutil.copy(run.latest, weights[task])
        shutil.copy(run.output / "training.json", weights[task].with_suffix(".json"))
    return root, weights


def words(root, weights, *arguments, encoders=("coord", "depth", "normal")):
    paths = [part for task in TASKS for part in (f"--{task}_weight", str(weights[task]))]
    folders = ["--datasets_dir", str(root), "--output_dir", str(root / "out")]
    return ["scene", "--task", "coord", "--tiny", "--uncertainty", "mle", "--batch_size", "2", "--device", "cpu",
            "--epochs", "1", *folders, "--encoders", *encoders, *paths, *map(str, arguments)]  # fmt: skip


def decoder(root, weights, *arguments, **keywords):
    parser = ArgumentParser()
    add_decoder_arguments(parser)
    return decoder_options_from(parser.parse_args(words(root, weights, *arguments, **keywords)))


def test_frozen_encoders_stay_to_the_bit_and_the_free_one_trains(encoders):
    root, weights = encoders
    chosen = decoder(root, weights, "--reuse_coord_encoder", "--unfreeze_coord_encoder", "--session", "free")
    assert chosen.fused == ("coord", "depth", "normal") and chosen.frozen == (2, 3)
    run = train(chosen)
    fused = load_state_dict(run.latest)
    for number, task in enumerate(chosen.fused, 1):
        single = load_state_dict(weights[task])
        names = [name.removeprefix("encoder.") for name in single if name.startswith("encoder.")]
        same = all(torch.equal(fused[f"mlr_encoder_{number}.{name}"], single[f"encoder.{name}"]) for name in names)
        assert same == (task != "coord")
    assert load_network(run.latest).architecture.num_encoders == 3
    record = read_record(run.checkpoints / "training.json")
    assert (record.stage, record.kind, record.sim_chunk) == ("decoder", "pairs", 1.0)
    assert [p.role for p in record.parents] == ["--coord_weight", "--depth_weight", "--normal_weight"]
    assert record.preprocessing == read_record(weights["coord"].with_suffix(".json")).preprocessing
    assert run.output.name == "scene-coord-decoder_coord_free_depth_normal-sfree-unc-MLE-e1-lr0.0002-pairwise-ip-rc1.00-tiny"


def test_the_decoder_starts_with_the_coord_weights(encoders):
    root, weights = encoders
    run = train(decoder(root, weights, "--session", "start", "-lr", 1e-12, "--precision", "float32"))
    fused, coord = load_state_dict(run.latest), load_state_dict(weights["coord"])
    for name in ("mean", *(name for name in coord if name.startswith("decoder."))):
        torch.testing.assert_close(fused[name], coord[name], atol=1e-4, rtol=1e-4)
    assert "mlr_encoder_2.conv1.weight" in fused and "mlr_encoder_3.conv1.weight" not in fused  # coord is not re-used


def test_coord_alone_without_reuse_is_a_plain_network(encoders):
    root, weights = encoders
    chosen = decoder(root, weights, "--session", "plain", encoders=("coord",))
    assert chosen.fused == () and chosen.architecture.num_encoders == 0
    run = train(chosen)
    assert load_network(run.latest).architecture.num_encoders == 0
    assert run.output.name.startswith("scene-coord-decoder-splain-")


def test_four_encoders_zero_shot(encoders):
    root, weights = encoders
    chosen = decoder(
        root, weights, "--reuse_coord_encoder", "--session", "enc-pt1.00-ip-ft0.00", "--real_data_chunk", 0,
        "--sim_data_chunk", 1, encoders=("semantics", "normal", "coord", "depth", "coord"),
    )  # fmt: skip
    assert chosen.encoders == ("coord", "depth", "normal", "semantics") and chosen.frozen == (1, 2, 3, 4)
    run = train(chosen)
    assert "-decoder_coord_frozen_depth_normal_semantics-senc-pt1.00-ip-ft0.00-" in run.output.name
    assert "-zero_shot-sc1.00-tiny" in run.output.name
    assert read_record(run.checkpoints / "training.json").kind == "sim_only"


def test_a_decoder_run_can_be_continued_from_its_weights_and_resumed(encoders):
    root, weights = encoders
    first = train(decoder(root, weights, "--reuse_coord_encoder", "--session", "cont"))
    more = train(decoder(root, weights, "--reuse_coord_encoder", "--session", "cont", "--network_in", first.latest))
    assert more.output.name.endswith("-tiny-resume")
    assert train(decoder(root, weights, "--reuse_coord_encoder", "--session", "cont", "--auto_resume")).done


def test_encoders_may_be_safetensors(encoders):
    pytest.importorskip("safetensors", reason="the package safetensors is not installed")
    root, weights = encoders
    convert(weights["coord"], root / "coord.safetensors")
    run = train(decoder(root, {**weights, "coord": root / "coord.safetensors"}, "--session", "safe", "-lr", 1e-12))
    record = read_record(run.checkpoints / "training.json")
    assert record.parents[0].name == read_record(weights["coord"].with_suffix(".json")).name and record.sim_chunk == 1.0
    fused, coord = load_state_dict(run.latest), load_state_dict(weights["coord"])
    torch.testing.assert_close(fused["decoder.fc1.weight"], coord["decoder.fc1.weight"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "arguments, encoders_wanted, message",
    [
        (["--unfreeze_coord_encoder"], ("coord", "depth"), "--unfreeze_coord_encoder needs --reuse_coord_encoder"),
        ([], ("depth", "normal"), "--encoders must list coord"),
        ([], ("coord", "colour"), "unknown --encoders 'colour'"),
        (["--sim_data_chunk", 1], ("coord",), "--real_data_chunk 1 needs --sim_data_chunk 0, got 1"),
    ],
)
def test_rules_of_the_options(encoders, arguments, encoders_wanted, message):
    with pytest.raises(ValueError, match=message):
        decoder(*encoders, *arguments, encoders=encoders_wanted)


def test_weights_of_another_task_or_place_are_named(encoders, tmp_path):
    root, weights = encoders
    swapped = {**weights, "depth": weights["normal"]}
    with pytest.raises(ValueError, match="normal.net: --depth_weight names a network for the task normal"):
        train(decoder(root, swapped, "--session", "swapped"))
    with pytest.raises(FileNotFoundError, match="nowhere.net"):
        train(decoder(root, {**weights, "depth": tmp_path / "nowhere.net"}, "--session", "gone"))
    # What is not listed need not be there.
    unused = decoder(root, {**weights, "semantics": tmp_path / "nowhere.net"}, "--session", "unused")
    train(unused)
    assert not folder_of(decoder(root, swapped, "--session", "swapped")).output.exists()
