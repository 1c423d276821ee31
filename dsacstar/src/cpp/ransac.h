// The RANSAC loop, written once over an estimator.
//
// An Estimator provides
//   static constexpr int kSample;                                     cells in a sample
//   int cells() const;                                                usable cells
//   bool draw(Random&, int* sample) const;                            a sample of distinct cells; false: give up
//   bool minimal(const int* sample, CameraPose*, double* error) const;  the sample's pose and its own worst error
//   double threshold() const;                                         a hypothesis counts when error < threshold
//   ScoreSums score(const CameraPose&, int count) const;              over the first `count` cells
//   Refinement polish(const CameraPose&, int count, int rounds);      robust refinement, mixture guessed afresh
//   Refinement polish(const Refinement&, int count, int rounds) const;  ... continued
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
  int candidates = 4;      // hypotheses polished on the subset
  int subset_rounds = 30;  // rounds of that
  int max_rounds = 100;    // of the final refinement, over all cells
};

struct RansacOutcome {
  Refinement best;
  int rounds = 0;
  bool found = false;
};

template <class Estimator>
RansacOutcome ransac(Estimator& estimator, const RansacLimits& limits, uint64_t seed) {
  struct Ranked {
    double score;
    CameraPose pose;
  };
  RansacOutcome outcome;
  const int cells = estimator.cells();
  if (cells < Estimator::kSample) return outcome;
  const int subset = cells <= limits.subset ? cells : limits.subset;

  // Ranked by the score that also rewards nearly right poses, best first, ties by index.
  std::vector<Ranked> top;
  top.reserve(static_cast<size_t>(limits.candidates) + 1);
  for (int index = 0; index < limits.hypotheses; ++index) {
    const Hypothesis h = draw_hypothesis(estimator, seed, static_cast<uint64_t>(index), limits.max_tries);
    if (!h.valid) continue;
    const double score = estimator.score(h.pose, subset).wide;
    if (static_cast<int>(top.size()) == limits.candidates && !(score > top.back().score)) continue;
    const auto place = std::find_if(top.begin(), top.end(), [&](const Ranked& r) { return score > r.score; });
    top.insert(place, {score, h.pose});
    if (static_cast<int>(top.size()) > limits.candidates) top.pop_back();
  }
  if (top.empty()) return outcome;

  double best_score = -1.0;
  for (const Ranked& candidate : top) {
    Refinement refined = estimator.polish(candidate.pose, subset, limits.subset_rounds);
    outcome.rounds += refined.rounds;
    const double score = estimator.score(refined.pose, subset).wide;
    if (score > best_score) best_score = score, outcome.best = refined;
  }
  outcome.found = true;
  const Refinement final_refinement = estimator.polish(outcome.best, cells, limits.max_rounds);
  outcome.rounds += final_refinement.rounds;
  if (final_refinement.usable) outcome.best = final_refinement;
  return outcome;
}

}  // namespace dsacstar
