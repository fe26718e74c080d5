// What is done to a row between the matrices: norms, mixing with the token before, activations.
// Lengths that are no multiple of the vector are finished number by number.

// Applies `f` to vectors of the inputs at i, i + kLanes, ... and stores the result; the last ones are
// copied to a whole vector first, so that every number sees the same arithmetic.
template <typename F, typename... In>
inline void each(int64_t n, float *out, F f, const In *...in) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, f(load(in + i)...));
  if (i < n) {
    auto rest = [&](const float *p) {
      float lanes[kLanes] = {};
      memcpy(lanes, p + i, (n - i) * sizeof(float));
      return load(lanes);
    };
    float lanes[kLanes];
    store(lanes, f(rest(in)...));
    memcpy(out + i, lanes, (n - i) * sizeof(float));
  }
}

// Sum of f(x) over a row.
template <typename F>
inline float total(const float *x, int64_t n, F f) {
  vf a{}, b{};
  const int64_t whole = n - n % (2 * kLanes);
  for (int64_t i = 0; i < whole; i += 2 * kLanes) {
    a += f(load(x + i));
    b += f(load(x + i + kLanes));
  }
  float rest = 0;
  for (int64_t i = whole; i < n; i++) rest += f(set(x[i]))[0];
  return sum(a + b) + rest;
}

// x scaled to mean 0 and variance 1, in two passes over the row: one would cancel for large means.
static void normalize(const float *x, const float *weight, const float *bias, float *out, int64_t n,
                      float eps) {
  const float count = static_cast<float>(n);
  const float mean = total(x, n, [](vf v) { return v; }) / count;
  const float variance = total(x, n, [mean](vf v) { return (v - mean) * (v - mean); }) / count;
  const vf scale = set(1.0f / std::sqrt(variance + eps)), center = set(mean);
  each(n, out, [=](vf v, vf w, vf b) { return fma((v - center) * scale, w, b); }, x, weight, bias);
}

static void layer_norm(const float *x, const float *weight, const float *bias, float *out, int64_t n) {
  normalize(x, weight, bias, out, n, 1e-5f);
}

static void lerp(const float *x, const float *previous, const float *mix, float *out, int64_t n) {
  each(n, out, [](vf v, vf p, vf m) { return fma(p - v, m, v); }, x, previous, mix);
}

static void lerp_more(const float *x, const float *previous, const float *mix, const float *more,
                      float *out, int64_t n) {
  each(n, out, [](vf v, vf p, vf m, vf o) { return fma(p - v, m + o, v); }, x, previous, mix, more);
}

static void add(float *x, const float *y, int64_t n) {
  each(n, x, [](vf a, vf b) { return a + b; }, x, y);
}

static void multiply(float *x, const float *y, int64_t n) {
  each(n, x, [](vf a, vf b) { return a * b; }, x, y);
}

static void activate(Activate kind, float *x, int64_t n) {
  switch (kind) {
    case Activate::kNone: return;
    case Activate::kSigmoid: return each(n, x, [](vf v) { return sigmoid(v); }, x);
    case Activate::kTanh: return each(n, x, [](vf v) { return tanh(v); }, x);
    case Activate::kSilu: return each(n, x, [](vf v) { return v * sigmoid(v); }, x);
    case Activate::kSquaredRelu:
      return each(n, x, [](vf v) { v = max(v, vf{}); return v * v; }, x);
  }
}

static void quantize(const float *x, int64_t n, int64_t width, int16_t *codes, float *scales,
                     int32_t *offsets) {
  for (int64_t g = 0; g < n / kGroup; g++, x += kGroup, codes += kGroup * width) {
    int16_t plain[kGroup];
    vf top = abs(load(x));
    for (int i = kLanes; i < kGroup; i += kLanes) top = max(top, abs(load(x + i)));
    const float peak = largest(top);
    // The smallest scales would have an infinite inverse; so small a group is nothing beside others.
    const float inverse = peak > 1e-30f ? 32767.0f / peak : 0.0f;
    scales[g * width] = peak / 32767.0f;
    vi all{};
    for (int i = 0; i < kGroup; i += kLanes) {
      const vi code = to_int(round_nearest(load(x + i) * inverse));
      all += code;
      int32_t lanes[kLanes];
      memcpy(lanes, &code, sizeof lanes);
      for (int j = 0; j < kLanes; j++) plain[i + j] = (int16_t)lanes[j];
    }
    for (int64_t i = 0; i < kGroup; i += 4) {
      const int16_t pairs[4] = {plain[i], plain[i + 2], plain[i + 1], plain[i + 3]};
      memcpy(codes + i * width, pairs, sizeof pairs);
    }
    int32_t lanes[kLanes], whole = 0;
    memcpy(lanes, &all, sizeof lanes);
    for (int j = 0; j < kLanes; j++) whole += lanes[j];
    offsets[g * width] = -128 * whole;
  }
}

static void widen(int32_t type, const void *source, float *out, int64_t n) {
  const uint8_t *p = static_cast<const uint8_t *>(source);
  int64_t i = 0;
  if (type == RWKV_F32) {
    memcpy(out, p, n * sizeof(float));
    return;
  }
  for (; i + kLanes <= n; i += kLanes)
    store(out + i, type == RWKV_BF16 ? load_bf16(p + 2 * i) : load_f16(p + 2 * i));
  for (; i < n; i++) {
    uint16_t h;
    memcpy(&h, p + 2 * i, 2);
    out[i] = type == RWKV_BF16 ? from_bf16(h) : from_f16(h);
  }
}

static void collect(const float *x, int64_t row, const Nonzeros &out) {
  int32_t *index = out.index + row * out.stride, *start = out.start + row * (out.tiles + 1);
  float *value = out.value + row * out.stride;
  int32_t count = 0;
  for (int64_t tile = 0; tile < out.tiles; tile++) {
    start[tile] = count;
    const int64_t end = std::min(out.cols, (tile + 1) * kInputTile);
    int64_t i = tile * kInputTile;
#if defined(__AVX512F__)
    for (; i + 16 <= end; i += 16) {
      const __m512 v = load(x + i);
      const __mmask16 some = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
      const __m512i at = _mm512_add_epi32(
          _mm512_set1_epi32((int32_t)i),
          _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
      // Compressing in a register and storing it whole: a masked compressing store is far slower. The
      // lists have a vector of room behind them.
      _mm512_storeu_ps(value + count, _mm512_maskz_compress_ps(some, v));
      _mm512_storeu_si512(index + count, _mm512_maskz_compress_epi32(some, at));
      count += __builtin_popcount(some);
    }
#endif
    for (; i < end; i++) {
      value[count] = x[i];
      index[count] = (int32_t)i;
      count += x[i] != 0;
    }
  }
  start[out.tiles] = count;
}
