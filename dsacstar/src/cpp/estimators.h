// The two estimators of ransac.h: RGB (P3P, reprojection error) and RGB-D (Kabsch, 3D distance).
#pragma once

#include "ransac.h"

namespace dsacstar {

// Draws cells in proportion to their pick weight, all distinct.
bool draw_cells(const Cells& cells, Random& random, int* sample, int size);

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
  bool minimal(const int* sample, CameraPose* pose, double* error) const;
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
