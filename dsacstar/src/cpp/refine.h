// Robust maximum-likelihood refinement of a pose over all cells.
//
// Residuals e (see score.h) follow a mixture of Gaussians with unknown shares and spreads: each round takes one EM step
// for the mixture and one Gauss-Newton step for the pose, from the same pass over the cells. Far cells weigh nothing once
// the outliers' component explains them; the basin is as wide as the first guess of the inliers' spread, and narrows as
// it falls to the noise. No threshold enters: the noise is measured, not assumed.
// Source: iteratively reweighted least squares as EM (Dempster, Laird, Rubin 1980; Lange & Sinsheimer 1993).
// Degenerate cases: fewer than 3 effective cells, or singular normal equations, leave the pose where it was.
#pragma once

#include "prior.h"
#include "score.h"

namespace dsacstar {

struct Refinement {
  CameraPose pose;
  Mixture mixture;
  Matrix6d H = Matrix6d::Zero();  // information matrix of the left perturbation at the last round, priors included
  int rounds = 0;
  bool converged = false;
  bool usable = false;  // at least one step was taken
};

// How far a refinement goes, and what else it knows.
struct RefineLimits {
  int max_rounds = 100;
  double tolerance = 0.01;  // standard deviations of the pose
  double prior_weight = 1;
};

// The spread and share of the cells that agree best among squared residuals: of all radii the one whose count is least
// explained by residuals spread evenly (in 2 or 3 dimensions) over the range of the others. `squares` is sorted.
// Source: a-contrario RANSAC (Moisan & Stival, IJCV 2004), with the count's relative entropy as the criterion.
struct Consensus {
  double var = 0, share = 0;  // variance per dimension; share of the cells within it
};
Consensus find_consensus(float* squares, int count, double residual_dimensions, double farthest_square);

// A first guess of the mixture under a pose: EM on the squared residuals of a few cells from several spreads of the
// inliers, the likeliest outcome. `scratch` holds count floats, padded.
template <Model kModel>
Mixture guess_mixture(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* scratch);
template <Model kModel>
Mixture guess_from_squares(float* squares, int count, double farthest_square);

// A depth below which cells take no part in the refinement: a tenth of the median depth under a pose. Without it a
// cluster of equal coordinates could draw the camera into itself, where its distance to every ray vanishes.
double depth_gate(const Cells& cells, int count, const CameraPose& pose);

// Refines pose and mixture over the first `count` cells until a step is below the tolerance (and the mixture's spread
// has settled).
template <Model kModel>
Refinement refine_pose(const Cells& cells, int count, const CameraPose& pose, const Mixture& mixture,
                       const ErrorModel& model, const PosePrior& prior, const RefineLimits& limits);

}  // namespace dsacstar
