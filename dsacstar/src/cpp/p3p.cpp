#include "p3p.h"

#include <Eigen/LU>
#include <Eigen/SVD>
#include <algorithm>

namespace dsacstar {
namespace {

// One real root of x^3 + b x^2 + c x + d, the one farthest from the inflection point, polished by Newton.
double real_cubic_root(double b, double c, double d) {
  const double shift = b / 3.0;
  const double p = c - b * shift;
  const double q = d + shift * (2.0 * shift * shift - c);
  const double discriminant = 0.25 * q * q + p * p * p / 27.0;
  double y;
  if (discriminant >= 0.0) {
    const double root = std::sqrt(discriminant);
    const double u = std::cbrt(q > 0.0 ? -0.5 * q - root : -0.5 * q + root);
    y = u == 0.0 ? 0.0 : u - p / (3.0 * u);
  } else {
    const double radius = std::sqrt(-p / 3.0);
    const double cosine = std::clamp(-0.5 * q / (radius * radius * radius), -1.0, 1.0);
    // Of the three roots take the one on q's far side, where the slope is largest.
    const double angle = std::acos(cosine) / 3.0;
    y = 2.0 * radius * (q <= 0.0 ? std::cos(angle) : std::cos(angle + 2.0943951023931953));
  }
  double x = y - shift;
  for (int i = 0; i < 3; ++i) {
    const double value = ((x + b) * x + c) * x + d;
    const double slope = (3.0 * x + 2.0 * b) * x + c;
    if (std::abs(slope) < 1e-300) break;
    const double step = value / slope;
    if (!std::isfinite(step)) break;
    x -= step;
  }
  return x;
}

double symmetric_det(const Eigen::Matrix3d& m) { return m.determinant(); }

// tr(adj(A) B): the derivative of det(A + g B) at g = 0.
double mixed_det(const Eigen::Matrix3d& a, const Eigen::Matrix3d& b) {
  const Eigen::Vector3d c0 = a.col(1).cross(a.col(2)), c1 = a.col(2).cross(a.col(0)), c2 = a.col(0).cross(a.col(1));
  return c0.dot(b.col(0)) + c1.dot(b.col(1)) + c2.dot(b.col(2));
}

// Splits a degenerate conic into two lines l, m (l m^T + m l^T proportional to it). False when they are complex.
bool split_conic(const Eigen::Matrix3d& conic, Eigen::Vector3d* line_a, Eigen::Vector3d* line_b) {
  Eigen::Matrix3d adjugate;  // minus the adjugate, symmetric: p p^T for the lines' meeting point p
  adjugate.col(0) = conic.col(2).cross(conic.col(1));
  adjugate.col(1) = conic.col(0).cross(conic.col(2));
  adjugate.col(2) = conic.col(1).cross(conic.col(0));
  int k = 0;
  adjugate.diagonal().maxCoeff(&k);
  if (!(adjugate(k, k) > 0.0)) return false;
  const Eigen::Vector3d p = adjugate.col(k) / std::sqrt(adjugate(k, k));
  const Eigen::Matrix3d rank_one = conic + skew(p);
  int row = 0, col = 0;
  if (!(rank_one.cwiseAbs().maxCoeff(&row, &col) > 0.0)) return false;
  *line_a = rank_one.row(row).transpose();
  *line_b = rank_one.col(col);
  return true;
}

// Newton steps on the three law-of-cosines equations.
void polish_depths(double m12, double m13, double m23, double a12, double a13, double a23, Eigen::Vector3d* depths) {
  Eigen::Vector3d& d = *depths;
  for (int i = 0; i < 2; ++i) {
    const Eigen::Vector3d residual(d[0] * d[0] + d[1] * d[1] - 2.0 * m12 * d[0] * d[1] - a12,
                                   d[0] * d[0] + d[2] * d[2] - 2.0 * m13 * d[0] * d[2] - a13,
                                   d[1] * d[1] + d[2] * d[2] - 2.0 * m23 * d[1] * d[2] - a23);
    if (residual.cwiseAbs().sum() < 1e-12 * (a12 + a13 + a23)) return;
    Eigen::Matrix3d J;
    J << 2.0 * (d[0] - m12 * d[1]), 2.0 * (d[1] - m12 * d[0]), 0.0,  //
        2.0 * (d[0] - m13 * d[2]), 0.0, 2.0 * (d[2] - m13 * d[0]),   //
        0.0, 2.0 * (d[1] - m23 * d[2]), 2.0 * (d[2] - m23 * d[1]);
    const Eigen::Vector3d r1 = J.row(1).cross(J.row(2)), r2 = J.row(2).cross(J.row(0)), r3 = J.row(0).cross(J.row(1));
    const double det = J.row(0).dot(r1);
    if (std::abs(det) < 1e-300) return;
    const Eigen::Vector3d step = (r1 * residual[0] + r2 * residual[1] + r3 * residual[2]) / det;
    if (!(step.squaredNorm() < 0.01 * d.squaredNorm())) return;
    d -= step;
  }
}

}  // namespace

int p3p(const Eigen::Vector3d rays[3], const Eigen::Vector3d points_world[3], CameraPose poses[4]) {
  const Eigen::Vector3d edge12 = points_world[0] - points_world[1];
  const Eigen::Vector3d edge13 = points_world[0] - points_world[2];
  const Eigen::Vector3d edge23 = points_world[1] - points_world[2];
  const double a12 = edge12.squaredNorm(), a13 = edge13.squaredNorm(), a23 = edge23.squaredNorm();
  const Eigen::Vector3d normal_world = edge12.cross(edge13);
  const double scale = std::max({a12, a13, a23});
  if (!(scale > 0.0) || !std::isfinite(scale) || !(normal_world.norm() > 1e-7 * scale)) return 0;
  const double m12 = rays[0].dot(rays[1]), m13 = rays[0].dot(rays[2]), m23 = rays[1].dot(rays[2]);
  if (!(std::abs(rays[0].dot(rays[1].cross(rays[2]))) > 1e-12)) return 0;

  Eigen::Matrix3d M12, M13, M23;
  M12 << 1, -m12, 0, -m12, 1, 0, 0, 0, 0;
  M13 << 1, 0, -m13, 0, 0, 0, -m13, 0, 1;
  M23 << 0, 0, 0, 0, 1, -m23, 0, -m23, 1;
  Eigen::Matrix3d D1 = (M12 * a23 - M23 * a12) / scale;
  Eigen::Matrix3d D2 = (M13 * a23 - M23 * a13) / scale;
  // det(D1 + g D2) = c0 + c1 g + c2 g^2 + c3 g^3; if D2 is nearly singular, look from the other end of the pencil.
  double c0 = symmetric_det(D1), c3 = symmetric_det(D2);
  double c1 = mixed_det(D1, D2), c2 = mixed_det(D2, D1);
  if (std::abs(c3) < std::abs(c0)) {
    std::swap(D1, D2);
    std::swap(c0, c3);
    std::swap(c1, c2);
  }
  if (!(std::abs(c3) > 1e-300)) return 0;
  const double g = real_cubic_root(c2 / c3, c1 / c3, c0 / c3);
  Eigen::Vector3d lines[2];
  if (!std::isfinite(g) || !split_conic(D1 + g * D2, &lines[0], &lines[1])) return 0;

  Eigen::Matrix3d world_basis;
  world_basis << edge12, edge13, normal_world;
  const Eigen::Matrix3d world_basis_inverse = world_basis.inverse();

  int count = 0;
  for (const Eigen::Vector3d& line : lines) {
    // Two points spanning the line, away from its largest coefficient.
    int k = 0;
    if (!(line.cwiseAbs().maxCoeff(&k) > 0.0)) continue;
    const int i = (k + 1) % 3, j = (k + 2) % 3;
    Eigen::Vector3d u = Eigen::Vector3d::Zero(), v = Eigen::Vector3d::Zero();
    u[i] = 1.0, u[k] = -line[i] / line[k];
    v[j] = 1.0, v[k] = -line[j] / line[k];
    // (u + s v)^T D2 (u + s v) = 0, D2 being the better conditioned end.
    const double qa = v.dot(D2 * v), qb = u.dot(D2 * v), qc = u.dot(D2 * u);
    const double discriminant = qb * qb - qa * qc;
    if (!(discriminant >= 0.0)) continue;
    const double root = std::sqrt(discriminant);
    const double q = -(qb + (qb >= 0.0 ? root : -root));
    // Solutions s = q / qa and s = qc / q as homogeneous pairs, so that infinity is harmless.
    const double pairs[2][2] = {{qa, q}, {q, qc}};
    for (const auto& pair : pairs) {
      if (count == 4) break;
      Eigen::Vector3d d = pair[0] * u + pair[1] * v;
      if (d[0] < 0.0) d = -d;
      if (!(d[0] > 0.0 && d[1] > 0.0 && d[2] > 0.0)) continue;
      const double form = d[0] * d[0] + d[1] * d[1] - 2.0 * m12 * d[0] * d[1] + d[0] * d[0] + d[2] * d[2] -
                          2.0 * m13 * d[0] * d[2] + d[1] * d[1] + d[2] * d[2] - 2.0 * m23 * d[1] * d[2];
      if (!(form > 0.0)) continue;
      d *= std::sqrt((a12 + a13 + a23) / form);
      polish_depths(m12, m13, m23, a12, a13, a23, &d);
      if (!d.allFinite() || d.minCoeff() <= 0.0) continue;
      const Eigen::Vector3d p1 = d[0] * rays[0];
      const Eigen::Vector3d cam12 = p1 - d[1] * rays[1], cam13 = p1 - d[2] * rays[2];
      Eigen::Matrix3d cam_basis;
      cam_basis << cam12, cam13, cam12.cross(cam13);
      const Eigen::Matrix3d R = cam_basis * world_basis_inverse;
      const Eigen::Matrix3d defect = R.transpose() * R - Eigen::Matrix3d::Identity();
      if (!(defect.cwiseAbs().maxCoeff() < 1e-3)) continue;
      poses[count].R = R - 0.5 * R * defect;  // one Newton step towards the nearest rotation
      poses[count].t = p1 - poses[count].R * points_world[0];
      if (poses[count].finite()) ++count;
    }
  }
  return count;
}

bool kabsch(const Eigen::Vector3d* points_world, const Eigen::Vector3d* points_cam, int count, CameraPose* pose) {
  if (count < 3) return false;
  Eigen::Vector3d mean_world = Eigen::Vector3d::Zero(), mean_cam = Eigen::Vector3d::Zero();
  for (int i = 0; i < count; ++i) mean_world += points_world[i], mean_cam += points_cam[i];
  mean_world /= count, mean_cam /= count;
  Eigen::Matrix3d covariance = Eigen::Matrix3d::Zero();
  for (int i = 0; i < count; ++i) covariance += (points_cam[i] - mean_cam) * (points_world[i] - mean_world).transpose();
  if (!covariance.allFinite()) return false;
  const Eigen::JacobiSVD<Eigen::Matrix3d> svd(covariance, Eigen::ComputeFullU | Eigen::ComputeFullV);
  // The second singular value vanishes for collinear points: the rotation about their line is free.
  if (!(svd.singularValues()[1] > 1e-10 * svd.singularValues()[0])) return false;
  Eigen::Matrix3d sign = Eigen::Matrix3d::Identity();
  if ((svd.matrixU() * svd.matrixV().transpose()).determinant() < 0.0) sign(2, 2) = -1.0;
  pose->R = svd.matrixU() * sign * svd.matrixV().transpose();
  pose->t = mean_cam - pose->R * mean_world;
  return pose->finite();
}

}  // namespace dsacstar
