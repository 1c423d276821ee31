// Poses of one image or a batch: cells in, result out. No globals; threads never change an answer.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "cells.h"
#include "prior.h"
#include "ransac.h"

namespace dsacstar {

struct SolveOptions {
  RansacLimits limits;
  double threshold = 10;      // pixels (RGB), metres (RGB-D)
  double inlier_alpha = 100;  // the reported score is inlier_alpha / cells * soft inlier count
  double max_error = 100;     // errors are clamped here, same unit as threshold
  bool pixel_residual = false;  // RGB: refine by pixels (exact points, noisy pixels) instead of metres
  int threads = 0;            // over the images of a batch; 0: one per CPU
};

struct SolveResult {
  bool success = false;        // the pose explains more cells than chance does
  double confidence = 0;       // probability that the pose is right and near the truth, see confidence_of in solver.cpp
  CameraPose cam_from_world;   // the best pose found, success or not; the identity where there is none
  Matrix6d covariance = Matrix6d::Zero();  // of (rotation vector in the camera frame, camera centre in the world)
  double score = 0;
  int inliers = 0;
  int rounds = 0;
  int hypotheses = 0;          // drawn
  double sigma_power = 0;      // to which sigma counted: 0 not at all, 1 as given
  double depth_power = 0;      // to which the noise grows with the depth: 0 noise of coordinates, 1 of pixels
  double noise = 0;            // s1, the inliers' measured standard deviation, metres (or pixels); per sigma^power
  double seconds = 0;
  std::vector<uint8_t> inlier_mask;  // [h, w]
  CameraPose alternative;      // a second structure's pose
  double alternative_ratio = 0;  // its score over the best one's, 0 where there is none
};

// Memory reused from image to image.
struct Workspace {
  Cells cells;
  std::vector<float> scratch;
};

void solve_image(const GridInput& input, const PosePrior& prior, const SolveOptions& options, uint64_t seed,
                 Workspace* workspace, SolveResult* result);

// Every image draws from the same seed, so that its answer depends on neither its place in the batch nor the threads.
// `priors` is empty or holds one per image. `interrupted` is asked every few milliseconds by the calling thread; once it
// says true, images not begun are left out and false is returned.
bool solve_batch(const std::vector<GridInput>& inputs, const std::vector<PosePrior>& priors, const SolveOptions& options,
                 uint64_t seed, const std::function<bool()>& interrupted, std::vector<SolveResult>* results);

}  // namespace dsacstar
