// Python bindings: arrays in, arrays out. Checking and conversion of user input is done in the Python face; here only
// what keeps memory safe is checked again. The GIL is released while solving.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "gradient.h"
#include "score.h"
#include "solver.h"

namespace py = pybind11;
using namespace dsacstar;

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using MaskArray = py::array_t<uint8_t, py::array::c_style>;
using DoubleArray = py::array_t<double, py::array::c_style>;

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

struct BatchShape {
  py::ssize_t images, height, width;
};

BatchShape batch_shape(const FloatArray& coords, const char* name) {
  require(coords.ndim() == 4 && coords.shape(1) == 3, std::string(name) + " must be [B, 3, h, w]");
  require(coords.shape(2) * coords.shape(3) < (1 << 28), std::string(name) + " has too many cells");
  return {coords.shape(0), coords.shape(2), coords.shape(3)};
}

DoubleArray pose_array(const CameraPose& cam_from_world) {
  DoubleArray pose({4, 4});
  auto m = pose.mutable_unchecked<2>();
  const Eigen::Matrix3d R = cam_from_world.R.transpose();
  const Eigen::Vector3d c = cam_from_world.centre();
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) m(i, j) = i == 3 ? (j == 3 ? 1.0 : 0.0) : (j == 3 ? c[i] : R(i, j));
  return pose;
}

py::list solve(const FloatArray& scene_coords, const py::object& camera_coords, const py::object& intrinsics,
               const py::object& sigma, const py::object& mask, double subsampling, int hypotheses, double threshold,
               double inlier_alpha, double max_error, int max_tries, int candidates, int max_rounds, int threads,
               uint64_t seed) {
  const BatchShape shape = batch_shape(scene_coords, "scene_coords");
  const py::ssize_t cells = shape.height * shape.width;
  FloatArray camera_array, sigma_array;
  MaskArray mask_array;
  DoubleArray intrinsics_array;
  std::vector<GridInput> inputs(static_cast<size_t>(shape.images));
  if (!camera_coords.is_none()) {
    camera_array = camera_coords.cast<FloatArray>();
    const BatchShape other = batch_shape(camera_array, "camera_coords");
    require(other.images == shape.images && other.height == shape.height && other.width == shape.width,
            "camera_coords must have the shape of scene_coords");
  } else {
    intrinsics_array = intrinsics.cast<DoubleArray>();
    require(intrinsics_array.ndim() == 2 && intrinsics_array.shape(0) == shape.images && intrinsics_array.shape(1) == 4,
            "intrinsics must be [B, 4]");
  }
  if (!sigma.is_none()) {
    sigma_array = sigma.cast<FloatArray>();
    require(sigma_array.size() == shape.images * cells, "weights must be [B, h, w]");
  }
  if (!mask.is_none()) {
    mask_array = mask.cast<MaskArray>();
    require(mask_array.size() == shape.images * cells, "mask must be [B, h, w]");
  }
  for (py::ssize_t b = 0; b < shape.images; ++b) {
    GridInput& in = inputs[static_cast<size_t>(b)];
    in.height = static_cast<int>(shape.height), in.width = static_cast<int>(shape.width);
    in.scene_coords = scene_coords.data() + 3 * cells * b;
    in.subsampling = subsampling;
    if (!camera_coords.is_none()) {
      in.camera_coords = camera_array.data() + 3 * cells * b;
    } else {
      const double* k = intrinsics_array.data() + 4 * b;
      in.intrinsics = {k[0], k[1], k[2], k[3]};
    }
    if (!sigma.is_none()) in.sigma = sigma_array.data() + cells * b;
    if (!mask.is_none()) in.mask = mask_array.data() + cells * b;
  }
  SolveOptions options;
  options.limits.hypotheses = hypotheses;
  options.limits.max_tries = max_tries;
  options.limits.candidates = candidates;
  options.limits.max_rounds = max_rounds;
  options.threshold = threshold;
  options.inlier_alpha = inlier_alpha;
  options.max_error = max_error;
  options.threads = threads;
  std::vector<SolveResult> results;
  {
    const py::gil_scoped_release release;
    solve_batch(inputs, options, seed, &results);
  }
  py::list out;
  for (const SolveResult& r : results) {
    MaskArray inlier_mask({shape.height, shape.width});
    if (cells > 0) std::memcpy(inlier_mask.mutable_data(), r.inlier_mask.data(), static_cast<size_t>(cells));
    DoubleArray covariance({6, 6});
    for (int i = 0; i < 36; ++i) covariance.mutable_data()[i] = r.covariance(i / 6, i % 6);
    out.append(py::make_tuple(r.success, pose_array(r.cam_from_world), r.inliers, inlier_mask, r.score,
                              r.rounds, covariance, r.seconds));
  }
  return out;
}

// Returns (expected loss, accepted hypotheses, gradient [3, h, w] float64).
py::tuple expected_loss_of(const FloatArray& scene_coords, const py::object& camera_coords, const py::object& intrinsics,
                           const DoubleArray& world_from_cam, double subsampling, int hypotheses, double threshold,
                           double inlier_alpha, double max_error, int max_tries, double w_rot, double w_trans,
                           double soft_clamp, uint64_t seed) {
  const BatchShape shape = batch_shape(scene_coords, "scene_coords");
  require(shape.images == 1, "scene_coords must be [1, 3, h, w]");
  require(world_from_cam.ndim() == 2 && world_from_cam.shape(0) == 4 && world_from_cam.shape(1) == 4,
          "gt_pose must be [4, 4]");
  FloatArray camera_array;
  GridInput in;
  in.height = static_cast<int>(shape.height), in.width = static_cast<int>(shape.width);
  in.scene_coords = scene_coords.data();
  in.subsampling = subsampling;
  if (!camera_coords.is_none()) {
    camera_array = camera_coords.cast<FloatArray>();
    const BatchShape other = batch_shape(camera_array, "camera_coords");
    require(other.images == 1 && other.height == shape.height && other.width == shape.width,
            "camera_coords must have the shape of scene_coords");
    in.camera_coords = camera_array.data();
  } else {
    const DoubleArray k = intrinsics.cast<DoubleArray>();
    require(k.size() == 4, "intrinsics must be [4]");
    in.intrinsics = {k.data()[0], k.data()[1], k.data()[2], k.data()[3]};
  }
  LossModel model;
  const auto m = world_from_cam.unchecked<2>();
  Eigen::Vector3d centre;
  for (int i = 0; i < 3; ++i) {
    centre[i] = m(i, 3);
    for (int j = 0; j < 3; ++j) model.truth.R(j, i) = m(i, j);
  }
  model.truth.t = -(model.truth.R * centre);
  model.w_rot = w_rot, model.w_trans = w_trans, model.soft_clamp = soft_clamp;
  LossOptions options;
  options.hypotheses = hypotheses, options.max_tries = max_tries;
  options.threshold = threshold, options.max_error = max_error, options.inlier_alpha = inlier_alpha;
  DoubleArray gradient({py::ssize_t{3}, shape.height, shape.width});
  double* gradient_data = gradient.mutable_data();
  std::fill(gradient_data, gradient_data + gradient.size(), 0.0);
  ExpectedLoss result;
  {
    const py::gil_scoped_release release;
    result = expected_loss(in, model, options, seed, gradient_data);
  }
  return py::make_tuple(result.loss, result.accepted, gradient);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "C++ core of dsacstar; use the functions of the package instead.";
  m.def("instruction_set", &instruction_set, "SIMD instructions in use: 'avx512', 'avx2' or 'baseline'.");
  m.def("solve", &solve, py::arg("scene_coords"), py::arg("camera_coords"), py::arg("intrinsics"), py::arg("sigma"),
        py::arg("mask"), py::arg("subsampling"), py::arg("hypotheses"), py::arg("threshold"), py::arg("inlier_alpha"),
        py::arg("max_error"), py::arg("max_tries"), py::arg("candidates"), py::arg("max_rounds"), py::arg("threads"),
        py::arg("seed"), "Poses of a batch: list of (success, pose, inliers, mask, score, rounds, covariance, seconds).");
  m.def("expected_loss", &expected_loss_of, py::arg("scene_coords"), py::arg("camera_coords"), py::arg("intrinsics"),
        py::arg("world_from_cam"), py::arg("subsampling"), py::arg("hypotheses"), py::arg("threshold"),
        py::arg("inlier_alpha"), py::arg("max_error"), py::arg("max_tries"), py::arg("w_rot"), py::arg("w_trans"),
        py::arg("soft_clamp"), py::arg("seed"), "Expected loss: (loss, accepted hypotheses, gradient [3, h, w]).");
}
