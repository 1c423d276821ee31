// The loss of one pose, as training weighs it.
//
//   loss = w_rot * angle(deg) + w_trans * distance(m), and sqrt(soft_clamp * loss) where that exceeds soft_clamp
#pragma once

#include "camera_pose.h"

namespace dsacstar {

struct LossModel {
  CameraPose truth;  // cam_from_world
  double w_rot = 1, w_trans = 1, soft_clamp = 100;
};

// `gradient` receives the derivative by the left perturbation (zero where the angle has none). The pose is relative to origin.
double loss_of_pose(const CameraPose& pose, const Eigen::Vector3d& origin, const LossModel& model, Vector6d* gradient);

}  // namespace dsacstar
