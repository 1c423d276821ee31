// What is known about a pose beforehand: where the camera is, where down is, how high it stands.
//
//   position: (c - mean)^T covariance^-1 (c - mean), c the camera centre, metres
//   gravity:  |R g_world - g_camera|^2 / sigma^2, unit vectors; sigma in radians (a chord: equal to the angle when small)
//   height:   (c_z - height)^2 / sigma^2, metres
// All three are Gaussian; sums of them are squared Mahalanobis distances, half of which is minus a log-likelihood.
#pragma once

#include "camera_pose.h"

namespace dsacstar {

struct PosePrior {
  Eigen::Vector3d position = Eigen::Vector3d::Zero();
  Eigen::Matrix3d position_information = Eigen::Matrix3d::Zero();  // 0: nothing known; holds the height too
  Eigen::Vector3d gravity_world = Eigen::Vector3d(0, 0, -1), gravity_camera = Eigen::Vector3d(0, 1, 0);
  double gravity_information = 0;  // 1 / sigma^2
  bool given = false;

  // The prior for world coordinates relative to an origin.
  PosePrior relative_to(const Eigen::Vector3d& origin) const {
    PosePrior out = *this;
    out.position -= origin;
    return out;
  }

  double square(const CameraPose& pose) const {
    if (!given) return 0.0;
    const Eigen::Vector3d offset = pose.centre() - position;
    return offset.dot(position_information * offset) +
           gravity_information * (pose.R * gravity_world - gravity_camera).squaredNorm();
  }

  // Adds `weight` times the normal equations of half the squared distance by the left perturbation (omega, v): the
  // centre moves by -R^T v, R g_world by omega x R g_world.
  void add_normal_equations(const CameraPose& pose, double weight, Matrix6d* H, Vector6d* g) const {
    if (!given) return;
    const Eigen::Matrix3d turned = weight * pose.R * position_information;
    H->bottomRightCorner<3, 3>() += turned * pose.R.transpose();
    g->tail<3>() -= turned * (pose.centre() - position);
    const Eigen::Vector3d down = pose.R * gravity_world;
    const Eigen::Matrix3d J = -skew(down);
    H->topLeftCorner<3, 3>() += weight * gravity_information * J.transpose() * J;
    g->head<3>() += weight * gravity_information * J.transpose() * (down - gravity_camera);
  }
};

}  // namespace dsacstar
