"""Refinement by the solver's expected pose loss: what it starts from, minimises, records and refuses."""

import csv
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import replace

import pytest
import torch

import dsacstar
import training.loop as loop
from dataloader.prepare import collate, prepare_for_evaluation
from dataloader.preprocessing import Preprocessing
from dataloader.section import SectionDataset
from loss import LossOptions, PoseLossOptions, loss_for, pose_loss
from networks import load_network, load_state_dict
from runs import read_record
from tests.training.small_runs import ENVIRONMENT, SMALL, options
from training.loop import train
from training.objective import objective
from training.options import add_refinement_arguments, refinement_options_from

HYPOTHESES = ["--hypotheses", "8"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A scene and a tiny coord network of it, as weights with their record."""
    from tests.conftest import write_plane_section

    root = tmp_path_factory.mktemp("refinement")
    for name in ("train_sim", "train_drone_sim", "train_drone_real"):
        write_plane_section(root / "scene" / name, 3, seed=len(name))
    run = train(options(root, *SMALL, "--epochs", 1))
    weights = root / "coord.net"
    shutil.copy(run.latest, weights)
    shutil.copy(run.output / "training.json", weights.with_suffix(".json"))
    return root, weights


def words(root, weights, *arguments):
    folders = ["--datasets_dir", str(root), "--output_dir", str(root / "out")]
    return ["scene", "--task", "coord", "--tiny", "--uncertainty", "mle", "--batch_size", "2", "--device", "cpu",
            "--epochs", "2", "--network_in", str(weights), *HYPOTHESES, *folders, *map(str, arguments)]  # fmt: skip


def refinement(root, weights, *arguments):
    parser = ArgumentParser()
    add_refinement_arguments(parser)
    return refinement_options_from(parser.parse_args(words(root, weights, *arguments)))


def truth_plus_noise(section, sigma_m):
    batch = prepare_for_evaluation(collate(list(SectionDataset([section], "coord", 64))), Preprocessing(64), "coord")
    generator = torch.Generator().manual_seed(0)
    noise_B3hw = sigma_m * torch.randn(batch.labels_BChw.shape, generator=generator)
    return batch, (batch.labels_BChw + noise_B3hw).requires_grad_()


def test_the_loss_is_the_solvers_and_the_coordinates(plane_section):
    batch, coords = truth_plus_noise(plane_section(2), 0.5)
    chosen = PoseLossOptions(
        hypotheses=16, threshold=7.0, inlieralpha=50.0, weightrot=2.0, weighttrans=0.5, weightcoord=0.25
    )
    result = pose_loss(coords, None, batch, LossOptions(), chosen, seed=9)
    solver = dsacstar.LossOptions(
        hypotheses=16, threshold_px=7.0, inlier_alpha=50.0, subsampling=8.0, w_rot=2.0, w_trans=0.5, soft_clamp=100.0
    )
    of_pose = dsacstar.PoseLoss.apply(coords, batch.world_from_cam_B44, batch.K_B33, solver, 9).mean()
    of_coord = loss_for("coord")(coords, None, batch, LossOptions())
    assert result.total.item() == pytest.approx(of_pose.item() + 0.25 * of_coord.total.item(), rel=1e-6)
    assert result.regression["pose"].item() == of_pose.item() and int(result.cells["pose"]) == 2
    assert 0 < of_pose.item() < 5
    (gradient,) = torch.autograd.grad(result.total, coords)
    (expected,) = torch.autograd.grad(of_pose + 0.25 * of_coord.total, coords)
    torch.testing.assert_close(gradient, expected)


def test_images_draw_hypotheses_of_their_own_however_the_batch_is_split(plane_section, start, monkeypatch):
    batch, coords = truth_plus_noise(plane_section(2), 2.0)
    seen, original = [], dsacstar.PoseLoss

    class Spy:
        @staticmethod
        def apply(coords_B3hw, poses, intrinsics, options, seed):
            seen.extend(seed + i for i in range(len(coords_B3hw)))
            return original.apply(coords_B3hw, poses, intrinsics, options, seed)

    monkeypatch.setattr("loss.pose.dsacstar.PoseLoss", Spy)
    minimised = objective(refinement(*start, "--weightcoord", 0, "--seed", 5), None)
    whole = minimised(coords, None, batch, 100).total
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    parts = [
        minimised(coords[i : i + 1], None, replace(batch, **{n: t[i : i + 1] for n, t in tensors.items()}), 100 + i).total
        for i in range(2)
    ]
    assert whole.item() == pytest.approx(sum(p.item() for p in parts) / 2, rel=1e-6)
    assert seen == 2 * [5 * 2**32 + 100, 5 * 2**32 + 101]


def test_a_refinement_is_recorded_resumed_and_continues_its_weights(start, monkeypatch):
    root, weights = start
    whole = train(refinement(root, weights, "--session", "whole"))
    record = read_record(whole.checkpoints / "training.json")
    assert (record.stage, record.kind, record.options["hypotheses"]) == ("e2e", "pairs", 8)
    assert [p.role for p in record.parents] == ["--network_in"]
    assert record.preprocessing == read_record(weights.with_suffix(".json")).preprocessing
    assert whole.output.name == "scene-coord-swhole-unc-MLE-e2-lr0.0002-pairs-ip-rc1.00-tiny-e2e"
    rows = list(csv.DictReader((whole.output / "training_log.csv").open()))
    assert len(rows) == 6 and all(float(row["pose"]) > 0 for row in rows)
    original, calls = loop._Trainer._step, []

    def step(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise ValueError("stop")
        return original(self, *arguments)

    monkeypatch.setattr(loop._Trainer, "_step", step)
    with pytest.raises(ValueError, match="stop"):
        train(refinement(root, weights, "--session", "parts"))
    monkeypatch.undo()
    resumed = train(refinement(root, weights, "--session", "parts", "--auto_resume"))
    a, b = load_state_dict(whole.latest), load_state_dict(resumed.latest)
    assert all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(ValueError, match="--weightcoord was 1.0, now 2.0"):
        train(refinement(root, weights, "--session", "whole", "--auto_resume", "--weightcoord", 2))


def test_frozen_encoders_stay_to_the_bit(start):
    root, weights = start
    run = train(refinement(root, weights, "--session", "frozen", "--freeze_encoders", "--epochs", 1))
    before, after = load_state_dict(weights), load_state_dict(run.latest)
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"decoder"}


def test_a_fused_network_is_known_by_its_weights(start):
    from networks import Architecture, build, save_network

    root, weights = start
    torch.manual_seed(0)
    fused = root / "fused.net"
    save_network(build(Architecture(tiny=True, num_encoders=2)), fused)
    shutil.copy(weights.with_suffix(".json"), fused.with_suffix(".json"))
    chosen = refinement(root, fused, "--session", "fused", "--epochs", 1)
    assert chosen.architecture.num_encoders == 2
    assert load_network(train(chosen).latest).architecture.num_encoders == 2


def test_what_is_refused(start, tmp_path, repository):
    root, weights = start
    with pytest.raises(FileNotFoundError, match="nowhere.net"):
        refinement(root, tmp_path / "nowhere.net")
    with pytest.raises(ValueError, match="poses come out of the task coord, not of depth"):
        refinement(root, weights, "--task", "depth")
    with pytest.raises(ValueError, match="--hypotheses must be positive, got 0"):
        refinement(root, weights, "--hypotheses", 0)
    command = [sys.executable, str(repository / "train_e2e.py")]
    contradicting = words(root, weights, "--uncertainty", "none", "--session", "no")
    result = subprocess.run([*command, *contradicting], env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 2 and "coord.net" in result.stderr.strip().splitlines()[-1]
    assert not list((root / "out").glob("*-sno-*"))
