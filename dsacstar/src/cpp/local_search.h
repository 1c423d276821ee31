// What becomes of one pose: a trial on a subset of the cells, the choice among trials, convergence, all cells. Shared by the
// search (ransac.h) and by the loss that trains through it (pose_loss.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "policy.h"
#include "refine.h"

namespace dsacstar {

struct Trial {
  Refinement refined;
  double power = 0;  // of sigma
  double score = 0;
};

// The trial that most cells agree with, and how wide "agree" is.
struct Choice {
  size_t best = 0;
  double narrow = 0;  // in the residual's unit
  double noise = 0;   // of the best trial
};

template <class Estimator>
class LocalSearch {
 public:
  // The first `subset` cells decide until the last refinement.
  LocalSearch(Estimator& estimator, int subset, int max_rounds)
      : estimator_(estimator), subset_(subset), max_rounds_(max_rounds) {}

  int rounds() const { return rounds_; }

  // One refinement whose noise is measured; where that comes out beyond the threshold or near it, which competing
  // structures can do as well as noise, another whose inliers stay within the threshold, or within half that noise.
  void try_out(const CameraPose& pose, double power, std::vector<Trial>* trials) {
    const Mixture guess = estimator_.guess(pose, subset_);
    const double threshold = estimator_.residual_threshold(pose, subset_);
    Refinement free = refine(pose, guess, subset_, policy::kTrialRounds, policy::kSubsetTolerance);
    if (collapsed(free, subset_)) free = refine_widely(pose, subset_, policy::kTrialRounds, policy::kSubsetTolerance);
    trials->push_back({free, power, 0.0});
    const double noise = std::sqrt(free.mixture.inlier_var);
    if (noise > policy::kCap * threshold) {
      try_capped(pose, guess, policy::kCap * threshold, power, trials);
    } else if (noise > policy::kDoubtfulNoise * threshold) {
      try_capped(pose, guess, 0.5 * noise, power, trials);
    }
  }

  // Judged at the threshold, or at the noise of the one that agrees best there. Sets the trials' scores.
  Choice choose(std::vector<Trial>* trials) const {
    Choice out;
    out.narrow = estimator_.residual_threshold(trials->front().refined.pose, subset_);
    out.best = arg_best(out.narrow, trials);
    const CameraPose& pose = (*trials)[out.best].refined.pose;
    const double threshold = estimator_.residual_threshold(pose, subset_);
    out.noise = estimator_.noise(pose, subset_, threshold);
    out.narrow = std::max(threshold, policy::kScalesOfNoise * out.noise);
    out.best = arg_best(out.narrow, trials);
    return out;
  }

  // Convergence on the subset and a second look.
  Refinement converge(Refinement best, double narrow) {
    if (!best.converged)
      best = better(best, refine(best.pose, best.mixture, subset_, policy::kSubsetRounds, policy::kSubsetTolerance), narrow, 0.98);
    if (std::isfinite(best.mixture.most_inlier_var)) {
      // The threshold is no measure of the noise: let that be measured, unless the pose leaves its cells then.
      const Mixture guess = estimator_.guess(best.pose, subset_);
      best = better(best, refine(best.pose, guess, subset_, policy::kSubsetRounds, policy::kSubsetTolerance), narrow, 0.98);
    }
    // EM may have settled with an inlier component that holds more than one kind of cell: look once whether a narrower
    // one agrees better.
    if (policy::kScalesOfNoise * std::sqrt(best.mixture.inlier_var) > 0.5 * narrow) {
      Mixture tight = estimator_.guess(best.pose, subset_);
      if (tight.inlier_var > 0.5 * best.mixture.inlier_var) {
        tight = best.mixture;
        tight.outlier_var = std::max(2.0 * tight.inlier_var, tight.outlier_var);
        tight.inlier_var /= 9.0;
        tight.inlier_share = 0.5;
      }
      best = better(best, refine(best.pose, tight, subset_, policy::kSecondRounds, policy::kSubsetTolerance), narrow, 1.01);
    }
    return best;
  }

  // On all cells, with heavier tails where the residuals ask for them. These have a refinement of their own, which starts from
  // wherever the one without them is.
  Refinement finish(Refinement best) {
    Mixture three = best.mixture;
    const bool heavy = estimator_.heavier_tails(best.pose, subset_, &three);
    if (subset_ < estimator_.cells() || !best.converged) {
      const double tolerance = heavy ? policy::kSubsetTolerance : policy::kFinalTolerance;
      const Refinement all = refine(best.pose, best.mixture, estimator_.cells(), max_rounds_, tolerance);
      if (all.usable && (subset_ == estimator_.cells() || all.mixture.inlier_var < 4.0 * best.mixture.inlier_var)) best = all;
    }
    if (collapsed(best, estimator_.cells())) {
      const Refinement wide = refine_widely(best.pose, estimator_.cells(), max_rounds_, policy::kFinalTolerance);
      if (wide.usable && !collapsed(wide, estimator_.cells())) best = wide;
    }
    return heavy ? with_middle(best, three) : best;
  }

  Refinement refine(const CameraPose& pose, const Mixture& mixture, int count, int most_rounds, double tolerance) {
    RefineLimits limits;
    limits.max_rounds = most_rounds, limits.tolerance = tolerance;
    const Refinement refined = estimator_.refine(pose, mixture, count, limits);
    rounds_ += refined.rounds;
    return refined;
  }

  double score(const CameraPose& pose, double narrow) const {
    return estimator_.agree(pose, subset_, narrow) - 0.5 * estimator_.prior_square(pose);
  }

 private:
  void try_capped(const CameraPose& pose, const Mixture& guess, double most_noise, double power, std::vector<Trial>* trials) {
    Mixture capped = guess;
    capped.most_inlier_var = most_noise * most_noise;
    capped.inlier_var = std::min(guess.inlier_var, capped.most_inlier_var);
    trials->push_back({refine(pose, capped, subset_, policy::kTrialRounds, policy::kSubsetTolerance), power, 0.0});
  }

  size_t arg_best(double narrow, std::vector<Trial>* trials) const {
    size_t best = 0;
    for (size_t i = 0; i < trials->size(); ++i) {
      (*trials)[i].score = score((*trials)[i].refined.pose, narrow);
      if ((*trials)[i].score > (*trials)[best].score) best = i;
    }
    return best;
  }

  // On a small grid the cells that a hypothesis was made of, which fit it exactly, can draw the mixture to themselves.
  static bool collapsed(const Refinement& refined, int count) {
    return (refined.mixture.inlier_share + refined.mixture.middle_share) * count < policy::kFewestInliers;
  }

  // From a mixture whose inliers are all that lies near the threshold.
  Refinement refine_widely(const CameraPose& pose, int count, int most_rounds, double tolerance) {
    Mixture wide = estimator_.guess(pose, subset_);
    const double threshold = estimator_.residual_threshold(pose, subset_);
    wide.inlier_share = 0.5, wide.inlier_var = 0.25 * threshold * threshold;
    wide.outlier_var = std::max(wide.outlier_var, policy::kSeparationFinal * wide.inlier_var);
    return refine(pose, wide, count, most_rounds, tolerance);
  }

  // The other one if more cells agree with it, or about as many while it has gone further.
  Refinement better(const Refinement& now, const Refinement& other, double narrow, double factor) const {
    if (!other.usable || collapsed(other, subset_)) return now;
    const double a = score(now.pose, narrow), b = score(other.pose, narrow);
    return b > (a > 0.0 ? factor * a : a) ? other : now;
  }

  // Heavier tails than a Gaussian's get a component of their own, unless the pose moves by more than noise explains:
  // then it is not noise but another structure.
  Refinement with_middle(const Refinement& best, const Mixture& three) {
    const Refinement heavy = refine(best.pose, three, estimator_.cells(), max_rounds_, policy::kFinalTolerance);
    if (!heavy.usable || heavy.mixture.middle_share < policy::kMiddleShare) return best;
    Vector6d shift;
    const Eigen::AngleAxisd turn(heavy.pose.R * best.pose.R.transpose());
    shift << turn.angle() * turn.axis(), heavy.pose.t - turn * best.pose.t;
    return shift.dot(best.H * shift) < 6.0 * policy::kMiddleShift ? heavy : best;
  }

  Estimator& estimator_;
  const int subset_, max_rounds_;
  int rounds_ = 0;
};

}  // namespace dsacstar
