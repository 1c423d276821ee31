#include "cells.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "policy.h"
#include "random.h"

namespace dsacstar {
namespace {

using policy::kFarthest;

float median(std::vector<float>* values) {
  const auto middle = values->begin() + static_cast<std::ptrdiff_t>(values->size() / 2);
  std::nth_element(values->begin(), middle, values->end());
  return *middle;
}

// Median coordinates of the first ~255 usable cells in the random order: a centre that outliers cannot move far.
void rough_centre(const GridInput& in, Cells* cells) {
  const size_t n = static_cast<size_t>(in.height) * static_cast<size_t>(in.width);
  constexpr size_t kEnough = 255;
  std::vector<float> axes[3], distances;
  for (const int k : cells->order) {
    if (axes[0].size() == kEnough) break;
    if (in.mask != nullptr && in.mask[k] == 0) continue;
    const float* at = in.scene_coords + k;
    if (!(std::isfinite(at[0]) && std::isfinite(at[n]) && std::isfinite(at[2 * n]))) continue;
    for (size_t axis = 0; axis < 3; ++axis) axes[axis].push_back(at[axis * n]);
  }
  cells->origin.setZero();
  cells->extent = 1.0;
  if (axes[0].empty()) return;
  distances.assign(axes[0].size(), 0.0f);
  for (int axis = 0; axis < 3; ++axis) {
    std::vector<float> sorted = axes[axis];
    const float centre = median(&sorted);
    cells->origin[axis] = centre;
    for (size_t i = 0; i < distances.size(); ++i) distances[i] = std::hypot(distances[i], axes[axis][i] - centre);
  }
  const float spread = median(&distances);
  cells->extent = std::isfinite(spread) && spread > 0.0f ? spread : 1.0;
}

// A random permutation of the grid: whatever pattern the image has, a prefix does not share it.
void shuffle_grid(int height, int width, Cells* cells) {
  if (cells->order_height == height && cells->order_width == width) return;
  const int n = height * width;
  cells->order.resize(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) cells->order[static_cast<size_t>(i)] = i;
  Random random(static_cast<uint64_t>(height), static_cast<uint64_t>(width));
  for (int i = n - 1; i > 0; --i)
    std::swap(cells->order[static_cast<size_t>(i)], cells->order[static_cast<size_t>(random.below(i + 1))]);
  cells->order_height = height, cells->order_width = width;
}

// log sigma relative to the median, and the probability of drawing a cell.
void prepare_sigma(Cells* cells) {
  const size_t count = static_cast<size_t>(cells->count);
  std::vector<float> sorted(cells->log_sigma.begin(), cells->log_sigma.begin() + cells->count);
  const float reference = median(&sorted);
  const auto nth = sorted.begin() + static_cast<std::ptrdiff_t>(policy::kTrustQuantile * (cells->count - 1));
  std::nth_element(sorted.begin(), nth, sorted.end());
  const float trusted = *nth;
  for (size_t i = 0; i < count; ++i) {
    const float value = std::max(cells->log_sigma[i], trusted);
    cells->pick[i] = std::exp(2.0f * (trusted - value));
    cells->log_sigma[i] = value - reference;
  }
}

}  // namespace

void load_cells(const GridInput& in, Cells* cells) {
  const int n = in.height * in.width;
  const size_t plane = static_cast<size_t>(n);
  const size_t padded = (plane + kLanePadding - 1) / kLanePadding * kLanePadding;
  for (auto* values : {&cells->x, &cells->y, &cells->z, &cells->a, &cells->b, &cells->c, &cells->precision}) values->resize(padded);
  cells->weighted = in.sigma != nullptr;
  cells->log_sigma.resize(cells->weighted ? padded : 0);
  cells->pick.resize(cells->weighted ? padded : 0);
  cells->guided.clear();
  cells->source.resize(plane);
  cells->height = in.height, cells->width = in.width;
  shuffle_grid(in.height, in.width, cells);
  rough_centre(in, cells);
  cells->fx = static_cast<float>(in.intrinsics.fx), cells->fy = static_cast<float>(in.intrinsics.fy);
  const bool rgbd = in.camera_coords != nullptr;
  const double ox = cells->origin.x(), oy = cells->origin.y(), oz = cells->origin.z();
  const double per_x = rgbd ? 0.0 : in.subsampling / in.intrinsics.fx, per_y = rgbd ? 0.0 : in.subsampling / in.intrinsics.fy;
  const double first_x = rgbd ? 0.0 : (0.5 * in.subsampling - in.intrinsics.cx) / in.intrinsics.fx;
  const double first_y = rgbd ? 0.0 : (0.5 * in.subsampling - in.intrinsics.cy) / in.intrinsics.fy;

  size_t i = 0;
  for (const int cell : cells->order) {
    const size_t k = static_cast<size_t>(cell);
    if (in.mask != nullptr && in.mask[k] == 0) continue;
    const float x = static_cast<float>(in.scene_coords[k] - ox);
    const float y = static_cast<float>(in.scene_coords[plane + k] - oy);
    const float z = static_cast<float>(in.scene_coords[2 * plane + k] - oz);
    if (!(std::abs(x) < kFarthest && std::abs(y) < kFarthest && std::abs(z) < kFarthest)) continue;
    float a, b, c = 1.0f;
    if (rgbd) {
      a = in.camera_coords[k], b = in.camera_coords[plane + k], c = in.camera_coords[2 * plane + k];
      if (!(std::abs(a) < kFarthest && std::abs(b) < kFarthest && std::abs(c) < kFarthest)) continue;
      if (a == 0.0f && b == 0.0f && c == 0.0f) continue;
    } else {
      const int row = cell / in.width;
      a = static_cast<float>(first_x + per_x * (cell - row * in.width)), b = static_cast<float>(first_y + per_y * row);
    }
    if (cells->weighted) {
      const float sigma = in.sigma[k];
      if (!(std::isfinite(sigma) && sigma > 0.0f)) continue;
      cells->log_sigma[i] = std::log(std::clamp(sigma, policy::kSigmaMin, policy::kSigmaMax));
    }
    cells->x[i] = x, cells->y[i] = y, cells->z[i] = z;
    cells->a[i] = a, cells->b[i] = b, cells->c[i] = c;
    cells->precision[i] = 1.0f;
    cells->source[i] = cell;
    ++i;
  }
  cells->count = static_cast<int>(i);
  // In a loop of its own, which compilers vectorise.
  if (!rgbd) {
    const float *a = cells->a.data(), *b = cells->b.data();
    float* c = cells->c.data();
    for (size_t j = 0; j < i; ++j) c[j] = 1.0f / std::sqrt(a[j] * a[j] + b[j] * b[j] + 1.0f);
  }
  for (; i < padded; ++i) {
    cells->x[i] = cells->y[i] = cells->z[i] = cells->a[i] = cells->b[i] = cells->precision[i] = 0.0f;
    cells->c[i] = 1.0f;
  }
  if (cells->weighted && cells->count > 0) prepare_sigma(cells);
}

void set_sigma_power(double power, Cells* cells) {
  const float factor = static_cast<float>(-2.0 * power);
  for (size_t i = 0; i < static_cast<size_t>(cells->count); ++i)
    cells->precision[i] = power == 0.0 ? 1.0f : std::exp(factor * cells->log_sigma[i]);
}

void find_guide(const GridInput& in, Cells* cells) {
  const int h = in.height, w = in.width;
  const size_t n = static_cast<size_t>(h) * static_cast<size_t>(w);
  // Squared distance to the nearest of the 24 neighbours of the 5x5 window; points that coincide say nothing.
  std::vector<float> nearest(n, std::numeric_limits<float>::infinity());
  const float* px = in.scene_coords;
  const float *py = px + n, *pz = px + 2 * n;
  const float coincident = static_cast<float>(1e-8 * cells->extent * cells->extent);
  for (int di = 0; di <= 2; ++di) {
    for (int dj = di == 0 ? 1 : -2; dj <= 2; ++dj) {
      for (int i = 0; i + di < h; ++i) {
        const int from = std::max(0, -dj), to = std::min(w, w - dj);
        const size_t row = static_cast<size_t>(i * w), other = static_cast<size_t>((i + di) * w);
        for (int j = from; j < to; ++j) {
          const size_t k = row + static_cast<size_t>(j), l = other + static_cast<size_t>(j + dj);
          const float dx = px[k] - px[l], dy = py[k] - py[l], dz = pz[k] - pz[l];
          const float square = dx * dx + dy * dy + dz * dz;
          const float d = square > coincident ? square : std::numeric_limits<float>::infinity();
          nearest[k] = d < nearest[k] ? d : nearest[k];
          nearest[l] = d < nearest[l] ? d : nearest[l];
        }
      }
    }
  }
  std::vector<float> found;
  found.reserve(static_cast<size_t>(cells->count));
  for (int i = 0; i < cells->count; ++i) found.push_back(nearest[static_cast<size_t>(cells->source[static_cast<size_t>(i)])]);
  if (found.empty()) return;
  std::vector<float> sorted = found;
  const auto nth = sorted.begin() + static_cast<std::ptrdiff_t>(policy::kGuidedShare * (cells->count - 1));
  std::nth_element(sorted.begin(), nth, sorted.end());
  cells->guided.clear();
  for (int i = 0; i < cells->count; ++i)
    if (found[static_cast<size_t>(i)] <= *nth && std::isfinite(found[static_cast<size_t>(i)])) cells->guided.push_back(i);
}

}  // namespace dsacstar
