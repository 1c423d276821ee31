// Gradients pushed back through the published loss: from a pose to the coordinates that it was made of.
#pragma once

#include <Eigen/LU>

#include "ransac.h"
#include "tukey.h"

namespace dsacstar {

using CellGradients = std::vector<Eigen::Vector3d>;

// Sum of sigmoids of the errors, and its derivatives.
struct SoftCount {
  double threshold, max_error;
  double beta() const { return 5.0 / threshold; }

  template <Model kModel>
  double value(const ExactCells<kModel>& s, const CameraPose& pose) const {
    double sum = 0;
    for (size_t k = 0; k < s.size(); ++k) {
      const double r = std::sqrt(square_of<kModel>(pose.apply(s.world[k]), s.target[k], s.lens));
      sum += 1.0 / (1.0 + std::exp(beta() * (std::min(r, max_error) - threshold)));
    }
    return sum;
  }

  // Adds weight * d value / d coordinates at a fixed pose; returns weight * d value / d xi.
  template <Model kModel>
  Vector6d push(const ExactCells<kModel>& s, const CameraPose& pose, double weight, CellGradients* gradient) const {
    Vector6d by_pose = Vector6d::Zero();
    for (size_t k = 0; k < s.size(); ++k) {
      const Eigen::Vector3d p = pose.apply(s.world[k]);
      const double r = std::sqrt(square_of<kModel>(p, s.target[k], s.lens));
      if (!(r < max_error) || r < 1e-9) continue;  // clamped, or at the cone's tip: a sample's own cell
      const double sigmoid = 1.0 / (1.0 + std::exp(beta() * (r - threshold)));
      const double slope = -weight * beta() * sigmoid * (1.0 - sigmoid) / (2.0 * r);
      const Eigen::Vector3d by_point = slope * square_jet<kModel>(p, s.target[k], s.lens).gradient;
      by_pose += perturbation_gradient(p, by_point);
      (*gradient)[k] += pose.R.transpose() * by_point;
    }
    return by_pose;
  }
};

// From a minimal pose to its sample's coordinates.
template <Model kModel>
void push_through_minimal(const ExactCells<kModel>& s, const Hypothesis& h, const Vector6d& by_pose, CellGradients* gradient) {
  Matrix6d system = Matrix6d::Zero();
  Matrix63d cross[3];
  for (int i = 0; i < 3; ++i) {
    const size_t k = static_cast<size_t>(h.sample[i]);
    const Eigen::Vector3d p = h.pose.apply(s.world[k]);
    if (kModel == Model::kPoint) {
      // Normal equations of sum |p - target|^2 / 2.
      Jet jet;
      jet.gradient = p - s.target[k];
      jet.hessian = Eigen::Matrix3d::Identity();
      cross[i] = perturbation_cross(p, jet);
      system += perturbation_hessian(p, cross[i]);
    } else {
      // Rows 2i, 2i + 1: the reprojection of point i, which the pose keeps on its ray.
      const double iz = 1.0 / p.z();
      Eigen::Matrix<double, 2, 3> projection;
      projection << iz, 0, -p.x() * iz * iz, 0, iz, -p.y() * iz * iz;
      cross[i].setZero();
      cross[i].template middleRows<2>(2 * i) = projection;
      system.template middleRows<2>(2 * i) << -projection * skew(p), projection;
    }
  }
  const Eigen::FullPivLU<Matrix6d> factor(system.transpose());
  if (!factor.isInvertible()) return;
  const Vector6d lambda = factor.solve(by_pose);
  if (!lambda.allFinite()) return;
  for (int i = 0; i < 3; ++i)
    (*gradient)[static_cast<size_t>(h.sample[i])] -= h.pose.R.transpose() * (cross[i].transpose() * lambda);
}

// From a refined pose to all inliers' coordinates.
template <Model kModel>
void push_through_minimum(const ExactCells<kModel>& s, const TukeyMinimum& minimum, double tau_square, const Vector6d& by_pose,
                          CellGradients* gradient) {
  Vector6d lambda;
  if (!damped_step(minimum.hessian, by_pose, 0.0, &lambda)) return;  // lambda = -H^-1 by_pose
  for (size_t k = 0; k < s.size(); ++k) {
    const Eigen::Vector3d p = minimum.pose.apply(s.world[k]);
    Jet square, phi;
    if (!tukey_jet<kModel>(p, s.target[k], s.lens, tau_square, &square, &phi)) continue;
    (*gradient)[k] += minimum.pose.R.transpose() * (perturbation_cross(p, phi).transpose() * lambda);
  }
}

}  // namespace dsacstar
