// Fuzz driver for the C++ core, meant for AddressSanitizer and UndefinedBehaviorSanitizer.
//   fuzz_driver RUNS SEED
// Random shapes, coordinates (finite, NaN, Inf, huge, equal, collinear, planar, behind the camera, real views),
// masks, uncertainties and options, through the solver and the expected loss, RGB and RGB-D. Exits with 1 and a message
// when an answer is not finite, and never takes unbounded time. Prints "RUNS cases, SUCCESSES successes".
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "pose_loss.h"
#include "published_loss.h"
#include "solver.h"

using namespace dsacstar;

namespace {

double pick(Random& r, double low, double high) { return low + (high - low) * static_cast<double>(r.unit()); }

float strange(Random& r) {
  const float values[] = {0.0f,   -0.0f,  1.0f,   -1.0f,  1e-38f, 1e-45f, 1e7f,
                          -1e20f, 3e38f,  std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()};
  return values[r.below(static_cast<int>(sizeof(values) / sizeof(values[0])))];
}

// Coordinates of n cells seen by an identity camera through the cells' rays, or something degenerate.
void fill_coords(Random& r, const GridInput& in, std::vector<float>* coords) {
  const int n = in.height * in.width;
  const int kind = r.below(10);
  const double strange_share = r.below(3) == 0 ? pick(r, 0, 1) : 0.0;
  const double noise = r.below(2) == 0 ? 0.0 : pick(r, 0, 10);
  for (int k = 0; k < n; ++k) {
    const double x = ((k % in.width + 0.5) * in.subsampling - in.intrinsics.cx) / in.intrinsics.fx;
    const double y = ((k / in.width + 0.5) * in.subsampling - in.intrinsics.cy) / in.intrinsics.fy;
    double depth = pick(r, 50, 200);
    if (kind == 1) depth = 100;             // plane
    if (kind == 2) depth = -depth;          // behind the camera
    double p[3] = {x * depth, y * depth, depth};
    for (int axis = 0; axis < 3; ++axis) {
      double value = p[axis] + noise * pick(r, -1, 1);
      if (kind == 3) value = 7.0;                                  // all equal
      if (kind == 4) value = static_cast<double>(k) * (axis + 1);  // a line
      if (kind == 5) value = pick(r, -100, 100);                   // nothing but outliers
      if (kind == 6) value += 6e6;                                 // far origin
      if (kind == 7) value *= 1e-6;                                // tiny scene
      float out = static_cast<float>(value);
      if (kind == 8 || static_cast<double>(r.unit()) < strange_share) out = strange(r);
      (*coords)[static_cast<size_t>(axis * n + k)] = out;
    }
  }
}

[[noreturn]] void fail(const char* what, int run) {
  std::fprintf(stderr, "run %d: %s\n", run, what);
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  const int runs = argc > 1 ? std::atoi(argv[1]) : 100;
  const uint64_t seed = argc > 2 ? static_cast<uint64_t>(std::atoll(argv[2])) : 0;
  int successes = 0;
  double slowest = 0;
  for (int run = 0; run < runs; ++run) {
    Random r(seed, static_cast<uint64_t>(run));
    GridInput in;
    // Mostly small: every path but that of large grids is reached, at a tenth of the time.
    const bool large = r.below(6) == 0;
    in.height = r.below(6) == 0 ? r.below(3) : 1 + r.below(large ? 24 : 9);
    in.width = r.below(6) == 0 ? r.below(3) : 1 + r.below(large ? 36 : 13);
    const size_t n = static_cast<size_t>(in.height) * static_cast<size_t>(in.width);
    in.subsampling = pick(r, 0.5, 16);
    in.intrinsics = {pick(r, 1, 1000), pick(r, 1, 1000), pick(r, -10, 400), pick(r, -10, 400)};
    std::vector<float> coords(3 * n), camera(3 * n), sigma(n);
    std::vector<uint8_t> mask(n);
    fill_coords(r, in, &coords);
    fill_coords(r, in, &camera);
    for (float& s : sigma) s = r.below(20) == 0 ? strange(r) : static_cast<float>(pick(r, 1e-3, 30));
    const int mask_kind = r.below(4);
    for (uint8_t& m : mask) m = mask_kind == 0 ? 0 : static_cast<uint8_t>(r.below(4) != 0);
    in.scene_coords = coords.data();
    if (r.below(3) == 0) in.camera_coords = camera.data();
    if (r.below(3) == 0) in.sigma = sigma.data();
    if (r.below(3) == 0) in.mask = mask.data();

    SolveOptions options;
    options.limits.hypotheses = 1 + r.below(80);
    options.limits.max_tries = 1 + r.below(20);
    options.limits.candidates = 1 + r.below(8);
    options.limits.max_rounds = 1 + r.below(100);
    options.threshold = std::exp(pick(r, -7, 7));
    options.max_error = std::exp(pick(r, -7, 9));
    options.threads = r.below(3);
    const auto start = std::chrono::steady_clock::now();
    std::vector<SolveResult> results;
    solve_batch(std::vector<GridInput>(static_cast<size_t>(r.below(4)), in), {}, options, seed, [] { return false; }, &results);
    for (const SolveResult& result : results) {
      successes += result.success;
      if (!result.cam_from_world.finite() || !std::isfinite(result.score)) fail("pose or score not finite", run);
      if (result.inlier_mask.size() != n) fail("inlier mask of the wrong size", run);
      if (std::abs(result.cam_from_world.R.determinant() - 1.0) > 1e-6) fail("not a rotation", run);
    }

    LossModel model;
    model.truth.R = rotation_exp(Eigen::Vector3d(pick(r, -1, 1), pick(r, -1, 1), pick(r, -1, 1)));
    model.w_rot = pick(r, 0, 2), model.w_trans = pick(r, 0, 2), model.soft_clamp = pick(r, 0, 100);
    LossOptions loss_options;
    loss_options.hypotheses = 1 + r.below(16);
    loss_options.max_tries = 1 + r.below(50);
    loss_options.threshold = options.threshold, loss_options.max_error = options.max_error;
    loss_options.inlier_alpha = pick(r, 0, 1000);
    std::vector<double> gradient(3 * n, 0.0);
    const ExpectedLoss loss = expected_loss(in, model, loss_options, seed, gradient.data());
    if (!std::isfinite(loss.loss)) fail("loss not finite", run);
    for (const double g : gradient)
      if (!std::isfinite(g) || (loss.accepted == 0 && g != 0.0)) fail("gradient not finite, or not zero without hypotheses", run);

    PoseLossOptions through;
    through.hypotheses = 1 + r.below(24), through.max_tries = options.limits.max_tries;
    through.threshold = options.threshold, through.inlier_alpha = loss_options.inlier_alpha;
    through.pixel_residual = r.below(3) == 0, through.threads = options.threads;
    const size_t images = static_cast<size_t>(r.below(3));
    std::vector<double> gradients(images * 3 * n, 1.0);
    std::vector<PoseLoss> losses;
    pose_losses(std::vector<GridInput>(images, in), std::vector<LossModel>(images, model), through, seed, [] { return false; },
                &losses, gradients.data());
    for (const PoseLoss& found : losses)
      if (!std::isfinite(found.loss)) fail("loss through the solver not finite", run);
    for (const double g : gradients)
      if (!std::isfinite(g)) fail("gradient through the solver not finite", run);
    slowest = std::max(slowest, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::printf("%d cases, %d successes, slowest %.2f s\n", runs, successes, slowest);
  return 0;
}
