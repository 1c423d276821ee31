// Poses of one image or a batch: cells in, result out. No globals; threads never change an answer.
#pragma once

#include <cstdint>
#include <vector>

#include "cells.h"
#include "ransac.h"

namespace dsacstar {

struct SolveOptions {
  RansacLimits limits;
  double threshold = 10;      // pixels (RGB), metres (RGB-D)
  double inlier_alpha = 100;  // the reported score is inlier_alpha / cells * soft inlier count
  double max_error = 100;     // errors are clamped here, same unit as threshold
  int threads = 0;            // over the images of a batch; 0: one per CPU
};

struct SolveResult {
  bool success = false;  // more cells agree with the pose than chance explains
  CameraPose cam_from_world;               // the identity without success
  Matrix6d covariance = Matrix6d::Zero();  // of (rotation vector in the camera frame, camera centre in the world); infinite without success
  double score = 0;
  int inliers = 0;
  int rounds = 0;
  double seconds = 0;
  std::vector<uint8_t> inlier_mask;  // [h, w]
};

// Memory reused from image to image.
struct Workspace {
  Cells cells;
  std::vector<float> scratch;
};

void solve_image(const GridInput& input, const SolveOptions& options, uint64_t seed, Workspace* workspace,
                 SolveResult* result);

// Image i draws from hash(seed, i).
void solve_batch(const std::vector<GridInput>& inputs, const SolveOptions& options, uint64_t seed,
                 std::vector<SolveResult>* results);

}  // namespace dsacstar
