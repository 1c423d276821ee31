// The usable cells of one image as a structure of arrays, ready for SIMD.
//
// Cells without a finite coordinate, masked out, without a finite positive standard deviation or (RGB-D) without a
// measurement are dropped. The rest is stored in a scattered order: any prefix is a subset spread over the image, so
// scoring a prefix is scoring a sample. World coordinates are stored relative to `origin`, which keeps float exact
// enough for coordinates far from zero.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <vector>

namespace dsacstar {

constexpr int kLanePadding = 16;  // floats; the widest vector used by any kernel

struct Intrinsics {
  double fx = 0, fy = 0, cx = 0, cy = 0;  // pixels
};

// What the caller hands over for one image, row-major planes of h*w cells.
struct GridInput {
  int height = 0, width = 0;
  const float* scene_coords = nullptr;   // [3, h, w] metres
  const float* camera_coords = nullptr;  // [3, h, w] metres, RGB-D only; (0, 0, 0) is no measurement
  const float* sigma = nullptr;          // [h, w] standard deviation in metres, or null
  const uint8_t* mask = nullptr;         // [h, w] non-zero is usable, or null
  Intrinsics intrinsics;                 // RGB only
  double subsampling = 8;                // pixels per cell; cell (i, j) looks through s (j + 1/2), s (i + 1/2)
};

struct Cells {
  int count = 0;  // usable cells
  // World coordinates minus origin. Padded with zeros to a multiple of kLanePadding.
  std::vector<float> x, y, z;
  // RGB: ray (a, b, 1) and c = 1 / |(a, b, 1)|. RGB-D: the measured camera point (a, b, c).
  std::vector<float> a, b, c;
  std::vector<float> precision;  // 1 / sigma^2, 1 without sigma; 0 in the padding
  std::vector<float> pick;       // sampling and scoring weight in (0, 1]; 0 in the padding
  std::vector<int> source;       // cell number i * w + j
  Eigen::Vector3d origin = Eigen::Vector3d::Zero();
  bool weighted = false;
  float fx = 1, fy = 1;

  Eigen::Vector3d world(int k) const { return {x[k], y[k], z[k]}; }  // relative to origin
  Eigen::Vector3d target(int k) const { return {a[k], b[k], c[k]}; }
};

// Fills `cells`, reusing its memory.
void load_cells(const GridInput& input, Cells* cells);

}  // namespace dsacstar
