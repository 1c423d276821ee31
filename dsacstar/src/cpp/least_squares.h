// Steps of least squares, and the loop with step control that everything of double precision settles by.
#pragma once

#include <Eigen/Cholesky>
#include <algorithm>

#include "camera_pose.h"

namespace dsacstar {

// Solves (H + lambda diag H) x = -g, scaled to a unit diagonal: rotation and translation have different units. False when
// that matrix is not positive definite.
inline bool damped_step(const Matrix6d& H, const Vector6d& g, double lambda, Vector6d* step) {
  constexpr double kLeastPivot = 1e-7;
  const Vector6d scale = H.diagonal().cwiseAbs().cwiseMax(1e-30).cwiseSqrt().cwiseInverse();
  Matrix6d scaled = scale.asDiagonal() * H * scale.asDiagonal();
  scaled.diagonal().array() += lambda;
  const Eigen::LLT<Matrix6d> factor(scaled);
  if (factor.info() != Eigen::Success || factor.matrixLLT().diagonal().minCoeff() < kLeastPivot) return false;
  const Vector6d scaled_g = scale.asDiagonal() * g;
  *step = -(scale.asDiagonal() * factor.solve(scaled_g));
  return step->allFinite();
}

// What became of one proposal.
struct Proposal {
  bool exists = false;   // the damped equations could be solved
  bool settled = false;  // so small that merits, at rounding level, no longer tell better from worse; Newton steps do
  bool done = false;     // and so small that nothing is left to gain
};

// Newton's method, damped as in Levenberg-Marquardt: a step that makes things worse is refused and damped more.
//
// Problem: State; Terms with `double merit` (falls towards the solution) and `bool usable`;
//   Terms terms(const State&) const;
//   Proposal propose(const Terms&, double damping, State* moved) const;   moves a copy of the state
// Returns the terms of the last step, at the solution up to that step; `done` says that it is one.
template <class Problem>
typename Problem::Terms settle(const Problem& problem, typename Problem::State* state, double damping, int most_rounds, bool* done) {
  constexpr double kNoDamping = 1e-9, kFirst = 1e-6, kMost = 1e8;
  typename Problem::Terms now = problem.terms(*state);
  *done = false;
  for (int round = 0; round < most_rounds && now.usable; ++round) {
    typename Problem::State moved = *state;
    const double used = damping < kNoDamping ? 0.0 : damping;
    const Proposal proposal = problem.propose(now, used, &moved);
    if (proposal.exists && proposal.done) {
      *state = moved;
      *done = true;
      break;
    }
    typename Problem::Terms next;
    if (proposal.exists) next = problem.terms(moved);
    if (proposal.exists && next.usable && (proposal.settled || next.merit <= now.merit)) {
      *state = moved;
      now = next;
      damping = proposal.settled ? 0.0 : 0.1 * used;
    } else {
      damping = std::max(10.0 * used, kFirst);
      if (damping > kMost) break;
    }
  }
  return now;
}

}  // namespace dsacstar
