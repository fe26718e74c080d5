// Vectors of the widest kind that the compiler's flags allow, and what differs between processors.
// Included only by the files k_*.cpp, each inside its own namespace.

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Loops over accumulators must vanish early, or the compiler keeps these in memory as well.
#if defined(__clang__)
#define RWKV_UNROLL _Pragma("unroll")
#else
#define RWKV_UNROLL _Pragma("GCC unroll 16")
#endif

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef int32_t vi __attribute__((vector_size(kLanes * 4)));
typedef uint8_t vb __attribute__((vector_size(kLanes * 4)));

template <typename V>
inline V load_as(const void *p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline vf load(const float *p) { return load_as<vf>(p); }
inline void store(float *p, vf v) { memcpy(p, &v, sizeof v); }
inline vf set(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX2__)
  return _mm256_set1_ps(x);
#else
  return vf{x, x, x, x};
#endif
}
inline vi set(int32_t x) { return vi{} + x; }
inline vf select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

// a * b + c. Spelled out, so that all uses round alike.
inline vf fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

inline vf to_float(vi v) { return __builtin_convertvector(v, vf); }

inline vf round_nearest(vf x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, 0);
#elif defined(__AVX2__)
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__aarch64__)
  return (vf)vrndnq_f32((float32x4_t)x);
#else
  const vf shift = set(12582912.0f);  // 1.5 * 2^23: adding it leaves no bits for a fraction
  return (x + shift) - shift;
#endif
}

inline vi to_int(vf x) { return __builtin_convertvector(x, vi); }

inline vf max(vf a, vf b) { return select(a > b, a, b); }
inline vf min(vf a, vf b) { return select(a < b, a, b); }
inline vf abs(vf a) { return (vf)((vi)a & 0x7fffffff); }

// kLanes elements of a narrower type.
inline vf load_bf16(const void *p) {
#if defined(__AVX512F__)
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_as<__m256i>(p)), 16);
#elif defined(__AVX2__)
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_as<__m128i>(p)), 16);
#elif defined(__aarch64__)
  return (vf)vshll_n_u16(load_as<uint16x4_t>(p), 16);
#else
  uint16_t h[kLanes];
  memcpy(h, p, sizeof h);
  vi v{};
  for (int i = 0; i < kLanes; i++) v[i] = (int32_t)((uint32_t)h[i] << 16);
  return (vf)v;
#endif
}

inline vf load_f16(const void *p) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(load_as<__m256i>(p));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(load_as<__m128i>(p));
#elif defined(__aarch64__)
  return (vf)vcvt_f32_f16(load_as<float16x4_t>(p));
#else
  uint16_t h[kLanes];
  memcpy(h, p, sizeof h);
  vf v{};
  for (int i = 0; i < kLanes; i++) v[i] = from_f16(h[i]);
  return v;
#endif
}

inline vf load_i8(const void *p) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_as<__m128i>(p)));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
  int8_t b[kLanes];
  memcpy(b, p, sizeof b);
  vi v{};
  for (int i = 0; i < kLanes; i++) v[i] = b[i];
  return to_float(v);
#endif
}

// Sums of kLanes vectors, the sum of the first in the first lane, always added up in the same order.
#define RWKV_FOLD(a, b, lo, hi) __builtin_shufflevector(a, b, lo) + __builtin_shufflevector(a, b, hi)
inline vf sum_each(const vf *a) {
  vf b[kLanes];
  for (int i = 0; i < kLanes; i++) b[i] = a[i];
#if defined(__AVX512F__)
#define RWKV_LO8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define RWKV_HI8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define RWKV_LO4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define RWKV_HI4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define RWKV_LO2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define RWKV_HI2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define RWKV_LO1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define RWKV_HI1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
  for (int i = 0; i < 8; i++) b[i] = RWKV_FOLD(b[i], b[i + 8], RWKV_LO8, RWKV_HI8);
#elif defined(__AVX2__)
#define RWKV_LO4 0, 1, 2, 3, 8, 9, 10, 11
#define RWKV_HI4 4, 5, 6, 7, 12, 13, 14, 15
#define RWKV_LO2 0, 1, 8, 9, 4, 5, 12, 13
#define RWKV_HI2 2, 3, 10, 11, 6, 7, 14, 15
#define RWKV_LO1 0, 8, 2, 10, 4, 12, 6, 14
#define RWKV_HI1 1, 9, 3, 11, 5, 13, 7, 15
#else
#define RWKV_LO2 0, 1, 4, 5
#define RWKV_HI2 2, 3, 6, 7
#define RWKV_LO1 0, 4, 2, 6
#define RWKV_HI1 1, 5, 3, 7
#endif
#if defined(RWKV_LO4)
  for (int i = 0; i < 4; i++) b[i] = RWKV_FOLD(b[i], b[i + 4], RWKV_LO4, RWKV_HI4);
#endif
  for (int i = 0; i < 2; i++) b[i] = RWKV_FOLD(b[i], b[i + 2], RWKV_LO2, RWKV_HI2);
  return RWKV_FOLD(b[0], b[1], RWKV_LO1, RWKV_HI1);
}

// The sum of a vector's lanes.
inline float sum(vf a) {
  float lanes[kLanes];
  store(lanes, a);
  for (int width = kLanes / 2; width; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  return lanes[0];
}
inline float largest(vf a) {
  float lanes[kLanes];
  store(lanes, a);
  for (int i = 1; i < kLanes; i++) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
  return lanes[0];
}

// e^x, within two units in the last place; 0 below -87.3, at most 2^127 above 88.
inline vf exp(vf x) {
  const vi vanishes = x < set(-87.33f);
  x = max(min(x, set(88.02f)), set(-87.33f));
  const vf n = round_nearest(x * set(1.44269504f));
  vf r = fma(n, set(-0.693359375f), x);  // ln 2 in two parts: the first has few bits, so n * it is exact
  r = fma(n, set(2.12194440e-4f), r);
  vf p = set(1.9875691500e-4f);  // Cephes expf
  p = fma(p, r, set(1.3981999507e-3f));
  p = fma(p, r, set(8.3334519073e-3f));
  p = fma(p, r, set(4.1665795894e-2f));
  p = fma(p, r, set(1.6666665459e-1f));
  p = fma(p, r, set(5.0000001201e-1f));
  p = fma(p, r * r, r) + set(1.0f);
  const vf scale = (vf)((to_int(n) + 127) << 23);
  return select(vanishes, vf{}, p * scale);
}

inline vf sigmoid(vf x) { return set(1.0f) / (set(1.0f) + exp(-x)); }

// Near zero 1 - 2 / (e^2x + 1) would cancel, so an odd polynomial takes over (Cephes tanhf).
inline vf tanh(vf x) {
  const vf y = abs(x), z = x * x;
  vf p = set(-5.70498872745e-3f);
  p = fma(p, z, set(2.06390887954e-2f));
  p = fma(p, z, set(-5.37397155531e-2f));
  p = fma(p, z, set(1.33314422036e-1f));
  p = fma(p, z, set(-3.33332819422e-1f));
  const vf near = fma(p * z, x, x);
  const vf far = set(1.0f) - set(2.0f) / (exp(y + y) + set(1.0f));
  const vf signed_far = select(x < vf{}, -far, far);
  return select(y < set(0.625f), near, signed_far);
}
