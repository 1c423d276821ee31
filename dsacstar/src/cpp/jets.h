// Functions of a camera point with their derivatives, and what a movement of the camera makes of them. Double precision.
//
// A squared residual q of a cell (the residuals of score.h), as a function of the camera point p:
//   kRay:   |p - ray (ray . p)|^2, target = unit ray          kPixel: |f (p_xy / p_z - target_xy)|^2, target = (ray_xy, .)
//   kPoint: |p - target|^2
// Left perturbation (omega, v): dp = omega x p + v, so a gradient n by p becomes (p x n, n).
#pragma once

#include <limits>

#include "camera_pose.h"
#include "score.h"

namespace dsacstar {

using Matrix63d = Eigen::Matrix<double, 6, 3>;

struct Lens {
  double fx = 1, fy = 1;
  double min_depth = 1e-3;  // metres in front of the camera
};

// Value, gradient and Hessian.
struct Jet {
  double value = 0;
  Eigen::Vector3d gradient = Eigen::Vector3d::Zero();
  Eigen::Matrix3d hessian = Eigen::Matrix3d::Zero();
};

template <Model kModel>
bool in_front(const Eigen::Vector3d& p, const Lens& lens) {
  return kModel == Model::kPoint || p.z() > lens.min_depth;
}

// Infinite behind the camera.
template <Model kModel>
double square_of(const Eigen::Vector3d& p, const Eigen::Vector3d& target, const Lens& lens) {
  if (!in_front<kModel>(p, lens)) return std::numeric_limits<double>::infinity();
  if (kModel == Model::kPoint) return (p - target).squaredNorm();
  if (kModel == Model::kRay) return (p - target * target.dot(p)).squaredNorm();
  const double dx = lens.fx * (p.x() / p.z() - target.x()), dy = lens.fy * (p.y() / p.z() - target.y());
  return dx * dx + dy * dy;
}

// The same with derivatives, in front of the camera.
template <Model kModel>
Jet square_jet(const Eigen::Vector3d& p, const Eigen::Vector3d& target, const Lens& lens) {
  Jet jet;
  if (kModel != Model::kPixel) {
    const bool ray = kModel == Model::kRay;
    const Eigen::Vector3d e = ray ? Eigen::Vector3d(p - target * target.dot(p)) : Eigen::Vector3d(p - target);
    jet.value = e.squaredNorm();
    jet.gradient = 2.0 * e;
    jet.hessian = 2.0 * Eigen::Matrix3d::Identity();
    if (ray) jet.hessian -= 2.0 * target * target.transpose();
    return jet;
  }
  const double iz = 1.0 / p.z();
  for (int axis = 0; axis < 2; ++axis) {
    const double focal = axis == 0 ? lens.fx : lens.fy, ratio = p[axis] * iz;
    const double e = focal * (ratio - target[axis]);
    Eigen::Vector3d de = Eigen::Vector3d::Zero();
    de[axis] = focal * iz;
    de[2] = -focal * ratio * iz;
    jet.value += e * e;
    jet.gradient += 2.0 * e * de;
    jet.hessian += 2.0 * de * de.transpose();
    const double mixed = -2.0 * e * focal * iz * iz;
    jet.hessian(axis, 2) += mixed;
    jet.hessian(2, axis) += mixed;
    jet.hessian(2, 2) -= 2.0 * mixed * ratio;
  }
  return jet;
}

// f(q) for a scalar function with derivatives f1, f2 at q.
inline Jet compose(const Jet& square, double f, double f1, double f2) {
  return {f, f1 * square.gradient, f1 * square.hessian + f2 * square.gradient * square.gradient.transpose()};
}

inline Vector6d perturbation_gradient(const Eigen::Vector3d& p, const Eigen::Vector3d& gradient) {
  Vector6d g;
  g << p.cross(gradient), gradient;
  return g;
}

// Derivative of (p x gradient, gradient) by the camera point.
inline Matrix63d perturbation_cross(const Eigen::Vector3d& p, const Jet& jet) {
  Matrix63d B;
  B.topRows<3>() = -skew(jet.gradient) + skew(p) * jet.hessian;
  B.bottomRows<3>() = jet.hessian;
  return B;
}

// The same by the movement: dp / dxi = [-[p]x, I].
inline Matrix6d perturbation_hessian(const Eigen::Vector3d& p, const Matrix63d& B) {
  Matrix6d H;
  H.leftCols<3>() = -B * skew(p);
  H.rightCols<3>() = B;
  return H;
}

}  // namespace dsacstar
