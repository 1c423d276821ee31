// The expected pose loss through the estimator that inference uses, and its gradient by the scene coordinates.
//
//   E = sum_j p_j loss(pose_j),  p = softmax of  s_j = alpha / N sum_k max(0, 1 - e_jk^2 / narrow^2)
//
// Hypotheses come from the sampler of the search and go through its trials, its choice and its refinement (local_search.h),
// residuals e as refinement minimises them; `narrow` is the choice's width, rounded so that it is constant almost
// everywhere. Trials that mean the same pose share one refinement. s_j is taken at the refined pose over all N cells.
// Gradient: exact almost everywhere, through the refined poses (optimum.h) and the scores; which samples were drawn, which
// trials are one pose and where refinement starts count as constant (see optimum.h for poses that do not settle).
// Degenerate cases: no pose at all gives loss 0 and no gradient.
#pragma once

#include <functional>
#include <vector>

#include "cells.h"
#include "loss_model.h"

namespace dsacstar {

struct PoseLossOptions {
  int hypotheses = 64;
  int max_tries = 16;      // samples per hypothesis
  double threshold = 10;   // pixels (RGB), metres (RGB-D)
  double inlier_alpha = 100;
  bool pixel_residual = false;
  int threads = 0;         // over images, hypotheses and poses; 0: one per CPU
};

struct PoseLoss {
  double loss = 0;
  int poses = 0;  // distinct ones that share the expectation
};

// One loss and one model per image; `gradient` is [B, 3, h, w] and set. Every image draws from the same seed, as in solve_batch,
// and threads never change an answer. False once `interrupted` says true (see solve_batch).
bool pose_losses(const std::vector<GridInput>& inputs, const std::vector<LossModel>& models, const PoseLossOptions& options,
                 uint64_t seed, const std::function<bool()>& interrupted, std::vector<PoseLoss>* losses, double* gradient);

}  // namespace dsacstar
