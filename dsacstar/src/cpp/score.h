// Per-cell sums over all cells, in float with SIMD, chosen for the CPU at run time.
//
// Error of a cell under a pose, p = R x + t:
//   RGB:   reprojection error in pixels, |f (p_xy / p_z - ray_xy)|, for p_z > min_depth, else max_error
//   RGB-D: |p - p_measured| in metres
// Soft inlier count: sum pick * sigmoid(beta (threshold - error)), beta = 5 / threshold, errors clamped at max_error.
//   Source: DSAC*, Brachmann & Rother, TPAMI 2021, eq. 6.
//
// Normal equations of the metric residual e (metres), weighted by a two-component Gaussian scale mixture:
//   RGB:   e = p - ray (ray . p), the offset of the point from its cell's ray. Noise that is isotropic in the scene is
//          isotropic in e at every depth, whereas its size in pixels falls with depth: this is the maximum-likelihood
//          residual of coordinate noise.
//   RGB-D: e = p - p_measured.
#pragma once

#include "camera_pose.h"
#include "cells.h"

namespace dsacstar {

struct ErrorModel {
  float threshold = 10;   // pixels (RGB), metres (RGB-D)
  float max_error = 100;  // same unit
  float min_depth = 1e-3f;  // metres
};

struct ScoreSums {
  double soft = 0;     // soft inlier count
  double inliers = 0;  // cells with error < threshold
};

// Mixture pi N(0, s1^2) + (1 - pi) N(0, s2^2) of the residuals, each scaled by the cell's sigma.
struct Mixture {
  double inlier_share = 0.5;
  double inlier_var = 1;   // s1^2
  double outlier_var = 1;  // s2^2
  bool outliers_pull = true;  // whether the wide component moves the pose too (a wide basin), or only explains outliers
};

// Sums for one Gauss-Newton step (left perturbation, see camera_pose.h) and one EM step of the mixture.
struct NormalSums {
  Matrix6d H = Matrix6d::Zero();     // sum w J^T J
  Vector6d g = Vector6d::Zero();     // sum w J^T e
  double inliers = 0;                // sum of inlier responsibilities
  double inlier_square = 0;          // ... times the squared normalised residual
  double count = 0;                  // cells in front of the camera
  double square = 0;                 // sum of squared normalised residuals, each clamped
};

// All sums run over the first `count` cells: a multiple of kLanePadding, or cells.count.
template <bool kRgbd>
ScoreSums score_pose(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model);

// sum pick / (1 + (error / (3 threshold))^2): a cheap score with wide tails, which ranks poses that are only roughly
// right, as hypotheses from three noisy cells are.
template <bool kRgbd>
double rank_pose(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model);

template <bool kRgbd>
NormalSums normal_equations(const Cells& cells, int count, const CameraPose& pose, const Mixture& mixture,
                            double square_clamp, const ErrorModel& model);

// Squared normalised residuals e^2 / sigma^2, infinite behind the camera; `out` holds count padded to kLanePadding.
template <bool kRgbd>
void squared_residuals(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out);

// Errors as scored, clamped at max_error.
template <bool kRgbd>
void pose_errors(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out);

// The rank that chance would give this pose: with each cell's coordinates paired with the target of a cell half the
// list away. 0 for fewer than 64 cells.
template <bool kRgbd>
double chance_rank(const Cells& cells, const CameraPose& pose, const ErrorModel& model);

// "avx512", "avx2" or "baseline": what this CPU runs.
const char* instruction_set();

}  // namespace dsacstar
