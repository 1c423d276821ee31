#include "covariance.h"

#include <Eigen/Cholesky>
#include <Eigen/LU>
#include <algorithm>
#include <array>
#include <cmath>

namespace dsacstar {
namespace {

using namespace policy;

constexpr double kEtas[] = {0.25, 1.0, 4.0, 16.0, 64.0};
constexpr double kLengths[] = {1.0, 2.0, 4.0};  // blocks
constexpr double kUncorrelated = 0.9;           // prior probability of eta = 0

using BlockMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, 0, kMostBlocks, kMostBlocks>;
using BlockColumns = Eigen::Matrix<double, Eigen::Dynamic, 7, 0, kMostBlocks, 7>;  // J and y of one direction
using BlockVector = Eigen::Matrix<double, Eigen::Dynamic, 1, 0, kMostBlocks, 1>;

// The blocks that hold cells of weight, and their sums turned into means.
struct Blocks {
  int count = 0;
  int directions = 2;                // of the residual
  BlockVector weight, row, col;      // total weight; centre, in blocks
  std::array<BlockColumns, 3> rows;  // for each direction: J and y
};

// How many blocks down and across: square ones, at least a few cells each.
void block_shape(const Cells& cells, int* down, int* across) {
  constexpr double kFewestCells = 4.0;
  const double most = std::min<double>(kMostBlocks, cells.count / kFewestCells);
  const double side = std::sqrt(cells.height * static_cast<double>(cells.width) / std::max(most, 1.0));
  *down = std::clamp(static_cast<int>(std::lround(cells.height / side)), 1, kMostBlocks);
  *across = std::clamp(static_cast<int>(most / *down), 1, std::max(1, cells.width));
  *down = std::min(*down, std::max(1, cells.height));
}

// d residual / d (omega, v) in one direction at a camera point with ray (a, b).
template <Model kModel>
Eigen::Matrix<double, 1, 6> residual_row(int direction, const Eigen::Vector3d& p, double a, double b, double fx, double fy) {
  Eigen::Matrix<double, 3, 6> point;
  point << -skew(p), Eigen::Matrix3d::Identity();
  if (kModel == Model::kPoint) return point.row(direction);
  if (kModel == Model::kRay) return point.row(direction) - (direction == 0 ? a : b) * point.row(2);
  return (direction == 0 ? fx : fy) / p.z() * (point.row(direction) - p[direction] / p.z() * point.row(2));
}

template <Model kModel>
Blocks gather_blocks(const Cells& cells, const CellFields& f) {
  int down = 1, across = 1;
  block_shape(cells, &down, &across);
  struct Sums {
    double w = 0, ex = 0, ey = 0, ez = 0, px = 0, py = 0, pz = 0, a = 0, b = 0, row = 0, col = 0;
  };
  std::array<Sums, kMostBlocks> sums;
  std::vector<int> block_of_row(static_cast<size_t>(cells.height)), block_of_col(static_cast<size_t>(cells.width));
  for (int i = 0; i < cells.height; ++i) block_of_row[static_cast<size_t>(i)] = i * down / cells.height * across;
  for (int j = 0; j < cells.width; ++j) block_of_col[static_cast<size_t>(j)] = j * across / cells.width;
  double total = 0;
  for (size_t k = 0; k < static_cast<size_t>(cells.count); ++k) {
    const int row = cells.source[k] / cells.width, col = cells.source[k] - row * cells.width;
    Sums& s = sums[static_cast<size_t>(block_of_row[static_cast<size_t>(row)] + block_of_col[static_cast<size_t>(col)])];
    const double w = static_cast<double>(f.w[k]);
    s.w += w, total += w;
    s.ex += w * f.ex[k], s.ey += w * f.ey[k], s.ez += w * f.ez[k];
    s.px += w * f.px[k], s.py += w * f.py[k], s.pz += w * f.pz[k];
    s.a += w * cells.a[k], s.b += w * cells.b[k], s.row += w * row, s.col += w * col;
  }
  Blocks out;
  out.directions = static_cast<int>(dimensions(kModel));
  out.weight.resize(kMostBlocks), out.row.resize(kMostBlocks), out.col.resize(kMostBlocks);
  for (auto& rows : out.rows) rows.resize(kMostBlocks, 7);
  const double least = 0.1 * total / (down * across);
  for (int b = 0; b < down * across; ++b) {
    const Sums& s = sums[static_cast<size_t>(b)];
    if (!(s.w > least)) continue;
    const int i = out.count++;
    out.weight[i] = s.w, out.row[i] = s.row / s.w * down / cells.height, out.col[i] = s.col / s.w * across / cells.width;
    const Eigen::Vector3d p(s.px / s.w, s.py / s.w, s.pz / s.w);
    const double y[3] = {s.ex / s.w, s.ey / s.w, s.ez / s.w};
    for (int d = 0; d < out.directions; ++d) {
      BlockColumns& rows = out.rows[static_cast<size_t>(d)];
      rows.row(i).head<6>() = residual_row<kModel>(d, p, s.a / s.w, s.b / s.w, static_cast<double>(cells.fx), static_cast<double>(cells.fy));
      rows(i, 6) = y[d];
    }
  }
  out.weight.conservativeResize(out.count), out.row.conservativeResize(out.count), out.col.conservativeResize(out.count);
  for (auto& rows : out.rows) rows.conservativeResize(out.count, 7);
  return out;
}

// One pair (eta, l): restricted log-likelihood with the scale s^2 at its maximum, and B.
struct Correlation {
  double log_likelihood = -std::numeric_limits<double>::infinity();
  double scale = 0;             // s^2, the variance of an average block's independent part
  Matrix6d shared = Matrix6d::Zero();  // W J^T K J W, of the correlated part
};

Correlation restricted_likelihood(const Blocks& blocks, const BlockMatrix& K, double eta) {
  const int n = blocks.count;
  const BlockVector independent = blocks.weight.mean() * blocks.weight.cwiseInverse();
  BlockMatrix covariance = eta * K;
  covariance.diagonal() += independent;
  const Eigen::LLT<BlockMatrix> factor(covariance);
  Correlation out;
  if (factor.info() != Eigen::Success) return out;
  Eigen::Matrix<double, 7, 7> normal = Eigen::Matrix<double, 7, 7>::Zero();
  for (int d = 0; d < blocks.directions; ++d) {
    BlockColumns solved = blocks.rows[static_cast<size_t>(d)];
    factor.matrixL().solveInPlace(solved);
    normal += solved.transpose() * solved;
  }
  const Matrix6d information = normal.topLeftCorner<6, 6>();
  const Eigen::LDLT<Matrix6d> inner(information);
  const Vector6d diagonal = inner.vectorD();
  if (!(diagonal.minCoeff() > 0.0)) return out;
  const Vector6d by = normal.topRightCorner<6, 1>();
  const int freedom = n * blocks.directions - 6;
  const double square = std::max(normal(6, 6) - by.dot(inner.solve(by)), 1e-300);
  out.scale = square / freedom;
  double log_determinant = 0;
  for (int i = 0; i < n; ++i) log_determinant += 2.0 * std::log(factor.matrixLLT()(i, i));
  out.log_likelihood = -0.5 * (blocks.directions * log_determinant + diagonal.array().log().sum() + freedom * std::log(out.scale));
  return out;
}

Matrix6d weighted_form(const Blocks& blocks, const BlockMatrix& K) {
  Matrix6d out = Matrix6d::Zero();
  for (int d = 0; d < blocks.directions; ++d) {
    const Eigen::Matrix<double, Eigen::Dynamic, 6, 0, kMostBlocks, 6> WJ =
        blocks.weight.asDiagonal() * blocks.rows[static_cast<size_t>(d)].leftCols<6>();
    out += WJ.transpose() * K * WJ;
  }
  return out;
}

// B in units in which A is sum w J^T J, w as in CellFields, and H = that matrix.
Matrix6d score_covariance(const Blocks& blocks, const Matrix6d& H) {
  constexpr double kNegligible = 6.0;  // nats below the best: nothing to the average, and larger eta only less
  const int n = blocks.count;
  const double independent_weight = blocks.weight.mean();
  std::vector<Correlation> found;
  std::vector<double> prior;
  BlockMatrix none = BlockMatrix::Zero(n, n);
  found.push_back(restricted_likelihood(blocks, none, 0.0));
  prior.push_back(kUncorrelated);
  double highest = found.front().log_likelihood;
  for (const double length : kLengths) {
    BlockMatrix K(n, n);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) {
        const double dr = blocks.row[i] - blocks.row[j], dc = blocks.col[i] - blocks.col[j];
        K(i, j) = std::exp(-0.5 * (dr * dr + dc * dc) / (length * length));
      }
    Matrix6d shared;
    bool known = false;
    for (const double eta : kEtas) {
      Correlation c = restricted_likelihood(blocks, K, eta);
      prior.push_back((1.0 - kUncorrelated) / (std::size(kEtas) * std::size(kLengths)));
      if (c.log_likelihood > found.front().log_likelihood - 6.0) {
        if (!known) shared = weighted_form(blocks, K), known = true;
        c.shared = eta * shared;
      }
      found.push_back(c);
      if (c.log_likelihood < highest - kNegligible) break;
      highest = std::max(highest, c.log_likelihood);
    }
  }
  Matrix6d B = Matrix6d::Zero();
  double total = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double weight = prior[i] * std::exp(found[i].log_likelihood - highest);
    if (!(weight > 1e-6)) continue;
    B += weight * found[i].scale * (independent_weight * H + found[i].shared);
    total += weight;
  }
  return B / total;
}

}  // namespace

template <Model kModel>
PoseCovariance honest_covariance(const Cells& cells, const Refinement& refined, const Matrix6d& information,
                                 const ErrorModel& error_model, float* scratch) {
  constexpr double d = dimensions(kModel);
  PoseCovariance out;
  out.perturbation.setConstant(std::numeric_limits<double>::infinity());
  const Matrix6d H = information * refined.mixture.inlier_var;  // sum w J^T J, w = 1 for an inlier
  const Vector6d scale = H.diagonal().cwiseMax(1e-30).cwiseSqrt().cwiseInverse();
  const Matrix6d scaled = scale.asDiagonal() * H * scale.asDiagonal();
  const Eigen::FullPivLU<Matrix6d> factor(scaled);
  if (!scaled.allFinite() || !factor.isInvertible()) return out;
  const Matrix6d inverse = scale.asDiagonal() * factor.inverse() * scale.asDiagonal();

  ErrorModel model = error_model;
  if (kModel != Model::kPoint)
    model.min_depth = std::max(model.min_depth, static_cast<float>(depth_gate(cells, cells.count, refined.pose)));
  // How much less than H the slope of the equations is, because weights fall as residuals grow.
  squared_residuals<kModel>(cells, cells.count, refined.pose, model, scratch);
  for (size_t k = static_cast<size_t>(cells.count); k < cells.x.size(); ++k) scratch[k] = std::numeric_limits<float>::infinity();
  const MixtureSums sums = mixture_sums<kModel>(scratch, cells.count, refined.mixture, 1.0, nullptr);
  const double slope = std::clamp(1.0 + 2.0 / d * sums.weight_slope / std::max(sums.weight, 1e-300), 0.2, 1.0);
  const double near = std::max(sums.inliers + sums.middle, 1.0);
  const Matrix6d independent = refined.mixture.inlier_var * near / std::max(near - 6.0 / d, 0.5) / (slope * slope) * inverse;

  CellFields fields;
  cell_fields<kModel>(cells, refined.pose, refined.mixture, model, &fields);
  const Blocks blocks = gather_blocks<kModel>(cells, fields);
  constexpr int kFewestFreedom = 6;
  if (blocks.count * blocks.directions - 6 < kFewestFreedom) {
    out.perturbation = independent;
    return out;
  }
  const Matrix6d B = score_covariance(blocks, H);
  out.perturbation = inverse * B * inverse / (slope * slope);
  out.perturbation = (0.5 * (out.perturbation + out.perturbation.transpose())).eval();
  out.inflation = std::max(1.0, (out.perturbation * (H / refined.mixture.inlier_var)).trace() / 6.0 * slope * slope);
  return out;
}

#define DSAC_FOR_MODEL(M) \
  template PoseCovariance honest_covariance<M>(const Cells&, const Refinement&, const Matrix6d&, const ErrorModel&, float*);
DSAC_FOR_MODEL(Model::kRay)
DSAC_FOR_MODEL(Model::kPixel)
DSAC_FOR_MODEL(Model::kPoint)
#undef DSAC_FOR_MODEL

}  // namespace dsacstar
