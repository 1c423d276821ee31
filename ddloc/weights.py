"""The networks by name: building them, and the files that one stage hands to the next."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dataloader.scenes import SceneStatistics
from ddloc.attention import Attention
from ddloc.discriminators import GlobalLocalDiscriminator, PatchDiscriminator
from ddloc.generator import Generator
from ddloc.regressor import UNetRegressor
from networks import Architecture, DenseNetwork, build, init_head, load_network, load_state_dict, save_network
from records.tensors import save_tensors
from runs.record import RECORD_NAME, RunRecord, read_record
from training.run_folder import DONE_FLAG

_CLASSES = {
    "T": Generator,  # real to synthetic
    "T_inverse": Generator,
    "D_synthetic": PatchDiscriminator,
    "D_real": PatchDiscriminator,
    "A": Attention,
    "I": Generator,
    "D_inpainted": GlobalLocalDiscriminator,
}


def fresh(name: str, width: int) -> nn.Module:
    """A network of the translation before its first step."""
    return _CLASSES[name](width)


def fresh_regressor(
    kind: str, *, width: int, tiny: bool, statistics: SceneStatistics, network_in: Path | None = None
) -> nn.Module:
    """C before its first step: its output starts at the scene's mean, in units of its spread.

    Raises:
        FileNotFoundError, ValueError: `network_in` is absent, damaged, or no network of scene coordinates.
    """
    mean_3 = torch.tensor(statistics.mean_coord)
    if kind == "unet":
        return UNetRegressor(width, mean_3, statistics.coord_spread)
    if network_in is not None:
        net = load_network(network_in, head_scale=statistics.coord_spread)
        found = net.architecture
        if found.task != "coord" or found.fullsize or found.in_channels != 3:
            raise ValueError(f"--network_in {network_in} does not map RGB images to scene coordinates at stride 8: {found}")
        return net.train()
    net = build(Architecture.for_task("coord", uncertainty="none", tiny=tiny), mean_3)
    init_head(net, statistics.coord_spread)
    return net


def best_path(stage_dir: Path, name: str) -> Path:
    """The weights that the validation of a stage chose."""
    return stage_dir / f"best_{name}.pth"


def save(net: nn.Module, path: Path) -> None:
    """Writes weights; those of this project's networks in their published form."""
    if isinstance(net, DenseNetwork):
        save_network(net, path)
    else:
        save_tensors(path, {key: value.detach().cpu() for key, value in net.state_dict().items()})


def record_in_stage(project_dir: Path, stage: str) -> RunRecord:
    """The record of a stage that is finished.

    Raises:
        FileNotFoundError: it is not; says how to get there.
    """
    folder = project_dir / stage
    if not (folder / DONE_FLAG).is_file():
        raise FileNotFoundError(
            f"stage {stage} is not finished in {project_dir}: train it first, python train_ddloc.py {stage} SCENE"
        )
    return read_record(folder / RECORD_NAME)


def load_best(project_dir: Path, stage: str, name: str, device: torch.device) -> nn.Module:
    """A network as a finished stage chose it, frozen, in evaluation mode.

    Raises:
        FileNotFoundError, ValueError: the stage is not finished, or its file is damaged; names it.
    """
    net = _loaded(name, record_in_stage(project_dir, stage), best_path(project_dir / stage, name))
    return net.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def _loaded(name: str, record: RunRecord, path: Path) -> nn.Module:
    options = record.options
    if name == "C" and options["regressor"] == "transposenet":
        # Files hold the head in metres; should it train on, then in the scene's units as before.
        return load_network(path, head_scale=record.statistics.coord_spread)
    net = UNetRegressor(options["width"]) if name == "C" else fresh(name, options["width"])
    state_dict = load_state_dict(path)
    try:
        net.load_state_dict(state_dict)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of {name}: {str(error).splitlines()[-1].strip()}") from None
    return net
