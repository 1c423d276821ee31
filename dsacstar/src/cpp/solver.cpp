#include "solver.h"

#include <Eigen/LU>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>

#include "estimators.h"

namespace dsacstar {
namespace {

// Covariance of (rotation vector, camera centre) from the information of the left perturbation (omega, v).
// R_wc exp(-omega) turns the camera by -omega in its own frame, and the centre moves by -R_wc v.
Matrix6d pose_covariance(const Matrix6d& information, const CameraPose& pose) {
  const Vector6d scale = information.diagonal().cwiseMax(1e-30).cwiseSqrt().cwiseInverse();
  const Matrix6d scaled = scale.asDiagonal() * information * scale.asDiagonal();
  const Eigen::FullPivLU<Matrix6d> factor(scaled);
  if (!factor.isInvertible()) return Matrix6d::Constant(std::numeric_limits<double>::infinity());
  const Matrix6d covariance = scale.asDiagonal() * factor.inverse() * scale.asDiagonal();
  Matrix6d change = Matrix6d::Identity();
  change.bottomRightCorner<3, 3>() = pose.R.transpose();
  const Matrix6d turned = change * covariance * change.transpose();
  return 0.5 * (turned + turned.transpose());
}

SolveResult no_answer(const GridInput& input, int rounds) {
  SolveResult result;
  result.rounds = rounds;
  result.covariance.setConstant(std::numeric_limits<double>::infinity());
  result.inlier_mask.assign(static_cast<size_t>(input.height) * static_cast<size_t>(input.width), 0);
  return result;
}

template <bool kRgbd>
void solve_loaded(const GridInput& input, const SolveOptions& options, uint64_t seed, Workspace* workspace,
                  SolveResult* result) {
  const Cells& cells = workspace->cells;
  ErrorModel model;
  model.threshold = static_cast<float>(options.threshold);
  model.max_error = static_cast<float>(options.max_error);
  workspace->scratch.resize(cells.x.size());
  CellEstimator<kRgbd> estimator(cells, model, workspace->scratch.data());
  const RansacOutcome outcome = ransac(estimator, options.limits, seed);
  *result = no_answer(input, outcome.rounds);
  if (!outcome.found) return;

  const CameraPose& pose = outcome.best.pose;
  const ScoreSums sums = estimator.score(pose, cells.count);
  result->score = options.inlier_alpha / cells.count * sums.soft;
  pose_errors<kRgbd>(cells, cells.count, pose, model, workspace->scratch.data());
  for (size_t k = 0; k < static_cast<size_t>(cells.count); ++k) {
    const bool inlier = workspace->scratch[k] < model.threshold;
    result->inlier_mask[static_cast<size_t>(cells.source[k])] = inlier;
    result->inliers += inlier;
  }
  result->cam_from_world = pose;
  result->cam_from_world.t -= pose.R * cells.origin;
  result->covariance = pose_covariance(outcome.best.H, pose);
  // More cells agree than chance explains: its expectation and kChanceSigmas Poisson deviations above it, for the
  // search picks the luckiest of many poses.
  constexpr double kChanceSigmas = 6.0;
  const double chance = chance_rank<kRgbd>(cells, pose, model);
  const double needed = chance + kChanceSigmas * std::sqrt(chance);
  result->success = result->inliers >= CellEstimator<kRgbd>::kSample && estimator.rank(pose, cells.count) > needed &&
                    result->cam_from_world.finite();
  if (!result->success) *result = no_answer(input, outcome.rounds);
}

}  // namespace

void solve_image(const GridInput& input, const SolveOptions& options, uint64_t seed, Workspace* workspace,
                 SolveResult* result) {
  const auto start = std::chrono::steady_clock::now();
  *result = SolveResult();
  load_cells(input, &workspace->cells);
  if (input.camera_coords != nullptr) {
    solve_loaded<true>(input, options, seed, workspace, result);
  } else {
    solve_loaded<false>(input, options, seed, workspace, result);
  }
  result->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void solve_batch(const std::vector<GridInput>& inputs, const SolveOptions& options, uint64_t seed,
                 std::vector<SolveResult>* results) {
  results->resize(inputs.size());
  std::atomic<size_t> next{0};
  std::mutex failure_mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      Workspace workspace;
      for (size_t i = next++; i < inputs.size(); i = next++)
        solve_image(inputs[i], options, mix64(seed ^ mix64(i)), &workspace, &(*results)[i]);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failure_mutex);
      failure = std::current_exception();
    }
  };
  const size_t wanted = options.threads > 0 ? static_cast<size_t>(options.threads)
                                            : std::max<size_t>(1, std::thread::hardware_concurrency());
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(wanted, inputs.size()); ++i) {
    try {
      helpers.emplace_back(work);
    } catch (const std::system_error&) {
      break;  // no more threads to be had: the ones that run do the work
    }
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace dsacstar
