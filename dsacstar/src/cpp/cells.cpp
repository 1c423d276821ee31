#include "cells.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace dsacstar {
namespace {

// Coordinates farther than this from the others carry no information and would overflow float squares, metres.
constexpr float kFarthest = 1e8f;
// Standard deviations are clamped into this range, metres.
constexpr float kSigmaMin = 1e-6f, kSigmaMax = 1e6f;
// A network's uncertainty is not exact: cells more certain than this quantile of all get no more trust than it.
constexpr double kTrustQuantile = 0.05;

float median(std::vector<float>* values) {
  const auto middle = values->begin() + static_cast<std::ptrdiff_t>(values->size() / 2);
  std::nth_element(values->begin(), middle, values->end());
  return *middle;
}

// Median coordinates of up to ~255 finite cells: a centre that outliers cannot move far.
Eigen::Vector3d rough_centre(const float* coords, int n) {
  const int step = std::max(1, n / 255);
  std::vector<float> axes[3];
  for (int k = 0; k < n; k += step) {
    const float p[3] = {coords[k], coords[n + k], coords[2 * n + k]};
    if (!(std::isfinite(p[0]) && std::isfinite(p[1]) && std::isfinite(p[2]))) continue;
    for (int axis = 0; axis < 3; ++axis) axes[axis].push_back(p[axis]);
  }
  if (axes[0].empty()) return Eigen::Vector3d::Zero();
  return {median(&axes[0]), median(&axes[1]), median(&axes[2])};
}

// A step coprime to n close to n / golden ratio: k * step mod n visits every cell, any prefix evenly spread.
int scatter_step(int n) {
  int step = std::max(1, static_cast<int>(0.6180339887498949 * n));
  while (std::gcd(step, n) != 1) ++step;
  return step;
}

}  // namespace

void load_cells(const GridInput& in, Cells* cells) {
  const int n = in.height * in.width;
  const size_t padded = (static_cast<size_t>(n) + kLanePadding - 1) / kLanePadding * kLanePadding;
  for (auto* plane : {&cells->x, &cells->y, &cells->z, &cells->a, &cells->b, &cells->c, &cells->precision, &cells->pick})
    plane->resize(padded);
  cells->source.resize(static_cast<size_t>(n));
  cells->origin = rough_centre(in.scene_coords, n);
  cells->weighted = in.sigma != nullptr;
  cells->fx = static_cast<float>(in.intrinsics.fx), cells->fy = static_cast<float>(in.intrinsics.fy);
  const bool rgbd = in.camera_coords != nullptr;
  const double ox = cells->origin.x(), oy = cells->origin.y(), oz = cells->origin.z();

  const int step = n > 0 ? scatter_step(n) : 1;
  int count = 0;
  for (int visit = 0, k = 0; visit < n; ++visit, k += step, k -= k >= n ? n : 0) {
    if (in.mask != nullptr && in.mask[k] == 0) continue;
    const float x = static_cast<float>(in.scene_coords[k] - ox);
    const float y = static_cast<float>(in.scene_coords[n + k] - oy);
    const float z = static_cast<float>(in.scene_coords[2 * n + k] - oz);
    if (!(std::abs(x) < kFarthest && std::abs(y) < kFarthest && std::abs(z) < kFarthest)) continue;
    float a, b, c;
    if (rgbd) {
      a = in.camera_coords[k], b = in.camera_coords[n + k], c = in.camera_coords[2 * n + k];
      if (!(std::abs(a) < kFarthest && std::abs(b) < kFarthest && std::abs(c) < kFarthest)) continue;
      if (a == 0.0f && b == 0.0f && c == 0.0f) continue;
    } else {
      const double ray_x = ((k % in.width + 0.5) * in.subsampling - in.intrinsics.cx) / in.intrinsics.fx;
      const double ray_y = ((k / in.width + 0.5) * in.subsampling - in.intrinsics.cy) / in.intrinsics.fy;
      a = static_cast<float>(ray_x), b = static_cast<float>(ray_y);
      c = static_cast<float>(1.0 / std::sqrt(ray_x * ray_x + ray_y * ray_y + 1.0));
    }
    float precision = 1.0f;
    if (in.sigma != nullptr) {
      const float sigma = in.sigma[k];
      if (!(std::isfinite(sigma) && sigma > 0.0f)) continue;
      const float clamped = std::clamp(sigma, kSigmaMin, kSigmaMax);
      precision = 1.0f / (clamped * clamped);
    }
    const size_t i = static_cast<size_t>(count++);
    cells->x[i] = x, cells->y[i] = y, cells->z[i] = z;
    cells->a[i] = a, cells->b[i] = b, cells->c[i] = c;
    cells->precision[i] = precision, cells->pick[i] = 1.0f;
    cells->source[i] = k;
  }
  cells->count = count;
  for (size_t i = static_cast<size_t>(count); i < padded; ++i) {
    cells->x[i] = cells->y[i] = cells->z[i] = cells->a[i] = cells->b[i] = 0.0f;
    cells->c[i] = 1.0f;
    cells->precision[i] = cells->pick[i] = 0.0f;
  }

  if (in.sigma == nullptr || count == 0) return;
  std::vector<float> sorted(cells->precision.begin(), cells->precision.begin() + count);
  const auto nth = sorted.begin() + static_cast<std::ptrdiff_t>((1.0 - kTrustQuantile) * (count - 1));
  std::nth_element(sorted.begin(), nth, sorted.end());
  const float trusted = *nth;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    cells->precision[i] = std::min(cells->precision[i], trusted);
    cells->pick[i] = cells->precision[i] / trusted;
  }
}

}  // namespace dsacstar
