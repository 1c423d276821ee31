// The estimators of ransac.h: a residual model over the cells of one image, with the sigma and the priors it knows.
#pragma once

#include <algorithm>
#include <cmath>

#include "prior.h"
#include "random.h"
#include "refine.h"

namespace dsacstar {

// How a sample's cells are chosen.
//   kGuided: among cells with near neighbours only, where there are enough of them
enum class Draw { kUniform, kBySigma, kGuided };

// Cells of a sample, all distinct.
bool draw_cells(const Cells& cells, Random& random, Draw draw, int* sample, int size);

// The pose of one sample and how badly the sample itself fits it. Returns false when there is none.
//   RGB: P3P on the first three; the fourth picks among the solutions and gives the error, pixels. target = (ray_xy, .)
//   RGB-D: Kabsch on three; the error is the worst distance, metres. target = measured camera point
template <bool kRgbd>
bool minimal_pose(const Eigen::Vector3d* world, const Eigen::Vector3d* target, double fx, double fy, double min_depth,
                  CameraPose* pose, double* error);

// Shares of the cells of a pose's inliers, by the way in which samples are drawn.
struct Agreement {
  double uniform = 0, by_sigma = 0, guided = 0;
};

// Cells of which a pose explains more than chance does.
//
// log of the expected number of poses that agree as well with `cells` when coordinates and targets are unrelated
// (a-contrario, Moisan & Stival, IJCV 2004): minimum over radii r of tests + log C(n, k) + (k - 3) log p, k the cells
// within r and p the chance to be, measured by pairing coordinates with other cells' targets. `cells_per_sample` > 1
// says that so many neighbouring cells err together and count as one. 0 or more: no better than chance.
template <Model kModel>
double log_false_alarms(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, double cells_per_sample);

template <Model kModel>
class CellEstimator {
 public:
  static constexpr bool kRgbd = kModel == Model::kPoint;
  static constexpr int kSample = kRgbd ? 3 : 4;

  // `scratch` is at least cells.count floats, padded. The prior is relative to the cells' origin.
  CellEstimator(const GridInput& input, Cells* cells, const ErrorModel& model, const PosePrior& prior, float* scratch)
      : input_(input), cells_(*cells), model_(model), prior_(prior), scratch_(scratch) {}

  int cells() const { return cells_.count; }
  double threshold() const { return model_.threshold; }
  bool weighted() const { return cells_.weighted; }
  bool draw(Random& random, Draw how, int* sample) const { return draw_cells(cells_, random, how, sample, kSample); }
  bool minimal(const int* sample, CameraPose* pose, double* error) const {
    Eigen::Vector3d world[kSample], target[kSample];
    for (int i = 0; i < kSample; ++i) world[i] = cells_.world(sample[i]), target[i] = cells_.target(sample[i]);
    return minimal_pose<kRgbd>(world, target, cells_.fx, cells_.fy, model_.min_depth, pose, error);
  }
  void prepare_guide() { if (cells_.guided.empty()) find_guide(input_, &cells_); }
  double prior_square(const CameraPose& pose) const { return prior_.square(pose); }

  ScoreSums score(const CameraPose& pose, int count) const { return score_pose<kModel>(cells_, count, pose, model_); }
  Ranks rank(const CameraPose& pose, int count) const { return rank_pose<kModel>(cells_, count, pose, model_); }
  Mixture guess(const CameraPose& pose, int count) const { return guess_mixture<kModel>(cells_, count, pose, model_, scratch_); }
  Refinement refine(const CameraPose& pose, const Mixture& mixture, int count, const RefineLimits& limits) const {
    return refine_pose<kModel>(cells_, count, pose, mixture, model_, prior_, limits);
  }
  // Cells that agree with a pose: sum max(0, 1 - e^2 / narrow^2) of the residuals that refinement minimises.
  double agree(const CameraPose& pose, int count, double narrow) const;
  // The threshold and the spread of the residuals of the cells that agree with a pose, in the residual's unit.
  double residual_threshold(const CameraPose& pose, int count) const;
  // The spread of a Gaussian over an even background among the residuals within four thresholds, so that what lies
  // farther has no say; where they show no peak, that of the likeliest mixture of all.
  double noise(const CameraPose& pose, int count, double threshold) const;
  // Root mean square distance between what two poses make of the cells, in the threshold's unit.
  double displacement(const CameraPose& a, const CameraPose& b) const;
  Agreement agreement(const CameraPose& pose, int count, double narrow) const;
  double false_alarms(const CameraPose& pose, int count, double cells_per_sample) const {
    return log_false_alarms<kModel>(cells_, count, pose, model_, cells_per_sample);
  }
  // Lets sigma count to a power from now on; chooses that power by the likelihood of the residuals under a pose.
  void use_sigma(double power) const { set_sigma_power(power, &cells_); }
  double sigma_power(const CameraPose& pose, int count) const;
  // The power of the depth with which the residuals' spread grows under a refined pose: 0 is noise of the coordinates, 1 that
  // of pixels. Where sigma tells the spread, or the residual is one of pixels or distances, it is 0.
  double depth_power(const Refinement& refined, int count) const;
  // Lets the spread grow with the depths that a pose gives, relative to their median, from now on.
  void use_depth(const CameraPose& pose, double power) const;
  // The mixture with a middle component where the residuals' tails ask for one; false where they do not.
  bool heavier_tails(const CameraPose& pose, int count, Mixture* mixture) const;
  // The first `count` cells that a pose does not explain, as cells of their own.
  void unexplained(const CameraPose& pose, int count, double narrow, Cells* rest) const;
  CellEstimator over(Cells* rest) const { return CellEstimator(input_, rest, model_, prior_, scratch_); }

 private:
  // Of the median depth to that of a cell, within bounds.
  double depth_ratio(const CameraPose& pose, int k, double median) const {
    const double depth = pose.R.row(2).dot(cells_.world(k)) + pose.t.z();
    return std::clamp(median / std::max(depth, 1e-9), 1.0 / policy::kMostDepthRatio, policy::kMostDepthRatio);
  }

  const GridInput& input_;
  Cells& cells_;
  const ErrorModel model_;
  const PosePrior& prior_;
  float* scratch_;
};

}  // namespace dsacstar
