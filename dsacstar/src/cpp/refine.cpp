#include "refine.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <array>
#include <cmath>

namespace dsacstar {
namespace {

constexpr double kVarianceFloor = 1e-10;    // of s1^2: exact input must not drive the weights to infinity
// s2^2 / s1^2 stays above this: low while the inlier component still shrinks towards the inliers, high once it has,
// where overlapping components would only trade cells slowly.
constexpr double kSeparationPulling = 4.0, kSeparationFinal = 16.0;
constexpr int kQuartileCells = 256;         // enough for quartiles
constexpr double kMixtureTolerance = 0.03;  // relative change of s1^2 in a last round
constexpr double kLongestTurn = 0.5;        // radians in one round

}  // namespace

template <bool kRgbd>
Mixture guess_mixture(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* scratch) {
  // Quartiles of a chi-square variable with the residual's 2 or 3 degrees of freedom.
  constexpr double kFirst = kRgbd ? 0.5844 : 0.2107, kThird = kRgbd ? 4.1083 : 2.7726;
  count = std::min(count, kQuartileCells);
  squared_residuals<kRgbd>(cells, count, pose, model, scratch);
  float* end = std::remove_if(scratch, scratch + count, [](float v) { return !std::isfinite(v); });
  const std::ptrdiff_t n = end - scratch;
  Mixture mixture;
  if (n == 0) return mixture;
  std::nth_element(scratch, scratch + n / 10, end);
  mixture.inlier_var = std::max<double>(scratch[n / 10] / kFirst, kVarianceFloor);
  std::nth_element(scratch + n / 10, scratch + 3 * n / 4, end);
  mixture.outlier_var = std::max<double>(scratch[3 * n / 4] / kThird, 2.0 * kSeparationPulling * mixture.inlier_var);
  return mixture;
}

double depth_gate(const Cells& cells, int count, const CameraPose& pose) {
  constexpr int kDepths = 128;
  std::array<double, kDepths> depths;
  const int n = std::min(count, kDepths);
  if (n == 0) return 0.0;
  for (int k = 0; k < n; ++k) depths[static_cast<size_t>(k)] = pose.apply(cells.world(k)).z();
  std::nth_element(depths.begin(), depths.begin() + n / 2, depths.begin() + n);
  return 0.1 * std::max(depths[static_cast<size_t>(n / 2)], 0.0);
}

template <bool kRgbd>
Refinement refine_pose(const Cells& cells, int count, const CameraPose& pose, const Mixture& mixture,
                       const ErrorModel& error_model, int max_rounds, double tolerance) {
  ErrorModel model = error_model;
  model.min_depth = std::max(model.min_depth, static_cast<float>(depth_gate(cells, count, pose)));
  constexpr double kDimensions = kRgbd ? 3.0 : 2.0;
  Refinement out;
  out.pose = pose;
  out.mixture = mixture;
  for (out.rounds = 0; out.rounds < max_rounds; ++out.rounds) {
    Mixture& mix = out.mixture;
    const NormalSums sums = normal_equations<kRgbd>(cells, count, out.pose, mix, 25.0 * mix.outlier_var, model);
    if (!(sums.count >= 3.0) || !sums.H.allFinite() || !sums.g.allFinite()) break;
    // Scaled to a unit diagonal: rotation and translation have different units.
    const Vector6d scale = sums.H.diagonal().cwiseMax(1e-30).cwiseSqrt().cwiseInverse();
    Matrix6d scaled = scale.asDiagonal() * sums.H * scale.asDiagonal();
    scaled.diagonal().array() += 1e-12;
    const Eigen::LLT<Matrix6d> factor(scaled);
    if (factor.info() != Eigen::Success) break;
    const Vector6d scaled_gradient = scale.asDiagonal() * sums.g;
    const Vector6d solution = factor.solve(scaled_gradient);
    Vector6d step = -(scale.asDiagonal() * solution);
    if (!step.allFinite()) break;
    const double step_square = solution.dot(scaled_gradient);
    const double turn = step.head<3>().norm();
    if (turn > kLongestTurn) step *= kLongestTurn / turn;
    CameraPose moved = out.pose;
    moved.perturb(step);
    if (!moved.finite()) break;
    out.pose = moved;
    out.H = sums.H;
    out.usable = true;

    const double previous = mix.inlier_var;
    const double outliers = sums.count - sums.inliers;
    mix.inlier_var = std::max(sums.inlier_square / (kDimensions * std::max(sums.inliers, 1e-3)), kVarianceFloor);
    mix.outlier_var = std::max(sums.square - sums.inlier_square, 0.0) / (kDimensions * std::max(outliers, 1e-3));
    const double separation = mix.outliers_pull ? kSeparationPulling : kSeparationFinal;
    mix.outlier_var = std::max(mix.outlier_var, separation * mix.inlier_var);
    mix.inlier_share = std::clamp(sums.inliers / sums.count, 1e-3, 1.0 - 1e-3);
    if (step_square < tolerance * tolerance && std::abs(mix.inlier_var - previous) < kMixtureTolerance * previous) {
      ++out.rounds;
      out.converged = true;
      break;
    }
  }
  return out;
}

template Mixture guess_mixture<false>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);
template Mixture guess_mixture<true>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);
template Refinement refine_pose<false>(const Cells&, int, const CameraPose&, const Mixture&, const ErrorModel&, int,
                                       double);
template Refinement refine_pose<true>(const Cells&, int, const CameraPose&, const Mixture&, const ErrorModel&, int,
                                       double);

}  // namespace dsacstar
