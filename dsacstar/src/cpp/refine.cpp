#include "refine.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "least_squares.h"

namespace dsacstar {

using namespace policy;

Consensus find_consensus(float* squares, int count, double d, double farthest_square) {
  std::sort(squares, squares + count);
  const int n = static_cast<int>(std::lower_bound(squares, squares + count, std::numeric_limits<float>::infinity()) - squares);
  Consensus out;
  if (n < 4) return out;
  // The range that outliers spread over: all but the last few, which may lie anywhere.
  const double range = std::min<double>(std::max<double>(squares[(19 * n) / 20], 1e-20), farthest_square);
  const double all = count;
  double best = -1.0;
  int agree = std::max(4, n / 10);
  for (int k = std::max(4, count / 32); k <= n; k += std::max(1, n / 64)) {
    const double square = std::max<double>(squares[k - 1], 1e-20);
    const double chance = std::pow(std::min(square / range, 1.0), 0.5 * d);
    const double share = (k - 3) / all;
    if (!(share > chance) || chance >= 1.0) continue;
    const double rest = std::max(1.0 - share, 1e-9);
    const double entropy = share * std::log(share / chance) + rest * std::log(rest / (1.0 - chance));
    if (entropy > best) best = entropy, agree = k;
  }
  out.share = agree / all;
  // The radius holds most of the inliers: take their spread from the middle of what it holds, as a Gaussian's median.
  const double median_of_chi2 = d == 3.0 ? 2.366 : 1.386;
  out.var = std::max<double>(squares[agree / 2], kVarianceFloor) / median_of_chi2;
  return out;
}

template <Model kModel>
Mixture guess_from_squares(float* squares, int count, double farthest_square) {
  constexpr double d = dimensions(kModel);
  constexpr int kSteps = 4;
  const Consensus found = find_consensus(squares, count, d, farthest_square);
  Mixture best;
  if (!(found.var > 0.0)) return best;
  const int finite = static_cast<int>(std::lower_bound(squares, squares + count, std::numeric_limits<float>::infinity()) - squares);
  double sum = 0;
  for (int k = finite / 2; k < finite; ++k) sum += std::min<double>(squares[k], farthest_square);
  const double upper_half = sum / (d * std::max(1, finite - finite / 2));
  // Starts: what the consensus says, and spreads for which a share of the cells would be most of the inliers.
  const double starts[] = {found.var, std::max<double>(squares[finite / 16], 1e-20) / d, std::max<double>(squares[finite / 4], 1e-20) / d};
  double highest = -std::numeric_limits<double>::infinity();
  for (const double start : starts) {
    Mixture mixture;
    mixture.inlier_var = std::max(start, kVarianceFloor);
    mixture.outlier_var = std::max(upper_half, kSeparationFinal * mixture.inlier_var);
    for (int step = 0; step < kSteps; ++step)
      update_mixture(mixture_sums<kModel>(squares, count, mixture, std::min(25.0 * mixture.outlier_var, farthest_square), nullptr), d, &mixture);
    double likelihood = 0;
    mixture_sums<kModel>(squares, count, mixture, 1.0, &likelihood);
    if (likelihood > highest) highest = likelihood, best = mixture;
  }
  return best;
}

template <Model kModel>
Mixture guess_mixture(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* scratch) {
  count = std::min(count, kGuessCells);
  squared_residuals<kModel>(cells, count, pose, model, scratch);
  // Behind the camera: as far as anything.
  const int padded = (count + kLanePadding - 1) / kLanePadding * kLanePadding;
  for (int k = count; k < padded; ++k) scratch[k] = std::numeric_limits<float>::infinity();
  // Nothing farther than a few scenes away is told apart; in pixels, nothing farther than a few images.
  const double far = kModel == Model::kPixel ? 4.0 * std::max(cells.fx, cells.fy) : 8.0 * cells.extent;
  return guess_from_squares<kModel>(scratch, count, far * far);
}

double depth_gate(const Cells& cells, int count, const CameraPose& pose) {
  constexpr int kDepths = 128;
  std::array<double, kDepths> depths;
  const int n = std::min(count, kDepths);
  if (n == 0) return 0.0;
  for (int k = 0; k < n; ++k) depths[static_cast<size_t>(k)] = pose.apply(cells.world(k)).z();
  std::nth_element(depths.begin(), depths.begin() + n / 2, depths.begin() + n);
  return kDepthGate * std::max(depths[static_cast<size_t>(n / 2)], 0.0);
}

template <Model kModel>
Refinement refine_pose(const Cells& cells, int count, const CameraPose& pose, const Mixture& mixture,
                       const ErrorModel& error_model, const PosePrior& prior, const RefineLimits& limits) {
  ErrorModel model = error_model;
  const double gate = depth_gate(cells, count, pose);
  if (kModel != Model::kPoint) model.min_depth = std::max(model.min_depth, static_cast<float>(gate));
  // Accurate cells would ask for steps that float sums cannot resolve.
  const double finest = kRounding * (kModel == Model::kPixel ? std::max<double>(cells.fx, cells.fy) : gate / kDepthGate);
  Refinement out;
  out.pose = pose;
  out.mixture = mixture;
  for (out.rounds = 0; out.rounds < limits.max_rounds; ++out.rounds) {
    Mixture& mix = out.mixture;
    NormalSums sums = normal_equations<kModel>(cells, count, out.pose, mix, 25.0 * mix.outlier_var, model);
    prior.add_normal_equations(out.pose, limits.prior_weight, &sums.H, &sums.g);
    if (!(sums.count >= 3.0) || !sums.H.allFinite() || !sums.g.allFinite()) break;
    Vector6d step;
    if (!damped_step(sums.H, sums.g, 1e-12, &step)) break;
    const double step_square = -step.dot(sums.g);
    const double turn = step.head<3>().norm();
    if (turn > kLongestTurn) step *= kLongestTurn / turn;
    CameraPose moved = out.pose;
    moved.perturb(step);
    if (!moved.finite()) break;
    out.pose = moved;
    out.H = sums.H;
    out.usable = true;

    const double previous = mix.inlier_var;
    update_mixture(sums, dimensions(kModel), &mix);
    const bool settled = step_square < limits.tolerance * limits.tolerance || step_square * previous < finest * finest * sums.count;
    if (settled && std::abs(mix.inlier_var - previous) < kMixtureTolerance * previous) {
      ++out.rounds;
      out.converged = true;
      break;
    }
  }
  return out;
}

#define DSAC_FOR_MODEL(M)                                                                                            \
  template Mixture guess_from_squares<M>(float*, int, double);                                                       \
  template Mixture guess_mixture<M>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);                \
  template Refinement refine_pose<M>(const Cells&, int, const CameraPose&, const Mixture&, const ErrorModel&,        \
                                     const PosePrior&, const RefineLimits&);
DSAC_FOR_MODEL(Model::kRay)
DSAC_FOR_MODEL(Model::kPixel)
DSAC_FOR_MODEL(Model::kPoint)
#undef DSAC_FOR_MODEL

}  // namespace dsacstar
