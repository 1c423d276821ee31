#include "estimators.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "p3p.h"

namespace dsacstar {

using namespace policy;

bool draw_cells(const Cells& cells, Random& random, Draw draw, int* sample, int size) {
  const bool guided = draw == Draw::kGuided && static_cast<int>(cells.guided.size()) >= 4 * size;
  const bool by_sigma = draw == Draw::kBySigma && cells.weighted;
  for (int i = 0; i < size; ++i) {
    bool placed = false;
    for (int attempt = 0; attempt < 2 * kMostSigmaDraws && !placed; ++attempt) {
      const int k = guided ? cells.guided[static_cast<size_t>(random.below(static_cast<int>(cells.guided.size())))]
                           : random.below(cells.count);
      if (by_sigma && attempt < kMostSigmaDraws && random.unit() >= cells.pick[static_cast<size_t>(k)]) continue;
      placed = true;
      for (int j = 0; j < i; ++j) placed &= sample[j] != k;
      if (placed) sample[i] = k;
    }
    if (!placed) return false;
  }
  return true;
}

template <>
bool minimal_pose<false>(const Eigen::Vector3d* world, const Eigen::Vector3d* target, double fx, double fy,
                         double min_depth, CameraPose* pose, double* error) {
  Eigen::Vector3d rays[3];
  for (int i = 0; i < 3; ++i) rays[i] = Eigen::Vector3d(target[i].x(), target[i].y(), 1.0).normalized();
  CameraPose solutions[4];
  const int count = p3p(rays, world, solutions);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < count; ++i) {
    const Eigen::Vector3d p = solutions[i].apply(world[3]);
    if (!(p.z() > min_depth)) continue;
    const double dx = fx * (p.x() / p.z() - target[3].x()), dy = fy * (p.y() / p.z() - target[3].y());
    const double square = dx * dx + dy * dy;
    if (square < best) best = square, *pose = solutions[i];
  }
  *error = std::sqrt(best);
  return std::isfinite(best);
}

template <>
bool minimal_pose<true>(const Eigen::Vector3d* world, const Eigen::Vector3d* target, double, double, double,
                        CameraPose* pose, double* error) {
  if (!kabsch(world, target, 3, pose)) return false;
  double worst = 0.0;
  for (int i = 0; i < 3; ++i) worst = std::max(worst, (pose->apply(world[i]) - target[i]).norm());
  *error = worst;
  return std::isfinite(worst);
}

namespace {

// Counts of squared errors in bins of an eighth of an octave.
class SquareCounts {
 public:
  static constexpr int kBins = 768;

  void add(const float* squares, int count) {
    for (int i = 0; i < count; ++i) ++counts_[static_cast<size_t>(bin(squares[i]))];
  }
  int operator[](int i) const { return counts_[static_cast<size_t>(i)]; }
  // Upper end of a bin.
  static double upper(int i) {
    const uint32_t bits = static_cast<uint32_t>(i + 1 + kFirst) << 20;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return static_cast<double>(value);
  }

 private:
  static constexpr int kFirst = (127 - 48) * 8;  // 2^-48 and below are one bin; 2^48 and above (and infinity) the last
  static int bin(float square) {
    uint32_t bits;
    std::memcpy(&bits, &square, sizeof(bits));
    return std::clamp(static_cast<int>(bits >> 20) - kFirst, 0, kBins - 1);
  }
  std::array<int, kBins> counts_{};
};

// n H(k / n), which bounds log C(n, k).
double log_choices(double n, double k) {
  const double share = k / n, rest = 1.0 - share;
  return -n * ((share > 0.0 ? share * std::log(share) : 0.0) + (rest > 0.0 ? rest * std::log(rest) : 0.0));
}

}  // namespace

template <Model kModel>
double log_false_alarms(const Cells& cells, int count, const CameraPose& pose, const ErrorModel& model, double cells_per_sample) {
  if (count < 4) return 0.0;
  const size_t n = static_cast<size_t>(count);
  const size_t padded = (n + kLanePadding - 1) / kLanePadding * kLanePadding;
  std::vector<float> squares(padded);
  SquareCounts real, chance;
  squared_errors<kModel>(cells, count, pose, model, squares.data());
  real.add(squares.data(), count);
  // The same coordinates with targets that lie some places on in the random order.
  Cells other;
  for (auto plane : {&Cells::x, &Cells::y, &Cells::z, &Cells::precision}) {
    (other.*plane).assign((cells.*plane).begin(), (cells.*plane).begin() + count);
    (other.*plane).resize(padded, 0.0f);
  }
  other.count = count, other.fx = cells.fx, other.fy = cells.fy;
  const int shifts = std::clamp(2048 / count, 2, std::min(32, count - 1));
  for (int s = 1; s <= shifts; ++s) {
    const std::ptrdiff_t shift = static_cast<std::ptrdiff_t>(s) * count / (shifts + 1);
    for (auto plane : {&Cells::a, &Cells::b, &Cells::c}) {
      const auto begin = (cells.*plane).begin();
      (other.*plane).assign(begin + shift, begin + count);
      (other.*plane).insert((other.*plane).end(), begin, begin + shift);
      (other.*plane).resize(padded, 0.0f);
    }
    squared_errors<kModel>(other, count, pose, model, squares.data());
    chance.add(squares.data(), count);
  }
  const double all = static_cast<double>(shifts) * count;
  const double effective = count / cells_per_sample;
  const double tests = std::log(4.0 * std::max(effective, 4.0) * effective * effective * effective / 6.0);
  constexpr double kCounted = 8.0;  // chance pairs below which a share is extrapolated by area (or volume)
  double best = 0.0, agree = 0.0, by_chance = 0.0, share_at_kept = 0.0, square_at_kept = 0.0;
  for (int i = 0; i < SquareCounts::kBins - 1; ++i) {
    by_chance += chance[i];
    if (by_chance >= kCounted) {
      share_at_kept = by_chance / all, square_at_kept = SquareCounts::upper(i);
      break;
    }
  }
  if (share_at_kept == 0.0) share_at_kept = kCounted / all, square_at_kept = SquareCounts::upper(SquareCounts::kBins - 1);
  by_chance = 0.0;
  for (int i = 0; i < SquareCounts::kBins - 1; ++i) {
    by_chance += chance[i];
    if (real[i] == 0) continue;
    agree += real[i];
    const double square = SquareCounts::upper(i);
    const double p = by_chance >= kCounted
                         ? by_chance / all
                         : std::max(share_at_kept * std::pow(square / square_at_kept, 0.5 * dimensions(kModel)), by_chance / all);
    const double k = agree / cells_per_sample;
    if (k <= 3.0 || p >= 1.0) continue;
    best = std::min(best, tests + log_choices(effective, std::min(k, effective)) + (k - 3.0) * std::log(p));
  }
  return best;
}

template <Model kModel>
double CellEstimator<kModel>::agree(const CameraPose& pose, int count, double narrow) const {
  squared_residuals<kModel>(cells_, count, pose, model_, scratch_);
  const float inverse = static_cast<float>(1.0 / (narrow * narrow));
  float sum = 0;
  for (int k = 0; k < count; ++k) sum += std::max(0.0f, 1.0f - scratch_[k] * inverse);
  return static_cast<double>(sum);
}

template <Model kModel>
double CellEstimator<kModel>::residual_threshold(const CameraPose& pose, int count) const {
  if (kModel != Model::kRay) return static_cast<double>(model_.threshold);
  const double depth = std::max(depth_gate(cells_, count, pose) / kDepthGate, 1e-9);
  return static_cast<double>(model_.threshold) * depth / std::sqrt(static_cast<double>(cells_.fx) * static_cast<double>(cells_.fy));
}

template <Model kModel>
double CellEstimator<kModel>::noise(const CameraPose& pose, int count, double threshold) const {
  constexpr int kBins = 64, kSteps = 16;
  constexpr double kReach = 4.0, kSettled = 1e-3, d = dimensions(kModel);
  squared_residuals<kModel>(cells_, count, pose, model_, scratch_);
  std::array<double, kBins> counts{};
  const double bins_per_metre = kBins / (kReach * threshold);
  double total = 0;
  for (int k = 0; k < count; ++k) {
    const double bin = std::sqrt(static_cast<double>(scratch_[k])) * bins_per_metre;
    if (bin < kBins) ++counts[static_cast<size_t>(bin)], ++total;
  }
  double share = 0.5, var = threshold * threshold;  // in this ball; a background is even over its area or volume
  const double background = d == 3.0 ? 3.0 / (4.0 * M_PI) : 1.0 / M_PI;
  const double scale = std::pow(kReach * threshold, -d);
  for (int step = 0; step < kSteps; ++step) {
    double near = 0, square = 0;
    const double peak = share * std::pow(2.0 * M_PI * var, -0.5 * d), floor = (1.0 - share) * background * scale;
    for (int i = 0; i < kBins; ++i) {
      const double r = (i + 0.5) / bins_per_metre;
      const double inlier = peak * std::exp(-0.5 * r * r / var);
      const double g = counts[static_cast<size_t>(i)] * inlier / (inlier + floor + 1e-300);
      near += g, square += g * r * r;
    }
    if (!(near > 1e-6)) break;
    share = std::clamp(near / total, 1e-6, 1.0 - 1e-6);
    const double previous = var;
    var = std::max(square / (d * near), kVarianceFloor);
    if (std::abs(var - previous) < kSettled * var) break;
  }
  constexpr double kFewest = 8.0;
  if (share * total >= kFewest && var < 4.0 * threshold * threshold) return std::sqrt(var);
  return std::sqrt(guess(pose, count).inlier_var);
}

template <Model kModel>
double CellEstimator<kModel>::displacement(const CameraPose& a, const CameraPose& b) const {
  constexpr int kProbes = 12;
  double sum = 0;
  int used = 0;
  for (int k = 0; k < std::min(kProbes, cells_.count); ++k) {
    const Eigen::Vector3d p = a.apply(cells_.world(k)), q = b.apply(cells_.world(k));
    if (kRgbd) {
      sum += (p - q).squaredNorm(), ++used;
      continue;
    }
    // Measured at a's depth, so that points near either camera's plane do not decide.
    if (!(p.z() > model_.min_depth)) continue;
    const Eigen::Vector3d d = p - q;
    sum += (cells_.fx * cells_.fx * d.x() * d.x() + cells_.fy * cells_.fy * (d.y() * d.y() + d.z() * d.z())) / (p.z() * p.z());
    ++used;
  }
  return used > 0 ? std::sqrt(sum / used) : std::numeric_limits<double>::infinity();
}

template <Model kModel>
Agreement CellEstimator<kModel>::agreement(const CameraPose& pose, int count, double narrow) const {
  squared_residuals<kModel>(cells_, count, pose, model_, scratch_);
  const float square = static_cast<float>(narrow * narrow);
  Agreement out;
  double picked = 0;
  for (int k = 0; k < count; ++k) {
    const bool agrees = scratch_[k] < square;
    out.uniform += agrees;
    if (!cells_.weighted) continue;
    const double pick = static_cast<double>(cells_.pick[static_cast<size_t>(k)]);
    out.by_sigma += agrees ? pick : 0.0, picked += pick;
  }
  out.uniform /= count;
  if (picked > 0.0) out.by_sigma /= picked;
  int guided = 0;
  for (const int k : cells_.guided) {
    if (k >= count) break;
    ++guided;
    out.guided += scratch_[k] < square;
  }
  if (guided > 0) out.guided /= guided;
  return out;
}

template <Model kModel>
double CellEstimator<kModel>::sigma_power(const CameraPose& pose, int count) const {
  if (!cells_.weighted) return 0.0;
  constexpr int kEnough = 768, kSteps = 6;
  count = std::min(count, kEnough);
  const size_t padded = (static_cast<size_t>(count) + kLanePadding - 1) / kLanePadding * kLanePadding;
  std::vector<float> plain(padded), scaled(padded);
  squared_residuals<kModel>(cells_, count, pose, model_, plain.data());
  const double d = dimensions(kModel);
  double log_sigmas = 0;
  for (int k = 0; k < count; ++k) {
    const size_t i = static_cast<size_t>(k);
    plain[i] /= cells_.precision[i];  // whatever power is in use now
    if (std::isfinite(plain[i])) log_sigmas += static_cast<double>(cells_.log_sigma[i]);
  }
  for (size_t i = static_cast<size_t>(count); i < padded; ++i) plain[i] = std::numeric_limits<float>::infinity();
  std::array<double, kSigmaPowers> likelihoods{};
  for (int step = 0; step < kSigmaPowers; ++step) {
    const double tried = static_cast<double>(step) / (kSigmaPowers - 1);
    const float factor = static_cast<float>(-2.0 * tried);
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) scaled[i] = plain[i] * std::exp(factor * cells_.log_sigma[i]);
    for (size_t i = static_cast<size_t>(count); i < padded; ++i) scaled[i] = std::numeric_limits<float>::infinity();
    std::copy(scaled.begin(), scaled.end(), scratch_);
    Mixture mixture = guess_from_squares<kModel>(scratch_, count, std::numeric_limits<double>::infinity());
    mixture.middle_share = 0.2 * mixture.inlier_share, mixture.inlier_share *= 0.8;
    mixture.outlier_var = std::max(mixture.outlier_var, kMiddleRatio * kSeparationPulling * mixture.inlier_var);
    double likelihood = 0;
    for (int round = 0; round < kSteps; ++round)
      update_mixture(mixture_sums<kModel>(scaled.data(), count, mixture, 25.0 * mixture.outlier_var, nullptr), d, &mixture);
    mixture_sums<kModel>(scaled.data(), count, mixture, 25.0 * mixture.outlier_var, &likelihood);
    likelihoods[static_cast<size_t>(step)] = likelihood - d * tried * log_sigmas;
  }
  const double best = *std::max_element(likelihoods.begin(), likelihoods.end());
  int power = kSigmaPowers - 1;
  while (likelihoods[static_cast<size_t>(power)] < best - kSigmaDoubt) --power;
  return static_cast<double>(power) / (kSigmaPowers - 1);
}

template <Model kModel>
double CellEstimator<kModel>::depth_power(const Refinement& refined, int count) const {
  if (kModel != Model::kRay || cells_.weighted) return 0.0;
  const double median = depth_gate(cells_, count, refined.pose) / kDepthGate;
  if (!(median > 0.0)) return 0.0;
  squared_residuals<kModel>(cells_, count, refined.pose, model_, scratch_);
  const double gate = kDepthGateSquare * refined.mixture.inlier_var;
  constexpr double kPowers[] = {0.0, 0.5, 1.0};
  double squares[] = {0.0, 0.0, 0.0}, log_ratios = 0.0;
  int used = 0;
  for (int k = 0; k < count; ++k) {
    const double square = static_cast<double>(scratch_[k]);
    if (!(square < gate * kMostDepthRatio * kMostDepthRatio)) continue;
    const double ratio = depth_ratio(refined.pose, k, median);
    // Near under any of the powers, or a gate of its own would favour each.
    if (!(square * std::min(1.0, ratio * ratio) < gate)) continue;
    squares[0] += square, squares[1] += square * ratio, squares[2] += square * ratio * ratio;
    log_ratios += std::log(ratio), ++used;
  }
  const double inliers = refined.mixture.inlier_share * count;
  if (!(squares[0] > 0.0 && std::abs(used - inliers) < kPure * inliers)) return 0.0;
  const auto gain = [&](int i) {
    return dimensions(kModel) * (kPowers[i] * log_ratios - 0.5 * used * std::log(squares[i] / squares[0]));
  };
  if (!(gain(1) > kDepthDoubt && gain(2) > kDepthDoubt)) return 0.0;
  return kPowers[gain(1) > gain(2) ? 1 : 2];
}

template <Model kModel>
void CellEstimator<kModel>::use_depth(const CameraPose& pose, double power) const {
  const double median = depth_gate(cells_, cells_.count, pose) / kDepthGate;
  for (int k = 0; k < cells_.count; ++k) {
    const double ratio = depth_ratio(pose, k, median);
    cells_.precision[static_cast<size_t>(k)] = static_cast<float>(power == 1.0 ? ratio * ratio : ratio);
  }
}

template <Model kModel>
bool CellEstimator<kModel>::heavier_tails(const CameraPose& pose, int count, Mixture* mixture) const {
  const size_t padded = (static_cast<size_t>(count) + kLanePadding - 1) / kLanePadding * kLanePadding;
  std::vector<float> squares(padded, std::numeric_limits<float>::infinity());
  squared_residuals<kModel>(cells_, count, pose, model_, squares.data());
  for (size_t i = static_cast<size_t>(count); i < padded; ++i) squares[i] = std::numeric_limits<float>::infinity();
  const double d = dimensions(kModel);
  constexpr int kSteps = 12;
  double without = 0, with = 0;
  mixture_sums<kModel>(squares.data(), count, *mixture, 25.0 * mixture->outlier_var, &without);
  Mixture three = *mixture;
  three.middle_share = 0.2 * mixture->inlier_share, three.inlier_share = 0.8 * mixture->inlier_share;
  three.inlier_var = 0.6 * mixture->inlier_var;
  three.outlier_var = std::max(three.outlier_var, kMiddleRatio * kSeparationPulling * three.inlier_var);
  for (int step = 0; step < kSteps; ++step)
    update_mixture(mixture_sums<kModel>(squares.data(), count, three, 25.0 * three.outlier_var, nullptr), d, &three);
  mixture_sums<kModel>(squares.data(), count, three, 25.0 * three.outlier_var, &with);
  if (!(with > without + 3.0) || !(three.middle_share > kMiddleShare)) return false;
  *mixture = three;
  return true;
}

template <Model kModel>
void CellEstimator<kModel>::unexplained(const CameraPose& pose, int count, double narrow, Cells* rest) const {
  squared_residuals<kModel>(cells_, count, pose, model_, scratch_);
  const float square = static_cast<float>(narrow * narrow);
  for (auto plane : {&Cells::x, &Cells::y, &Cells::z, &Cells::a, &Cells::b, &Cells::c, &Cells::precision}) {
    std::vector<float>& out = rest->*plane;
    out.clear();
    for (int k = 0; k < count; ++k)
      if (!(scratch_[k] < square)) out.push_back((cells_.*plane)[static_cast<size_t>(k)]);
    rest->count = static_cast<int>(out.size());
    out.resize((out.size() + kLanePadding - 1) / kLanePadding * kLanePadding, 0.0f);
  }
  rest->fx = cells_.fx, rest->fy = cells_.fy, rest->extent = cells_.extent, rest->origin = cells_.origin;
  rest->height = cells_.height, rest->width = cells_.width;
}

template class CellEstimator<Model::kRay>;
template class CellEstimator<Model::kPixel>;
template class CellEstimator<Model::kPoint>;
template double log_false_alarms<Model::kRay>(const Cells&, int, const CameraPose&, const ErrorModel&, double);
template double log_false_alarms<Model::kPixel>(const Cells&, int, const CameraPose&, const ErrorModel&, double);
template double log_false_alarms<Model::kPoint>(const Cells&, int, const CameraPose&, const ErrorModel&, double);

}  // namespace dsacstar
