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

template <>
bool minimal_pose<false>(const Eigen::Vector3d* world, const Eigen::Vector3d* target, double fx, double fy,
                         double min_depth, CameraPose* pose, double* error) {
  Eigen::Vector3d rays[3];
  for (int i = 0; i < 3; ++i) rays[i] = Eigen::Vector3d(target[i].x(), target[i].y(), 1.0).normalized();
  CameraPose solutions[4];
  const int count = p3p(rays, world, solutions);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < count; ++i) {
    const Eigen::Vector3d p = solutions[i].apply(world[3]);
    if (!(p.z() > min_depth)) continue;
    const double dx = fx * (p.x() / p.z() - target[3].x()), dy = fy * (p.y() / p.z() - target[3].y());
    const double square = dx * dx + dy * dy;
    if (square < best) best = square, *pose = solutions[i];
  }
  *error = std::sqrt(best);
  return std::isfinite(best);
}

template <>
bool minimal_pose<true>(const Eigen::Vector3d* world, const Eigen::Vector3d* target, double, double, double,
                        CameraPose* pose, double* error) {
  if (!kabsch(world, target, 3, pose)) return false;
  double worst = 0.0;
  for (int i = 0; i < 3; ++i) worst = std::max(worst, (pose->apply(world[i]) - target[i]).norm());
  *error = worst;
  return std::isfinite(worst);
}

}  // namespace dsacstar
