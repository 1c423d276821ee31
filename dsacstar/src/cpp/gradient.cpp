#include "gradient.h"

#include <Eigen/Cholesky>
#include <Eigen/LU>
#include <cmath>

#include "estimators.h"

namespace dsacstar {
namespace {

using Eigen::Matrix3d;
using Eigen::Vector3d;
using Matrix63d = Eigen::Matrix<double, 6, 3>;

constexpr double kMinDepth = 1e-3;         // metres, as ErrorModel
constexpr double kLeastProbability = 1e-9;  // hypotheses below it cannot move the expectation
constexpr int kFewestInliers = 4;
constexpr int kMostRounds = 100;

// The cells in double, so that differences of the loss are differences of the input.
template <bool kRgbd>
struct ExactCells {
  static constexpr int kSample = kRgbd ? 3 : 4;
  Cells cells;
  std::vector<Vector3d> world, target;
  double fx = 1, fy = 1, limit = 1;

  explicit ExactCells(const GridInput& in, double threshold) : fx(in.intrinsics.fx), fy(in.intrinsics.fy), limit(threshold) {
    load_cells(in, &cells);
    const int n = in.height * in.width;
    world.reserve(static_cast<size_t>(cells.count)), target.reserve(static_cast<size_t>(cells.count));
    for (int i = 0; i < cells.count; ++i) {
      const int k = cells.source[static_cast<size_t>(i)];
      world.push_back(Vector3d(in.scene_coords[k], in.scene_coords[n + k], in.scene_coords[2 * n + k]) - cells.origin);
      if (kRgbd) {
        target.emplace_back(in.camera_coords[k], in.camera_coords[n + k], in.camera_coords[2 * n + k]);
      } else {
        target.emplace_back(((k % in.width + 0.5) * in.subsampling - in.intrinsics.cx) / fx,
                            ((k / in.width + 0.5) * in.subsampling - in.intrinsics.cy) / fy, 1.0);
      }
    }
  }
  int size() const { return cells.count; }
  double threshold() const { return limit; }
  bool draw(Random& random, Draw how, int* sample) const { return draw_cells(cells, random, how, sample, kSample); }
  bool minimal(const int* sample, CameraPose* pose, double* error) const {
    Vector3d w[kSample], t[kSample];
    for (int i = 0; i < kSample; ++i) w[i] = world[static_cast<size_t>(sample[i])], t[i] = target[static_cast<size_t>(sample[i])];
    return minimal_pose<kRgbd>(w, t, fx, fy, kMinDepth, pose, error);
  }
};

// A function of the camera point: value, gradient and Hessian.
struct Jet {
  double value = 0;
  Vector3d gradient = Vector3d::Zero();
  Matrix3d hessian = Matrix3d::Zero();
};

// Squared error r^2 of a camera point; infinite behind the camera (value only).
template <bool kRgbd>
double squared_error(const Vector3d& p, const Vector3d& target, double fx, double fy) {
  if (kRgbd) return (p - target).squaredNorm();
  if (!(p.z() > kMinDepth)) return std::numeric_limits<double>::infinity();
  const double dx = fx * (p.x() / p.z() - target.x()), dy = fy * (p.y() / p.z() - target.y());
  return dx * dx + dy * dy;
}

// The same with derivatives, in front of the camera.
template <bool kRgbd>
Jet squared_error_jet(const Vector3d& p, const Vector3d& target, double fx, double fy) {
  Jet jet;
  if (kRgbd) {
    const Vector3d e = p - target;
    jet.value = e.squaredNorm();
    jet.gradient = 2.0 * e;
    jet.hessian = 2.0 * Matrix3d::Identity();
    return jet;
  }
  const double iz = 1.0 / p.z();
  for (int axis = 0; axis < 2; ++axis) {
    const double focal = axis == 0 ? fx : fy, ratio = p[axis] * iz;
    const double e = focal * (ratio - target[axis]);
    Vector3d de = Vector3d::Zero();
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

// f(r^2) for a scalar function with derivatives f1, f2 at r^2.
Jet compose(const Jet& square, double f, double f1, double f2) {
  return {f, f1 * square.gradient, f1 * square.hessian + f2 * square.gradient * square.gradient.transpose()};
}

// Derivative of [p x grad; grad] by the camera point.
Matrix63d perturbation_cross(const Vector3d& p, const Jet& jet) {
  Matrix63d B;
  B.topRows<3>() = -skew(jet.gradient) + skew(p) * jet.hessian;
  B.bottomRows<3>() = jet.hessian;
  return B;
}

Vector6d perturbation_gradient(const Vector3d& p, const Vector3d& gradient) {
  Vector6d g;
  g << p.cross(gradient), gradient;
  return g;
}

// dp / dxi = [-[p]x, I].
Matrix6d perturbation_hessian(const Vector3d& p, const Matrix63d& B) {
  Matrix6d H;
  H.leftCols<3>() = -B * skew(p);
  H.rightCols<3>() = B;
  return H;
}

struct Energy {
  double value = 0;
  int inliers = 0;
  Vector6d g = Vector6d::Zero();
  Matrix6d exact = Matrix6d::Zero();  // second derivative
  Matrix6d convex = Matrix6d::Zero();  // its Gauss-Newton part
};

template <bool kRgbd>
double energy_value(const ExactCells<kRgbd>& s, const CameraPose& pose, double tau_square) {
  double value = 0;
  for (size_t k = 0; k < s.world.size(); ++k) {
    const double rest = 1.0 - squared_error<kRgbd>(pose.apply(s.world[k]), s.target[k], s.fx, s.fy) / tau_square;
    value += rest > 0.0 ? 1.0 - rest * rest * rest : 1.0;
  }
  return value;
}

// Tukey's function of the squared error as a jet; false outside its support.
template <bool kRgbd>
bool tukey_jet(const Vector3d& p, const Vector3d& target, double fx, double fy, double tau_square, Jet* square, Jet* phi) {
  if (!(squared_error<kRgbd>(p, target, fx, fy) < tau_square)) return false;
  *square = squared_error_jet<kRgbd>(p, target, fx, fy);
  const double rest = 1.0 - square->value / tau_square;
  *phi = compose(*square, 1.0 - rest * rest * rest, 3.0 * rest * rest / tau_square, -6.0 * rest / (tau_square * tau_square));
  return true;
}

template <bool kRgbd>
Energy energy(const ExactCells<kRgbd>& s, const CameraPose& pose, double tau_square) {
  Energy out;
  for (size_t k = 0; k < s.world.size(); ++k) {
    const Vector3d p = pose.apply(s.world[k]);
    Jet square, phi;
    if (!tukey_jet<kRgbd>(p, s.target[k], s.fx, s.fy, tau_square, &square, &phi)) {
      out.value += 1.0;
      continue;
    }
    ++out.inliers;
    out.value += phi.value;
    out.g += perturbation_gradient(p, phi.gradient);
    out.exact += perturbation_hessian(p, perturbation_cross(p, phi));
    // f1 > 0 times the Gauss-Newton matrix of the squared error, bounded below by its gradient's outer product.
    const double rest = 1.0 - square.value / tau_square, f1 = 3.0 * rest * rest / tau_square;
    Matrix3d curvature = square.hessian;
    if (!kRgbd) curvature = square.gradient * square.gradient.transpose() / std::max(2.0 * square.value, 1e-12);
    Eigen::Matrix<double, 3, 6> J;
    J << -skew(p), Matrix3d::Identity();
    out.convex += f1 * J.transpose() * curvature * J;
  }
  out.exact = (0.5 * (out.exact + out.exact.transpose())).eval();
  return out;
}

struct Minimum {
  CameraPose pose;
  Matrix6d hessian = Matrix6d::Identity();
  bool strict = false;  // the implicit function theorem applies
};

// Solves (H + lambda diag) x = -g; false when that matrix is not positive definite.
bool damped_step(const Matrix6d& H, const Vector6d& g, double lambda, Vector6d* step) {
  const Vector6d scale = H.diagonal().cwiseAbs().cwiseMax(1e-30).cwiseSqrt().cwiseInverse();
  Matrix6d scaled = scale.asDiagonal() * H * scale.asDiagonal();
  scaled.diagonal().array() += lambda;
  const Eigen::LLT<Matrix6d> factor(scaled);
  if (factor.info() != Eigen::Success || factor.matrixLLT().diagonal().minCoeff() < 1e-7) return false;
  const Vector6d scaled_g = scale.asDiagonal() * g;
  *step = -(scale.asDiagonal() * factor.solve(scaled_g));
  return step->allFinite();
}

// Levenberg-Marquardt with the exact Hessian where it is positive definite.
template <bool kRgbd>
Minimum minimise(const ExactCells<kRgbd>& s, const CameraPose& start, double tau_square) {
  Minimum out;
  out.pose = start;
  double lambda = 1e-3;
  Energy now = energy(s, out.pose, tau_square);
  for (int round = 0; round < kMostRounds && now.inliers >= kFewestInliers; ++round) {
    Vector6d step;
    const bool newton = lambda < 1e-9 ? damped_step(now.exact, now.g, 0.0, &step) : damped_step(now.exact, now.g, lambda, &step);
    if (!newton && !damped_step(now.convex, now.g, lambda + 1e-9, &step)) {
      lambda = std::max(10.0 * lambda, 1e-6);
      if (lambda > 1e8) break;
      continue;
    }
    CameraPose moved = out.pose;
    moved.perturb(step);
    const double decrease = -now.g.dot(step);
    const double value = energy_value(s, moved, tau_square);
    // At rounding level energies no longer tell better from worse; Newton steps do.
    const bool settled = newton && decrease < 1e-9 * now.value;
    if (value <= now.value || settled) {
      const bool done = newton && decrease < 1e-22;
      out.pose = moved;
      now = energy(s, out.pose, tau_square);
      lambda = lambda < 1e-9 ? 0.0 : 0.1 * lambda;
      if (settled) lambda = 0.0;
      if (done) break;
    } else {
      lambda = std::max(10.0 * lambda, 1e-6);
      if (lambda > 1e8) break;
    }
  }
  Vector6d step;
  out.strict = now.inliers >= kFewestInliers && damped_step(now.exact, now.g, 0.0, &step) && -now.g.dot(step) < 1e-12;
  out.hessian = now.exact;
  return out;
}

template <bool kRgbd>
double soft_inliers(const ExactCells<kRgbd>& s, const CameraPose& pose, const LossOptions& o) {
  const double beta = 5.0 / o.threshold;
  double sum = 0;
  for (size_t k = 0; k < s.world.size(); ++k) {
    const double r = std::sqrt(squared_error<kRgbd>(pose.apply(s.world[k]), s.target[k], s.fx, s.fy));
    sum += 1.0 / (1.0 + std::exp(beta * (std::min(r, o.max_error) - o.threshold)));
  }
  return sum;
}

// Adds weight * d soft_inliers / d coordinates at a fixed pose; returns weight * d soft_inliers / d xi.
template <bool kRgbd>
Vector6d soft_inliers_gradient(const ExactCells<kRgbd>& s, const CameraPose& pose, const LossOptions& o, double weight,
                               std::vector<Vector3d>* gradient) {
  const double beta = 5.0 / o.threshold;
  Vector6d by_pose = Vector6d::Zero();
  for (size_t k = 0; k < s.world.size(); ++k) {
    const Vector3d p = pose.apply(s.world[k]);
    const double r = std::sqrt(squared_error<kRgbd>(p, s.target[k], s.fx, s.fy));
    if (!(r < o.max_error) || r < 1e-9) continue;  // clamped, or at the cone's tip: a sample's own cell
    const double sigmoid = 1.0 / (1.0 + std::exp(beta * (r - o.threshold)));
    const Vector3d by_point = -weight * beta * sigmoid * (1.0 - sigmoid) / (2.0 * r) *
                              squared_error_jet<kRgbd>(p, s.target[k], s.fx, s.fy).gradient;
    by_pose += perturbation_gradient(p, by_point);
    (*gradient)[k] += pose.R.transpose() * by_point;
  }
  return by_pose;
}

// Pushes a gradient by the minimal pose on to the sample's coordinates.
template <bool kRgbd>
void minimal_gradient(const ExactCells<kRgbd>& s, const Hypothesis& h, const Vector6d& by_pose,
                      std::vector<Vector3d>* gradient) {
  Matrix6d system = Matrix6d::Zero();
  Matrix63d cross[3];
  for (int i = 0; i < 3; ++i) {
    const size_t k = static_cast<size_t>(h.sample[i]);
    const Vector3d p = h.pose.apply(s.world[k]);
    if (kRgbd) {
      // Normal equations of sum |p - target|^2 / 2.
      Jet jet;
      jet.gradient = p - s.target[k];
      jet.hessian = Matrix3d::Identity();
      cross[i] = perturbation_cross(p, jet);
      system += perturbation_hessian(p, cross[i]);
    } else {
      // Rows 2i, 2i + 1: the reprojection of point i, which the pose keeps on its ray.
      const double iz = 1.0 / p.z();
      Eigen::Matrix<double, 2, 3> projection;
      projection << iz, 0, -p.x() * iz * iz, 0, iz, -p.y() * iz * iz;
      cross[i].setZero();
      cross[i].middleRows<2>(2 * i) = projection;
      system.middleRows<2>(2 * i) << -projection * skew(p), projection;
    }
  }
  const Eigen::FullPivLU<Matrix6d> factor(system.transpose());
  if (!factor.isInvertible()) return;
  const Vector6d lambda = factor.solve(by_pose);
  if (!lambda.allFinite()) return;
  for (int i = 0; i < 3; ++i)
    (*gradient)[static_cast<size_t>(h.sample[i])] -= h.pose.R.transpose() * (cross[i].transpose() * lambda);
}

// Pushes a gradient by the refined pose on to all inliers' coordinates.
template <bool kRgbd>
void refined_gradient(const ExactCells<kRgbd>& s, const Minimum& minimum, double tau_square, const Vector6d& by_pose,
                      std::vector<Vector3d>* gradient) {
  Vector6d lambda;
  if (!damped_step(minimum.hessian, by_pose, 0.0, &lambda)) return;  // lambda = -H^-1 by_pose
  for (size_t k = 0; k < s.world.size(); ++k) {
    const Vector3d p = minimum.pose.apply(s.world[k]);
    Jet square, phi;
    if (!tukey_jet<kRgbd>(p, s.target[k], s.fx, s.fy, tau_square, &square, &phi)) continue;
    (*gradient)[k] += minimum.pose.R.transpose() * (perturbation_cross(p, phi).transpose() * lambda);
  }
}

template <bool kRgbd>
ExpectedLoss expected_loss_of(const GridInput& input, const LossModel& model, const LossOptions& options, uint64_t seed,
                              double* gradient) {
  ExpectedLoss out;
  const ExactCells<kRgbd> s(input, options.threshold);
  if (s.size() < ExactCells<kRgbd>::kSample) return out;
  const double tau_square = options.threshold * options.threshold;
  const double score_scale = options.inlier_alpha / s.size();

  std::vector<Hypothesis> hypotheses;
  std::vector<double> probability;
  double highest = -std::numeric_limits<double>::infinity();
  for (int j = 0; j < options.hypotheses; ++j) {
    const Hypothesis h = draw_hypothesis(s, Draw::kUniform, seed, static_cast<uint64_t>(j), options.max_tries);
    if (!h.accepted) continue;
    hypotheses.push_back(h);
    probability.push_back(score_scale * soft_inliers(s, h.pose, options));
    highest = std::max(highest, probability.back());
  }
  out.accepted = static_cast<int>(hypotheses.size());
  if (hypotheses.empty()) return out;
  double total = 0;
  for (double& p : probability) p = std::exp(p - highest), total += p;
  for (double& p : probability) p /= total;

  std::vector<Vector3d> by_cell(s.world.size(), Vector3d::Zero());
  std::vector<double> losses(hypotheses.size(), 0.0);
  for (size_t j = 0; j < hypotheses.size(); ++j) {
    if (probability[j] < kLeastProbability) continue;
    const Minimum minimum = minimise(s, hypotheses[j].pose, tau_square);
    Vector6d by_pose;
    losses[j] = pose_loss(minimum.strict ? minimum.pose : hypotheses[j].pose, s.cells.origin, model, &by_pose);
    out.loss += probability[j] * losses[j];
    by_pose *= probability[j];
    if (minimum.strict) {
      refined_gradient(s, minimum, tau_square, by_pose, &by_cell);
    } else {
      minimal_gradient(s, hypotheses[j], by_pose, &by_cell);
    }
  }
  for (size_t j = 0; j < hypotheses.size(); ++j) {
    if (probability[j] < kLeastProbability) continue;
    const double weight = probability[j] * (losses[j] - out.loss) * score_scale;
    const Vector6d by_pose = soft_inliers_gradient(s, hypotheses[j].pose, options, weight, &by_cell);
    minimal_gradient(s, hypotheses[j], by_pose, &by_cell);
  }
  const size_t n = static_cast<size_t>(input.height) * static_cast<size_t>(input.width);
  for (size_t k = 0; k < by_cell.size(); ++k) {
    if (!by_cell[k].allFinite()) continue;
    for (size_t axis = 0; axis < 3; ++axis)
      gradient[axis * n + static_cast<size_t>(s.cells.source[k])] += by_cell[k][static_cast<Eigen::Index>(axis)];
  }
  return out;
}

}  // namespace

double pose_loss(const CameraPose& pose, const Eigen::Vector3d& origin, const LossModel& model, Vector6d* gradient) {
  constexpr double kDegrees = 57.29577951308232;
  const Matrix3d turn = pose.R * model.truth.R.transpose();
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

ExpectedLoss expected_loss(const GridInput& input, const LossModel& model, const LossOptions& options, uint64_t seed,
                           double* gradient) {
  return input.camera_coords != nullptr ? expected_loss_of<true>(input, model, options, seed, gradient)
                                        : expected_loss_of<false>(input, model, options, seed, gradient);
}

}  // namespace dsacstar
