// Refinement to a local minimum of Tukey's biweight of the squared error, for the published loss.
#pragma once

#include "exact_cells.h"
#include "least_squares.h"

namespace dsacstar {

// Tukey's function of the squared error as a jet; false outside its support.
template <Model kModel>
bool tukey_jet(const Eigen::Vector3d& p, const Eigen::Vector3d& target, const Lens& lens, double tau_square, Jet* square, Jet* phi) {
  if (!(square_of<kModel>(p, target, lens) < tau_square)) return false;
  *square = square_jet<kModel>(p, target, lens);
  const double rest = 1.0 - square->value / tau_square;
  *phi = compose(*square, 1.0 - rest * rest * rest, 3.0 * rest * rest / tau_square, -6.0 * rest / (tau_square * tau_square));
  return true;
}

// A problem of least_squares.h: Newton steps where the exact Hessian is positive definite, else by its convex part.
template <Model kModel>
struct TukeyProblem {
  static constexpr int kFewestInliers = 4;
  using State = CameraPose;
  struct Terms {
    double merit = 0;
    bool usable = false;
    Vector6d g = Vector6d::Zero();
    Matrix6d exact = Matrix6d::Zero();   // second derivative
    Matrix6d convex = Matrix6d::Zero();  // its Gauss-Newton part
  };
  const ExactCells<kModel>& cells;
  double tau_square;

  Terms terms(const CameraPose& pose) const {
    Terms out;
    int inliers = 0;
    for (size_t k = 0; k < cells.size(); ++k) {
      const Eigen::Vector3d p = pose.apply(cells.world[k]);
      Jet square, phi;
      if (!tukey_jet<kModel>(p, cells.target[k], cells.lens, tau_square, &square, &phi)) {
        out.merit += 1.0;
        continue;
      }
      ++inliers;
      out.merit += phi.value;
      out.g += perturbation_gradient(p, phi.gradient);
      out.exact += perturbation_hessian(p, perturbation_cross(p, phi));
      // f1 > 0 times the Gauss-Newton matrix of the squared error, bounded below by its gradient's outer product.
      const double rest = 1.0 - square.value / tau_square, f1 = 3.0 * rest * rest / tau_square;
      Eigen::Matrix3d curvature = square.hessian;
      if (kModel == Model::kPixel) curvature = square.gradient * square.gradient.transpose() / std::max(2.0 * square.value, 1e-12);
      Eigen::Matrix<double, 3, 6> J;
      J << -skew(p), Eigen::Matrix3d::Identity();
      out.convex += f1 * J.transpose() * curvature * J;
    }
    out.exact = (0.5 * (out.exact + out.exact.transpose())).eval();
    out.usable = inliers >= kFewestInliers;
    return out;
  }

  Proposal propose(const Terms& now, double damping, CameraPose* moved) const {
    constexpr double kSettled = 1e-9, kDone = 1e-22;
    Proposal out;
    Vector6d step;
    const bool newton = damped_step(now.exact, now.g, damping, &step);
    out.exists = newton || damped_step(now.convex, now.g, damping + 1e-9, &step);
    if (!out.exists) return out;
    moved->perturb(step);
    const double decrease = -now.g.dot(step);
    out.settled = newton && decrease < kSettled * now.merit;
    out.done = newton && decrease < kDone;
    return out;
  }
};

struct TukeyMinimum {
  CameraPose pose;
  Matrix6d hessian = Matrix6d::Identity();
  bool strict = false;  // the implicit function theorem applies
};

template <Model kModel>
TukeyMinimum tukey_minimum(const ExactCells<kModel>& cells, const CameraPose& start, double tau_square) {
  constexpr int kMostRounds = 100;
  constexpr double kFirstDamping = 1e-3;
  TukeyMinimum out;
  out.pose = start;
  bool done = false;
  const auto last = settle(TukeyProblem<kModel>{cells, tau_square}, &out.pose, kFirstDamping, kMostRounds, &done);
  Vector6d step;
  out.strict = last.usable && damped_step(last.exact, last.g, 0.0, &step) && -last.g.dot(step) < 1e-12;
  out.hessian = last.exact;
  return out;
}

}  // namespace dsacstar
