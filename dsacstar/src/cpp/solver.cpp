#include "solver.h"

#include <Eigen/LU>
#include <algorithm>
#include <chrono>
#include <cmath>

#include "covariance.h"
#include "estimators.h"
#include "least_squares.h"
#include "parallel.h"

namespace dsacstar {
namespace {

using namespace policy;

// Covariance of (rotation vector, camera centre) from that of the left perturbation (omega, v).
// R_wc exp(-omega) turns the camera by -omega in its own frame, and the centre moves by -R_wc v.
Matrix6d as_camera_motion(const Matrix6d& perturbation, const CameraPose& pose) {
  Matrix6d change = Matrix6d::Identity();
  change.bottomRightCorner<3, 3>() = pose.R.transpose();
  const Matrix6d turned = change * perturbation * change.transpose();
  return turned.allFinite() ? Matrix6d(0.5 * (turned + turned.transpose()))
                            : Matrix6d(Matrix6d::Constant(std::numeric_limits<double>::infinity()));
}

double normal_cdf(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

// P(|x| < radius) of a Gaussian with that covariance: a chi-square with the same first two moments, by Wilson and
// Hilferty's cube root.
double probability_within(const Eigen::Matrix3d& covariance, double radius) {
  const double mean = covariance.trace();
  if (!(mean > 0.0) || !std::isfinite(mean)) return mean == 0.0 ? 1.0 : 0.0;
  const double freedom = mean * mean / std::max((covariance * covariance).trace(), 1e-300);
  const double spread = 2.0 / (9.0 * freedom);
  return normal_cdf((std::cbrt(radius * radius / mean) - (1.0 - spread)) / std::sqrt(spread));
}

// The probability that the pose is right: that chance does not explain its agreement, that the second structure is not
// the true one, and that the error the covariance speaks of is below kNear of the scene's distance.
double confidence_of(double log_false_alarms, double alternative_ratio, const Eigen::Matrix3d& centre_covariance, double distance) {
  const double evidence = std::log(kFalseAlarms) - log_false_alarms;  // nats beyond what a success needs
  const double by_chance = evidence > 0.0 ? 0.5 * std::exp(-evidence / 8.0) : 1.0 - 0.5 * std::exp(evidence / 8.0);
  const double square = alternative_ratio * alternative_ratio;
  return (1.0 - by_chance) * (1.0 - 0.5 * square * square) * probability_within(centre_covariance, kNear * distance);
}

// What the cells say of the pose, a Gaussian about it, and the prior, together. Their weight is that of the honest
// covariance direction by direction: errors that cells have in common leave tilt and shift uncertain, and not the height.
struct Fused {
  CameraPose pose;
  Matrix6d covariance = Matrix6d::Zero();
  double square = 0;  // squared Mahalanobis distances of the pose from both
  bool usable = false;
};

Fused fuse(const CameraPose& pose, const Matrix6d& covariance, const PosePrior& prior) {
  constexpr int kRounds = 10;
  constexpr double kSettled = 1e-4;  // standard deviations
  Fused out;
  const Vector6d scale = covariance.diagonal().cwiseSqrt().cwiseInverse();
  if (!scale.allFinite()) return out;
  const Eigen::FullPivLU<Matrix6d> factor(scale.asDiagonal() * covariance * scale.asDiagonal());
  if (!factor.isInvertible()) return out;
  const Matrix6d cells = scale.asDiagonal() * factor.inverse() * scale.asDiagonal();
  out.pose = pose;
  Vector6d moved = Vector6d::Zero();
  for (int round = 0; round < kRounds; ++round) {
    Matrix6d H = cells;
    Vector6d g = cells * moved, step;
    prior.add_normal_equations(out.pose, 1.0, &H, &g);
    if (!damped_step(H, g, 0.0, &step)) return out;
    moved += step;
    out.pose = pose;
    out.pose.perturb(moved);
    out.covariance = H.inverse();
    if (-step.dot(g) < kSettled * kSettled) break;
  }
  out.square = moved.dot(cells * moved) + prior.square(out.pose);
  out.usable = out.pose.finite() && out.covariance.allFinite();
  return out;
}

template <Model kModel>
void solve_loaded(const GridInput& input, const PosePrior& given_prior, const SolveOptions& options, uint64_t seed,
                  Workspace* workspace, SolveResult* result) {
  Cells& cells = workspace->cells;
  ErrorModel model;
  model.threshold = static_cast<float>(options.threshold);
  model.max_error = static_cast<float>(options.max_error);
  workspace->scratch.resize(cells.x.size());
  const PosePrior prior = given_prior.relative_to(cells.origin);
  CellEstimator<kModel> estimator(input, &cells, model, prior, workspace->scratch.data());
  RansacOutcome outcome = ransac(estimator, options.limits, seed);
  result->rounds = outcome.rounds, result->hypotheses = outcome.hypotheses;
  if (!outcome.found || !outcome.best.pose.finite()) return;

  const auto information = [&](double prior_weight) {
    Matrix6d H = outcome.best.H;
    Vector6d unused = Vector6d::Zero();
    prior.add_normal_equations(outcome.best.pose, -prior_weight, &H, &unused);
    return H;
  };
  PoseCovariance covariance = honest_covariance<kModel>(cells, outcome.best, information(1.0), model, workspace->scratch.data());
  const auto log_false_alarms = [&](const CameraPose& pose, double inflation) {
    const int sample = std::min(cells.count, 1024);
    const double correlated = cells.count < kFewestCorrelated ? 1.0 : std::clamp(inflation, 1.0, cells.count / 12.0);
    return estimator.false_alarms(pose, sample, std::max(1.0, correlated * sample / cells.count));
  };
  bool fused = false;
  if (prior.given) {
    RefineLimits alone;
    alone.max_rounds = options.limits.max_rounds, alone.prior_weight = 0;
    const Refinement said = estimator.refine(outcome.best.pose, outcome.best.mixture, cells.count, alone);
    if (said.usable) {
      const PoseCovariance honest = honest_covariance<kModel>(cells, said, said.H, model, workspace->scratch.data());
      const Fused both = fuse(said.pose, honest.perturbation, prior);
      // If they contradict each other, or what the cells say may be chance, the cells are asked again, with the prior.
      fused = both.usable && both.square < kPriorGate && log_false_alarms(said.pose, honest.inflation) < std::log(kFalseAlarms);
      if (fused) {
        outcome.best = said, outcome.best.pose = both.pose;
        covariance.perturbation = both.covariance, covariance.inflation = honest.inflation;
      }
    }
  }
  if (prior.given && !fused && std::isfinite(covariance.inflation)) {
    // A prior counts against what the cells really tell: as many times more as their errors are correlated.
    RefineLimits limits;
    limits.max_rounds = options.limits.max_rounds, limits.prior_weight = covariance.inflation;
    const Refinement weighed = estimator.refine(outcome.best.pose, outcome.best.mixture, cells.count, limits);
    if (weighed.usable) outcome.best = weighed;
    covariance = honest_covariance<kModel>(cells, outcome.best, information(limits.prior_weight), model, workspace->scratch.data());
    Matrix6d both = covariance.perturbation.allFinite() ? Matrix6d(covariance.perturbation.inverse()) : Matrix6d(Matrix6d::Zero());
    Vector6d unused = Vector6d::Zero();
    prior.add_normal_equations(outcome.best.pose, 1.0, &both, &unused);
    const Eigen::FullPivLU<Matrix6d> factor(both);
    if (both.allFinite() && factor.isInvertible()) covariance.perturbation = factor.inverse();
  }

  const CameraPose& pose = outcome.best.pose;
  const ScoreSums sums = estimator.score(pose, cells.count);
  result->score = options.inlier_alpha / cells.count * sums.soft;
  pose_errors<kModel>(cells, cells.count, pose, model, workspace->scratch.data());
  for (size_t k = 0; k < static_cast<size_t>(cells.count); ++k) {
    const bool inlier = workspace->scratch[k] < model.threshold;
    result->inlier_mask[static_cast<size_t>(cells.source[k])] = inlier;
    result->inliers += inlier;
  }
  result->sigma_power = outcome.sigma_power, result->depth_power = outcome.depth_power;
  result->noise = std::sqrt(outcome.best.mixture.inlier_var);
  result->covariance = as_camera_motion(covariance.perturbation, pose);
  const double alarms = log_false_alarms(pose, covariance.inflation);
  const double distance = std::max(pose.apply(Eigen::Vector3d::Zero()).norm(), 1e-12);
  result->confidence = confidence_of(alarms, outcome.second_ratio, result->covariance.bottomRightCorner<3, 3>(), distance);
  result->success = alarms < std::log(kFalseAlarms) && sums.inliers + outcome.best.mixture.inlier_share * cells.count >= CellEstimator<kModel>::kSample;
  result->cam_from_world = pose;
  result->cam_from_world.t -= pose.R * cells.origin;
  if (outcome.second.usable && outcome.second.pose.finite()) {
    result->alternative = outcome.second.pose;
    result->alternative.t -= outcome.second.pose.R * cells.origin;
    result->alternative_ratio = outcome.second_ratio;
  }
}

}  // namespace

void solve_image(const GridInput& input, const PosePrior& prior, const SolveOptions& options, uint64_t seed,
                 Workspace* workspace, SolveResult* result) {
  const auto start = std::chrono::steady_clock::now();
  *result = SolveResult();
  result->covariance.setConstant(std::numeric_limits<double>::infinity());
  result->inlier_mask.assign(static_cast<size_t>(input.height) * static_cast<size_t>(input.width), 0);
  load_cells(input, &workspace->cells);
  if (input.camera_coords != nullptr) {
    solve_loaded<Model::kPoint>(input, prior, options, seed, workspace, result);
  } else if (options.pixel_residual) {
    solve_loaded<Model::kPixel>(input, prior, options, seed, workspace, result);
  } else {
    solve_loaded<Model::kRay>(input, prior, options, seed, workspace, result);
  }
  result->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool solve_batch(const std::vector<GridInput>& inputs, const std::vector<PosePrior>& priors, const SolveOptions& options,
                 uint64_t seed, const std::function<bool()>& interrupted, std::vector<SolveResult>* results) {
  results->resize(inputs.size());
  return parallel_for(inputs.size(), options.threads, interrupted, [&] {
    return [&, workspace = Workspace()](size_t i) mutable {
      solve_image(inputs[i], priors.empty() ? PosePrior() : priors[i], options, seed, &workspace, &(*results)[i]);
    };
  });
}

}  // namespace dsacstar
