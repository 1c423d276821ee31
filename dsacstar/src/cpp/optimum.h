// The point that refine.h converges to, to double precision, and how it moves with the coordinates.
//
// Unknowns: the pose's left perturbation xi and the mixture's theta = (a, log s1^2, log s2^2, b), shares in proportion to
// exp(a), exp(b), 1 for inliers, middle component and outliers. Equations, over the cells in front of the camera with
// squared residual q, responsibilities g and d residual dimensions:
//   xi:       sum w dq/dxi / 2 = 0,  w = g_in + g_mid / 9                   (Gauss-Newton has converged)
//   a, b:     sum (share - g) = 0                                           (and so has EM)
//   log s1^2: sum d (g_in + g_mid) - g_in q / s1^2 - g_mid q / (9 s1^2) = 0
//   log s2^2: sum d g_out + (g_in + g_mid) q / s2^2 - min(q / s2^2, 25) = 0
// Where the refinement holds a parameter (a spread at its floor or cap, a share at its bound, s2^2 at its least multiple of
// s1^2), its equation says that instead. Newton's method with exact derivatives solves them; the implicit function theorem
// on the same matrix gives the derivative, nothing being held constant.
// Degenerate cases: where that finds no solution near the start, the mixture is held at the start's and only the pose
// solved for; where that fails too, `settled` stays false and the pose counts as constant.
#pragma once

#include <array>

#include "exact_cells.h"
#include "refine.h"

namespace dsacstar {

using Vector10d = Eigen::Matrix<double, 10, 1>;
using Matrix10d = Eigen::Matrix<double, 10, 10>;

struct Optimum {
  CameraPose pose;
  Mixture mixture;
  Lens lens;                           // with the depth gate
  std::array<bool, 4> fixed{};         // parameters of the mixture that are held
  bool floored = false;                // s2^2 is held at its least multiple of s1^2
  Matrix10d system = Matrix10d::Identity();  // derivative of the equations by the unknowns
  bool settled = false;
};

template <Model kModel>
Optimum find_optimum(const ExactCells<kModel>& exact, const Refinement& start, double min_depth);

// Adds d pose / d coordinates, transposed, times a gradient by the pose to the cells' gradients.
template <Model kModel>
void push_through_optimum(const ExactCells<kModel>& exact, const Optimum& optimum, const Vector6d& by_pose,
                          std::vector<Eigen::Vector3d>* gradient);

}  // namespace dsacstar
