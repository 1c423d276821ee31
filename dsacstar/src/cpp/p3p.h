// Minimal and closed-form pose solvers, double precision.
#pragma once

#include "camera_pose.h"

namespace dsacstar {

// Poses that see three world points along three unit rays: d_i ray_i = R X_i + t with d_i > 0.
//
// The three law-of-cosines equations d_i^2 + d_j^2 - 2 d_i d_j (ray_i . ray_j) = |X_i - X_j|^2 are quadratic forms in
// d; two differences without constant term are conics in the projective plane. A real root of their pencil's cubic
// gives a degenerate conic, two lines, each meeting a conic in up to two points. The depths are polished by Newton.
// Degenerate cases (returns 0): coincident or collinear points, coincident rays, non-finite input.
// Source: Persson & Nordberg, Lambda Twist, ECCV 2018; Ding et al., Revisiting the P3P Problem, CVPR 2023.
// Returns the number of poses written, 0 to 4.
int p3p(const Eigen::Vector3d rays[3], const Eigen::Vector3d points_world[3], CameraPose poses[4]);

// Least-squares rigid transform of `count` world points onto camera points.
// Degenerate cases (returns false): fewer than 3 points, collinear points, non-finite input.
// Source: Kabsch 1976; Umeyama, TPAMI 1991 (reflection handling).
bool kabsch(const Eigen::Vector3d* points_world, const Eigen::Vector3d* points_cam, int count, CameraPose* pose);

}  // namespace dsacstar
