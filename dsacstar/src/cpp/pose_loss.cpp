#include "pose_loss.h"

#include <algorithm>
#include <cmath>

#include "estimators.h"
#include "optimum.h"
#include "parallel.h"
#include "ransac.h"

namespace dsacstar {
namespace {

using namespace policy;
using Eigen::Vector3d;

// One distinct pose of an image.
template <Model kModel>
struct Pose {
  Refinement start;
  int trials = 0;  // that mean it
  Optimum optimum;
  double score = 0, loss = 0;
  Vector6d by_pose = Vector6d::Zero();  // of the loss
};

template <Model kModel>
struct Image {
  const GridInput* input = nullptr;
  Cells cells;
  ExactCells<kModel> exact;
  std::vector<std::vector<Trial>> trials;  // by task
  std::vector<Pose<kModel>> poses;
  double narrow = 0;
  int subset = 0;
};

// The stages, each a loop over independent tasks.
template <Model kModel>
class Losses {
 public:
  using Estimator = CellEstimator<kModel>;

  Losses(const std::vector<GridInput>& inputs, const std::vector<LossModel>& models, const PoseLossOptions& options, uint64_t seed,
         const std::function<bool()>& interrupted)
      : models_(models), options_(options), seed_(seed), interrupted_(interrupted), images_(inputs.size()) {
    for (size_t b = 0; b < inputs.size(); ++b) images_[b].input = &inputs[b];
    model_.threshold = static_cast<float>(options.threshold);
    model_.max_error = model_.threshold;
  }

  bool run(std::vector<PoseLoss>* losses, double* gradient) {
    const size_t images = images_.size();
    const size_t tasks = static_cast<size_t>((options_.hypotheses + kTrialsPerTask - 1) / kTrialsPerTask);
    losses->assign(images, PoseLoss());
    if (!each(images, [&](size_t b, std::vector<float>*) { load(&images_[b], tasks); })) return false;
    if (!each(images * tasks, [&](size_t i, std::vector<float>* scratch) { try_out(&images_[i / tasks], i % tasks, scratch); })) return false;
    if (!each(images, [&](size_t b, std::vector<float>* scratch) { tell_apart(&images_[b], scratch); })) return false;
    if (!each_pose([&](size_t b, size_t j, std::vector<float>* scratch) { converge(&images_[b], j, scratch); })) return false;
    if (!each(images, [&](size_t b, std::vector<float>* scratch) { join(&images_[b], scratch); })) return false;
    if (!each_pose([&](size_t b, size_t j, std::vector<float>* scratch) { refine(b, j, scratch); })) return false;
    return each(images, [&](size_t b, std::vector<float>*) { (*losses)[b] = expect(b, gradient); });
  }

 private:
  template <class Task>
  bool each(size_t count, const Task& task) {
    return parallel_for(count, options_.threads, interrupted_, [&] {
      return [&, scratch = std::vector<float>()](size_t i) mutable { task(i, &scratch); };
    });
  }

  template <class Task>
  bool each_pose(const Task& task) {
    std::vector<std::pair<size_t, size_t>> poses;
    for (size_t b = 0; b < images_.size(); ++b)
      for (size_t j = 0; j < images_[b].poses.size(); ++j) poses.emplace_back(b, j);
    return each(poses.size(), [&](size_t i, std::vector<float>* scratch) { task(poses[i].first, poses[i].second, scratch); });
  }

  void load(Image<kModel>* image, size_t tasks) {
    load_cells(*image->input, &image->cells);
    image->exact.load(*image->input, image->cells);
    image->subset = std::min(image->cells.count, limits_.subset);
    image->trials.resize(tasks);
  }

  Estimator estimator(Image<kModel>* image, std::vector<float>* scratch) const {
    scratch->resize(image->cells.x.size());
    return Estimator(*image->input, &image->cells, model_, no_prior_, scratch->data());
  }

  void try_out(Image<kModel>* image, size_t task, std::vector<float>* scratch) const {
    if (image->cells.count < Estimator::kSample) return;
    Estimator cells = estimator(image, scratch);
    LocalSearch<Estimator> local(cells, image->subset, limits_.max_rounds);
    const int begin = static_cast<int>(task) * kTrialsPerTask, end = std::min(begin + kTrialsPerTask, options_.hypotheses);
    for (int index = begin; index < end; ++index) {
      const Hypothesis h = draw_hypothesis(cells, Draw::kUniform, seed_, static_cast<uint64_t>(index), options_.max_tries);
      if (h.valid) local.try_out(h.pose, 0.0, &image->trials[task]);
    }
  }

  // Trials that mean the same pose become one; the best of them starts its refinement.
  void tell_apart(Image<kModel>* image, std::vector<float>* scratch) const {
    std::vector<Trial> trials;
    for (const std::vector<Trial>& some : image->trials)
      for (const Trial& trial : some)
        if (trial.refined.pose.finite()) trials.push_back(trial);
    if (trials.empty()) return;
    Estimator cells = estimator(image, scratch);
    const LocalSearch<Estimator> local(cells, image->subset, limits_.max_rounds);
    image->narrow = std::exp2(std::round(kStepsOfNarrow * std::log2(local.choose(&trials).narrow)) / kStepsOfNarrow);
    std::stable_sort(trials.begin(), trials.end(), [](const Trial& a, const Trial& b) { return a.score > b.score; });
    const double least = trials.front().score + kLeastLogOdds * image->subset / std::max(options_.inlier_alpha, 1e-9);
    for (const Trial& trial : trials) {
      if (!(trial.score >= least)) break;
      add(trial.refined, 1, cells, &image->poses);
    }
  }

  // Counts a pose with the one that it is, or as another one while there is room.
  void add(const Refinement& refined, int trials, const Estimator& cells, std::vector<Pose<kModel>>* poses) const {
    for (Pose<kModel>& pose : *poses) {
      if (!(cells.displacement(pose.start.pose, refined.pose) < kSamePose * options_.threshold)) continue;
      pose.trials += trials;
      return;
    }
    if (poses->size() == static_cast<size_t>(kMostOptima)) return;
    poses->emplace_back();
    poses->back().start = refined, poses->back().trials = trials;
  }

  void converge(Image<kModel>* image, size_t j, std::vector<float>* scratch) const {
    Estimator cells = estimator(image, scratch);
    Pose<kModel>& pose = image->poses[j];
    pose.start = LocalSearch<Estimator>(cells, image->subset, limits_.max_rounds).converge(pose.start, image->narrow);
  }

  // Poses that have come together are one.
  void join(Image<kModel>* image, std::vector<float>* scratch) const {
    std::vector<Pose<kModel>> apart;
    const Estimator cells = estimator(image, scratch);
    for (const Pose<kModel>& pose : image->poses) add(pose.start, pose.trials, cells, &apart);
    image->poses = apart;
  }

  void refine(size_t b, size_t j, std::vector<float>* scratch) {
    Image<kModel>& image = images_[b];
    Pose<kModel>& pose = image.poses[j];
    Estimator cells = estimator(&image, scratch);
    LocalSearch<Estimator> local(cells, image.subset, limits_.max_rounds);
    const Refinement refined = local.finish(pose.start);
    pose.optimum = find_optimum(image.exact, refined, depth_gate(image.cells, image.cells.count, refined.pose));
    pose.loss = loss_of_pose(pose.optimum.pose, image.cells.origin, models_[b], &pose.by_pose);
    const double inverse = 1.0 / (image.narrow * image.narrow);
    for (size_t k = 0; k < image.exact.size(); ++k) {
      const Vector3d p = pose.optimum.pose.apply(image.exact.world[k]);
      pose.score += std::max(0.0, 1.0 - square_of<kModel>(p, image.exact.target[k], pose.optimum.lens) * inverse);
    }
    pose.score *= options_.inlier_alpha / image.cells.count;
  }

  // Adds weight * d score / d coordinates at a fixed pose; returns weight * d score / d xi.
  Vector6d push_score(const Image<kModel>& image, const Optimum& optimum, double weight, std::vector<Vector3d>* by_cell) const {
    const double square = image.narrow * image.narrow;
    Vector6d by_pose = Vector6d::Zero();
    for (size_t k = 0; k < image.exact.size(); ++k) {
      const Vector3d p = optimum.pose.apply(image.exact.world[k]);
      if (!(square_of<kModel>(p, image.exact.target[k], optimum.lens) < square)) continue;
      const Vector3d by_point = -weight / square * square_jet<kModel>(p, image.exact.target[k], optimum.lens).gradient;
      by_pose += perturbation_gradient(p, by_point);
      (*by_cell)[k] += optimum.pose.R.transpose() * by_point;
    }
    return by_pose;
  }

  PoseLoss expect(size_t b, double* gradient) const {
    const Image<kModel>& image = images_[b];
    const size_t plane = static_cast<size_t>(image.input->height) * static_cast<size_t>(image.input->width);
    double* own = gradient + 3 * plane * b;
    std::fill(own, own + 3 * plane, 0.0);
    PoseLoss out;
    out.poses = static_cast<int>(image.poses.size());
    double highest = -std::numeric_limits<double>::infinity(), total = 0;
    for (const Pose<kModel>& pose : image.poses) highest = std::max(highest, pose.score);
    std::vector<double> probability;
    for (const Pose<kModel>& pose : image.poses)
      probability.push_back(pose.trials * std::exp(pose.score - highest)), total += probability.back();
    for (size_t j = 0; j < probability.size(); ++j) {
      probability[j] /= total;
      out.loss += probability[j] * image.poses[j].loss;
    }
    std::vector<Vector3d> by_cell(image.exact.size(), Vector3d::Zero());
    for (size_t j = 0; j < probability.size(); ++j) {
      constexpr double kNothing = 1e-9;
      const Pose<kModel>& pose = image.poses[j];
      if (probability[j] < kNothing) continue;
      const double weight = probability[j] * (pose.loss - out.loss) * options_.inlier_alpha / image.cells.count;
      Vector6d by_pose = probability[j] * pose.by_pose;
      if (weight != 0.0) by_pose += push_score(image, pose.optimum, weight, &by_cell);
      if (pose.optimum.settled) push_through_optimum(image.exact, pose.optimum, by_pose, &by_cell);
    }
    scatter_gradient(by_cell, image.cells, *image.input, own);
    return out;
  }

  const std::vector<LossModel>& models_;
  const PoseLossOptions& options_;
  const uint64_t seed_;
  const std::function<bool()>& interrupted_;
  std::vector<Image<kModel>> images_;
  ErrorModel model_;
  const RansacLimits limits_;
  const PosePrior no_prior_;
};

}  // namespace

bool pose_losses(const std::vector<GridInput>& inputs, const std::vector<LossModel>& models, const PoseLossOptions& options,
                 uint64_t seed, const std::function<bool()>& interrupted, std::vector<PoseLoss>* losses, double* gradient) {
  const auto run = [&](auto stages) { return stages.run(losses, gradient); };
  if (!inputs.empty() && inputs.front().camera_coords != nullptr)
    return run(Losses<Model::kPoint>(inputs, models, options, seed, interrupted));
  if (options.pixel_residual) return run(Losses<Model::kPixel>(inputs, models, options, seed, interrupted));
  return run(Losses<Model::kRay>(inputs, models, options, seed, interrupted));
}

}  // namespace dsacstar
