// Included by score.cpp once per instruction set, inside a namespace of its own and under its target pragma, with
// DSAC_LANES defined. Only vector extensions that gcc and clang share; no headers, so that no inline function of the
// standard library is compiled for the wrong CPU.

typedef float Vf __attribute__((vector_size(4 * DSAC_LANES)));
typedef int Vi __attribute__((vector_size(4 * DSAC_LANES)));

#define DSAC_INLINE static inline __attribute__((always_inline))

DSAC_INLINE Vf load(const float* p) {
  Vf v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
DSAC_INLINE void store(float* p, Vf v) { __builtin_memcpy(p, &v, sizeof(v)); }
DSAC_INLINE Vf select(Vi mask, Vf a, Vf b) { return (Vf)((mask & (Vi)a) | (~mask & (Vi)b)); }
DSAC_INLINE Vf vmin(Vf a, Vf b) { return a < b ? a : b; }
DSAC_INLINE Vf vmax(Vf a, Vf b) { return a > b ? a : b; }

// exp(x) for x clamped to [-80, 80]; relative error below 3e-7.
DSAC_INLINE Vf vexp(Vf x) {
  const Vf zero = x - x;
  x = vmax(vmin(x, zero + 80.0f), zero - 80.0f);
  const Vf scaled = x * 1.44269504088896f;
  const Vi whole = __builtin_convertvector(scaled + select(scaled < zero, zero - 0.5f, zero + 0.5f), Vi);
  const Vf whole_f = __builtin_convertvector(whole, Vf);
  const Vf r = (x - whole_f * 0.693359375f) + whole_f * 2.12194440e-4f;
  Vf p = zero + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (Vf)((whole + 127) << 23);
}

// log(x), x > 0 and normal; absolute error below 1e-6.
DSAC_INLINE Vf vlog(Vf x) {
  const Vf zero = x - x;
  const Vi bits = (Vi)x;
  Vi exponent = ((bits >> 23) & 255) - 126;
  Vf m = (Vf)((bits & 0x007fffff) | 0x3f000000);  // in [1/2, 1)
  const Vi small = m < zero + 0.707106781186547524f;
  exponent += small;  // a true lane is -1
  m = select(small, m + m, m) - 1.0f;
  const Vf e = __builtin_convertvector(exponent, Vf), z = m * m;
  Vf p = zero + 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  return m + (p * m * z - 2.12194440e-4f * e - 0.5f * z) + 0.693359375f * e;
}

// sqrt(x), x >= 0; relative error below 1e-6, 0 for 0.
DSAC_INLINE Vf vsqrt(Vf x) {
  const Vf safe = vmax(x, x - x + 1e-30f);
  Vf y = (Vf)(0x5f375a86 - ((Vi)safe >> 1));
  const Vf half = 0.5f * safe;
  y = y * (1.5f - half * y * y);
  y = y * (1.5f - half * y * y);
  y = y * (1.5f - half * y * y);
  return x * y;
}

DSAC_INLINE double total(Vf v) {
  double sum = 0;
  for (int i = 0; i < DSAC_LANES; ++i) sum += (double)v[i];
  return sum;
}

struct CameraPoint {
  Vf x, y, z;
};

DSAC_INLINE CameraPoint transform(const CellPlanes& s, const PosePlanes& q, int k) {
  const Vf x = load(s.x + k), y = load(s.y + k), z = load(s.z + k);
  CameraPoint p;
  p.x = q.r[0] * x + (q.r[1] * y + (q.r[2] * z + q.t[0]));
  p.y = q.r[3] * x + (q.r[4] * y + (q.r[5] * z + q.t[1]));
  p.z = q.r[6] * x + (q.r[7] * y + (q.r[8] * z + q.t[2]));
  return p;
}

// Squared error in pixels (RGB) or metres (RGB-D), and whether the cell may count.
template <int kModel>
DSAC_INLINE Vf squared_error(const CellPlanes& s, const PosePlanes& q, const ErrorPlanes& m, int k, Vi* valid) {
  const CameraPoint p = transform(s, q, k);
  const Vf zero = p.x - p.x;
  if (kModel == kPoint) {
    *valid = zero == zero;
    const Vf ex = p.x - load(s.a + k), ey = p.y - load(s.b + k), ez = p.z - load(s.c + k);
    return ex * ex + ey * ey + ez * ez;
  }
  *valid = p.z > zero + m.min_depth;
  const Vf inverse_z = 1.0f / select(*valid, p.z, zero + 1.0f);
  const Vf ex = s.fx * (p.x * inverse_z - load(s.a + k));
  const Vf ey = s.fy * (p.y * inverse_z - load(s.b + k));
  return ex * ex + ey * ey;
}

template <int kModel>
void score(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, double sums[2]) {
  sums[0] = sums[1] = 0;
  for (int begin = 0; begin < count; begin += kBlock) {
    const int end = begin + kBlock < count ? begin + kBlock : count;
    Vf soft = {}, inliers = {};
    for (int k = begin; k < end; k += DSAC_LANES) {
      Vi valid;
      const Vf square = squared_error<kModel>(s, q, m, k, &valid);
      const Vf zero = {};
      const Vf ceiling = zero + m.max_error;
      const Vf error = select(valid, vmin(vsqrt(square), ceiling), ceiling);
      const Vi used = load(s.precision + k) > zero;
      soft += select(used, 1.0f / (1.0f + vexp(m.beta * (error - m.threshold))), zero);
      inliers += select((error < zero + m.threshold) & used, zero + 1.0f, zero);
    }
    sums[0] += total(soft);
    sums[1] += total(inliers);
  }
}

template <int kModel>
void rank(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, double sums[2]) {
  sums[0] = sums[1] = 0;
  for (int begin = 0; begin < count; begin += kBlock) {
    const int end = begin + kBlock < count ? begin + kBlock : count;
    Vf wide = {}, narrow = {};
    for (int k = begin; k < end; k += DSAC_LANES) {
      Vi valid;
      const Vf square = squared_error<kModel>(s, q, m, k, &valid);
      const Vf zero = {};
      valid &= load(s.precision + k) > zero;
      wide += select(valid, 1.0f / (1.0f + square * m.wide_inverse_square), zero);
      narrow += select(valid, vmax(1.0f - square * m.narrow_inverse_square, zero), zero);
    }
    sums[0] += total(wide);
    sums[1] += total(narrow);
  }
}

template <int kModel>
void errors(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, float* out) {
  for (int k = 0; k < count; k += DSAC_LANES) {
    Vi valid;
    const Vf square = squared_error<kModel>(s, q, m, k, &valid);
    const Vf ceiling = square - square + m.max_error;
    store(out + k, select(valid, vmin(vsqrt(square), ceiling), ceiling));
  }
}

template <int kModel>
void error_squares(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, float* out) {
  for (int k = 0; k < count; k += DSAC_LANES) {
    Vi valid;
    const Vf square = squared_error<kModel>(s, q, m, k, &valid);
    store(out + k, select(valid, square, square - square + kInfinity));
  }
}

struct Residual {
  CameraPoint p;      // camera point
  Vf ux, uy, uz;      // kRay: unit ray; kPixel: f / p_z, and p_x / p_z, p_y / p_z
  Vf vx;              // kPixel: the other f / p_z
  Vf ex, ey, ez;      // residual
  Vi valid;
};

template <int kModel>
DSAC_INLINE Residual residual(const CellPlanes& s, const PosePlanes& q, const ErrorPlanes& m, int k) {
  Residual r;
  r.p = transform(s, q, k);
  const Vf a = load(s.a + k), b = load(s.b + k), c = load(s.c + k);
  const Vf zero = a - a;
  r.valid = zero == zero;
  r.ux = r.uy = r.uz = r.vx = r.ez = zero;
  if (kModel == kPoint) {
    r.ex = r.p.x - a, r.ey = r.p.y - b, r.ez = r.p.z - c;
  } else if (kModel == kPixel) {
    r.valid = r.p.z > zero + m.min_depth;
    const Vf inverse_z = 1.0f / select(r.valid, r.p.z, zero + 1.0f);
    r.uy = r.p.x * inverse_z, r.uz = r.p.y * inverse_z;
    r.ex = s.fx * (r.uy - a), r.ey = s.fy * (r.uz - b);
    r.ux = s.fx * inverse_z, r.vx = s.fy * inverse_z;
  } else {
    r.ux = a * c, r.uy = b * c, r.uz = c;
    // The offset from the ray through its cross section at the point's depth: no cancellation of large terms.
    const Vf dx = r.p.x - a * r.p.z, dy = r.p.y - b * r.p.z;
    const Vf along = dx * r.ux + dy * r.uy;
    r.ex = dx - along * r.ux, r.ey = dy - along * r.uy, r.ez = -along * r.uz;
    r.valid = r.p.z > zero + m.min_depth;
  }
  r.valid &= load(s.precision + k) > zero;
  return r;
}

template <int kModel>
void residual_squares(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, float* out) {
  for (int k = 0; k < count; k += DSAC_LANES) {
    const Residual r = residual<kModel>(s, q, m, k);
    const Vf square = load(s.precision + k) * (r.ex * r.ex + r.ey * r.ey + r.ez * r.ez);
    store(out + k, select(r.valid, square, square - square + kInfinity));
  }
}

// Responsibilities of the inliers and the middle component for squared normalised residuals.
struct Shares {
  Vf inlier, middle, odds;  // odds: of either against the outliers
};

template <bool kMiddle>
DSAC_INLINE Shares shares(Vf square, const MixturePlanes& mix) {
  Shares r;
  const Vf inlier = vexp(mix.inlier_log_odds - mix.inlier_gap * square);
  const Vf middle = kMiddle ? vexp(mix.middle_log_odds - mix.middle_gap * square) : inlier - inlier;
  r.odds = inlier + middle;
  const Vf inverse = 1.0f / (1.0f + r.odds);
  r.inlier = inlier * inverse;
  r.middle = middle * inverse;
  return r;
}

template <bool kMiddle>
void mixture_kernel(const float* squares, int count, const MixturePlanes& mix, double sums[kMixtureSums]) {
  for (int i = 0; i < kMixtureSums; ++i) sums[i] = 0;
  for (int begin = 0; begin < count; begin += kBlock) {
    const int end = begin + kBlock < count ? begin + kBlock : count;
    Vf acc[kMixtureSums] = {};
    for (int k = begin; k < end; k += DSAC_LANES) {
      const Vf given = load(squares + k), zero = {};
      const Vi valid = given < zero + kInfinity;
      const Vf square = select(valid, given, zero);
      const Shares r = shares<kMiddle>(square, mix);
      const Vf inlier = select(valid, r.inlier, zero), middle = select(valid, r.middle, zero);
      acc[0] += inlier;
      acc[1] += inlier * square;
      acc[2] += middle;
      acc[3] += middle * square;
      acc[4] += select(valid, zero + 1.0f, zero);
      acc[5] += select(valid, vmin(square, zero + mix.square_clamp), zero);
      acc[6] += select(valid, vlog(1.0f + r.odds) - mix.outlier_half_precision * square, zero);
      // The weight w and q dw/dq at the square q: a share g_i changes by g_i (mean of all gaps - its own gap).
      const Vf mean_gap = inlier * mix.inlier_gap + middle * mix.middle_gap;
      const Vf by_inlier = inlier * mix.inlier_weight, by_middle = middle * mix.middle_weight;
      acc[7] += by_inlier + by_middle;
      acc[8] += square * (by_inlier * (mean_gap - mix.inlier_gap) + by_middle * (mean_gap - mix.middle_gap));
    }
    for (int i = 0; i < kMixtureSums; ++i) sums[i] += total(acc[i]);
  }
}

// Adds w J^T J and w J^T e of the reprojection in pixels: its two rows by (omega, v).
DSAC_INLINE void add_pixel_rows(const Residual& r, Vf w, Vf* acc) {
  const Vf zero = w - w;
  const Vf jx[6] = {-r.ux * r.uy * r.p.y, r.ux * (r.p.z + r.uy * r.p.x), -r.ux * r.p.y, r.ux, zero, -r.ux * r.uy};
  const Vf jy[6] = {-r.vx * (r.p.z + r.uz * r.p.y), r.vx * r.uz * r.p.x, r.vx * r.p.x, zero, r.vx, -r.vx * r.uz};
  int at = 12;
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    const Vf wx = w * jx[i], wy = w * jy[i];
    acc[6 + i] += wx * r.ex + wy * r.ey;
#pragma GCC unroll 6
    for (int j = i; j < 6; ++j) acc[at++] += wx * jx[j] + wy * jy[j];
  }
}

// The sums that the metric residuals' normal equations are put together from.
template <int kModel>
DSAC_INLINE void add_metric_rows(const Residual& r, Vf w, Vf* acc) {
  const Vf px = r.p.x, py = r.p.y, pz = r.p.z;
  const Vf wex = w * r.ex, wey = w * r.ey, wez = w * r.ez;
  acc[6] += py * wez - pz * wey;
  acc[7] += pz * wex - px * wez;
  acc[8] += px * wey - py * wex;
  acc[9] += wex;
  acc[10] += wey;
  acc[11] += wez;
  const Vf wpx = w * px, wpy = w * py, wpz = w * pz;
  acc[12] += w;
  acc[13] += wpx;
  acc[14] += wpy;
  acc[15] += wpz;
  acc[16] += wpx * px;
  acc[17] += wpx * py;
  acc[18] += wpx * pz;
  acc[19] += wpy * py;
  acc[20] += wpy * pz;
  acc[21] += wpz * pz;
  if (kModel == kPoint) return;
  const Vf mx = py * r.uz - pz * r.uy, my = pz * r.ux - px * r.uz, mz = px * r.uy - py * r.ux;
  const Vf wmx = w * mx, wmy = w * my, wmz = w * mz;
  const Vf wux = w * r.ux, wuy = w * r.uy, wuz = w * r.uz;
  acc[22] += wux * r.ux;
  acc[23] += wux * r.uy;
  acc[24] += wux * r.uz;
  acc[25] += wuy * r.uy;
  acc[26] += wuy * r.uz;
  acc[27] += wuz * r.uz;
  acc[28] += wmx * mx;
  acc[29] += wmx * my;
  acc[30] += wmx * mz;
  acc[31] += wmy * my;
  acc[32] += wmy * mz;
  acc[33] += wmz * mz;
  acc[34] += wmx * r.ux;
  acc[35] += wmy * r.ux;
  acc[36] += wmz * r.ux;
  acc[37] += wmx * r.uy;
  acc[38] += wmy * r.uy;
  acc[39] += wmz * r.uy;
  acc[40] += wmx * r.uz;
  acc[41] += wmy * r.uz;
  acc[42] += wmz * r.uz;
}

template <int kModel, bool kMiddle>
void normal(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, const MixturePlanes& mix,
            double sums[kNormalSums]) {
  constexpr int kSums = kModel == kPoint ? 22 : kModel == kPixel ? 33 : kNormalSums;
  for (int i = 0; i < kNormalSums; ++i) sums[i] = 0;
  for (int begin = 0; begin < count; begin += kBlock) {
    const int end = begin + kBlock < count ? begin + kBlock : count;
    Vf acc[kSums] = {};
    for (int k = begin; k < end; k += DSAC_LANES) {
      const Residual r = residual<kModel>(s, q, m, k);
      const Vf zero = {};
      const Vf precision = load(s.precision + k);
      const Vf square = precision * (r.ex * r.ex + r.ey * r.ey + r.ez * r.ez);
      const Shares share = shares<kMiddle>(square, mix);
      const Vf inlier = select(r.valid, share.inlier, zero), middle = select(r.valid, share.middle, zero);
      Vf weight = mix.outlier_weight + inlier * mix.inlier_weight;
      if (kMiddle) weight += middle * mix.middle_weight;
      const Vf w = select(r.valid, precision * weight, zero);
      acc[0] += inlier;
      acc[1] += inlier * square;
      if (kMiddle) acc[2] += middle;
      if (kMiddle) acc[3] += middle * square;
      acc[4] += select(r.valid, zero + 1.0f, zero);
      acc[5] += select(r.valid, vmin(square, zero + mix.square_clamp), zero);
      if (kModel == kPixel)
        add_pixel_rows(r, w, acc);
      else
        add_metric_rows<kModel>(r, w, acc);
    }
    for (int i = 0; i < kSums; ++i) sums[i] += total(acc[i]);
  }
}

// What the covariance is made of, per cell: weight (1 for an inlier of precision 1), residual and camera point. The
// residual of kRay is taken in the cross section at the point's depth.
template <int kModel, bool kMiddle>
void fields(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, const MixturePlanes& mix, FieldPlanes out) {
  for (int k = 0; k < count; k += DSAC_LANES) {
    const Residual r = residual<kModel>(s, q, m, k);
    const Vf zero = {};
    const Vf precision = load(s.precision + k);
    const Shares share = shares<kMiddle>(precision * (r.ex * r.ex + r.ey * r.ey + r.ez * r.ez), mix);
    Vf weight = share.inlier * mix.inlier_weight;
    if (kMiddle) weight += share.middle * mix.middle_weight;
    store(out.w + k, select(r.valid, precision * weight * (1.0f / mix.inlier_weight), zero));
    store(out.ex + k, kModel == kRay ? r.p.x - load(s.a + k) * r.p.z : r.ex);
    store(out.ey + k, kModel == kRay ? r.p.y - load(s.b + k) * r.p.z : r.ey);
    store(out.ez + k, r.ez);
    store(out.px + k, r.p.x);
    store(out.py + k, r.p.y);
    store(out.pz + k, r.p.z);
  }
}

static const KernelTable kTable = {
    {score<kRay>, score<kPixel>, score<kPoint>},
    {rank<kRay>, rank<kPixel>, rank<kPoint>},
    {errors<kRay>, errors<kPixel>, errors<kPoint>},
    {error_squares<kRay>, error_squares<kPixel>, error_squares<kPoint>},
    {residual_squares<kRay>, residual_squares<kPixel>, residual_squares<kPoint>},
    {{normal<kRay, false>, normal<kRay, true>}, {normal<kPixel, false>, normal<kPixel, true>},
     {normal<kPoint, false>, normal<kPoint, true>}},
    {mixture_kernel<false>, mixture_kernel<true>},
    {{fields<kRay, false>, fields<kRay, true>}, {fields<kPixel, false>, fields<kPixel, true>},
     {fields<kPoint, false>, fields<kPoint, true>}},
};

#undef DSAC_INLINE
