// The two estimators of ransac.h: RGB (P3P, reprojection error) and RGB-D (Kabsch, 3D distance).
#pragma once

#include "ransac.h"

namespace dsacstar {

// Draws cells in proportion to their pick weight, all distinct.
bool draw_cells(const Cells& cells, Random& random, int* sample, int size);

// The pose of one sample and how badly the sample itself fits it. Returns false when there is none.
//   RGB: P3P on the first three; the fourth picks among the solutions and gives the error, pixels. target = (ray_xy, .)
//   RGB-D: Kabsch on three; the error is the worst distance, metres. target = measured camera point
template <bool kRgbd>
bool minimal_pose(const Eigen::Vector3d* world, const Eigen::Vector3d* target, double fx, double fy, double min_depth,
                  CameraPose* pose, double* error);

template <bool kRgbd>
class CellEstimator {
 public:
  static constexpr int kSample = kRgbd ? 3 : 4;

  // `scratch` is at least cells.count floats, padded.
  CellEstimator(const Cells& cells, const ErrorModel& model, float* scratch)
      : cells_(cells), model_(model), scratch_(scratch) {}

  int cells() const { return cells_.count; }
  double threshold() const { return model_.threshold; }
  bool draw(Random& random, int* sample) const { return draw_cells(cells_, random, sample, kSample); }
  bool minimal(const int* sample, CameraPose* pose, double* error) const {
    Eigen::Vector3d world[kSample], target[kSample];
    for (int i = 0; i < kSample; ++i) world[i] = cells_.world(sample[i]), target[i] = cells_.target(sample[i]);
    return minimal_pose<kRgbd>(world, target, cells_.fx, cells_.fy, model_.min_depth, pose, error);
  }
  ScoreSums score(const CameraPose& pose, int count) const { return score_pose<kRgbd>(cells_, count, pose, model_); }
  double rank(const CameraPose& pose, int count) const { return rank_pose<kRgbd>(cells_, count, pose, model_); }
  Mixture guess(const CameraPose& pose, int count) {
    return guess_mixture<kRgbd>(cells_, count, pose, model_, scratch_);
  }
  Refinement refine(const CameraPose& pose, const Mixture& mixture, int count, int rounds, double tolerance) const {
    return refine_pose<kRgbd>(cells_, count, pose, mixture, model_, rounds, tolerance);
  }

 private:
  const Cells& cells_;
  const ErrorModel model_;
  float* scratch_;
};

using RgbEstimator = CellEstimator<false>;
using RgbdEstimator = CellEstimator<true>;

}  // namespace dsacstar
