#include "optimum.h"

#include <Eigen/LU>
#include <array>
#include <cmath>

#include "least_squares.h"

namespace dsacstar {
namespace {

using namespace policy;
using Eigen::Vector3d;

constexpr int kShare = 0, kInlier = 1, kOutlier = 2, kMiddle = 3, kParameters = 4;
constexpr double kFarOutlier = 25.0;  // s2^2 beyond which a square counts no more, as in refine.cpp

// The mixture, as the equations take it.
struct MixtureState {
  double log_share, inlier_var, outlier_var, log_middle;  // log_share, log_middle: over the outliers'
  bool has_middle;

  static MixtureState of(const Mixture& m) {
    const double outliers = std::max(1.0 - m.inlier_share - m.middle_share, 1e-6);
    const bool has_middle = m.middle_share > 0.0;
    return {std::log(m.inlier_share / outliers), m.inlier_var, m.outlier_var,
            has_middle ? std::log(m.middle_share / outliers) : 0.0, has_middle};
  }
  double least_ratio() const { return has_middle ? kMiddleRatio * kSeparationPulling : kSeparationFinal; }  // s2^2 / s1^2
  double sum() const { return std::exp(log_share) + (has_middle ? std::exp(log_middle) : 0.0) + 1.0; }
  double share() const { return std::exp(log_share) / sum(); }
  double middle() const { return has_middle ? std::exp(log_middle) / sum() : 0.0; }
  void move(const Eigen::Matrix<double, kParameters, 1>& step) {
    log_share += step[kShare], inlier_var *= std::exp(step[kInlier]), outlier_var *= std::exp(step[kOutlier]);
    if (has_middle) log_middle += step[kMiddle];
  }
};

// What one cell of squared residual q adds to the mixture's equations E and to the pose's weight w, with derivatives.
struct CellTerms {
  double w, w_q, w_t[kParameters];
  double e[kParameters], e_q[kParameters], e_t[kParameters][kParameters];
};

// What does not depend on the cell.
struct MixtureConstants {
  double d, v1, v2, vm, share, middle, offset_in, offset_mid, offset_out;
  bool has_middle;

  MixtureConstants(const MixtureState& s, double dimensions)
      : d(dimensions), v1(s.inlier_var), v2(s.outlier_var), vm(kMiddleRatio * s.inlier_var), share(s.share()), middle(s.middle()),
        offset_in(s.log_share - 0.5 * d * std::log(v1)), offset_mid(s.log_middle - 0.5 * d * std::log(vm)),
        offset_out(-0.5 * d * std::log(v2)), has_middle(s.has_middle) {}
};

void cell_terms(const MixtureConstants& m, double q, CellTerms* out) {
  const double d = m.d, q1 = q / m.v1, qm = q / m.vm, q2 = q / m.v2;
  const double log_odds_in = m.offset_in - 0.5 * q1 - (m.offset_out - 0.5 * q2);
  const double log_odds_mid = m.offset_mid - 0.5 * qm - (m.offset_out - 0.5 * q2);
  const double in = std::exp(std::min(log_odds_in, 600.0)), mid = m.has_middle ? std::exp(std::min(log_odds_mid, 600.0)) : 0.0;
  const double all = 1.0 + in + mid;
  const double g[3] = {in / all, mid / all, 1.0 / all};
  // Derivatives of the log densities by q and by the parameters; a responsibility g_c changes by g_c (its own - the mean).
  const double by_q[3] = {-0.5 / m.v1, -0.5 / m.vm, -0.5 / m.v2};
  const double by_t[kParameters][3] = {{1, 0, 0}, {0.5 * (q1 - d), 0.5 * (qm - d), 0}, {0, 0, 0.5 * (q2 - d)}, {0, 1, 0}};
  double g_q[3], g_t[kParameters][3];
  const auto slopes = [&](const double* own, double* slope) {
    const double mean = g[0] * own[0] + g[1] * own[1] + g[2] * own[2];
    for (int c = 0; c < 3; ++c) slope[c] = g[c] * (own[c] - mean);
  };
  slopes(by_q, g_q);
  for (int t = 0; t < kParameters; ++t) slopes(by_t[t], g_t[t]);

  const double near = g[0] + g[1], counted = q2 < kFarOutlier ? 1.0 : 0.0;
  const auto weight = [](const double* x) { return x[0] + x[1] / kMiddleRatio; };
  const auto spread = [&](const double* x) { return x[0] * (d - q1) + x[1] * (d - qm); };  // of g: the equation of s1^2
  out->w = weight(g), out->w_q = weight(g_q);
  out->e[kShare] = m.share - g[0], out->e_q[kShare] = -g_q[0];
  out->e[kInlier] = spread(g), out->e_q[kInlier] = spread(g_q) - g[0] / m.v1 - g[1] / m.vm;
  out->e[kOutlier] = d * g[2] + near * q2 - std::min(q2, kFarOutlier);
  out->e_q[kOutlier] = d * g_q[2] + (g_q[0] + g_q[1]) * q2 + (near - counted) / m.v2;
  out->e[kMiddle] = m.middle - g[1], out->e_q[kMiddle] = -g_q[1];
  for (int t = 0; t < kParameters; ++t) {
    out->w_t[t] = weight(g_t[t]);
    out->e_t[kShare][t] = -g_t[t][0];
    out->e_t[kInlier][t] = spread(g_t[t]);
    out->e_t[kOutlier][t] = d * g_t[t][2] + (g_t[t][0] + g_t[t][1]) * q2;
    out->e_t[kMiddle][t] = -g_t[t][1];
  }
  out->e_t[kInlier][kInlier] += g[0] * q1 + g[1] * qm;
  out->e_t[kOutlier][kOutlier] += (counted - near) * q2;
  out->e_t[kShare][kShare] += m.share * (1.0 - m.share), out->e_t[kShare][kMiddle] -= m.share * m.middle;
  out->e_t[kMiddle][kMiddle] += m.middle * (1.0 - m.middle), out->e_t[kMiddle][kShare] -= m.share * m.middle;
}

// The equations as a problem of least_squares.h.
template <Model kModel>
struct OptimumProblem {
  struct State {
    CameraPose pose;
    MixtureState mixture;
  };
  struct Terms {
    double merit = 0;
    bool usable = true;
    Vector10d F = Vector10d::Zero();
    Vector10d free = Vector10d::Zero();  // F, as if nothing were held
    Matrix10d A = Matrix10d::Zero();
    double inlier_var = 1;
  };
  const ExactCells<kModel>& exact;
  const Optimum& held;  // lens and what is held
  Vector10d scale = Vector10d::Ones();  // of the equations in the merit

  Terms terms(const State& s) const {
    Terms out;
    out.inlier_var = s.mixture.inlier_var;
    const MixtureConstants constants(s.mixture, dimensions(kModel));
    CellTerms cell;
    int count = 0;
    for (size_t k = 0; k < exact.size(); ++k) {
      const Vector3d p = s.pose.apply(exact.world[k]);
      if (!in_front<kModel>(p, held.lens)) continue;
      ++count;
      const Jet q = square_jet<kModel>(p, exact.target[k], held.lens);
      cell_terms(constants, q.value, &cell);
      for (int i = 0; i < kParameters; ++i) {
        out.F[6 + i] += cell.e[i];
        for (int t = 0; t < kParameters; ++t) out.A(6 + i, 6 + t) += cell.e_t[i][t];
      }
      const Vector6d G = perturbation_gradient(p, q.gradient);
      for (int i = 0; i < kParameters; ++i) out.A.template block<1, 6>(6 + i, 0) += cell.e_q[i] * G.transpose();
      constexpr double kNoWeight = 1e-20;
      if (cell.w < kNoWeight) continue;
      out.F.template head<6>() += 0.5 * cell.w * G;
      for (int t = 0; t < kParameters; ++t) out.A.template block<6, 1>(0, 6 + t) += 0.5 * cell.w_t[t] * G;
      out.A.template topLeftCorner<6, 6>() += perturbation_hessian(p, perturbation_cross(p, compose(q, 0.0, 0.5 * cell.w, 0.5 * cell.w_q)));
    }
    out.usable = count >= 4 && out.F.allFinite() && out.A.allFinite();
    out.free = out.F;
    hold(s.mixture, count, &out);
    out.merit = out.F.cwiseAbs2().dot(scale);
    return out;
  }

  Proposal propose(const Terms& now, double damping, State* moved) const {
    constexpr double kSettled = 1e-6, kDone = 1e-12;  // squared, in standard deviations
    Proposal out;
    Matrix10d damped = now.A;
    damped.diagonal() += damping * now.A.diagonal().cwiseAbs();
    const Vector10d step = -damped.partialPivLu().solve(now.F);
    if (!step.allFinite() || step.tail<kParameters>().cwiseAbs().maxCoeff() > 3.0 || step.head<3>().norm() > kLongestTurn) return out;
    out.exists = true;
    moved->pose.perturb(step.head<6>());
    moved->mixture.move(step.tail<kParameters>());
    const Vector10d squares = step.cwiseAbs2().cwiseProduct(now.A.diagonal().cwiseAbs());
    const double size = squares.head<6>().sum() / now.inlier_var + squares.tail<kParameters>().sum();
    out.settled = damping == 0.0 && size < kSettled;
    out.done = damping == 0.0 && size < kDone;
    return out;
  }

 private:
  void hold(const MixtureState& mixture, int count, Terms* out) const {
    for (int i = 0; i < kParameters; ++i) {
      if (!held.fixed[static_cast<size_t>(i)]) continue;
      out->A.row(6 + i).setZero();
      out->A(6 + i, 6 + i) = count;
      out->F[6 + i] = 0.0;
    }
    if (!held.floored) return;
    out->A.row(6 + kOutlier).setZero();
    out->A(6 + kOutlier, 6 + kOutlier) = count, out->A(6 + kOutlier, 6 + kInlier) = -count;
    out->F[6 + kOutlier] = count * std::log(mixture.outlier_var / (mixture.least_ratio() * mixture.inlier_var));
  }
};

// Where inliers and middle component leave nothing for outliers, these have neither a share nor a spread of their own: both
// are held at their least.
void hold_outliers(MixtureState* mixture, Optimum* held) {
  const double near = std::exp(mixture->log_share) + std::exp(mixture->log_middle);
  const double shift = std::log((1.0 - kLeastShare) / kLeastShare / near);
  mixture->log_share += shift, mixture->log_middle += shift;
  mixture->outlier_var = mixture->least_ratio() * mixture->inlier_var;
  held->fixed[kShare] = held->floored = true;
}

// Holds and lets go what the solution just found asks for; false when nothing changes.
bool change_bounds(const Vector10d& free, MixtureState* mixture, Optimum* held) {
  if (mixture->has_middle && held->fixed[kShare]) return false;
  bool changed = false;
  const double least = mixture->least_ratio() * mixture->inlier_var;
  // A positive equation of s2^2 says that the outliers' spread would rather be smaller.
  const bool floored = held->floored ? free[6 + kOutlier] > 0.0 : mixture->outlier_var < least;
  if (floored != held->floored) held->floored = floored, changed = true;
  if (floored) mixture->outlier_var = least;
  if (mixture->has_middle) return changed;
  const double bound = std::log((1.0 - kLeastShare) / kLeastShare);
  // A negative equation of the share says that it would rather be larger.
  const bool full = held->fixed[kShare] ? mixture->log_share > 0.0 && free[6 + kShare] < 0.0 : mixture->log_share > bound;
  if (full != held->fixed[kShare]) held->fixed[kShare] = full, changed = true;
  if (full) mixture->log_share = bound;
  return changed;
}

}  // namespace

template <Model kModel>
Optimum find_optimum(const ExactCells<kModel>& exact, const Refinement& start, double min_depth) {
  constexpr int kMostRounds = 30, kMostChanges = 4;
  constexpr double kAtBound = 1e-3;  // relative
  Optimum out;
  out.pose = start.pose;
  Mixture& m = out.mixture;
  m = start.mixture;
  out.lens = exact.lens;
  out.lens.min_depth = std::max(out.lens.min_depth, min_depth);
  OptimumProblem<kModel> problem{exact, out};
  typename OptimumProblem<kModel>::State state{start.pose, MixtureState::of(m)};
  out.floored = m.outlier_var <= (1.0 + kAtBound) * state.mixture.least_ratio() * m.inlier_var;
  out.fixed[kInlier] = m.inlier_var <= (1.0 + kAtBound) * kVarianceFloor || m.inlier_var >= (1.0 - kAtBound) * m.most_inlier_var;
  out.fixed[kShare] = m.inlier_share <= (1.0 + kAtBound) * kLeastShare || m.inlier_share >= 1.0 - (1.0 + kAtBound) * kLeastShare;
  out.fixed[kMiddle] = !state.mixture.has_middle || m.middle_share >= 1.0 - (1.0 + kAtBound) * kLeastShare;
  if (state.mixture.has_middle && 1.0 / state.mixture.sum() < kLeastShare) hold_outliers(&state.mixture, &out);

  const auto first = problem.terms(state);
  problem.scale = first.A.diagonal().cwiseAbs().cwiseMax(1e-300).cwiseInverse();
  problem.scale.template head<6>() /= m.inlier_var;
  typename OptimumProblem<kModel>::Terms last = first;
  bool done = false;
  for (int change = 0; change <= kMostChanges; ++change) {
    last = settle(problem, &state, 0.0, kMostRounds, &done);
    if (!done && state.mixture.has_middle && !out.fixed[kShare]) {
      state = {start.pose, MixtureState::of(m)};
      hold_outliers(&state.mixture, &out);
      continue;
    }
    if (!done || !change_bounds(last.free, &state.mixture, &out)) break;
    done = false;
  }
  if (!done) {
    state = {start.pose, MixtureState::of(m)};
    out.fixed.fill(true);
    out.floored = false;
    last = settle(problem, &state, 0.0, kMostRounds, &done);
  }
  if (!done || !last.usable || !state.pose.finite()) return out;
  out.settled = true;
  out.pose = state.pose, out.system = last.A;
  m.inlier_share = state.mixture.share(), m.middle_share = state.mixture.middle();
  m.inlier_var = state.mixture.inlier_var, m.outlier_var = state.mixture.outlier_var;
  return out;
}

template <Model kModel>
void push_through_optimum(const ExactCells<kModel>& exact, const Optimum& optimum, const Vector6d& by_pose,
                          std::vector<Vector3d>* gradient) {
  Vector10d right = Vector10d::Zero();
  right.head<6>() = by_pose;
  const Eigen::FullPivLU<Matrix10d> factor(optimum.system.transpose());
  if (!factor.isInvertible()) return;
  Vector10d lambda = factor.solve(right);
  if (!lambda.allFinite()) return;
  for (int i = 0; i < kParameters; ++i)
    if (optimum.fixed[static_cast<size_t>(i)] || (i == kOutlier && optimum.floored)) lambda[6 + i] = 0.0;  // no cell enters
  const MixtureConstants constants(MixtureState::of(optimum.mixture), dimensions(kModel));
  const Eigen::Matrix3d world_from_cam = optimum.pose.R.transpose();
  CellTerms cell;
  for (size_t k = 0; k < exact.size(); ++k) {
    const Vector3d p = optimum.pose.apply(exact.world[k]);
    if (!in_front<kModel>(p, optimum.lens)) continue;
    const Jet q = square_jet<kModel>(p, exact.target[k], optimum.lens);
    cell_terms(constants, q.value, &cell);
    double by_square = 0;
    for (int i = 0; i < kParameters; ++i) by_square += cell.e_q[i] * lambda[6 + i];
    const Jet phi = compose(q, 0.0, 0.5 * cell.w, 0.5 * cell.w_q);
    // (p x n, n) . (l, m) = n . (l x p + m), n the gradient: its derivative by p, times (l, m).
    const Vector3d turned = lambda.head<3>().cross(p) + lambda.segment<3>(3);
    const Vector3d by_point = phi.hessian * turned + phi.gradient.cross(lambda.head<3>()) + by_square * q.gradient;
    (*gradient)[k] -= world_from_cam * by_point;
  }
}

#define DSAC_FOR_MODEL(M)                                                                        \
  template Optimum find_optimum<M>(const ExactCells<M>&, const Refinement&, double);             \
  template void push_through_optimum<M>(const ExactCells<M>&, const Optimum&, const Vector6d&,   \
                                        std::vector<Vector3d>*);
DSAC_FOR_MODEL(Model::kRay)
DSAC_FOR_MODEL(Model::kPixel)
DSAC_FOR_MODEL(Model::kPoint)
#undef DSAC_FOR_MODEL

}  // namespace dsacstar
