// Matrices in ROWS: every output is a dot product along the inputs.

// Weights of one float type.
struct F32 {
  static constexpr int kBytes = 4;
  static vf at(const uint8_t *p) { return load_as<vf>(p); }
};
struct BF16 {
  static constexpr int kBytes = 2;
  static vf at(const uint8_t *p) { return load_bf16(p); }
};
struct F16 {
  static constexpr int kBytes = 2;
  static vf at(const uint8_t *p) { return load_f16(p); }
};

// R outputs of T rows. Every pair has one accumulator over all inputs, so that a pair's sum does not
// depend on R and T.
template <typename W, int R, int T>
inline void dot_tile(const uint8_t *w, int64_t w_stride, const float *x, int64_t cols, vf *sums) {
  // Several outputs' weights are read side by side, which the hardware sees as so many short streams.
  // So the next outputs' weights are fetched here, in the order of their addresses.
  constexpr int kStep = R * kLanes * W::kBytes;
  const uint8_t *next = w + R * w_stride;
  vf acc[R][T] = {};
  for (int64_t k = 0; k < cols; k += kLanes) {
    if (T <= 2) {
      RWKV_UNROLL
      for (int line = 0; line < kStep; line += 64) __builtin_prefetch(next + line, 0, 2);
      next += kStep;
    }
    vf input[T];
    RWKV_UNROLL
    for (int t = 0; t < T; t++) input[t] = load(x + t * cols + k);
    RWKV_UNROLL
    for (int r = 0; r < R; r++) {
      const vf weight = W::at(w + r * w_stride + k * W::kBytes);
      RWKV_UNROLL
      for (int t = 0; t < T; t++) acc[r][t] = fma(weight, input[t], acc[r][t]);
    }
  }
  RWKV_UNROLL
  for (int r = 0; r < R; r++) {
    RWKV_UNROLL
    for (int t = 0; t < T; t++) sums[t * kBlockRows + r] = acc[r][t];
  }
}

// Up to 16 outputs of T rows.
template <typename W, int T>
inline void dot_block(const uint8_t *w, int64_t w_stride, int64_t count, const float *x, int64_t cols,
                      float *out, int64_t out_stride) {
  constexpr int R = T == 1 ? (kLanes == 16 ? 8 : 4) : (kLanes == 16 ? 4 : 2);
  vf sums[T * kBlockRows] = {};
  int64_t r = 0;
  for (; r + R <= count; r += R) dot_tile<W, R, T>(w + r * w_stride, w_stride, x, cols, sums + r);
  for (; r < count; r++) dot_tile<W, 1, T>(w + r * w_stride, w_stride, x, cols, sums + r);
  RWKV_UNROLL
  for (int t = 0; t < T; t++) {
    float results[kBlockRows];
    for (int i = 0; i < kBlockRows; i += kLanes) store(results + i, sum_each(sums + t * kBlockRows + i));
    memcpy(out + t * out_stride, results, count * sizeof(float));
  }
}

template <typename W>
static void dot_float(const Matrix &m, const Activation &in, int64_t begin, int64_t end, int64_t rows,
                      float *out, int64_t out_stride) {
  constexpr int T = kLanes == 16 ? 6 : 4;
  constexpr int64_t kResident = 8 * T;  // rows of inputs that stay in the second-level cache
  const int64_t stride = m.cols * W::kBytes;
  for (int64_t base = 0; base < rows; base += kResident) {
    const int64_t stop = std::min(rows, base + kResident);
    for (int64_t o = begin; o < end; o += kBlockRows) {
      const int64_t count = std::min(kBlockRows, end - o);
      const uint8_t *w = m.data + o * stride;
      int64_t t = base;
      for (; t + T <= stop; t += T)
        dot_block<W, T>(w, stride, count, in.row(t), m.cols, out + t * out_stride + o, out_stride);
      for (; t + 2 <= stop; t += 2)
        dot_block<W, 2>(w, stride, count, in.row(t), m.cols, out + t * out_stride + o, out_stride);
      for (; t < stop; t++)
        dot_block<W, 1>(w, stride, count, in.row(t), m.cols, out + t * out_stride + o, out_stride);
    }
  }
}

// Products of 16 outputs' codes with four inputs' codes, summed into 16 sums of 32 bits. The weights'
// codes are bytes + 128, the inputs' signed and of 16 bits: rounding inputs to 8 bits would cost more
// than rounding the weights does. 32 products stay below 2^29.
constexpr int kParts = 16 / kLanes;  // vectors of a block's 16 outputs

// Four bytes of each output as two pairs of 16 bits: columns 0 and 2, columns 1 and 3.
struct Pairs {
  vi even, odd;
};
typedef uint16_t vh __attribute__((vector_size(kLanes * 4)));
inline Pairs in_pairs(vb codes) { return {(vi)((vh)codes & 255), (vi)((vh)codes >> 8)}; }

// acc + products of pairs; `inputs` are two codes.
inline vi dot2(vi acc, vi weights, int32_t inputs) {
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)weights, _mm512_set1_epi32(inputs));
#elif defined(__AVX512BW__)
  return acc + (vi)_mm512_madd_epi16((__m512i)weights, _mm512_set1_epi32(inputs));
#elif defined(__AVX2__)
  return acc + (vi)_mm256_madd_epi16((__m256i)weights, _mm256_set1_epi32(inputs));
#elif defined(__aarch64__)
  const int16x8_t w = (int16x8_t)weights, x = vreinterpretq_s16_s32(vdupq_n_s32(inputs));
  return acc + (vi)vpaddq_s32(vmull_s16(vget_low_s16(w), vget_low_s16(x)), vmull_high_s16(w, x));
#else
  const int32_t first = (int16_t)inputs, second = inputs >> 16;
  return acc + (weights & 0xffff) * first + ((weights >> 16) & 0xffff) * second;
#endif
}

// The four codes of an input row, stored as columns 0, 2, 1, 3.
inline vi dot4(vi acc, Pairs weights, const int16_t *inputs) {
  acc = dot2(acc, weights.even, load_as<int32_t>(inputs));
  return dot2(acc, weights.odd, load_as<int32_t>(inputs + 2));
}

// Codes of q4 to bytes + 128: a table look-up in every byte.
inline vb look_up(vb nibbles) {
  alignas(16) static constexpr uint8_t kTable[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                     129, 141, 153, 166, 181, 197, 217, 241};
#if defined(__AVX512BW__)
  const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)kTable));
  return (vb)_mm512_shuffle_epi8(table, (__m512i)nibbles);
#elif defined(__AVX2__)
  const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)kTable));
  return (vb)_mm256_shuffle_epi8(table, (__m256i)nibbles);
#elif defined(__aarch64__)
  return (vb)vqtbl1q_u8(vld1q_u8(kTable), (uint8x16_t)nibbles);
#else
  for (int i = 0; i < 4 * kLanes; i++) nibbles[i] = kTable[nibbles[i]];
  return nibbles;
#endif
}

// Weights of one quantized type.
struct Q8 {
  static constexpr int64_t kBytes = kQ8Block;
  // Adds group g (0 or 1) of a block's 16 outputs: T of the W rows of a tile, `codes` at the first of
  // them in the group's first column.
  template <int T, int W>
  static void add(const uint8_t *block, int g, const int16_t *codes, vi (&acc)[T][kParts]) {
    RWKV_UNROLL
    for (int q = 0; q < 8; q++) {
      RWKV_UNROLL
      for (int p = 0; p < kParts; p++) {
        const Pairs w = in_pairs(load_as<vb>(block + 64 + (g * 8 + q) * 64 + p * 4 * kLanes));
        RWKV_UNROLL
        for (int t = 0; t < T; t++) acc[t][p] = dot4(acc[t][p], w, codes + 4 * (q * W + t));
      }
    }
  }
};
struct Q4 {
  static constexpr int64_t kBytes = kQ4Block;
  template <int T, int W>
  static void add(const uint8_t *block, int g, const int16_t *codes, vi (&acc)[T][kParts]) {
    RWKV_UNROLL
    for (int q = 0; q < 4; q++) {
      RWKV_UNROLL
      for (int p = 0; p < kParts; p++) {
        const vb both = load_as<vb>(block + 64 + (g * 4 + q) * 64 + p * 4 * kLanes);
        const Pairs low = in_pairs(look_up(both & 15)), high = in_pairs(look_up(both >> 4));
        RWKV_UNROLL
        for (int t = 0; t < T; t++) {
          acc[t][p] = dot4(acc[t][p], low, codes + 4 * (q * W + t));
          acc[t][p] = dot4(acc[t][p], high, codes + 4 * ((q + 4) * W + t));
        }
      }
    }
  }
};

// 16 outputs of T rows, which are the tile's from `row` on.
template <typename M, int T, int W>
inline void dot_quantized_block(const uint8_t *w, const Activation &in, int64_t begin, int64_t row, float *out,
                                int64_t out_stride, int64_t count) {
  constexpr int64_t kAhead = 4 * M::kBytes;  // what the hardware does not fetch early enough by itself
  vf sums[T][kParts] = {};
  const int16_t *codes = in.codes + begin * in.code_stride + 4 * row;
  const float *scales = in.scales + begin * in.groups + row;
  const int32_t *offsets = in.offsets + begin * in.groups + row;
  for (int64_t group = 0; group < in.groups; w += M::kBytes) {
    if (T == 1)
      for (int64_t line = 0; line < M::kBytes; line += 64) __builtin_prefetch(w + kAhead + line);
    for (int g = 0; g < 2; g++, group++, codes += kGroup * W, scales += W, offsets += W) {
      vi acc[T][kParts];
      RWKV_UNROLL
      for (int t = 0; t < T; t++) {
        RWKV_UNROLL
        for (int p = 0; p < kParts; p++) acc[t][p] = set(offsets[t]);
      }
      M::template add<T, W>(w, g, codes, acc);
      RWKV_UNROLL
      for (int p = 0; p < kParts; p++) {
        const vf scale = load_f16(w + g * 32 + p * 2 * kLanes);
        RWKV_UNROLL
        for (int t = 0; t < T; t++) sums[t][p] = fma(to_float(acc[t][p]), scale * set(scales[t]), sums[t][p]);
      }
    }
  }
  RWKV_UNROLL
  for (int t = 0; t < T; t++) {
    float results[kBlockRows];
    RWKV_UNROLL
    for (int p = 0; p < kParts; p++) store(results + p * kLanes, sums[t][p]);
    memcpy(out + (row + t) * out_stride, results, count * sizeof(float));
  }
}

// One tile of W rows, as many at a time as there are registers for.
template <typename M, int W>
static void dot_quantized_tile(const Matrix &m, const Activation &in, int64_t begin, int64_t end, int64_t tile,
                               float *out, int64_t out_stride) {
  constexpr int T = kLanes == 16 || W <= 2 ? W : W == 12 ? 3 : 2;
  const int64_t stride = in.groups / 2 * M::kBytes;
  for (int64_t o = begin; o < end; o += kBlockRows)
    for (int64_t row = 0; row < W; row += T)
      dot_quantized_block<M, T, W>(m.data + o / kBlockRows * stride, in, tile, row, out + tile * out_stride + o,
                                   out_stride, std::min(kBlockRows, end - o));
}

template <typename M>
static void dot_quantized(const Matrix &m, const Activation &in, int64_t begin, int64_t end, int64_t rows,
                          float *out, int64_t out_stride) {
  for (int64_t row = 0; row < rows;) {
    const Tile tile = tile_of(row, rows);
    switch (tile.width) {
      case 12: dot_quantized_tile<M, 12>(m, in, begin, end, row, out, out_stride); break;
      case 8: dot_quantized_tile<M, 8>(m, in, begin, end, row, out, out_stride); break;
      case 4: dot_quantized_tile<M, 4>(m, in, begin, end, row, out, out_stride); break;
      case 2: dot_quantized_tile<M, 2>(m, in, begin, end, row, out, out_stride); break;
      default: dot_quantized_tile<M, 1>(m, in, begin, end, row, out, out_stride); break;
    }
    row += tile.width;
  }
}

static void dot(const Matrix &m, const Activation &in, int64_t begin, int64_t end, int64_t rows, float *out,
                int64_t out_stride) {
  switch (m.type) {
    case RWKV_F32: return dot_float<F32>(m, in, begin, end, rows, out, out_stride);
    case RWKV_BF16: return dot_float<BF16>(m, in, begin, end, rows, out, out_stride);
    case RWKV_F16: return dot_float<F16>(m, in, begin, end, rows, out, out_stride);
    case RWKV_Q8: return dot_quantized<Q8>(m, in, begin, end, rows, out, out_stride);
    default: return dot_quantized<Q4>(m, in, begin, end, rows, out, out_stride);
  }
}
