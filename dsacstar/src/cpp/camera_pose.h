// A rigid transform between world and camera.
//
//   p_cam = R p_world + t          metres, OpenCV camera axes (x right, y down, z forward)
//
// Small changes are left perturbations in the camera frame, xi = (omega, v):
//   T(xi) = exp(xi) T,   dp_cam = omega x p_cam + v.
// Degenerate cases: none; finite() tells a pose made from NaN apart.
#pragma once

#include <Eigen/Core>
#include <Eigen/Geometry>
#include <cmath>

namespace dsacstar {

using Vector6d = Eigen::Matrix<double, 6, 1>;
using Matrix6d = Eigen::Matrix<double, 6, 6>;

inline Eigen::Matrix3d skew(const Eigen::Vector3d& a) {
  Eigen::Matrix3d s;
  s << 0, -a.z(), a.y(), a.z(), 0, -a.x(), -a.y(), a.x(), 0;
  return s;
}

// Rotation by |omega| radians about omega.
inline Eigen::Matrix3d rotation_exp(const Eigen::Vector3d& omega) {
  const double angle = omega.norm();
  if (angle < 1e-12) return Eigen::Quaterniond(1.0, 0.5 * omega.x(), 0.5 * omega.y(), 0.5 * omega.z()).normalized().toRotationMatrix();
  return Eigen::AngleAxisd(angle, omega / angle).toRotationMatrix();
}

struct CameraPose {
  Eigen::Matrix3d R = Eigen::Matrix3d::Identity();
  Eigen::Vector3d t = Eigen::Vector3d::Zero();

  Eigen::Vector3d apply(const Eigen::Vector3d& p_world) const { return R * p_world + t; }
  Eigen::Vector3d centre() const { return -(R.transpose() * t); }
  bool finite() const { return R.allFinite() && t.allFinite(); }

  // Moves by xi = (omega, v), first rotating, then translating (equal to exp(xi) to first order).
  void perturb(const Vector6d& xi) {
    const Eigen::Matrix3d dR = rotation_exp(xi.head<3>());
    R = Eigen::Quaterniond(dR * R).normalized().toRotationMatrix();
    t = dR * t + xi.tail<3>();
  }
};

}  // namespace dsacstar
