"""The pose that comes out of predicted coordinates: the solver's expected loss, for refinement from end to end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

import dsacstar
from loss.coord import coord_loss
from loss.result import LossOptions, LossResult
from records.options import between, check, option, positive

if TYPE_CHECKING:
    from dataloader.batch import Batch


@dataclass(frozen=True)
class PoseLossOptions:
    """The solver within the loss, and what the loss weighs."""

    hypotheses: int = option(64, flags=("-hyps",), check=positive, help="pose hypotheses per image", group="pose loss")
    threshold: float = option(10.0, flags=("-t",), check=positive, help="inlier threshold of the solver, px")
    inlieralpha: float = option(100.0, flags=("-ia",), check=positive, help="scale of the soft inlier count")
    weightrot: float = option(1.0, check=between(0, 1e6), help="weight of a degree of rotation error")
    weighttrans: float = option(1.0, check=between(0, 1e6), help="weight of a metre of translation error")
    poseclamp: float = option(
        100.0, check=positive, help="pose losses grow like a square root beyond this: hopeless images lead nowhere"
    )
    weightcoord: float = option(
        1.0,
        check=between(0, 1e6),
        help="weight of the coordinate loss beside the pose loss, which alone teaches no uncertainty",
    )

    def __post_init__(self) -> None:
        check(self)


def pose_loss(
    coords_B3hw: torch.Tensor,
    sigma_B1hw: torch.Tensor | None,
    batch: Batch,
    options: LossOptions,
    pose_options: PoseLossOptions,
    seed: int,
) -> LossResult:
    """Mean expected pose loss of the images plus the weighted coordinate loss.

    Args:
        coords_B3hw, sigma_B1hw, batch, options: as `coord_loss`.
        seed: image i of the batch draws its hypotheses from seed + i.
    Source: DSAC*, TPAMI 2021.
    """
    solver = dsacstar.LossOptions(
        hypotheses=pose_options.hypotheses,
        threshold_px=pose_options.threshold,
        inlier_alpha=pose_options.inlieralpha,
        subsampling=batch.stride,
        w_rot=pose_options.weightrot,
        w_trans=pose_options.weighttrans,
        soft_clamp=pose_options.poseclamp,
    )
    # Image by image: whose hypotheses are drawn from which seed must not depend on its neighbours in the batch.
    images = zip(coords_B3hw.split(1), batch.world_from_cam_B44.split(1), batch.K_B33.split(1), strict=True)
    pose_B = torch.cat([dsacstar.PoseLoss.apply(*image, solver, seed + i) for i, image in enumerate(images)])
    coord = coord_loss(coords_B3hw, sigma_B1hw, batch, options)
    return replace(
        coord,
        total=pose_B.mean() + pose_options.weightcoord * coord.total,
        regression={**coord.regression, "pose": pose_B.detach().mean()},
        cells={**coord.cells, "pose": torch.full((), len(pose_B), device=coords_B3hw.device)},
    )
