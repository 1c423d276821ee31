// Per-cell sums over all cells, in float with SIMD, chosen for the CPU at run time.
//
// Error of a cell under a pose, p = R x + t:
//   RGB:   reprojection error in pixels, |f (p_xy / p_z - ray_xy)|, for p_z > min_depth, else max_error
//   RGB-D: |p - p_measured| in metres
// Soft inlier count: sum sigmoid(beta (threshold - error)), beta = 5 / threshold, errors clamped at max_error.
//   Source: DSAC*, Brachmann & Rother, TPAMI 2021, eq. 6.
//
// Normal equations of a residual e, weighted by a mixture of Gaussians of different spread:
//   kRay:   e = p - ray (ray . p), the offset of the point from its cell's ray, metres. Noise that is isotropic in the
//           scene is isotropic in e at every depth, whereas its size in pixels falls with depth: this is the
//           maximum-likelihood residual of coordinate noise.
//   kPixel: e = f (p_xy / p_z - ray_xy), pixels: the maximum-likelihood residual of exact points seen with pixel noise.
//   kPoint: e = p - p_measured, metres (RGB-D).
#pragma once

#include <limits>

#include "camera_pose.h"
#include "cells.h"
#include "policy.h"

namespace dsacstar {

enum class Model { kRay, kPixel, kPoint };

// Degrees of freedom of a cell's residual.
constexpr double dimensions(Model model) { return model == Model::kPoint ? 3.0 : 2.0; }

struct ErrorModel {
  float threshold = 10;   // pixels (RGB), metres (RGB-D)
  float max_error = 100;  // same unit
  float min_depth = policy::kMinDepth;  // metres
};

struct ScoreSums {
  double soft = 0;     // soft inlier count
  double inliers = 0;  // cells with error < threshold
};

struct Ranks {
  double wide = 0;    // sum 1 / (1 + (error / (3 threshold))^2): wide tails, which rank poses that are only roughly right
  double narrow = 0;  // sum max(0, 1 - (error / threshold)^2): only cells that agree count (MSAC)
};

// Mixture of the residuals, each scaled by the cell's sigma: inliers N(0, s1^2), a middle component N(0, 9 s1^2) for
// inliers whose noise has heavier tails than a Gaussian's, and outliers N(0, s2^2).
struct Mixture {
  double inlier_share = 0.5;
  double middle_share = 0;  // 0: without a middle component
  double inlier_var = 1;    // s1^2
  double outlier_var = 1;   // s2^2
  double most_inlier_var = std::numeric_limits<double>::infinity();  // s1^2 does not grow beyond
  bool outliers_pull = false;  // whether the wide component moves the pose too (a wide basin), or only explains outliers
};

// Sums of one EM step of the mixture.
struct MixtureSums {
  double inliers = 0, inlier_square = 0;  // responsibilities, and times the squared normalised residual
  double middle = 0, middle_square = 0;
  double count = 0;   // cells in front of the camera
  double square = 0;  // sum of squared normalised residuals, each clamped
  double weight = 0, weight_slope = 0;  // sums of w and q dw/dq, w the weight at the square q (mixture_sums only)
};

// Sums for one Gauss-Newton step (left perturbation, see camera_pose.h), and of the mixture.
struct NormalSums : MixtureSums {
  Matrix6d H = Matrix6d::Zero();  // sum w J^T J
  Vector6d g = Vector6d::Zero();  // sum w J^T e
};

// All sums run over the first `count` cells: a multiple of kLanePadding, or cells.count.
template <Model kModel>
ScoreSums score_pose(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model);

template <Model kModel>
Ranks rank_pose(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model);

template <Model kModel>
NormalSums normal_equations(const Cells& cells, int count, const CameraPose& pose, const Mixture& mixture,
                            double square_clamp, const ErrorModel& model);

// Squared normalised residuals e^2 / sigma^2, infinite behind the camera; `out` holds count padded to kLanePadding.
template <Model kModel>
void squared_residuals(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out);

// Errors as scored, clamped at max_error.
template <Model kModel>
void pose_errors(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out);

// Squared errors as scored, not clamped, infinite behind the camera.
template <Model kModel>
void squared_errors(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out);

// Per cell: its weight (1 for an inlier of precision 1), residual (kRay: in the cross section at the point's depth, so
// that ez is not used) and camera point.
struct CellFields {
  std::vector<float> w, ex, ey, ez, px, py, pz;
};
template <Model kModel>
void cell_fields(const Cells& cells, const CameraPose& pose, const Mixture& mixture, const ErrorModel& model, CellFields* out);

// One EM step over squared normalised residuals that are at hand: sums, and the log-likelihood (without constants).
// Infinite squares take no part. `squares` is padded with infinities.
template <Model kModel>
MixtureSums mixture_sums(const float* squares, int count, const Mixture& mixture, double square_clamp, double* log_likelihood);

// The mixture that an EM step's sums give.
void update_mixture(const MixtureSums& sums, double residual_dimensions, Mixture* mixture);

// "avx512", "avx2" or "baseline": what this CPU runs.
const char* instruction_set();

// Runs another variant from now on, for tests; false where this CPU cannot. Not for use while solving.
bool force_instruction_set(const char* name);

}  // namespace dsacstar
