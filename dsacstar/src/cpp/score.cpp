#include "score.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

// Vector types never cross a function that is not inlined, so their calling convention does not matter.
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

namespace dsacstar {
namespace {

constexpr int kNormalSums = 43;
constexpr int kMixtureSums = 9;
constexpr int kBlock = 512;  // cells summed in float before the sum goes to double
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kRay = static_cast<int>(Model::kRay), kPixel = static_cast<int>(Model::kPixel), kPoint = static_cast<int>(Model::kPoint);

struct CellPlanes {
  const float *x, *y, *z, *a, *b, *c, *precision;
  float fx, fy;
};
struct PosePlanes {
  float r[9], t[3];
};
struct ErrorPlanes {
  float threshold, beta, max_error, min_depth, wide_inverse_square, narrow_inverse_square;
};
// Responsibilities as odds against the outliers: exp(log_odds - gap * square).
struct MixturePlanes {
  float inlier_log_odds, inlier_gap, middle_log_odds, middle_gap, outlier_half_precision;
  float inlier_weight, middle_weight, outlier_weight, square_clamp;
};

// Where the kernels' outputs go.
struct FieldPlanes {
  float *w, *ex, *ey, *ez, *px, *py, *pz;
};

// Indexed by Model; `normal`, `mixture` and `fields` also by whether there is a middle component.
struct KernelTable {
  void (*score[3])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, double*);
  void (*rank[3])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, double*);
  void (*errors[3])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, float*);
  void (*error_squares[3])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, float*);
  void (*squares[3])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, float*);
  void (*normal[3][2])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, const MixturePlanes&, double*);
  void (*mixture[2])(const float*, int, const MixturePlanes&, double*);
  void (*fields[3][2])(const CellPlanes&, int, const PosePlanes&, const ErrorPlanes&, const MixturePlanes&, FieldPlanes);
};

// DSAC_ONLY_LANES: one variant, of so many lanes, on any CPU; for builds under sanitizers, which take long to compile.
namespace baseline {
#ifdef DSAC_ONLY_LANES
#define DSAC_LANES DSAC_ONLY_LANES
#else
#define DSAC_LANES 4
#endif
#include "kernels.inl"
#undef DSAC_LANES
}  // namespace baseline

#if defined(__x86_64__) && defined(__GNUC__) && !defined(DSAC_ONLY_LANES)
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

bool runs(const char* name) {
  const std::string wanted = name;
#ifdef DSAC_X86
  __builtin_cpu_init();
  if (wanted == "avx512") return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
  if (wanted == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return wanted == "baseline";
}

Backend backend_named(const char* name) {
#ifdef DSAC_X86
  if (std::string(name) == "avx512") return {&avx512::kTable, "avx512"};
  if (std::string(name) == "avx2") return {&avx2::kTable, "avx2"};
#endif
  (void)name;
  return {&baseline::kTable, "baseline"};
}

Backend& backend() {
  static Backend chosen = backend_named(runs("avx512") ? "avx512" : runs("avx2") ? "avx2" : "baseline");
  return chosen;
}

CellPlanes planes(const Cells& s) {
  return {s.x.data(), s.y.data(), s.z.data(), s.a.data(), s.b.data(), s.c.data(), s.precision.data(), s.fx, s.fy};
}

PosePlanes planes(const CameraPose& pose) {
  PosePlanes q;
  for (int i = 0; i < 9; ++i) q.r[i] = static_cast<float>(pose.R(i / 3, i % 3));
  for (int i = 0; i < 3; ++i) q.t[i] = static_cast<float>(pose.t[i]);
  return q;
}

ErrorPlanes planes(const ErrorModel& m) {
  const float wide = policy::kWide * m.threshold;
  return {m.threshold, 5.0f / m.threshold, m.max_error, m.min_depth, 1.0f / (wide * wide), 1.0f / (m.threshold * m.threshold)};
}

MixturePlanes planes(const Mixture& mixture, double residual_dimensions, double square_clamp) {
  const double p1 = 1.0 / mixture.inlier_var, pm = p1 / policy::kMiddleRatio, p2 = 1.0 / mixture.outlier_var;
  const double inlier = std::clamp(mixture.inlier_share, 1e-6, 1.0 - 1e-6), middle = mixture.middle_share;
  const double outlier = std::max(1.0 - inlier - middle, 1e-6);
  const double half = 0.5 * residual_dimensions;
  MixturePlanes mix;
  mix.inlier_log_odds = static_cast<float>(std::log(inlier / outlier) + half * std::log(p1 / p2));
  mix.inlier_gap = static_cast<float>(0.5 * (p1 - p2));
  mix.middle_log_odds = static_cast<float>(std::log(std::max(middle, 1e-30) / outlier) + half * std::log(pm / p2));
  mix.middle_gap = static_cast<float>(0.5 * (pm - p2));
  mix.outlier_half_precision = static_cast<float>(0.5 * p2);
  const double pull = mixture.outliers_pull ? p2 : 0.0;
  mix.outlier_weight = static_cast<float>(pull);
  mix.inlier_weight = static_cast<float>(p1 - pull);
  mix.middle_weight = static_cast<float>(pm - pull);
  mix.square_clamp = static_cast<float>(square_clamp);
  return mix;
}

// The metric residuals' H from its sums: w, w p, and of w p p^T, w u u^T, w m m^T, w u m^T with m = p x u.
Matrix6d metric_hessian(const double* s) {
  const double w = s[0];
  const Eigen::Vector3d wp(s[1], s[2], s[3]);
  Eigen::Matrix3d pp, uu, mm, um;
  pp << s[4], s[5], s[6], s[5], s[7], s[8], s[6], s[8], s[9];
  uu << s[10], s[11], s[12], s[11], s[13], s[14], s[12], s[14], s[15];
  mm << s[16], s[17], s[18], s[17], s[19], s[20], s[18], s[20], s[21];
  um << s[22], s[23], s[24], s[25], s[26], s[27], s[28], s[29], s[30];
  const Eigen::Matrix3d eye = Eigen::Matrix3d::Identity();
  Matrix6d H;
  H.topLeftCorner<3, 3>() = pp.trace() * eye - pp - mm;
  H.bottomRightCorner<3, 3>() = w * eye - uu;
  H.bottomLeftCorner<3, 3>() = -(skew(wp) + um);
  H.topRightCorner<3, 3>() = H.bottomLeftCorner<3, 3>().transpose();
  return H;
}

// A symmetric matrix from its upper triangle, row by row.
Matrix6d symmetric(const double* s) {
  Matrix6d H;
  for (int i = 0; i < 6; ++i)
    for (int j = i; j < 6; ++j) H(i, j) = H(j, i) = *s++;
  return H;
}

}  // namespace

const char* instruction_set() { return backend().name; }

bool force_instruction_set(const char* name) {
  if (!runs(name)) return false;
  backend() = backend_named(name);
  return true;
}

template <Model kModel>
ScoreSums score_pose(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model) {
  double sums[2];
  backend().table->score[static_cast<int>(kModel)](planes(cells), count, planes(pose), planes(model), sums);
  return {sums[0], sums[1]};
}

template <Model kModel>
Ranks rank_pose(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model) {
  double sums[2];
  backend().table->rank[static_cast<int>(kModel)](planes(cells), count, planes(pose), planes(model), sums);
  return {sums[0], sums[1]};
}

template <Model kModel>
void pose_errors(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out) {
  backend().table->errors[static_cast<int>(kModel)](planes(cells), count, planes(pose), planes(model), out);
}

template <Model kModel>
void squared_residuals(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out) {
  backend().table->squares[static_cast<int>(kModel)](planes(cells), count, planes(pose), planes(model), out);
}

template <Model kModel>
void squared_errors(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, float* out) {
  backend().table->error_squares[static_cast<int>(kModel)](planes(cells), count, planes(pose), planes(model), out);
}

template <Model kModel>
MixtureSums mixture_sums(const float* squares, int count, const Mixture& mixture, double square_clamp, double* log_likelihood) {
  double s[kMixtureSums];
  const double d = dimensions(kModel);
  backend().table->mixture[mixture.middle_share > 0.0](squares, count, planes(mixture, d, square_clamp), s);
  MixtureSums out;
  out.inliers = s[0], out.inlier_square = s[1], out.middle = s[2], out.middle_square = s[3], out.count = s[4], out.square = s[5];
  out.weight = s[7], out.weight_slope = s[8];
  const double outlier = std::max(1.0 - std::clamp(mixture.inlier_share, 1e-6, 1.0 - 1e-6) - mixture.middle_share, 1e-6);
  if (log_likelihood != nullptr) *log_likelihood = s[6] + out.count * (std::log(outlier) - 0.5 * d * std::log(mixture.outlier_var));
  return out;
}

void update_mixture(const MixtureSums& sums, double residual_dimensions, Mixture* mixture) {
  using namespace policy;
  const double d = residual_dimensions;
  const double near = std::max(sums.inliers + sums.middle, 1e-3);
  const double outliers = std::max(sums.count - sums.inliers - sums.middle, 1e-3);
  mixture->inlier_var = std::max((sums.inlier_square + sums.middle_square / kMiddleRatio) / (d * near), kVarianceFloor);
  mixture->inlier_var = std::min(mixture->inlier_var, mixture->most_inlier_var);
  mixture->outlier_var = std::max(sums.square - sums.inlier_square - sums.middle_square, 0.0) / (d * outliers);
  const double separation = mixture->outliers_pull ? kSeparationPulling
                            : mixture->middle_share > 0.0 ? kMiddleRatio * kSeparationPulling : kSeparationFinal;
  mixture->outlier_var = std::max(mixture->outlier_var, separation * mixture->inlier_var);
  const double count = std::max(sums.count, 1e-3);
  if (mixture->middle_share > 0.0) mixture->middle_share = std::clamp(sums.middle / count, 1e-6, 1.0 - kLeastShare);
  mixture->inlier_share = std::clamp(sums.inliers / count, kLeastShare, 1.0 - kLeastShare);
}

template <Model kModel>
NormalSums normal_equations(const Cells& cells, int count, const CameraPose& pose, const Mixture& mixture,
                            double square_clamp, const ErrorModel& model) {
  double s[kNormalSums];
  backend().table->normal[static_cast<int>(kModel)][mixture.middle_share > 0.0](
      planes(cells), count, planes(pose), planes(model), planes(mixture, dimensions(kModel), square_clamp), s);
  NormalSums out;
  out.inliers = s[0], out.inlier_square = s[1], out.middle = s[2], out.middle_square = s[3], out.count = s[4], out.square = s[5];
  for (int i = 0; i < 6; ++i) out.g[i] = s[6 + i];
  out.H = kModel == Model::kPixel ? symmetric(s + 12) : metric_hessian(s + 12);
  return out;
}

template <Model kModel>
void cell_fields(const Cells& cells, const CameraPose& pose, const Mixture& mixture, const ErrorModel& model, CellFields* out) {
  for (auto* plane : {&out->w, &out->ex, &out->ey, &out->ez, &out->px, &out->py, &out->pz}) plane->resize(cells.x.size());
  backend().table->fields[static_cast<int>(kModel)][mixture.middle_share > 0.0](
      planes(cells), cells.count, planes(pose), planes(model), planes(mixture, dimensions(kModel), 1.0),
      {out->w.data(), out->ex.data(), out->ey.data(), out->ez.data(), out->px.data(), out->py.data(), out->pz.data()});
}

#define DSAC_FOR_MODEL(M)                                                                                               \
  template ScoreSums score_pose<M>(const Cells&, int, const CameraPose&, const ErrorModel&);                            \
  template Ranks rank_pose<M>(const Cells&, int, const CameraPose&, const ErrorModel&);                                 \
  template void pose_errors<M>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);                        \
  template void squared_residuals<M>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);                  \
  template void squared_errors<M>(const Cells&, int, const CameraPose&, const ErrorModel&, float*);                     \
  template void cell_fields<M>(const Cells&, const CameraPose&, const Mixture&, const ErrorModel&, CellFields*);        \
  template MixtureSums mixture_sums<M>(const float*, int, const Mixture&, double, double*);                             \
  template NormalSums normal_equations<M>(const Cells&, int, const CameraPose&, const Mixture&, double, const ErrorModel&);
DSAC_FOR_MODEL(Model::kRay)
DSAC_FOR_MODEL(Model::kPixel)
DSAC_FOR_MODEL(Model::kPoint)
#undef DSAC_FOR_MODEL

}  // namespace dsacstar
