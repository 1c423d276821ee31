#include "published_loss.h"

#include <cmath>

#include "adjoints.h"

namespace dsacstar {
namespace {

constexpr double kLeastProbability = 1e-9;  // hypotheses below it cannot move the expectation

// What draw_hypothesis asks for, in double.
template <Model kModel>
struct ExactSampler {
  static constexpr bool kRgbd = kModel == Model::kPoint;
  static constexpr int kSample = kRgbd ? 3 : 4;
  const Cells& cells;
  const ExactCells<kModel>& exact;
  double limit;

  double threshold() const { return limit; }
  bool draw(Random& random, Draw how, int* sample) const { return draw_cells(cells, random, how, sample, kSample); }
  bool minimal(const int* sample, CameraPose* pose, double* error) const {
    Eigen::Vector3d world[kSample], target[kSample];
    for (int i = 0; i < kSample; ++i)
      world[i] = exact.world[static_cast<size_t>(sample[i])], target[i] = exact.target[static_cast<size_t>(sample[i])];
    return minimal_pose<kRgbd>(world, target, exact.lens.fx, exact.lens.fy, exact.lens.min_depth, pose, error);
  }
};

template <Model kModel>
ExpectedLoss expected_loss_of(const GridInput& input, const LossModel& model, const LossOptions& options, uint64_t seed,
                              double* gradient) {
  ExpectedLoss out;
  Cells cells;
  load_cells(input, &cells);
  if (cells.count < ExactSampler<kModel>::kSample) return out;
  ExactCells<kModel> s;
  s.load(input, cells);
  const ExactSampler<kModel> sampler{cells, s, options.threshold};
  const SoftCount soft{options.threshold, options.max_error};
  const double tau_square = options.threshold * options.threshold;
  const double score_scale = options.inlier_alpha / cells.count;

  std::vector<Hypothesis> hypotheses;
  std::vector<double> probability;
  double highest = -std::numeric_limits<double>::infinity();
  for (int j = 0; j < options.hypotheses; ++j) {
    const Hypothesis h = draw_hypothesis(sampler, Draw::kUniform, seed, static_cast<uint64_t>(j), options.max_tries);
    if (!h.accepted) continue;
    hypotheses.push_back(h);
    probability.push_back(score_scale * soft.value(s, h.pose));
    highest = std::max(highest, probability.back());
  }
  out.accepted = static_cast<int>(hypotheses.size());
  if (hypotheses.empty()) return out;
  double total = 0;
  for (double& p : probability) p = std::exp(p - highest), total += p;
  for (double& p : probability) p /= total;

  CellGradients by_cell(s.size(), Eigen::Vector3d::Zero());
  std::vector<double> losses(hypotheses.size(), 0.0);
  for (size_t j = 0; j < hypotheses.size(); ++j) {
    if (probability[j] < kLeastProbability) continue;
    const TukeyMinimum minimum = tukey_minimum(s, hypotheses[j].pose, tau_square);
    Vector6d by_pose;
    losses[j] = loss_of_pose(minimum.strict ? minimum.pose : hypotheses[j].pose, cells.origin, model, &by_pose);
    out.loss += probability[j] * losses[j];
    by_pose *= probability[j];
    if (minimum.strict) {
      push_through_minimum(s, minimum, tau_square, by_pose, &by_cell);
    } else {
      push_through_minimal(s, hypotheses[j], by_pose, &by_cell);
    }
  }
  for (size_t j = 0; j < hypotheses.size(); ++j) {
    if (probability[j] < kLeastProbability) continue;
    const double weight = probability[j] * (losses[j] - out.loss) * score_scale;
    const Vector6d by_pose = soft.push(s, hypotheses[j].pose, weight, &by_cell);
    push_through_minimal(s, hypotheses[j], by_pose, &by_cell);
  }
  scatter_gradient(by_cell, cells, input, gradient);
  return out;
}

}  // namespace

ExpectedLoss expected_loss(const GridInput& input, const LossModel& model, const LossOptions& options, uint64_t seed,
                           double* gradient) {
  return input.camera_coords != nullptr ? expected_loss_of<Model::kPoint>(input, model, options, seed, gradient)
                                        : expected_loss_of<Model::kPixel>(input, model, options, seed, gradient);
}

}  // namespace dsacstar
