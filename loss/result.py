"""What every loss takes and gives, and the uncertainty-weighted regression that three of them share."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from records.options import check, option, positive

MIN_VALUE = 1e-7  # lower clamp of uncertainties, squares and reprojection errors


@dataclass(frozen=True)
class LossOptions:
    """Thresholds of the losses: what they put out of range counts only for its label, or not at all."""

    inittolerance: float = option(
        50.0,
        flags=("-itol",),
        check=positive,
        help="coord: a prediction farther than this from its label is out of range, metres",
    )
    mindepth: float = option(
        0.1, flags=("-mind",), check=positive, help="a predicted depth below this is out of range, metres"
    )
    softclamp: float = option(
        100.0,
        flags=("-sc",),
        check=positive,
        help="coord: reprojection errors grow like a square root beyond this, pixels",
    )
    hardclamp: float = option(
        1000.0,
        flags=("-hc",),
        check=positive,
        help="what exceeds it is out of range: pixels (coord), metres (depth) or degrees (normal)",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class LossResult:
    """A loss and what to report with it.

    Attributes:
        total: scalar to minimise.
        valid_rate: share in [0, 1] of predictions that are in range (semantics: pixel accuracy).
        regression: mean residuals by the name under which logs show them.
        cells: how many cells each of them is the mean of.
    """

    total: torch.Tensor
    valid_rate: torch.Tensor
    regression: dict[str, torch.Tensor]
    cells: dict[str, torch.Tensor] = field(default_factory=dict)


def check_shapes(prediction_BChw: torch.Tensor, sigma_B1hw: torch.Tensor | None, expected: tuple[int, ...]) -> None:
    """Raises ValueError unless prediction and uncertainty fit labels that ask for a prediction of shape `expected`."""
    if tuple(prediction_BChw.shape) != expected:
        raise ValueError(f"prediction of shape {tuple(prediction_BChw.shape)} against labels that need {expected}")
    if sigma_B1hw is not None and sigma_B1hw.shape != (expected[0], 1, *expected[2:]):
        raise ValueError(f"uncertainty of shape {tuple(sigma_B1hw.shape)} for a prediction of shape {expected}")


def regression_loss(
    error_B1hw: torch.Tensor, sigma_B1hw: torch.Tensor | None, valid_B1hw: torch.Tensor, *, dimensions: int
) -> torch.Tensor:
    """Sum over valid cells of the residual, or of its negative log-likelihood when an uncertainty is predicted.

    Args:
        error_B1hw: residuals, not negative.
        sigma_B1hw: standard deviation of each of `dimensions` isotropic coordinates, or None.
    Returns:
        scalar: sum of e, or of dimensions * ln(s) + e^2 / (2 s^2).
    """
    if sigma_B1hw is None:
        loss_B1hw = error_B1hw
    else:
        variance_B1hw = sigma_B1hw.square().clamp(min=MIN_VALUE)
        log_sigma_B1hw = sigma_B1hw.clamp(min=MIN_VALUE).log()
        loss_B1hw = dimensions * log_sigma_B1hw + error_B1hw.square().clamp(min=MIN_VALUE) / (2 * variance_B1hw)
    return torch.where(valid_B1hw, loss_B1hw, 0.0).sum()


def masked_mean(value_B1hw: torch.Tensor, mask_B1hw: torch.Tensor) -> torch.Tensor:
    """Mean of the detached values where the mask holds; 0 where it holds nowhere."""
    return torch.where(mask_B1hw, value_B1hw.detach(), 0.0).sum() / mask_B1hw.sum().clamp(min=1)
