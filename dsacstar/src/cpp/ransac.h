// The RANSAC loop, written once over an estimator.
//
// An Estimator provides
//   static constexpr int kSample;                                     cells in a sample
//   int cells() const;                                                usable cells
//   bool draw(Random&, int* sample) const;                            a sample of distinct cells; false: give up
//   bool minimal(const int* sample, CameraPose*, double* error) const;  the sample's pose and its own worst error
//   double threshold() const;                                         a hypothesis counts when error < threshold
//   double rank(const CameraPose&, int count) const;                  higher is better, over the first `count` cells
//   Mixture guess(const CameraPose&, int count);                      residuals' mixture under a rough pose
//   Refinement refine(const CameraPose&, const Mixture&, int count, int rounds, double tolerance) const;
//
// Every hypothesis draws from its own stream hash(seed, index) and tries at most max_tries samples, so the run is
// bounded and does not depend on the order of evaluation.
// Source: DSAC*, Brachmann & Rother, TPAMI 2021; local optimisation of the best few after Chum, Matas, Kittler 2003.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "random.h"
#include "refine.h"

namespace dsacstar {

struct Hypothesis {
  CameraPose pose;
  int sample[4] = {0, 0, 0, 0};
  double error = std::numeric_limits<double>::infinity();  // the sample's own worst error under `pose`
  bool valid = false;                                      // a pose exists
  bool accepted = false;                                   // and its error is under the threshold
};

// The first sample of the stream whose own error is under the threshold, else the best of max_tries samples.
template <class Estimator>
Hypothesis draw_hypothesis(const Estimator& estimator, uint64_t seed, uint64_t index, int max_tries) {
  Random random(seed, index);
  Hypothesis best;
  for (int attempt = 0; attempt < max_tries; ++attempt) {
    Hypothesis h;
    if (!estimator.draw(random, h.sample)) break;
    if (!estimator.minimal(h.sample, &h.pose, &h.error)) continue;
    h.valid = true;
    h.accepted = h.error < estimator.threshold();
    if (!best.valid || h.error < best.error) best = h;
    if (h.accepted) break;
  }
  return best;
}

struct RansacLimits {
  int hypotheses = 64;
  int max_tries = 16;      // samples per hypothesis
  int subset = 1024;       // cells that rank the hypotheses
  int candidates = 4;      // hypotheses refined on the subset
  int trial_rounds = 6;    // rounds each of them gets to prove itself
  int subset_rounds = 30;  // further rounds of the best
  int second_rounds = 10;  // rounds of a second look with a narrow mixture
  int max_rounds = 100;    // of the final refinement, over all cells
};

struct RansacOutcome {
  Refinement best;
  int rounds = 0;
  bool found = false;
};

template <class Estimator>
RansacOutcome ransac(Estimator& estimator, const RansacLimits& limits, uint64_t seed) {
  constexpr double kSubsetTolerance = 0.03, kFinalTolerance = 0.01;  // standard deviations of the pose
  struct Ranked {
    double score;
    CameraPose pose;
  };
  RansacOutcome outcome;
  const int cells = estimator.cells();
  if (cells < Estimator::kSample) return outcome;
  const int subset = std::min(cells, limits.subset);

  // The best hypotheses, best first, ties by index.
  std::vector<Ranked> top;
  top.reserve(static_cast<size_t>(limits.candidates) + 1);
  for (int index = 0; index < limits.hypotheses; ++index) {
    const Hypothesis h = draw_hypothesis(estimator, seed, static_cast<uint64_t>(index), limits.max_tries);
    if (!h.valid) continue;
    const double score = estimator.rank(h.pose, subset);
    if (static_cast<int>(top.size()) == limits.candidates && !(score > top.back().score)) continue;
    const auto place = std::find_if(top.begin(), top.end(), [&](const Ranked& r) { return score > r.score; });
    top.insert(place, {score, h.pose});
    if (static_cast<int>(top.size()) > limits.candidates) top.pop_back();
  }
  if (top.empty()) return outcome;

  const auto refine = [&](const CameraPose& pose, const Mixture& mixture, int count, int rounds, double tolerance) {
    const Refinement refined = estimator.refine(pose, mixture, count, rounds, tolerance);
    outcome.rounds += refined.rounds;
    return refined;
  };
  double best_score = -1.0;
  for (const Ranked& candidate : top) {
    const Mixture mixture = estimator.guess(candidate.pose, subset);
    const Refinement trial = refine(candidate.pose, mixture, subset, limits.trial_rounds, kSubsetTolerance);
    const double score = estimator.rank(trial.pose, subset);
    if (score > best_score) best_score = score, outcome.best = trial;
  }
  outcome.found = true;
  if (!outcome.best.converged && subset < cells)
    outcome.best = refine(outcome.best.pose, outcome.best.mixture, subset, limits.subset_rounds, kSubsetTolerance);
  // EM may have settled with an inlier component as wide as the outliers: look once whether a narrow one fits better.
  Mixture narrow = outcome.best.mixture;
  narrow.outlier_var = 2.0 * narrow.inlier_var;
  narrow.inlier_var /= 9.0;
  narrow.inlier_share = 0.5;
  narrow.outliers_pull = false;
  const Refinement second = refine(outcome.best.pose, narrow, subset, limits.second_rounds, kSubsetTolerance);
  if (estimator.rank(second.pose, subset) > 1.01 * estimator.rank(outcome.best.pose, subset)) outcome.best = second;
  // From here on outliers no longer pull: close to the optimum their wide basin only biases.
  Mixture mixture = outcome.best.mixture;
  mixture.outliers_pull = false;
  const Refinement all = refine(outcome.best.pose, mixture, cells, limits.max_rounds, kFinalTolerance);
  if (all.usable) outcome.best = all;
  return outcome;
}

}  // namespace dsacstar
