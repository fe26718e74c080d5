// The inputs of a matrix in shared memory: as they are, or normalized and mixed with those of the token
// before, which every block does for itself while its weights are on their way. Quantized matrices meet
// them in 16 bits, as two signed bytes each, so that four products are one instruction.
#pragma once

#include "device.cuh"

// RWKV-4's average of the values as the input of its output matrix (arXiv:2305.13048, eq. 16 and 17).
struct Average {
  const float *r;
  const float *k;
  const float *v;
  const float *log_w;
  const float *u;
  States numerator, denominator, exponent;
};

// Where the inputs of a launch come from.
struct Source {
  const float *x;       // [M][cols]
  const float *weight;  // of the layer norm; null: x as it is
  const float *bias;
  States shift;  // the normalized inputs of the token before; `before` is null where nothing is mixed
  Average average;  // RWKV-4: takes the place of x where `r` is not null
  int cols, commit;  // commit: the inputs become those of the token before
};

constexpr int kGroup = 32;       // inputs that share a scale
constexpr int kBlockCols = 64;   // of a packed block (native/src/formats.h)
constexpr float kSteps = 32512;  // 127 * 256: both bytes stay signed
constexpr int kInputThreads = 256;  // of a block that normalizes inputs

constexpr int kWide = 256;          // to a multiple of which rows of inputs are filled up

// Inputs of M sequences in shared memory: in floats, or in their place, for a quantized matrix, in 16 bits.
template <int M>
struct Inputs {
  float *x;           // [M][wide], each column at its `place`
  signed char *high;  // [M][padded]: x is (256 * high + low) * scale of its group
  signed char *low;
  float *scales;      // [M][padded / 32]
  int cols, padded, wide;

  DEVICE Inputs(Carve &carve, int columns)
      : cols(columns),
        padded(pieces(columns, kBlockCols) * kBlockCols),
        wide(pieces(columns, kWide) * kWide) {
    x = carve.take<float>(M * wide);
    high = reinterpret_cast<signed char *>(x);
    low = high + M * padded;
    scales = reinterpret_cast<float *>(low + M * padded);
  }

  // Of 256 columns, first those that are 0 to 3 of eight, then those that are 4 to 7: a lane reads eight
  // columns, and lanes beside each other then read four beside each other.
  DEVICE static int place(int c) { return (c & ~255) | (c & 4) << 5 | (c & 248) >> 1 | (c & 3); }

  // Writes columns c to c + 3 of a sequence; lanes have columns beside each other's, and all of a warp call.
  // Columns that do not exist are zero.
  DEVICE void put(int m, int c, float4 v, bool quantized) {
    if (!quantized) {
      if (c < cols) store4(x + m * wide + place(c), v);
      return;
    }
    const float most = max_lanes(fmaxf(fmaxf(size(v.x), size(v.y)), fmaxf(size(v.z), size(v.w))), kGroup / 4);
    const float scale = most / kSteps, all[4] = {v.x, v.y, v.z, v.w};
    u32 tops = 0, bottoms = 0;
    UNROLL
    for (int i = 0; i < 4; i++) {
      const int code = most > 0 ? static_cast<int>(rintf(all[i] / scale)) : 0, top = (code + 128) >> 8;
      tops |= (static_cast<u32>(top) & 0xffu) << 8 * i;
      bottoms |= (static_cast<u32>(code - 256 * top) & 0xffu) << 8 * i;
    }
    if (c >= padded) return;
    *reinterpret_cast<u32 *>(high + m * padded + c) = tops;
    *reinterpret_cast<u32 *>(low + m * padded + c) = bottoms;
    if (c % kGroup == 0) scales[(m * padded + c) / kGroup] = scale;
  }

 private:
  // A maximum drops NaNs; one must reach the products.
  DEVICE static float size(float value) { return value == value ? fabsf(value) : infinity(); }
};

// --- the layer norm ------------------------------------------------------------------------------------

// How many columns of a row a warp looks at.
DEVICE float columns_of(int warp, int cols) {
  const int rest = cols % (4 * kInputThreads) - 4 * kWarp * warp;
  return static_cast<float>(cols / (4 * kInputThreads) * (4 * kWarp) + smaller(larger(rest, 0), 4 * kWarp));
}

// Leaves the mean and the sum of squares about it of the columns of each warp, [warps][M][2] in shared memory;
// the whole block calls, and waits for itself once.
template <int M>
DEVICE void moments_of(const float *x, int cols, float *parts) {
  const int first = 4 * static_cast<int>(threadIdx.x);
  float means[M] = {}, squares[M] = {};
  for (int c = first; c < cols; c += 4 * kInputThreads) {
    UNROLL
    for (int m = 0; m < M; m++) {
      const float4 v = load4(x + m * cols + c);
      means[m] += (v.x + v.y) + (v.z + v.w);
    }
  }
  const float count = fmaxf(columns_of(warp(), cols), 1.0f);
  UNROLL
  for (int m = 0; m < M; m++) means[m] = sum_lanes(means[m]) / count;
  for (int c = first; c < cols; c += 4 * kInputThreads) {
    UNROLL
    for (int m = 0; m < M; m++) {
      const float4 v = load4(x + m * cols + c);
      const float a = v.x - means[m], b = v.y - means[m], d = v.z - means[m], e = v.w - means[m];
      squares[m] = fmaf(e, e, fmaf(d, d, fmaf(b, b, fmaf(a, a, squares[m]))));
    }
  }
  UNROLL
  for (int m = 0; m < M; m++) {
    squares[m] = sum_lanes(squares[m]);
    if (lane() == 0) parts[2 * (warp() * M + m)] = means[m], parts[2 * (warp() * M + m) + 1] = squares[m];
  }
  __syncthreads();
}

// A row's mean and reciprocal deviation, from what the warps have found.
struct Moments {
  float mean, scale;

  template <int M>
  DEVICE static Moments of(const float *parts, int m, int cols) {
    constexpr int kWarps = kInputThreads / kWarp;
    float sum = 0, squares = 0;
    UNROLL
    for (int w = 0; w < kWarps; w++) sum = fmaf(columns_of(w, cols), parts[2 * (w * M + m)], sum);
    const float mean = sum / static_cast<float>(cols);
    UNROLL
    for (int w = 0; w < kWarps; w++) {
      const float off = parts[2 * (w * M + m)] - mean;
      squares += fmaf(columns_of(w, cols) * off, off, parts[2 * (w * M + m) + 1]);
    }
    return {mean, 1.0f / sqrtf(squares / static_cast<float>(cols) + kNormEps)};
  }
};

DEVICE float normed(float x, const Moments &moments, float weight, float bias) {
  return fmaf((x - moments.mean) * moments.scale, weight, bias);
}
DEVICE float4 normed4(float4 x, const Moments &moments, float4 weight, float4 bias) {
  float4 out;
  out.x = normed(x.x, moments, weight.x, bias.x), out.y = normed(x.y, moments, weight.y, bias.y);
  out.z = normed(x.z, moments, weight.z, bias.z), out.w = normed(x.w, moments, weight.w, bias.w);
  return out;
}
// `share` of the way from x to `other`.
DEVICE float4 towards4(float4 x, float4 other, float4 share) {
  float4 out;
  out.x = fmaf(other.x - x.x, share.x, x.x), out.y = fmaf(other.y - x.y, share.y, x.y);
  out.z = fmaf(other.z - x.z, share.z, x.z), out.w = fmaf(other.w - x.w, share.w, x.w);
  return out;
}

// One channel of RWKV-4's average, and what it leaves behind when `keep` is set.
DEVICE float average_of(const Average &a, int m, int c, int cols, bool keep) {
  const i64 at = static_cast<i64>(m) * cols + c;
  const float k = a.k[at], v = a.v[at], u = a.u[c], log_w = a.log_w[c];
  const float numerator = state_before(a.numerator, m)[c], denominator = state_before(a.denominator, m)[c];
  const float exponent = state_before(a.exponent, m)[c];
  const float top = fmaxf(exponent, u + k);
  const float past = expf(exponent - top), now = expf(u + k - top);
  const float y = fmaf(past, numerator, now * v) / fmaf(past, denominator, now);
  if (keep) {
    const float highest = fmaxf(exponent + log_w, k);
    const float kept = expf(exponent + log_w - highest), added = expf(k - highest);
    state_after(a.numerator, m)[c] = fmaf(kept, numerator, added * v);
    state_after(a.denominator, m)[c] = fmaf(kept, denominator, added);
    state_after(a.exponent, m)[c] = highest;
  }
  return sigmoid(a.r[at]) * y;
}

// --- filling -------------------------------------------------------------------------------------------

// Quarters of channels whose loads a thread starts together. All blocks want them at the same moment: what is
// loaded one after the other costs a memory latency each time.
template <int M>
constexpr int kFillAhead = 1;

// Writes what `load(m, c)` gives for columns c to c + 3 of each sequence.
template <int M, typename Load>
DEVICE void fill_with(Inputs<M> &inputs, bool quantized, const Load &load) {
  constexpr int kAhead = kFillAhead<M>, kStep = 4 * kInputThreads;
  const int limit = quantized ? inputs.padded : inputs.cols;
  for (int first = 4 * static_cast<int>(threadIdx.x); first - 4 * lane() < limit; first += kAhead * kStep) {
    float4 values[kAhead][M];
    UNROLL
    for (int a = 0; a < kAhead; a++) {
      const int c = first + a * kStep;
      UNROLL
      for (int m = 0; m < M; m++) values[a][m] = c < inputs.cols ? load(m, c) : make_float4(0, 0, 0, 0);
    }
    UNROLL
    for (int a = 0; a < kAhead; a++) {
      UNROLL
      for (int m = 0; m < M; m++) inputs.put(m, first + a * kStep, values[a][m], quantized);
    }
  }
}

template <int M, bool Mixed>
DEVICE void fill_normed(Inputs<M> &inputs, const Source &source, const Moments *moments, const float *mix,
                        bool quantized) {
  fill_with<M>(inputs, quantized, [&](int m, int c) {
    const float4 x = load4(source.x + m * inputs.cols + c);
    const float4 present = normed4(x, moments[m], load4(source.weight + c), load4(source.bias + c));
    return Mixed ? towards4(present, load4(state_before(source.shift, m) + c), load4(mix + c)) : present;
  });
}

template <int M>
DEVICE void fill_average(Inputs<M> &inputs, const Source &source, bool quantized) {
  const bool keep = source.commit && blockIdx.x == 0;
  const int cols = inputs.cols, limit = quantized ? inputs.padded : cols;
  ROLLED
  for (int m = 0; m < M; m++) {
    ROLLED
    for (int c = 4 * static_cast<int>(threadIdx.x); c - 4 * lane() < limit; c += 4 * kInputThreads) {
      float y[4] = {};
      if (c < cols) {
        UNROLL
        for (int i = 0; i < 4; i++) y[i] = average_of(source.average, m, c + i, cols, keep);
      }
      inputs.put(m, c, make_float4(y[0], y[1], y[2], y[3]), quantized);
    }
  }
}

// Writes the inputs of one matrix: `in` where it is not null, else those of the source, on the way to the
// token before by `mix`.
template <int M>
DEVICE void fill(Inputs<M> &inputs, const Source &source, const Moments *moments, const float *in,
                 const float *mix, bool quantized) {
  __syncthreads();  // whoever still reads the inputs of the matrix before
  const float *plain = in ? in : source.x;
  if (!in && source.average.r) fill_average<M>(inputs, source, quantized);
  else if (in || !source.weight)
    fill_with<M>(inputs, quantized, [&](int m, int c) { return load4(plain + m * inputs.cols + c); });
  else if (mix) fill_normed<M, true>(inputs, source, moments, mix, quantized);
  else fill_normed<M, false>(inputs, source, moments, mix, quantized);
  __syncthreads();
}

// The first block leaves the normalized inputs for the next token, when its products are done.
template <int M>
DEVICE void leave(const Source &source, const Moments *moments) {
  if (!source.commit || blockIdx.x != 0 || !source.weight) return;
  ROLLED
  for (int m = 0; m < M; m++) {
    for (int c = 4 * static_cast<int>(threadIdx.x); c < source.cols; c += 4 * kInputThreads) {
      const float4 x = load4(source.x + m * source.cols + c);
      store4(state_after(source.shift, m) + c,
             normed4(x, moments[m], load4(source.weight + c), load4(source.bias + c)));
    }
  }
}
