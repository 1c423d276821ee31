#include "estimators.h"

#include "p3p.h"

namespace dsacstar {

bool draw_cells(const Cells& cells, Random& random, int* sample, int size) {
  constexpr int kMostDraws = 64;  // per cell; after that any distinct cell will do
  for (int i = 0; i < size; ++i) {
    bool placed = false;
    for (int attempt = 0; attempt < 2 * kMostDraws && !placed; ++attempt) {
      const int k = random.below(cells.count);
      if (cells.weighted && attempt < kMostDraws && random.unit() >= cells.pick[static_cast<size_t>(k)]) continue;
      placed = true;
      for (int j = 0; j < i; ++j) placed &= sample[j] != k;
      if (placed) sample[i] = k;
    }
    if (!placed) return false;
  }
  return true;
}

// P3P on three cells; the fourth picks among the solutions and gives the error, pixels.
template <>
bool CellEstimator<false>::minimal(const int* sample, CameraPose* pose, double* error) const {
  Eigen::Vector3d rays[3], points[3];
  for (int i = 0; i < 3; ++i) {
    rays[i] = cells_.ray(sample[i]);
    points[i] = cells_.world(sample[i]);
  }
  CameraPose solutions[4];
  const int count = p3p(rays, points, solutions);
  const Eigen::Vector3d fourth = cells_.world(sample[3]), ray = cells_.target(sample[3]);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < count; ++i) {
    const Eigen::Vector3d p = solutions[i].apply(fourth);
    if (!(p.z() > model_.min_depth)) continue;
    const double dx = cells_.fx * (p.x() / p.z() - ray.x()), dy = cells_.fy * (p.y() / p.z() - ray.y());
    const double square = dx * dx + dy * dy;
    if (square < best) best = square, *pose = solutions[i];
  }
  *error = std::sqrt(best);
  return std::isfinite(best);
}

// Kabsch on three cells; the error is the worst distance, metres.
template <>
bool CellEstimator<true>::minimal(const int* sample, CameraPose* pose, double* error) const {
  Eigen::Vector3d world[3], camera[3];
  for (int i = 0; i < 3; ++i) world[i] = cells_.world(sample[i]), camera[i] = cells_.target(sample[i]);
  if (!kabsch(world, camera, 3, pose)) return false;
  double worst = 0.0;
  for (int i = 0; i < 3; ++i) worst = std::max(worst, (pose->apply(world[i]) - camera[i]).norm());
  *error = worst;
  return std::isfinite(worst);
}

}  // namespace dsacstar
