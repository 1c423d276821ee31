// The usable cells of one image as a structure of arrays, ready for SIMD.
//
// Cells without a finite coordinate, masked out, without a finite positive standard deviation or (RGB-D) without a
// measurement are dropped. The rest is stored in a random order that depends on the grid's size only: any prefix is a
// sample of the image, so scoring a prefix is scoring a sample. World coordinates are stored relative to `origin`, which
// keeps float exact enough for coordinates far from zero.
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
  int height = 0, width = 0;
  // World coordinates minus origin. Padded with zeros to a multiple of kLanePadding.
  std::vector<float> x, y, z;
  // RGB: ray (a, b, 1) and c = 1 / |(a, b, 1)|. RGB-D: the measured camera point (a, b, c).
  std::vector<float> a, b, c;
  std::vector<float> precision;  // (sigma / reference)^(-2 power), 1 without sigma; 0 in the padding
  std::vector<float> log_sigma;  // log(sigma / reference), not below the trusted quantile; only with sigma
  std::vector<float> pick;       // probability in (0, 1] that a drawn cell is taken, by sigma; only with sigma
  std::vector<int> source;       // cell number i * w + j
  Eigen::Vector3d origin = Eigen::Vector3d::Zero();
  double extent = 1;             // metres; median distance from the origin, of a sample
  bool weighted = false;
  float fx = 1, fy = 1;
  std::vector<int> guided;       // cells whose image neighbours are near in the scene; only after find_guide
  std::vector<int> order;        // the grid's random order, kept from image to image
  int order_height = -1, order_width = -1;

  Eigen::Vector3d world(int k) const {
    const size_t i = static_cast<size_t>(k);
    return {x[i], y[i], z[i]};
  }  // relative to origin
  Eigen::Vector3d target(int k) const {
    const size_t i = static_cast<size_t>(k);
    return {a[i], b[i], c[i]};
  }
};

// Fills `cells`, reusing its memory. Precision starts at power 0: sigma does not count.
void load_cells(const GridInput& input, Cells* cells);

// Lets sigma count to a power: precision = (sigma / reference)^(-2 power). 0: not at all, 1: as given.
void set_sigma_power(double power, Cells* cells);

// Marks the cells whose neighbours in the image are nearest in the scene, for their distance. Neighbouring inliers see
// neighbouring points, unrelated outliers do not, so these cells hold more inliers where outliers are many.
void find_guide(const GridInput& input, Cells* cells);

}  // namespace dsacstar
