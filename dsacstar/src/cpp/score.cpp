#include "score.h"

#include <algorithm>
#include <cmath>
#include <limits>

// Vector types never cross a function that is not inlined, so their calling convention does not matter.
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

namespace dsacstar {
namespace {

constexpr int kNormalSums = 41;
constexpr int kBlock = 512;  // cells summed in float before the sum goes to double
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct CellPlanes {
  const float *x, *y, *z, *a, *b, *c, *precision, *pick;
  float fx, fy;
};
struct PosePlanes {
  float r[9], t[3];
};
struct ErrorPlanes {
  float threshold, beta, max_error, min_depth, wide_inverse_square;
};
struct MixturePlanes {
  float log_odds, half_precision_gap, outlier_weight, weight_gap, square_clamp;
};

// Each entry: RGB, RGB-D.
struct KernelTable {
  void (*score[2])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, double*);
  double (*rank[2])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&);
  void (*errors[2])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, float*);
  void (*squares[2])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, float*);
  void (*normal[2])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, const MixturePlanes&, double*);
};

namespace baseline {
#define DSAC_LANES 4
#include "kernels.inl"
#undef DSAC_LANES
}  // namespace baseline

#if defined(__x86_64__) && defined(__GNUC__)
#define DSAC_X86 1

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#define DSAC_LANES 8
#include "kernels.inl"
#undef DSAC_LANES
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,fma")
#endif
namespace avx512 {
#define DSAC_LANES 16
#include "kernels.inl"
#undef DSAC_LANES
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // x86-64

struct Backend {
  const KernelTable* table;
  const char* name;
};

const Backend& backend() {
  static const Backend chosen = [] {
#ifdef DSAC_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return Backend{&avx512::kTable, "avx512"};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Backend{&avx2::kTable, "avx2"};
#endif
    return Backend{&baseline::kTable, "baseline"};
  }();
  return chosen;
}

CellPlanes planes(const Cells& s) {
  return {s.x.data(), s.y.data(), s.z.data(), s.a.data(), s.b.data(), s.c.data(), s.precision.data(), s.pick.data(),
          s.fx, s.fy};
}

PosePlanes planes(const CameraPose& pose) {
  PosePlanes q;
  for (int i = 0; i < 9; ++i) q.r[i] = static_cast<float>(pose.R(i / 3, i % 3));
  for (int i = 0; i < 3; ++i) q.t[i] = static_cast<float>(pose.t[i]);
  return q;
}

ErrorPlanes planes(const ErrorModel& m) {
  constexpr float kWide = 3.0f;  // the wide score's half-value, in thresholds
  const float wide = kWide * m.threshold;
  return {m.threshold, 5.0f / m.threshold, m.max_error, m.min_depth, 1.0f / (wide * wide)};
}

}  // namespace

const char* instruction_set() { return backend().name; }

template <bool kRgbd>
ScoreSums score_pose(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model) {
  double sums[2];
  backend().table->score[kRgbd](planes(cells), count, planes(pose), planes(model), sums);
  return {sums[0], sums[1]};
}

template <bool kRgbd>
double rank_pose(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model) {
  return backend().table->rank[kRgbd](planes(cells), count, planes(pose), planes(model));
}

template <bool kRgbd>
void pose_errors(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out) {
  backend().table->errors[kRgbd](planes(cells), count, planes(pose), planes(model), out);
}

template <bool kRgbd>
void squared_residuals(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out) {
  backend().table->squares[kRgbd](planes(cells), count, planes(pose), planes(model), out);
}

template <bool kRgbd>
NormalSums normal_equations(const Cells& cells, int count, const CameraPose& pose, const Mixture& mixture,
                            double square_clamp, const ErrorModel& model) {
  constexpr double kDimensions = kRgbd ? 3.0 : 2.0;  // of the residual
  const double p1 = 1.0 / mixture.inlier_var, p2 = 1.0 / mixture.outlier_var;
  const double share = std::clamp(mixture.inlier_share, 1e-6, 1.0 - 1e-6);
  MixturePlanes mix;
  mix.log_odds = static_cast<float>(std::log(share / (1.0 - share)) + 0.5 * kDimensions * std::log(p1 / p2));
  mix.half_precision_gap = static_cast<float>(0.5 * (p1 - p2));
  mix.outlier_weight = mixture.outliers_pull ? static_cast<float>(p2) : 0.0f;
  mix.weight_gap = static_cast<float>(p1) - mix.outlier_weight;
  mix.square_clamp = static_cast<float>(square_clamp);
  double s[kNormalSums];
  backend().table->normal[kRgbd](planes(cells), count, planes(pose), planes(model), mix, s);

  NormalSums out;
  out.inliers = s[0], out.inlier_square = s[1], out.count = s[2], out.square = s[3];
  for (int i = 0; i < 6; ++i) out.g[i] = s[4 + i];
  const double w = s[10];
  const Eigen::Vector3d wp(s[11], s[12], s[13]);
  Eigen::Matrix3d pp, uu, mm, um;  // sums of w p p^T, w u u^T, w m m^T, w u m^T with m = p x u
  pp << s[14], s[15], s[16], s[15], s[17], s[18], s[16], s[18], s[19];
  uu << s[20], s[21], s[22], s[21], s[23], s[24], s[22], s[24], s[25];
  mm << s[26], s[27], s[28], s[27], s[29], s[30], s[28], s[30], s[31];
  um << s[32], s[33], s[34], s[35], s[36], s[37], s[38], s[39], s[40];
  const Eigen::Matrix3d eye = Eigen::Matrix3d::Identity();
  out.H.topLeftCorner<3, 3>() = pp.trace() * eye - pp - mm;
  out.H.bottomRightCorner<3, 3>() = w * eye - uu;
  out.H.bottomLeftCorner<3, 3>() = -(skew(wp) + um);
  out.H.topRightCorner<3, 3>() = out.H.bottomLeftCorner<3, 3>().transpose();
  return out;
}

template <bool kRgbd>
double chance_rank(const Cells& cells, const CameraPose& pose, const ErrorModel& model) {
  const int shift = cells.count / 2, pairs = (cells.count - shift) / kLanePadding * kLanePadding;
  if (cells.count < 64) return 0.0;
  CellPlanes shifted = planes(cells);
  shifted.a += shift, shifted.b += shift, shifted.c += shift;
  return backend().table->rank[kRgbd](shifted, pairs, planes(pose), planes(model)) * cells.count / pairs;
}

template double chance_rank<false>(const Cells&, const CameraPose&, const ErrorModel&);
template double chance_rank<true>(const Cells&, const CameraPose&, const ErrorModel&);
template ScoreSums score_pose<false>(const Cells&, int, const CameraPose&, const ErrorModel&);
template ScoreSums score_pose<true>(const Cells&, int, const CameraPose&, const ErrorModel&);
template double rank_pose<false>(const Cells&, int, const CameraPose&, const ErrorModel&);
template double rank_pose<true>(const Cells&, int, const CameraPose&, const ErrorModel&);
template void pose_errors<false>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);
template void pose_errors<true>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);
template void squared_residuals<false>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);
template void squared_residuals<true>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);
template NormalSums normal_equations<false>(const Cells&, int, const CameraPose&, const Mixture&, double, const ErrorModel&);
template NormalSums normal_equations<true>(const Cells&, int, const CameraPose&, const Mixture&, double, const ErrorModel&);

}  // namespace dsacstar
