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
template <bool kRgbd>
DSAC_INLINE Vf squared_error(const CellPlanes& s, const PosePlanes& q, const ErrorPlanes& m, int k, Vi* valid) {
  const CameraPoint p = transform(s, q, k);
  const Vf zero = p.x - p.x;
  if (kRgbd) {
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

template <bool kRgbd>
void score(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, double sums[2]) {
  sums[0] = sums[1] = 0;
  for (int begin = 0; begin < count; begin += kBlock) {
    const int end = begin + kBlock < count ? begin + kBlock : count;
    Vf soft = {}, inliers = {};
    for (int k = begin; k < end; k += DSAC_LANES) {
      Vi valid;
      const Vf square = squared_error<kRgbd>(s, q, m, k, &valid);
      const Vf zero = {};
      const Vf ceiling = zero + m.max_error;
      const Vf error = select(valid, vmin(vsqrt(square), ceiling), ceiling);
      const Vf pick = load(s.pick + k);
      soft += pick / (1.0f + vexp(m.beta * (error - m.threshold)));
      inliers += select((error < zero + m.threshold) & (pick > zero), zero + 1.0f, zero);
    }
    sums[0] += total(soft);
    sums[1] += total(inliers);
  }
}

template <bool kRgbd>
double rank(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m) {
  double sum = 0;
  for (int begin = 0; begin < count; begin += kBlock) {
    const int end = begin + kBlock < count ? begin + kBlock : count;
    Vf wide = {};
    for (int k = begin; k < end; k += DSAC_LANES) {
      const CameraPoint p = transform(s, q, k);
      const Vf zero = {};
      const Vf a = load(s.a + k), b = load(s.b + k), pick = load(s.pick + k);
      if (kRgbd) {
        const Vf ex = p.x - a, ey = p.y - b, ez = p.z - load(s.c + k);
        wide += pick / (1.0f + (ex * ex + ey * ey + ez * ez) * m.wide_inverse_square);
      } else {
        // 1 / (1 + (d / z)^2 / wide^2) as z^2 / (z^2 + d^2 / wide^2): one division.
        const Vf dx = s.fx * (p.x - a * p.z), dy = s.fy * (p.y - b * p.z), zz = p.z * p.z;
        const Vf share = pick * zz / (zz + (dx * dx + dy * dy) * m.wide_inverse_square);
        wide += select(p.z > zero + m.min_depth, share, zero);
      }
    }
    sum += total(wide);
  }
  return sum;
}

template <bool kRgbd>
void errors(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, float* out) {
  for (int k = 0; k < count; k += DSAC_LANES) {
    Vi valid;
    const Vf square = squared_error<kRgbd>(s, q, m, k, &valid);
    const Vf ceiling = square - square + m.max_error;
    store(out + k, select(valid, vmin(vsqrt(square), ceiling), ceiling));
  }
}

struct Residual {
  CameraPoint p;      // camera point
  Vf ux, uy, uz;      // unit ray (RGB)
  Vf ex, ey, ez;      // residual, metres
  Vi valid;
};

template <bool kRgbd>
DSAC_INLINE Residual residual(const CellPlanes& s, const PosePlanes& q, const ErrorPlanes& m, int k) {
  Residual r;
  r.p = transform(s, q, k);
  const Vf a = load(s.a + k), b = load(s.b + k), c = load(s.c + k);
  const Vf zero = a - a;
  if (kRgbd) {
    r.ux = r.uy = r.uz = zero;
    r.ex = r.p.x - a, r.ey = r.p.y - b, r.ez = r.p.z - c;
    r.valid = zero == zero;
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

template <bool kRgbd>
void residual_squares(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, float* out) {
  for (int k = 0; k < count; k += DSAC_LANES) {
    const Residual r = residual<kRgbd>(s, q, m, k);
    const Vf square = load(s.precision + k) * (r.ex * r.ex + r.ey * r.ey + r.ez * r.ez);
    store(out + k, select(r.valid, square, square - square + kInfinity));
  }
}

template <bool kRgbd>
void normal(const CellPlanes& s, int count, const PosePlanes& q, const ErrorPlanes& m, const MixturePlanes& mix,
            double sums[kNormalSums]) {
  for (int i = 0; i < kNormalSums; ++i) sums[i] = 0;
  for (int begin = 0; begin < count; begin += kBlock) {
    const int end = begin + kBlock < count ? begin + kBlock : count;
    Vf acc[kNormalSums] = {};
    for (int k = begin; k < end; k += DSAC_LANES) {
      const Residual r = residual<kRgbd>(s, q, m, k);
      const Vf zero = {};
      const Vf precision = load(s.precision + k);
      const Vf square = precision * (r.ex * r.ex + r.ey * r.ey + r.ez * r.ez);
      const Vf odds = vexp(mix.log_odds - mix.half_precision_gap * square);
      const Vf inlier = select(r.valid, odds / (1.0f + odds), zero);
      const Vf w = select(r.valid, precision * (mix.outlier_weight + inlier * mix.weight_gap), zero);

      acc[0] += inlier;
      acc[1] += inlier * square;
      acc[2] += select(r.valid, zero + 1.0f, zero);
      acc[3] += select(r.valid, vmin(square, zero + mix.square_clamp), zero);
      const Vf px = r.p.x, py = r.p.y, pz = r.p.z;
      const Vf wex = w * r.ex, wey = w * r.ey, wez = w * r.ez;
      acc[4] += py * wez - pz * wey;
      acc[5] += pz * wex - px * wez;
      acc[6] += px * wey - py * wex;
      acc[7] += wex;
      acc[8] += wey;
      acc[9] += wez;
      const Vf wpx = w * px, wpy = w * py, wpz = w * pz;
      acc[10] += w;
      acc[11] += wpx;
      acc[12] += wpy;
      acc[13] += wpz;
      acc[14] += wpx * px;
      acc[15] += wpx * py;
      acc[16] += wpx * pz;
      acc[17] += wpy * py;
      acc[18] += wpy * pz;
      acc[19] += wpz * pz;
      if (!kRgbd) {
        const Vf mx = py * r.uz - pz * r.uy, my = pz * r.ux - px * r.uz, mz = px * r.uy - py * r.ux;
        const Vf wmx = w * mx, wmy = w * my, wmz = w * mz;
        const Vf wux = w * r.ux, wuy = w * r.uy, wuz = w * r.uz;
        acc[20] += wux * r.ux;
        acc[21] += wux * r.uy;
        acc[22] += wux * r.uz;
        acc[23] += wuy * r.uy;
        acc[24] += wuy * r.uz;
        acc[25] += wuz * r.uz;
        acc[26] += wmx * mx;
        acc[27] += wmx * my;
        acc[28] += wmx * mz;
        acc[29] += wmy * my;
        acc[30] += wmy * mz;
        acc[31] += wmz * mz;
        acc[32] += wmx * r.ux;
        acc[33] += wmy * r.ux;
        acc[34] += wmz * r.ux;
        acc[35] += wmx * r.uy;
        acc[36] += wmy * r.uy;
        acc[37] += wmz * r.uy;
        acc[38] += wmx * r.uz;
        acc[39] += wmy * r.uz;
        acc[40] += wmz * r.uz;
      }
    }
    for (int i = 0; i < (kRgbd ? 20 : kNormalSums); ++i) sums[i] += total(acc[i]);
  }
}

static const KernelTable kTable = {
    {score<false>, score<true>},
    {rank<false>, rank<true>},
    {errors<false>, errors<true>},
    {residual_squares<false>, residual_squares<true>},
    {normal<false>, normal<true>},
};

#undef DSAC_INLINE
