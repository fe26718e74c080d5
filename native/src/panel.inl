// Matrices in PANELS: an input adds its weights to all outputs. Inputs are added in ascending order,
// each by one multiply-add, so that skipping those that are zero changes nothing.

// Weights of `V` vectors of outputs for one input; `place` counts from the panel's first output.
template <typename W>
struct FloatPanel {
  const uint8_t *data;
  int64_t width;
  FloatPanel(const Matrix &, const uint8_t *panel, int64_t panel_width) : data(panel), width(panel_width) {}

  void prefetch(int64_t input, int64_t place) const {
    const uint8_t *p = data + (input * width + place) * W::kBytes;
    for (int64_t line = 0; line < kPanel * W::kBytes; line += 64) __builtin_prefetch(p + line, 0, 2);
  }
  template <int V>
  void weights(int64_t input, int64_t place, vf (&out)[V]) const {
    const uint8_t *p = data + (input * width + place) * W::kBytes;
    RWKV_UNROLL
    for (int v = 0; v < V; v++) out[v] = W::at(p + v * kLanes * W::kBytes);
  }
};

// Float16 scales of V vectors of outputs, each scale 32 of them.
template <int V>
inline void spread_scales(const uint8_t *p, vf (&out)[V]) {
  constexpr int kEach = kGroup / kLanes, kScales = (V + kEach - 1) / kEach;
#if defined(__AVX512F__)
  int64_t halves = 0;
  memcpy(&halves, p, 2 * kScales);
  const __m512 scales = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi64_si128(halves)));
  RWKV_UNROLL
  for (int v = 0; v < V; v++) out[v] = _mm512_permutexvar_ps(_mm512_set1_epi32(v / kEach), scales);
#else
  uint16_t halves[kScales];
  memcpy(halves, p, sizeof halves);
  RWKV_UNROLL
  for (int v = 0; v < V; v++) {
#if defined(__F16C__)
    out[v] = v % kEach ? out[v - 1] : set(_cvtsh_ss(halves[v / kEach]));
#else
    out[v] = v % kEach ? out[v - 1] : set(from_f16(halves[v / kEach]));
#endif
  }
#endif
}

struct Q8Panel {
  const uint8_t *data, *scales;
  int64_t width;
  Q8Panel(const Matrix &m, const uint8_t *panel, int64_t panel_width)
      : data(panel), scales(panel + m.cols * panel_width), width(panel_width) {}

  void prefetch(int64_t input, int64_t place) const {
    const uint8_t *p = data + input * width + place;
    for (int64_t line = 0; line < kPanel; line += 64) __builtin_prefetch(p + line, 0, 2);
    __builtin_prefetch(scales + (input * width + place) / kGroup * 2, 0, 2);
  }
  template <int V>
  void weights(int64_t input, int64_t place, vf (&out)[V]) const {
    const uint8_t *p = data + input * width + place;
    vf scale[V];
    spread_scales<V>(scales + (input * width + place) / kGroup * 2, scale);
    RWKV_UNROLL
    for (int v = 0; v < V; v++) out[v] = load_i8(p + v * kLanes) * scale[v];
  }
};

struct Q4Panel {
  const uint8_t *data, *scales;
  int64_t width;
  Q4Panel(const Matrix &m, const uint8_t *panel, int64_t panel_width)
      : data(panel), scales(panel + m.cols * panel_width / 2), width(panel_width) {}

  void prefetch(int64_t input, int64_t place) const {
    __builtin_prefetch(data + (input * width + place) / 2, 0, 2);
    __builtin_prefetch(scales + (input * width + place) / kGroup * 2, 0, 2);
  }
  template <int V>
  void weights(int64_t input, int64_t place, vf (&out)[V]) const {
    const uint8_t *p = data + (input * width + place) / 2;
    vf scale[V];
    spread_scales<V>(scales + (input * width + place) / kGroup * 2, scale);
    RWKV_UNROLL
    for (int v = 0; v < V; v++) {
      const int column = v * kLanes % kGroup;
      const uint8_t *at = p + v * kLanes / kGroup * 16 + column % 16;
      out[v] = codebook(at, column >= 16) * scale[v];
    }
  }
  // kLanes codebook values of low or high nibbles.
  static vf codebook(const uint8_t *p, bool high) {
#if defined(__AVX2__)
    const __m128i table = load_as<__m128i>(kCodebook);
    const __m128i both = kLanes == 16 ? load_as<__m128i>(p) : _mm_loadl_epi64((const __m128i *)p);
    const __m128i index = _mm_and_si128(high ? _mm_srli_epi16(both, 4) : both, _mm_set1_epi8(15));
    const __m128i value = _mm_shuffle_epi8(table, index);
#if defined(__AVX512F__)
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(value));
#else
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(value));
#endif
#else
    vf out{};
    for (int i = 0; i < kLanes; i++) out[i] = kCodebook[high ? p[i] >> 4 : p[i] & 15];
    return out;
#endif
  }
};

// Outputs of V vectors for T rows of inputs first .. last.
template <typename P, int T, int V>
inline void panel_tile(const P &panel, int64_t place, int64_t first, int64_t last, const float *x,
                       int64_t x_stride, float *out, int64_t out_stride) {
  vf acc[T][V];
  RWKV_UNROLL
  for (int t = 0; t < T; t++)
    RWKV_UNROLL
    for (int v = 0; v < V; v++) acc[t][v] = load(out + t * out_stride + v * kLanes);
  for (int64_t i = first; i < last; i++) {
    vf w[V];
    panel.template weights<V>(i, place, w);
    RWKV_UNROLL
    for (int t = 0; t < T; t++) {
      const vf input = set(x[t * x_stride + i]);
      RWKV_UNROLL
      for (int v = 0; v < V; v++) acc[t][v] = fma(w[v], input, acc[t][v]);
    }
  }
  RWKV_UNROLL
  for (int t = 0; t < T; t++)
    RWKV_UNROLL
    for (int v = 0; v < V; v++) store(out + t * out_stride + v * kLanes, acc[t][v]);
}

// All rows, outputs place .. place + V vectors.
template <typename P, int V>
inline void panel_rows(const P &panel, int64_t place, int64_t first, int64_t last, const float *x,
                       int64_t x_stride, int64_t rows, float *out, int64_t out_stride) {
  constexpr int T = kLanes == 16 ? (V > 2 ? 6 : 12) : (V > 4 ? 1 : 2);
  int64_t t = 0;
  for (; t + T <= rows; t += T)
    panel_tile<P, T, V>(panel, place, first, last, x + t * x_stride, x_stride, out + t * out_stride, out_stride);
  for (; t < rows; t++)
    panel_tile<P, 1, V>(panel, place, first, last, x + t * x_stride, x_stride, out + t * out_stride, out_stride);
}

// Quantized weights of a stretch of inputs as float32, made once for many rows. A code times its scale has
// at most 19 bits, so it is exact, and these weights give the same sums.
struct ExpandedPanel {
  const float *data;
  int64_t first, place, width;

  void prefetch(int64_t, int64_t) const {}
  template <int V>
  void weights(int64_t input, int64_t at, vf (&out)[V]) const {
    const float *p = data + (input - first) * width + at - place;
    RWKV_UNROLL
    for (int v = 0; v < V; v++) out[v] = load(p + v * kLanes);
  }
};

template <typename P>
inline ExpandedPanel expand(const P &panel, int64_t place, int64_t width, int64_t first, int64_t last) {
  constexpr int kVectors = kGroup / kLanes;
  alignas(64) static thread_local float memory[kInputTile * kPanel];
  for (int64_t i = first; i < last; i++)
    for (int64_t o = 0; o < width; o += kGroup) {
      vf w[kVectors];
      panel.template weights<kVectors>(i, place + o, w);
      for (int v = 0; v < kVectors; v++) store(memory + ((i - first) * width + o + v * kLanes), w[v]);
    }
  return {memory, first, place, width};
}

constexpr int64_t kWorthExpanding = 12;  // rows

template <typename P>
inline void panel_stretch(const P &panel, int64_t begin, int64_t end, int64_t first, int64_t last,
                          const float *x, int64_t x_stride, int64_t rows, float *out, int64_t out_stride) {
  constexpr int kVectors = kGroup / kLanes;  // of one group of outputs
  int64_t o = begin;
  for (; rows == 1 && o + 4 * kGroup <= end; o += 4 * kGroup)
    panel_rows<P, 4 * kVectors>(panel, o % kPanel, first, last, x, x_stride, rows, out + o, out_stride);
  for (; o + 2 * kGroup <= end; o += 2 * kGroup)
    panel_rows<P, 2 * kVectors>(panel, o % kPanel, first, last, x, x_stride, rows, out + o, out_stride);
  for (; o < end; o += kGroup)
    panel_rows<P, kVectors>(panel, o % kPanel, first, last, x, x_stride, rows, out + o, out_stride);
}

template <typename P>
static void panel_typed(const Matrix &m, int64_t begin, int64_t end, int64_t first, int64_t last,
                        const float *x, int64_t x_stride, int64_t rows, float *out, int64_t out_stride) {
  const int64_t whole = round_up(end - begin, kGroup);
  const P panel(m, m.data + begin / kPanel * panel_bytes(m.type, kPanel, m.cols), panel_width(m.rows, begin / kPanel));
  for (int64_t t = 0; t < rows; t++) memset(out + t * out_stride + begin, 0, whole * sizeof(float));
  for (int64_t tile = first; tile < last; tile += kInputTile) {
    const int64_t stop = std::min(last, tile + kInputTile);
    if (rows >= kWorthExpanding && !is_float(m.type)) {
      const ExpandedPanel expanded = expand(panel, begin % kPanel, whole, tile, stop);
      panel_stretch(expanded, begin, end, tile, stop, x, x_stride, rows, out, out_stride);
    } else {
      panel_stretch(panel, begin, end, tile, stop, x, x_stride, rows, out, out_stride);
    }
  }
}

// One row's nonzero inputs of one tile.
template <typename P, int V>
inline void sparse_tile(const P &panel, int64_t place, const int32_t *index, const float *value,
                        int64_t count, float *out) {
  constexpr int64_t kAhead = 16;  // inputs whose weights are on their way from memory
  vf acc[V];
  RWKV_UNROLL
  for (int v = 0; v < V; v++) acc[v] = load(out + v * kLanes);
  for (int64_t n = 0; n < count; n++) {
    if (n + kAhead < count) panel.prefetch(index[n + kAhead], place);
    vf w[V];
    panel.template weights<V>(index[n], place, w);
    const vf input = set(value[n]);
    RWKV_UNROLL
    for (int v = 0; v < V; v++) acc[v] = fma(w[v], input, acc[v]);
  }
  RWKV_UNROLL
  for (int v = 0; v < V; v++) store(out + v * kLanes, acc[v]);
}

template <typename P>
inline void sparse_stretch(const P &panel, int64_t begin, int64_t end, int64_t tile, const Nonzeros &in,
                           int64_t rows, float *out, int64_t out_stride) {
  constexpr int kVectors = kGroup / kLanes;
  for (int64_t t = 0; t < rows; t++) {
    const int32_t *start = in.start + t * (in.tiles + 1) + tile;
    const int32_t *index = in.index + t * in.stride + start[0];
    const float *value = in.value + t * in.stride + start[0];
    const int64_t count = start[1] - start[0];
    float *row = out + t * out_stride;
    int64_t o = begin;
    for (; o + 4 * kGroup <= end; o += 4 * kGroup)
      sparse_tile<P, 4 * kVectors>(panel, o % kPanel, index, value, count, row + o);
    for (; o < end; o += kGroup) sparse_tile<P, kVectors>(panel, o % kPanel, index, value, count, row + o);
  }
}

template <typename P>
static void sparse_typed(const Matrix &m, int64_t begin, int64_t end, const Nonzeros &in, int64_t rows,
                         float *out, int64_t out_stride) {
  const int64_t whole = round_up(end - begin, kGroup);
  const P panel(m, m.data + begin / kPanel * panel_bytes(m.type, kPanel, m.cols), panel_width(m.rows, begin / kPanel));
  for (int64_t t = 0; t < rows; t++) memset(out + t * out_stride + begin, 0, whole * sizeof(float));
  for (int64_t tile = 0; tile < in.tiles; tile++) {
    if (rows >= kWorthExpanding && !is_float(m.type)) {
      const int64_t first = tile * kInputTile, last = std::min(m.cols, first + kInputTile);
      const ExpandedPanel expanded = expand(panel, begin % kPanel, whole, first, last);
      sparse_stretch(expanded, begin, end, tile, in, rows, out, out_stride);
    } else {
      sparse_stretch(panel, begin, end, tile, in, rows, out, out_stride);
    }
  }
}

static void panel(const Matrix &m, int64_t begin, int64_t end, int64_t first, int64_t last, const float *x,
                  int64_t x_stride, int64_t rows, float *out, int64_t out_stride) {
  switch (m.type) {
    case RWKV_F32: return panel_typed<FloatPanel<F32>>(m, begin, end, first, last, x, x_stride, rows, out, out_stride);
    case RWKV_BF16: return panel_typed<FloatPanel<BF16>>(m, begin, end, first, last, x, x_stride, rows, out, out_stride);
    case RWKV_F16: return panel_typed<FloatPanel<F16>>(m, begin, end, first, last, x, x_stride, rows, out, out_stride);
    case RWKV_Q8: return panel_typed<Q8Panel>(m, begin, end, first, last, x, x_stride, rows, out, out_stride);
    default: return panel_typed<Q4Panel>(m, begin, end, first, last, x, x_stride, rows, out, out_stride);
  }
}

static void panel_sparse(const Matrix &m, int64_t begin, int64_t end, const Nonzeros &in, int64_t rows,
                         float *out, int64_t out_stride) {
  switch (m.type) {
    case RWKV_F32: return sparse_typed<FloatPanel<F32>>(m, begin, end, in, rows, out, out_stride);
    case RWKV_BF16: return sparse_typed<FloatPanel<BF16>>(m, begin, end, in, rows, out, out_stride);
    case RWKV_F16: return sparse_typed<FloatPanel<F16>>(m, begin, end, in, rows, out, out_stride);
    case RWKV_Q8: return sparse_typed<Q8Panel>(m, begin, end, in, rows, out, out_stride);
    default: return sparse_typed<Q4Panel>(m, begin, end, in, rows, out, out_stride);
  }
}
