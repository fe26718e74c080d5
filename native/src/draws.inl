// The functions of draws.h, in vectors as wide as the compiler's flags allow. Included only by the files
// draws_*.cpp, each inside its own namespace; those are compiled without fused multiply-adds, so that all
// round alike.

#if defined(__AVX512F__)
constexpr int kWide = 16;
#elif defined(__AVX2__)
constexpr int kWide = 8;
#else
constexpr int kWide = 4;
#endif

constexpr float kLogLeast = -87.3365448f;  // e^x below it vanishes: 2^-126

template <int N>
struct Vectors {
  typedef float F __attribute__((vector_size(N * 4)));
  typedef int32_t I __attribute__((vector_size(N * 4)));
};
typedef Vectors<4>::F F4;

template <typename F>
inline F load(const float *from) {
  F v;
  memcpy(&v, from, sizeof v);
  return v;
}
template <typename F>
inline void store(float *to, F v) {
  memcpy(to, &v, sizeof v);
}
template <typename F>
inline F all(float x) {
  return F{} + x;
}

// v where x reaches a bound, else 0.
template <int N>
inline typename Vectors<N>::F where_at_least(typename Vectors<N>::F x, float bound, typename Vectors<N>::F v) {
  typedef typename Vectors<N>::F F;
  typedef typename Vectors<N>::I I;
#if defined(__AVX512F__)
  if constexpr (N == 16) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(bound), _CMP_GE_OQ), v);
  }
#endif
  return (F)((I)v & (x >= all<F>(bound)));
}

// e^x for x <= 0, within 2 units in the last place; exactly 1 at 0; 0 below kLogLeast. Cephes' expf.
template <int N>
inline typename Vectors<N>::F exp_of(typename Vectors<N>::F x) {
  typedef typename Vectors<N>::F F;
  typedef typename Vectors<N>::I I;
  const F shift = all<F>(12582912.0f);  // 1.5 * 2^23: adding it leaves no bits for a fraction
  const F safe = where_at_least<N>(x, kLogLeast, x);
  const F whole = (safe * 1.44269504f + shift) - shift;
  const F r = (safe - whole * 0.693359375f) + whole * 2.12194440e-4f;
  F p = all<F>(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const I power = (__builtin_convertvector(whole, I) + 127) << 23;
  return where_at_least<N>(x, kLogLeast, p * (F)power);
}

template <int N>
inline typename Vectors<N>::F larger(typename Vectors<N>::F a, typename Vectors<N>::F b) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return _mm512_max_ps(a, b);
#endif
  typedef typename Vectors<N>::F F;
  typedef typename Vectors<N>::I I;
  const I mask = a > b;
  return (F)((mask & (I)a) | (~mask & (I)b));
}

// Four maxima side by side, since each waits for itself. A NaN is what does not equal itself.
static float largest(const float *x, int64_t count) {
  typedef Vectors<kWide>::F F;
  typedef Vectors<kWide>::I I;
  F top[4] = {all<F>(-INFINITY), all<F>(-INFINITY), all<F>(-INFINITY), all<F>(-INFINITY)};
  I bad[4] = {};
  int64_t i = 0;
  for (; i + 4 * kWide <= count; i += 4 * kWide) {
    for (int lane = 0; lane < 4; lane++) {
      const F v = load<F>(x + i + lane * kWide);
      top[lane] = larger<kWide>(v, top[lane]);
      bad[lane] |= v != v;
    }
  }
  float most = -INFINITY;
  bool is_bad = false;
  for (int lane = 0; lane < 4; lane++) {
    for (int l = 0; l < kWide; l++) {
      most = top[lane][l] > most ? top[lane][l] : most;
      is_bad |= bad[lane][l] != 0;
    }
  }
  for (; i < count; i++) {
    is_bad |= x[i] != x[i];
    most = x[i] > most ? x[i] : most;
  }
  return is_bad ? NAN : most;
}

template <int N>
inline typename Vectors<N>::F weight(typename Vectors<N>::F x, float top, float temperature) {
  x -= top;
  return exp_of<N>(temperature == 1 ? x : x / temperature);
}

// Each number belongs to one of four sums by its place, whatever the width of vectors.
inline F4 add_by_fours(F4 sum, const float *weights, int count) {
  for (int i = 0; i < count; i += 4) sum += load<F4>(weights + i);
  return sum;
}

static double weigh(const float *x, int64_t count, float top, float temperature, float *weights) {
  typedef Vectors<kWide>::F F;
  double total = 0;
  for (int64_t start = 0; start < count; start += kSumRow) {
    const int64_t end = start + kSumRow < count ? start + kSumRow : count;
    F4 sum = {};
    int64_t i = start;
    for (; i + kWide <= end; i += kWide) {
      store(weights + i, weight<kWide>(load<F>(x + i), top, temperature));
      sum = add_by_fours(sum, weights + i, kWide);
    }
    for (; i < end; i += 4) {
      const int64_t left = end - i < 4 ? end - i : 4;
      float last[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
      for (int64_t j = 0; j < left; j++) last[j] = x[i + j];
      const F4 w = weight<4>(load<F4>(last), top, temperature);
      for (int64_t j = 0; j < left; j++) weights[i + j] = w[j];
      sum += w;
    }
    total += double{sum[0]} + sum[1] + sum[2] + sum[3];
  }
  return total;
}

// Goes by vectors: a model that is sure drops nearly all of them.
static int64_t keep(float *weights, int64_t count, float floor, bool has_ids, uint32_t *ids) {
  int64_t left = 0, i = 0;
  auto take = [&](int64_t at) {
    const float w = weights[at];
    ids[left] = has_ids ? ids[at] : static_cast<uint32_t>(at);
    weights[left] = w;
    left += w >= floor;
  };
#if defined(__AVX512F__)
  __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; i + 16 <= count; i += 16, places = _mm512_add_epi32(places, _mm512_set1_epi32(16))) {
    const __m512 w = load<Vectors<16>::F>(weights + i);
    const __mmask16 some = _mm512_cmp_ps_mask(w, _mm512_set1_ps(floor), _CMP_GE_OQ);
    if (!some) continue;
    const __m512i own = has_ids ? _mm512_loadu_si512(ids + i) : places;
    // Whole stores reach no further than what has been read: left <= i.
    _mm512_storeu_ps(weights + left, _mm512_maskz_compress_ps(some, w));
    _mm512_storeu_si512(ids + left, _mm512_maskz_compress_epi32(some, own));
    left += __builtin_popcount(some);
  }
#else
  for (; i + 4 <= count; i += 4) {
    const Vectors<4>::I mask = load<F4>(weights + i) >= all<F4>(floor);
    uint64_t halves[2];
    memcpy(halves, &mask, sizeof halves);
    if (!(halves[0] | halves[1])) continue;
    for (int64_t j = i; j < i + 4; j++) take(j);
  }
#endif
  for (; i < count; i++) take(i);
  return left;
}
