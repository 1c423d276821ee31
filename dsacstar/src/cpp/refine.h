// Robust maximum-likelihood refinement of a pose over all cells.
//
// Residuals e (see score.h) follow pi N(0, s1^2 sigma^2) + (1 - pi) N(0, s2^2 sigma^2) with unknown pi, s1, s2: each
// round takes one EM step for the mixture and one Gauss-Newton step for the pose, from the same pass over the cells.
// Far cells are never cut off, they weigh s1^2 / s2^2; the basin is wide at first (s1 large) and narrows as s1 falls
// to the noise. No threshold enters: the noise is measured, not assumed.
// Source: iteratively reweighted least squares as EM (Dempster, Laird, Rubin 1980; Lange & Sinsheimer 1993).
// Degenerate cases: fewer than 3 effective cells, or singular normal equations, leave the pose where it was.
#pragma once

#include "score.h"

namespace dsacstar {

struct Refinement {
  CameraPose pose;
  Mixture mixture;
  Matrix6d H = Matrix6d::Zero();  // information matrix of the left perturbation at the last round
  int rounds = 0;
  bool converged = false;
  bool usable = false;  // at least one step was taken
};

// A first guess of the mixture from the residuals' quartiles under a pose; `scratch` holds count floats, padded.
template <bool kRgbd>
Mixture guess_mixture(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* scratch);

// A depth below which cells take no part in the refinement: a tenth of the median depth under a pose. Without it a
// cluster of equal coordinates could draw the camera into itself, where its distance to every ray vanishes.
double depth_gate(const Cells& cells, int count, const CameraPose& pose);

// Refines pose and mixture over the first `count` cells, for at most max_rounds, until a step is below `tolerance`
// standard deviations of the pose (and the mixture's spread changes by less than that share).
template <bool kRgbd>
Refinement refine_pose(const Cells& cells, int count, const CameraPose& pose, const Mixture& mixture,
                       const ErrorModel& model, int max_rounds, double tolerance);

}  // namespace dsacstar
