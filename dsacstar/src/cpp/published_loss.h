// The expected pose loss of DSAC* as published (backward_rgb, backward_rgbd) and its gradient with respect to the scene
// coordinates. Double precision. Training through the estimator that inference uses: pose_loss.h.
//
//   E = sum_j p_j loss(refined_j),  p = softmax over accepted hypotheses of  s_j = alpha / N sum_k sigmoid(beta (tau - r_jk))
//
// r_jk: error of cell k under the minimal pose j (pixels, or metres for RGB-D), clamped at max_error; beta = 5 / tau.
// refined_j: the local minimum, reached from pose j, of sum_k phi(r_k), phi = 1 - (1 - r^2 / tau^2)^3 for r < tau and 1
// beyond (Tukey): only inliers act, and they fade out smoothly, so that E has a gradient where a hard inlier set jumps.
//
// Gradient: refined poses by the implicit function theorem with the exact Hessian at the minimum; minimal poses by it
// on P3P's six equations, or Kabsch's normal equations; the choice of samples counts as constant.
// Degenerate cases: no accepted hypothesis gives loss 0 and no gradient; a hypothesis with fewer than 4 inliers, or
// without a strict minimum, stands unrefined.
// Source: DSAC*, Brachmann & Rother, TPAMI 2021, sec. 3.5; Tukey's biweight: Beaton & Tukey 1974.
#pragma once

#include "cells.h"
#include "loss_model.h"

namespace dsacstar {

struct LossOptions {
  int hypotheses = 64;
  int max_tries = 1000;  // samples per hypothesis
  double threshold = 10, max_error = 100, inlier_alpha = 100;
};

struct ExpectedLoss {
  double loss = 0;
  int accepted = 0;  // hypotheses that took part
};

// Adds dE / d coordinates to gradient [3, h, w].
ExpectedLoss expected_loss(const GridInput& input, const LossModel& model, const LossOptions& options, uint64_t seed,
                           double* gradient);

}  // namespace dsacstar
