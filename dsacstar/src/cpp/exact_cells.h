// The cells of an image in double, so that differences of a loss are differences of the input.
#pragma once

#include <vector>

#include "cells.h"
#include "jets.h"

namespace dsacstar {

// Targets as jets.h takes them; `cells` as load_cells gives them.
template <Model kModel>
struct ExactCells {
  std::vector<Eigen::Vector3d> world, target;
  Lens lens;

  void load(const GridInput& in, const Cells& cells) {
    lens.fx = in.intrinsics.fx, lens.fy = in.intrinsics.fy;
    world.clear(), target.clear();
    world.reserve(static_cast<size_t>(cells.count)), target.reserve(static_cast<size_t>(cells.count));
    const int n = in.height * in.width;
    for (int i = 0; i < cells.count; ++i) {
      const int k = cells.source[static_cast<size_t>(i)];
      world.push_back(Eigen::Vector3d(in.scene_coords[k], in.scene_coords[n + k], in.scene_coords[2 * n + k]) - cells.origin);
      if (kModel == Model::kPoint) {
        target.emplace_back(in.camera_coords[k], in.camera_coords[n + k], in.camera_coords[2 * n + k]);
        continue;
      }
      const Eigen::Vector3d ray(((k % in.width + 0.5) * in.subsampling - in.intrinsics.cx) / lens.fx,
                                ((k / in.width + 0.5) * in.subsampling - in.intrinsics.cy) / lens.fy, 1.0);
      target.push_back(kModel == Model::kRay ? ray.normalized() : ray);
    }
  }
  size_t size() const { return world.size(); }
};

// Adds gradients by the cells' coordinates to planes [3, h, w]; what is not finite is left out.
inline void scatter_gradient(const std::vector<Eigen::Vector3d>& by_cell, const Cells& cells, const GridInput& in, double* planes) {
  const size_t n = static_cast<size_t>(in.height) * static_cast<size_t>(in.width);
  for (size_t k = 0; k < by_cell.size(); ++k) {
    if (!by_cell[k].allFinite()) continue;
    for (size_t axis = 0; axis < 3; ++axis)
      planes[axis * n + static_cast<size_t>(cells.source[k])] += by_cell[k][static_cast<Eigen::Index>(axis)];
  }
}

}  // namespace dsacstar
