#include "refine.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>

namespace dsacstar {
namespace {

constexpr double kVarianceFloor = 1e-10;    // of s1^2: exact input must not drive the weights to infinity
constexpr double kSeparation = 4.0;         // s2^2 / s1^2 stays above this, or the components would swap roles
constexpr double kLongestTurn = 0.5;        // radians in one round
constexpr double kStepTolerance = 1e-6;     // squared step, in standard deviations of the pose
constexpr double kMixtureTolerance = 2e-3;  // relative change of s1^2

}  // namespace

template <bool kRgbd>
Mixture guess_mixture(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* scratch) {
  // Quartiles of a chi-square variable with the residual's 2 or 3 degrees of freedom.
  constexpr double kFirst = kRgbd ? 1.2125 : 0.5754, kThird = kRgbd ? 4.1083 : 2.7726;
  squared_residuals<kRgbd>(cells, count, pose, model, scratch);
  float* end = std::remove_if(scratch, scratch + count, [](float v) { return !std::isfinite(v); });
  const std::ptrdiff_t n = end - scratch;
  Mixture mixture;
  if (n == 0) return mixture;
  std::nth_element(scratch, scratch + n / 4, end);
  mixture.inlier_var = std::max<double>(scratch[n / 4] / kFirst, kVarianceFloor);
  std::nth_element(scratch + n / 4, scratch + 3 * n / 4, end);
  mixture.outlier_var = std::max<double>(scratch[3 * n / 4] / kThird, 2.0 * kSeparation * mixture.inlier_var);
  return mixture;
}

template <bool kRgbd>
Refinement refine_pose(const Cells& cells, int count, const CameraPose& pose, const Mixture& mixture,
                       const ErrorModel& model, int max_rounds) {
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
    mix.outlier_var = std::max(mix.outlier_var, kSeparation * mix.inlier_var);
    mix.inlier_share = std::clamp(sums.inliers / sums.count, 1e-3, 1.0 - 1e-3);
    if (step_square < kStepTolerance && std::abs(mix.inlier_var - previous) < kMixtureTolerance * previous) {
      ++out.rounds;
      out.converged = true;
      break;
    }
  }
  return out;
}

template Mixture guess_mixture<false>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);
template Mixture guess_mixture<true>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);
template Refinement refine_pose<false>(const Cells&, int, const CameraPose&, const Mixture&, const ErrorModel&, int);
template Refinement refine_pose<true>(const Cells&, int, const CameraPose&, const Mixture&, const ErrorModel&, int);

}  // namespace dsacstar
