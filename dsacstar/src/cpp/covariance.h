// The covariance of a refined pose, without taking cells as independent.
//
// A refined pose solves sum_k w_k J_k^T e_k = 0, so its covariance is A^-1 B A^-1, A = sum d(w e)^T/de J^T J and
// B = cov(sum w J^T e). Networks err smoothly over the image: e of neighbouring cells is correlated and B many times what
// independent cells would give. The grid is cut into at most kMostBlocks blocks. Their weighted mean residuals y, one for
// each of the residual's directions, follow a Gaussian with covariance s^2 (D + eta K_l): D for what is independent from
// block to block (noise, and correlation shorter than a block), K_l(b, c) = exp(-|b - c|^2 / (2 l^2)) for what is not.
// The pose has been fitted to y, so its likelihood is the restricted one (REML), in which six directions carry nothing.
// B is averaged over a grid of (eta, l) by that likelihood: with a correlation as long as the image, no single pair is
// certain.
// Source: sandwich (Huber 1967); REML (Patterson & Thompson, Biometrika 1971).
// Degenerate cases: too few blocks for that give the covariance of independent cells, inflated for their number; a
// singular A gives an infinite covariance.
#pragma once

#include "refine.h"

namespace dsacstar {

struct PoseCovariance {
  Matrix6d perturbation = Matrix6d::Zero();  // of the left perturbation (omega, v)
  double inflation = 1;                      // of its variances over those of independent cells, on average
};

// `information` is the refinement's H, without priors.
template <Model kModel>
PoseCovariance honest_covariance(const Cells& cells, const Refinement& refined, const Matrix6d& information,
                                 const ErrorModel& model, float* scratch);

}  // namespace dsacstar
