#include "loss_model.h"

#include <cmath>

namespace dsacstar {

using Eigen::Vector3d;

double loss_of_pose(const CameraPose& pose, const Vector3d& origin, const LossModel& model, Vector6d* gradient) {
  constexpr double kDegrees = 57.29577951308232;
  const Eigen::Matrix3d turn = pose.R * model.truth.R.transpose();
  const Vector3d axis = 0.5 * Vector3d(turn(2, 1) - turn(1, 2), turn(0, 2) - turn(2, 0), turn(1, 0) - turn(0, 1));
  const double sine = axis.norm(), angle = std::atan2(sine, 0.5 * (turn.trace() - 1.0));
  const Vector3d offset = pose.centre() + origin - model.truth.centre();
  const double distance = offset.norm();
  gradient->setZero();
  if (sine > 1e-12) gradient->head<3>() = model.w_rot * kDegrees * axis / sine;
  if (distance > 1e-12) gradient->tail<3>() = -model.w_trans * (pose.R * offset) / distance;
  const double loss = model.w_rot * kDegrees * angle + model.w_trans * distance;
  if (loss <= model.soft_clamp) return loss;
  *gradient *= 0.5 * std::sqrt(model.soft_clamp / loss);
  return std::sqrt(model.soft_clamp * loss);
}

}  // namespace dsacstar
