// Python bindings: arrays in, arrays out. Checking and conversion of user input is done in the Python face; here only
// what keeps memory safe is checked again. The GIL is released while solving.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "pose_loss.h"
#include "published_loss.h"
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

// The arrays of a batch, kept alive, and views of them per image.
struct Batch {
  BatchShape shape{};
  FloatArray camera, sigma;
  MaskArray mask;
  DoubleArray intrinsics;
  std::vector<GridInput> inputs;
};

void gather_batch(const FloatArray& scene_coords, const py::object& camera_coords, const py::object& intrinsics,
                  const py::object& sigma, const py::object& mask, double subsampling, Batch* batch) {
  batch->shape = batch_shape(scene_coords, "scene_coords");
  const auto [images, height, width] = batch->shape;
  const py::ssize_t cells = height * width;
  if (!camera_coords.is_none()) {
    batch->camera = camera_coords.cast<FloatArray>();
    const BatchShape other = batch_shape(batch->camera, "camera_coords");
    require(other.images == images && other.height == height && other.width == width,
            "camera_coords must have the shape of scene_coords");
  } else {
    batch->intrinsics = intrinsics.cast<DoubleArray>();
    require(batch->intrinsics.ndim() == 2 && batch->intrinsics.shape(0) == images && batch->intrinsics.shape(1) == 4,
            "intrinsics must be [B, 4]");
  }
  if (!sigma.is_none()) {
    batch->sigma = sigma.cast<FloatArray>();
    require(batch->sigma.size() == images * cells, "sigma must be [B, h, w]");
  }
  if (!mask.is_none()) {
    batch->mask = mask.cast<MaskArray>();
    require(batch->mask.size() == images * cells, "mask must be [B, h, w]");
  }
  batch->inputs.resize(static_cast<size_t>(images));
  for (py::ssize_t b = 0; b < images; ++b) {
    GridInput& in = batch->inputs[static_cast<size_t>(b)];
    in.height = static_cast<int>(height), in.width = static_cast<int>(width);
    in.scene_coords = scene_coords.data() + 3 * cells * b;
    in.subsampling = subsampling;
    if (!camera_coords.is_none()) {
      in.camera_coords = batch->camera.data() + 3 * cells * b;
    } else {
      const double* k = batch->intrinsics.data() + 4 * b;
      in.intrinsics = {k[0], k[1], k[2], k[3]};
    }
    if (!sigma.is_none()) in.sigma = batch->sigma.data() + cells * b;
    if (!mask.is_none()) in.mask = batch->mask.data() + cells * b;
  }
}

// [B, 19]: position (3), its information (9, row-major), gravity in the world (3), in the camera (3), its information.
std::vector<PosePrior> gather_priors(const py::object& priors, py::ssize_t images) {
  std::vector<PosePrior> out;
  if (priors.is_none()) return out;
  const DoubleArray rows = priors.cast<DoubleArray>();
  require(rows.ndim() == 2 && rows.shape(0) == images && rows.shape(1) == 19, "priors must be [B, 19]");
  for (py::ssize_t b = 0; b < images; ++b) {
    const double* row = rows.data() + 19 * b;
    PosePrior prior;
    prior.given = true;
    for (int i = 0; i < 3; ++i) {
      prior.position[i] = row[i], prior.gravity_world[i] = row[12 + i], prior.gravity_camera[i] = row[15 + i];
      for (int j = 0; j < 3; ++j) prior.position_information(i, j) = row[3 + 3 * i + j];
    }
    prior.gravity_information = row[18];
    out.push_back(prior);
  }
  return out;
}

// Whether Ctrl-C was pressed; leaves the exception set.
bool signalled() {
  const py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

py::dict result_dict(const SolveResult& r, py::ssize_t height, py::ssize_t width) {
  MaskArray inlier_mask({height, width});
  if (height * width > 0) std::memcpy(inlier_mask.mutable_data(), r.inlier_mask.data(), static_cast<size_t>(height * width));
  DoubleArray covariance({6, 6});
  for (int i = 0; i < 36; ++i) covariance.mutable_data()[i] = r.covariance(i / 6, i % 6);
  py::dict out;
  out["pose"] = pose_array(r.cam_from_world);
  out["success"] = r.success;
  out["confidence"] = r.confidence;
  out["inliers"] = r.inliers;
  out["inlier_mask"] = inlier_mask;
  out["score"] = r.score;
  out["rounds"] = r.rounds;
  out["hypotheses"] = r.hypotheses;
  out["sigma_power"] = r.sigma_power;
  out["depth_power"] = r.depth_power;
  out["noise"] = r.noise;
  out["covariance"] = covariance;
  out["seconds"] = r.seconds;
  out["alternative_pose"] = r.alternative_ratio > 0.0 ? py::object(pose_array(r.alternative)) : py::object(py::none());
  out["alternative_ratio"] = r.alternative_ratio;
  return out;
}

py::list solve(const FloatArray& scene_coords, const py::object& camera_coords, const py::object& intrinsics,
               const py::object& sigma, const py::object& mask, const py::object& priors, double subsampling,
               int hypotheses, int most_hypotheses, double threshold, double inlier_alpha, double max_error, int max_tries,
               int candidates, int max_rounds, bool pixel_residual, int threads, uint64_t seed) {
  Batch batch;
  gather_batch(scene_coords, camera_coords, intrinsics, sigma, mask, subsampling, &batch);
  const std::vector<PosePrior> known = gather_priors(priors, batch.shape.images);
  SolveOptions options;
  options.limits.hypotheses = hypotheses;
  options.limits.most_hypotheses = most_hypotheses;
  options.limits.max_tries = max_tries;
  options.limits.candidates = candidates;
  options.limits.max_rounds = max_rounds;
  options.threshold = threshold;
  options.inlier_alpha = inlier_alpha;
  options.max_error = max_error;
  options.pixel_residual = pixel_residual;
  options.threads = threads;
  std::vector<SolveResult> results;
  bool done = false;
  {
    const py::gil_scoped_release release;
    done = solve_batch(batch.inputs, known, options, seed, signalled, &results);
  }
  if (!done) throw py::error_already_set();
  py::list out;
  for (const SolveResult& r : results) out.append(result_dict(r, batch.shape.height, batch.shape.width));
  return out;
}

// `world_from_cam`: 16 numbers, row-major.
LossModel loss_model(const double* world_from_cam, double w_rot, double w_trans, double soft_clamp) {
  LossModel model;
  Eigen::Vector3d centre;
  for (int i = 0; i < 3; ++i) {
    centre[i] = world_from_cam[4 * i + 3];
    for (int j = 0; j < 3; ++j) model.truth.R(j, i) = world_from_cam[4 * i + j];
  }
  model.truth.t = -(model.truth.R * centre);
  model.w_rot = w_rot, model.w_trans = w_trans, model.soft_clamp = soft_clamp;
  return model;
}

// Returns (losses [B], distinct poses [B], gradient [B, 3, h, w] float64).
py::tuple pose_losses_of(const FloatArray& scene_coords, const py::object& camera_coords, const py::object& intrinsics,
                         const py::object& mask, const DoubleArray& world_from_cam, double subsampling, int hypotheses,
                         double threshold, double inlier_alpha, int max_tries, bool pixel_residual, double w_rot,
                         double w_trans, double soft_clamp, int threads, uint64_t seed) {
  Batch batch;
  gather_batch(scene_coords, camera_coords, intrinsics, py::none(), mask, subsampling, &batch);
  const auto [images, height, width] = batch.shape;
  require(world_from_cam.size() == 16 * images, "gt_poses must be [B, 4, 4]");
  std::vector<LossModel> models;
  for (py::ssize_t b = 0; b < images; ++b)
    models.push_back(loss_model(world_from_cam.data() + 16 * b, w_rot, w_trans, soft_clamp));
  PoseLossOptions options;
  options.hypotheses = hypotheses, options.max_tries = max_tries;
  options.threshold = threshold, options.inlier_alpha = inlier_alpha;
  options.pixel_residual = pixel_residual, options.threads = threads;
  DoubleArray gradient({images, py::ssize_t{3}, height, width}), losses(images);
  py::array_t<int> poses(images);
  double* gradient_data = gradient.mutable_data();
  std::vector<PoseLoss> found;
  bool done = false;
  {
    const py::gil_scoped_release release;
    done = pose_losses(batch.inputs, models, options, seed, signalled, &found, gradient_data);
  }
  if (!done) throw py::error_already_set();
  for (size_t b = 0; b < found.size(); ++b)
    losses.mutable_data()[b] = found[b].loss, poses.mutable_data()[b] = found[b].poses;
  return py::make_tuple(losses, poses, gradient);
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
  const LossModel model = loss_model(world_from_cam.data(), w_rot, w_trans, soft_clamp);
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
  m.def("force_instruction_set", &force_instruction_set, py::arg("name"),
        "Runs that variant from now on; False where this CPU cannot. For tests.");
  m.def("solve", &solve, py::arg("scene_coords"), py::arg("camera_coords"), py::arg("intrinsics"), py::arg("sigma"),
        py::arg("mask"), py::arg("priors"), py::arg("subsampling"), py::arg("hypotheses"), py::arg("most_hypotheses"),
        py::arg("threshold"), py::arg("inlier_alpha"), py::arg("max_error"), py::arg("max_tries"), py::arg("candidates"),
        py::arg("max_rounds"), py::arg("pixel_residual"), py::arg("threads"), py::arg("seed"),
        "Poses of a batch: one dict per image.");
  m.def("expected_loss", &expected_loss_of, py::arg("scene_coords"), py::arg("camera_coords"), py::arg("intrinsics"),
        py::arg("world_from_cam"), py::arg("subsampling"), py::arg("hypotheses"), py::arg("threshold"),
        py::arg("inlier_alpha"), py::arg("max_error"), py::arg("max_tries"), py::arg("w_rot"), py::arg("w_trans"),
        py::arg("soft_clamp"), py::arg("seed"), "Published loss: (loss, accepted hypotheses, gradient [3, h, w]).");
  m.def("pose_losses", &pose_losses_of, py::arg("scene_coords"), py::arg("camera_coords"), py::arg("intrinsics"), py::arg("mask"),
        py::arg("world_from_cam"), py::arg("subsampling"), py::arg("hypotheses"), py::arg("threshold"), py::arg("inlier_alpha"),
        py::arg("max_tries"), py::arg("pixel_residual"), py::arg("w_rot"), py::arg("w_trans"), py::arg("soft_clamp"),
        py::arg("threads"), py::arg("seed"), "Losses through the solver: (losses [B], poses [B], gradient [B, 3, h, w]).");
}
