// Every constant of the solver that is a choice rather than mathematics, in one place, each with its reason.
//
// They were chosen on the problems of benchmarks/solver_families.py with seeds below 10,000.
#pragma once
namespace dsacstar::policy {

// ---- cells
constexpr float kFarthest = 1e8f;  // metres; coordinates farther out carry nothing and would overflow float squares
constexpr float kSigmaMin = 1e-6f, kSigmaMax = 1e6f;  // metres; standard deviations are clamped into this range
constexpr double kTrustQuantile = 0.05;  // cells more certain than this quantile of all get no more trust than it
constexpr float kMinDepth = 1e-3f;       // metres in front of the camera

// ---- ranking
constexpr float kWide = 3.0f;  // the wide score's half-value, in thresholds: poses of three noisy cells are rough
constexpr int kMostSigmaDraws = 64;  // tries to draw a cell by its sigma before any cell will do

// ---- the search
constexpr int kFirstBatch = 16;         // hypotheses before the first look whether that was enough
constexpr int kBatch = 64;              // hypotheses between looks
constexpr double kEnoughSamples = 6.0;  // expected number of all-inlier samples after which the search stops
constexpr double kEnoughUnclear = 12.0;  // the same where the noise comes near the threshold, as a compromise's may
constexpr double kClearNoise = 0.6;      // thresholds; noise below it is clear
constexpr int kKept = 4;                // best hypotheses of a batch by each score
constexpr double kGuidedShare = 0.3;    // cells with the nearest neighbours that count as guided
constexpr int kTrialRounds = 6;         // refinement rounds in which a hypothesis proves itself
constexpr int kSubsetRounds = 30;       // further rounds of the best on the subset
constexpr int kSecondRounds = 10;       // rounds of a second look with a narrow mixture
constexpr double kSubsetTolerance = 0.03, kFinalTolerance = 0.01;  // standard deviations of the pose
constexpr double kSamePose = 0.5;       // thresholds of mean displacement below which two poses are one
constexpr double kScalesOfNoise = 1.5;  // the choice is made at this many noise scales, if above the threshold
constexpr double kCap = 1.2;            // thresholds; most that the inliers' spread may be in a capped trial
constexpr double kDoubtfulNoise = 0.5;   // thresholds; a trial with more noise may be a compromise: another, capped at half of it
constexpr double kPriorGate = 30.0;     // squared Mahalanobis distance beyond which a prior excludes a hypothesis

// ---- structures closer than the threshold, between which a pose may be a compromise
constexpr double kLeastNoise = 0.25, kMostNoise = 0.7;  // thresholds; of the noise of a pose that may be one
constexpr double kNarrower = 0.5;          // of that noise: most that a rival may have
constexpr double kPromisingShare = 0.35;   // inliers of that noise near the pose; a single Gaussian has less
constexpr double kPromisingGain = 1.02;    // and hardly gains any by that
constexpr double kRivalShare = 0.48;       // and of a rival that replaces it: about half of the cells,
constexpr double kRivalGain = 1.5;         // and so many times as many as agree that closely with the compromise
constexpr double kFewestRival = 100.0;     // cells of a rival; fewer can be found by chance
constexpr int kRivals = 3;                 // hypotheses that are tried

// ---- refinement
constexpr double kVarianceFloor = 1e-10;  // of s1^2: exact input must not drive the weights to infinity
// s2^2 / s1^2 stays above this: low while the inlier component still shrinks towards the inliers, high once it has,
// where overlapping components would only trade cells slowly.
constexpr double kSeparationPulling = 4.0, kSeparationFinal = 16.0;
constexpr double kLeastShare = 1e-3;       // of the inliers, and of all others
constexpr double kMiddleRatio = 9.0;       // variance of the middle component over the inliers'
constexpr int kGuessCells = 256;           // enough for a first guess of the mixture
constexpr double kFewestInliers = 20.0;    // fewer are a mixture that has collapsed onto what fits by chance
constexpr double kMixtureTolerance = 0.03; // relative change of s1^2 in a last round
constexpr double kRounding = 3e-8;         // of the median depth (or focal length): root mean square movement below float's reach
constexpr double kLongestTurn = 0.5;       // radians in one round
constexpr double kDepthGate = 0.1;         // of the median depth: cells nearer than it take no part
constexpr double kMiddleShare = 0.02;      // a middle component smaller than this is not worth its rounds
constexpr double kMiddleShift = 6.0;       // squared shift (in the covariance's terms, per degree of freedom) it may cause

// ---- the worth of sigma
constexpr int kSigmaPowers = 5;            // powers of sigma that are compared: 0, 1/4, 1/2, 3/4, 1
// The highest power whose log-likelihood is within this of the best: neighbouring cells err alike, so that a likelihood
// which takes them as independent is far too sure of small differences, and sigma deserves the benefit of the doubt.
constexpr double kSigmaDoubt = 32.0;

// ---- noise that grows with the depth
constexpr double kDepthDoubt = 32.0;       // nats that powers of the depth above 0 must gain, for the same reason
constexpr double kDepthGateSquare = 12.0;  // squared residuals, in the inliers' variance, that are compared
constexpr double kPure = 0.06;             // share of the inliers by which they may be more or fewer; else there is another structure
constexpr double kMostDepthRatio = 8.0;    // of the median depth to a cell's, either way, that counts

// ---- the loss that trains through the estimator
constexpr int kMostOptima = 16;          // distinct poses of an image that share the expectation
constexpr double kLeastLogOdds = -25.0;  // trials whose score lies farther below the best cannot move it
constexpr double kStepsOfNarrow = 4.0;   // steps per octave to which the choice's width is rounded, so that it has no derivative
constexpr int kTrialsPerTask = 8;        // hypotheses that one thread takes at a time

// ---- outputs
constexpr int kFewestCorrelated = 400;     // cells below which the evidence is counted without their errors' correlation
constexpr int kMostBlocks = 24;            // of the grid, for the residuals' correlation
constexpr double kFalseAlarms = 1e-3;      // expected number of poses as good by chance that a success may have
constexpr double kNear = 0.03;             // confidence is the probability of an error below this share of the depth

}  // namespace dsacstar::policy
