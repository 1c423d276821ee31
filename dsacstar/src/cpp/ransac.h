// The search, written once over an estimator (estimators.h).
//
// Hypotheses come in batches. The best of a batch by two scores (one with wide tails, for poses that are only roughly
// right, one that counts only cells that agree) are refined for a few rounds on a subset of the cells; the choice among
// them is made by how many cells agree at the threshold, or at the noise where that is larger. The search stops when
// samples of inliers only have been drawn often enough, judged by the share of cells that agree with the best pose, and
// that pose explains more than chance does; until then it goes on, with every second sample drawn among cells whose
// neighbours are near. What the best pose leaves unexplained is searched for a second structure.
//
// Every hypothesis draws from its own stream hash(seed, index) and tries at most max_tries samples, so the run is
// bounded and does not depend on the order of evaluation.
// Source: DSAC*, Brachmann & Rother, TPAMI 2021; local optimisation of the best few after Chum, Matas, Kittler 2003.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "estimators.h"
#include "local_search.h"
#include "policy.h"
#include "random.h"

namespace dsacstar {

struct Hypothesis {
  CameraPose pose;
  int sample[4] = {0, 0, 0, 0};
  double error = std::numeric_limits<double>::infinity();  // the sample's own worst error under `pose`
  int tries = 0;
  bool valid = false;     // a pose exists
  bool accepted = false;  // and its error is under the threshold
};

// The first sample of the stream whose own error is under the threshold, else the best of max_tries samples.
template <class Estimator>
Hypothesis draw_hypothesis(const Estimator& estimator, Draw how, uint64_t seed, uint64_t index, int max_tries) {
  Random random(seed, index);
  Hypothesis best;
  int attempt = 0;
  while (attempt < max_tries) {
    Hypothesis h;
    ++attempt;
    if (!estimator.draw(random, how, h.sample)) break;
    if (!estimator.minimal(h.sample, &h.pose, &h.error)) continue;
    h.valid = true;
    h.accepted = h.error < estimator.threshold();
    if (!best.valid || h.error < best.error) best = h;
    if (h.accepted) break;
  }
  best.tries = attempt;
  return best;
}

struct RansacLimits {
  int hypotheses = 64;       // drawn, unless fewer are enough
  int most_hypotheses = 1024;  // drawn where inliers are rare
  int max_tries = 16;        // samples per hypothesis
  int subset = 1024;         // cells that rank the hypotheses
  int candidates = 4;        // hypotheses of a batch refined on the subset, by each score
  int max_rounds = 100;      // of the final refinement, over all cells
};

struct RansacOutcome {
  Refinement best;
  double sigma_power = 0;   // to which sigma counts
  double depth_power = 0;   // and the depth, where there is no sigma
  double narrow = 0;        // threshold at which the choice was made
  Refinement second;        // another structure, refined on the subset; usable or there is none
  double second_ratio = 0;  // its score over the best one's
  int rounds = 0;
  int hypotheses = 0;
  bool found = false;
};

template <class Estimator>
class Search {
 public:
  Search(Estimator& estimator, const RansacLimits& limits, uint64_t seed)
      : estimator_(estimator),
        limits_(limits),
        seed_(seed),
        subset_(std::min(estimator.cells(), limits.subset)),
        local_(estimator, subset_, limits.max_rounds) {}

  RansacOutcome run() {
    if (estimator_.cells() < Estimator::kSample) return outcome_;
    while (true) {
      const int drawn = outcome_.hypotheses;
      const int wanted = drawn == 0 ? std::min(policy::kFirstBatch, limits_.hypotheses)
                         : drawn < limits_.hypotheses ? limits_.hypotheses
                                                      : std::min(drawn + policy::kBatch, std::max(limits_.most_hypotheses, limits_.hypotheses));
      if (drawn == wanted) break;
      draw_batch(wanted);
      try_batch();
      if (!trials_.empty()) choose();
      if (enough()) break;
    }
    if (!trials_.empty()) finish();
    outcome_.rounds += local_.rounds();
    return outcome_;
  }

 private:
  struct Drawn {
    Ranks ranks;
    CameraPose pose;
    double prior;
  };

  Draw way(int index) const {
    const bool first = index < limits_.hypotheses;
    if (index % 2 == 1 && estimator_.weighted()) return Draw::kBySigma;
    if (!first && index % (estimator_.weighted() ? 4 : 2) == 0) return Draw::kGuided;
    return Draw::kUniform;
  }

  void draw_batch(int until) {
    if (outcome_.hypotheses >= limits_.hypotheses) estimator_.prepare_guide();
    for (int& index = outcome_.hypotheses; index < until; ++index) {
      const Draw how = way(index);
      const Hypothesis h = draw_hypothesis(estimator_, how, seed_, static_cast<uint64_t>(index), limits_.max_tries);
      tries_[static_cast<int>(how)] += h.tries;
      if (!h.valid) continue;
      drawn_.push_back({estimator_.rank(h.pose, subset_), h.pose, estimator_.prior_square(h.pose)});
    }
  }

  // Refines the best of the hypotheses not yet tried by either score, each kind of pose once.
  void try_batch() {
    std::vector<const Drawn*> chosen;
    const auto take = [&](auto better) {
      std::vector<const Drawn*> order;
      for (size_t i = tried_; i < drawn_.size(); ++i) order.push_back(&drawn_[i]);
      const size_t kept = std::min(order.size(), static_cast<size_t>(limits_.candidates));
      std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(), [&](const Drawn* a, const Drawn* b) {
        const bool a_far = a->prior > policy::kPriorGate, b_far = b->prior > policy::kPriorGate;
        if (a_far != b_far) return b_far;
        if (better(*a) != better(*b)) return better(*a) > better(*b);
        return a < b;
      });
      for (size_t i = 0; i < kept; ++i) {
        bool fresh = true;
        for (const Drawn* other : chosen)
          fresh &= other != order[i] && estimator_.displacement(other->pose, order[i]->pose) > policy::kSamePose * estimator_.threshold();
        if (fresh) chosen.push_back(order[i]);
      }
    };
    take([](const Drawn& d) { return d.ranks.wide; });
    take([](const Drawn& d) { return d.ranks.narrow; });
    tried_ = drawn_.size();
    for (const double power : {0.0, 1.0}) {
      if (power > 0.0 && !estimator_.weighted()) break;
      if (estimator_.weighted()) estimator_.use_sigma(power);
      for (const Drawn* candidate : chosen) local_.try_out(candidate->pose, power, &trials_);
    }
  }

  // Sigma does not count in the choice: what it is worth is not known yet.
  void choose() {
    if (estimator_.weighted()) estimator_.use_sigma(0.0);
    choice_ = local_.choose(&trials_);
    outcome_.narrow = choice_.narrow;
  }

  // Whether samples of the best pose's inliers have been drawn so often that a better pose would have been seen. A pose
  // whose noise comes near the threshold may be a compromise between structures: it must be seen more often.
  bool enough() {
    if (trials_.empty()) return false;
    const CameraPose& pose = trials_[choice_.best].refined.pose;
    const double threshold = estimator_.residual_threshold(pose, subset_);
    const bool clear = choice_.noise < policy::kClearNoise * threshold;
    if (!clear && outcome_.hypotheses < limits_.hypotheses) return false;
    const Agreement share = estimator_.agreement(pose, subset_, std::min(outcome_.narrow, 2.0 * choice_.noise));
    const auto power = [](double x) { return Estimator::kSample == 4 ? x * x * x * x : x * x * x; };
    const double good = tries_[0] * power(share.uniform) + tries_[1] * power(share.by_sigma) + tries_[2] * power(share.guided);
    return good > (clear ? policy::kEnoughSamples : policy::kEnoughUnclear) &&
           estimator_.false_alarms(pose, std::min(subset_, 512), 1.0) < std::log(policy::kFalseAlarms);
  }

  // The worth of sigma, convergence on the subset, a second structure, then all cells.
  void finish() {
    outcome_.found = true;
    Trial best = trials_[choice_.best];
    if (estimator_.weighted()) {
      outcome_.sigma_power = estimator_.sigma_power(best.refined.pose, subset_);
      estimator_.use_sigma(outcome_.sigma_power);
      if (outcome_.sigma_power != best.power)
        best.refined = local_.refine(best.refined.pose, estimator_.guess(best.refined.pose, subset_), subset_,
                                     policy::kTrialRounds, policy::kSubsetTolerance);
    }
    outcome_.best = local_.converge(best.refined, outcome_.narrow);
    look_narrower();
    find_second();
    // Noise of pixels rather than of coordinates, or of a network that errs by a share of the distance.
    outcome_.depth_power = estimator_.depth_power(outcome_.best, subset_);
    if (outcome_.depth_power > 0.0) estimator_.use_depth(outcome_.best.pose, outcome_.depth_power), outcome_.best.converged = false;
    outcome_.best = local_.finish(outcome_.best);
  }

  // A pose whose noise is below the threshold may still lie between structures that are closer than that. A rival takes its
  // place if it holds about half of the cells with half the noise, far more than agree that closely with the pose.
  void look_narrower() {
    const double noise = std::sqrt(outcome_.best.mixture.inlier_var);
    const double threshold = estimator_.residual_threshold(outcome_.best.pose, subset_);
    if (!(noise > policy::kLeastNoise * threshold && noise < policy::kMostNoise * threshold)) return;
    Mixture narrow;
    narrow.inlier_var = narrow.most_inlier_var = policy::kNarrower * policy::kNarrower * noise * noise;
    narrow.outlier_var = policy::kSeparationFinal * narrow.inlier_var;
    Refinement rival = local_.refine(outcome_.best.pose, narrow, subset_, policy::kSecondRounds, policy::kSubsetTolerance);
    const double width = policy::kScalesOfNoise * policy::kNarrower * noise, compromise = local_.score(outcome_.best.pose, width);
    double score = local_.score(rival.pose, width);
    if (!(rival.mixture.inlier_share > policy::kPromisingShare && score > policy::kPromisingGain * compromise)) return;
    std::vector<std::pair<double, size_t>> order;
    for (size_t i = 0; i < drawn_.size(); ++i)
      if (!(drawn_[i].prior > policy::kPriorGate)) order.emplace_back(-estimator_.agree(drawn_[i].pose, subset_, noise), i);
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < std::min<size_t>(order.size(), policy::kRivals); ++i) {
      const Refinement other =
          local_.refine(drawn_[order[i].second].pose, narrow, subset_, policy::kSecondRounds, policy::kSubsetTolerance);
      const double own = local_.score(other.pose, width);
      if (other.usable && own > score) rival = other, score = own;
    }
    const double share = rival.mixture.inlier_share;
    if (!rival.usable || share < policy::kRivalShare || share * subset_ < policy::kFewestRival) return;
    if (!(score > policy::kRivalGain * compromise)) return;
    outcome_.narrow = width;
    outcome_.best = local_.converge(rival, width);
  }

  // The best hypothesis for the cells that the best pose leaves unexplained, if it explains more of them than chance.
  void find_second() {
    constexpr int kFewest = 16;
    Cells rest;
    estimator_.unexplained(outcome_.best.pose, subset_, outcome_.narrow, &rest);
    if (rest.count < std::max(kFewest, subset_ / 12)) return;
    Estimator others = estimator_.over(&rest);
    const Drawn* best = nullptr;
    double best_score = 0;
    for (const Drawn& d : drawn_) {
      if (d.prior > policy::kPriorGate) continue;
      const Ranks ranks = others.rank(d.pose, rest.count);
      const double score = ranks.narrow + 0.2 * ranks.wide;
      if (score > best_score) best_score = score, best = &d;
    }
    if (best == nullptr) return;
    RefineLimits limits;
    limits.max_rounds = policy::kTrialRounds + policy::kSecondRounds, limits.tolerance = policy::kSubsetTolerance;
    Refinement second = others.refine(best->pose, others.guess(best->pose, rest.count), rest.count, limits);
    outcome_.rounds += second.rounds;
    if (!second.usable || others.false_alarms(second.pose, rest.count, 1.0) > std::log(policy::kFalseAlarms)) return;
    if (estimator_.displacement(outcome_.best.pose, second.pose) < estimator_.threshold()) return;
    const double first_score = local_.score(outcome_.best.pose, outcome_.narrow), second_score = local_.score(second.pose, outcome_.narrow);
    if (second_score > first_score) std::swap(outcome_.best, second);
    outcome_.second = second;
    outcome_.second_ratio = std::clamp(std::min(first_score, second_score) / std::max({first_score, second_score, 1e-9}), 0.0, 1.0);
  }

  Estimator& estimator_;
  const RansacLimits limits_;
  const uint64_t seed_;
  const int subset_;
  LocalSearch<Estimator> local_;
  RansacOutcome outcome_;
  std::vector<Drawn> drawn_;
  std::vector<Trial> trials_;
  size_t tried_ = 0;
  Choice choice_;
  double tries_[3] = {0, 0, 0};
};

template <class Estimator>
RansacOutcome ransac(Estimator& estimator, const RansacLimits& limits, uint64_t seed) {
  return Search<Estimator>(estimator, limits, seed).run();
}

}  // namespace dsacstar
