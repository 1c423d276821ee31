"""The grids of labels and predictions."""

import torch

from geometry.grid import FULL_SIZE_STRIDE, NODATA, STRIDE, STRIDES, cell_centres, grid_size


def test_sizes_round_up_at_either_stride():
    assert grid_size(480, 721) == grid_size(480, 721, 8) == (60, 91) and grid_size(480, 721, 1) == (480, 721)
    assert (STRIDE, FULL_SIZE_STRIDE, STRIDES, NODATA) == (8, 1, (8, 1), -1.0)


def test_cells_look_through_their_centres():
    centres = cell_centres(3, 2)
    assert centres.shape == (2, 3, 2) and centres.dtype == torch.float32
    assert centres[:, 2, 1].tolist() == [12.0, 20.0] and centres[:, 0, 0].tolist() == [4.0, 4.0]
    fine = cell_centres(3, 2, 1, dtype=torch.float64)
    assert fine[:, 2, 1].tolist() == [1.5, 2.5] and fine.dtype == torch.float64
