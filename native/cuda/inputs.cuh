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

// Inputs [M][cols] in shared memory.
template <int M>
struct Inputs {
  float *x;
  signed char *high;  // [M][padded]: x is (256 * high + low) * scale of its group
  signed char *low;
  float *scales;      // [M][padded / 32]
  int cols, padded;

  DEVICE Inputs(Carve &carve, int columns, bool quantized)
      : x(carve.take<float>(M * columns)),
        high(nullptr), low(nullptr), scales(nullptr),
        cols(columns),
        padded(pieces(columns, kBlockCols) * kBlockCols) {
    if (!quantized) return;
    high = carve.take<signed char>(M * padded);
    low = carve.take<signed char>(M * padded);
    scales = carve.take<float>(M * padded / kGroup);
  }

  // Brings x, just written, into 16 bits; the whole block calls. Columns that do not exist are zero.
  DEVICE void quantize() {
    __syncthreads();
    const int groups = padded / kGroup;
    for (int g = warp(); g < M * groups; g += warps()) {
      const int m = g / groups, c = g % groups * kGroup + lane();
      const float value = c < cols ? x[m * cols + c] : 0.0f;
      // A maximum drops NaNs; one must reach the products.
      const float most = max_lanes(value == value ? fabsf(value) : infinity());
      const float scale = most / kSteps;
      const int code = most > 0 ? static_cast<int>(rintf(value / scale)) : 0;
      const int top = (code + 128) >> 8;
      high[m * padded + c] = static_cast<signed char>(top);
      low[m * padded + c] = static_cast<signed char>(code - 256 * top);
      if (lane() == 0) scales[g] = scale;
    }
  }
};

// --- the layer norm ------------------------------------------------------------------------------------

// Leaves mean and reciprocal deviation of M rows, [M][2] in shared memory; the whole block calls.
template <int M>
DEVICE void moments_of(const float *x, int cols, float *scratch, float *moments) {
  const int first = 4 * static_cast<int>(threadIdx.x);
  const float count = static_cast<float>(cols);
  float sums[M] = {}, squares[M] = {};
  for (int c = first; c < cols; c += 4 * kInputThreads) {
    UNROLL
    for (int m = 0; m < M; m++) {
      const float4 v = load4(x + m * cols + c);
      sums[m] += (v.x + v.y) + (v.z + v.w);
    }
  }
  sum_block(sums, scratch);
  for (int c = first; c < cols; c += 4 * kInputThreads) {
    UNROLL
    for (int m = 0; m < M; m++) {
      const float4 v = load4(x + m * cols + c);
      const float mean = sums[m] / count;
      const float a = v.x - mean, b = v.y - mean, d = v.z - mean, e = v.w - mean;
      squares[m] = fmaf(e, e, fmaf(d, d, fmaf(b, b, fmaf(a, a, squares[m]))));
    }
  }
  sum_block(squares, scratch);
  if (threadIdx.x == 0) {
    UNROLL
    for (int m = 0; m < M; m++) {
      moments[2 * m] = sums[m] / count;
      moments[2 * m + 1] = 1.0f / sqrtf(squares[m] / count + kNormEps);
    }
  }
  __syncthreads();
}

DEVICE float normed(float x, const float *moments, float weight, float bias) {
  return fmaf((x - moments[0]) * moments[1], weight, bias);
}
DEVICE float4 normed4(float4 x, const float *moments, float4 weight, float4 bias) {
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

// Quarters of channels whose loads a thread starts together. These inputs are cold, and all blocks want them
// at the same moment: what is loaded one after the other costs a memory latency each time.
template <int M>
constexpr int kFillAhead = M == 1 ? 2 : 1;

template <int M>
DEVICE void fill_plain(Inputs<M> &inputs, const float *x) {
  for (int c = 4 * static_cast<int>(threadIdx.x); c < inputs.cols; c += 4 * kInputThreads) {
    float4 part[M];
    UNROLL
    for (int m = 0; m < M; m++) part[m] = load4(x + m * inputs.cols + c);
    UNROLL
    for (int m = 0; m < M; m++) store4(inputs.x + m * inputs.cols + c, part[m]);
  }
}

template <int M, bool Mixed>
DEVICE void fill_normed(Inputs<M> &inputs, const Source &source, const float *moments, const float *mix) {
  constexpr int kAhead = kFillAhead<M>;
  const int cols = inputs.cols;
  const float *before[M];
  UNROLL
  for (int m = 0; m < M; m++) before[m] = Mixed ? state_before(source.shift, m) : nullptr;
  for (int first = 4 * static_cast<int>(threadIdx.x); first < cols; first += 4 * kAhead * kInputThreads) {
    float4 x[kAhead][M], past[kAhead][M], weight[kAhead], bias[kAhead], share[kAhead];
    UNROLL
    for (int a = 0; a < kAhead; a++) {
      const int c = first + a * 4 * kInputThreads;
      if (c >= cols) continue;
      weight[a] = load4(source.weight + c), bias[a] = load4(source.bias + c);
      if (Mixed) share[a] = load4(mix + c);
      UNROLL
      for (int m = 0; m < M; m++) {
        x[a][m] = load4(source.x + m * cols + c);
        if (Mixed) past[a][m] = load4(before[m] + c);
      }
    }
    UNROLL
    for (int a = 0; a < kAhead; a++) {
      const int c = first + a * 4 * kInputThreads;
      if (c >= cols) continue;
      UNROLL
      for (int m = 0; m < M; m++) {
        const float4 present = normed4(x[a][m], moments + 2 * m, weight[a], bias[a]);
        store4(inputs.x + m * cols + c, Mixed ? towards4(present, past[a][m], share[a]) : present);
      }
    }
  }
}

template <int M>
DEVICE void fill_average(Inputs<M> &inputs, const Source &source) {
  const bool keep = source.commit && blockIdx.x == 0;
  ROLLED
  for (int m = 0; m < M; m++) {
    for (int c = static_cast<int>(threadIdx.x); c < inputs.cols; c += kInputThreads)
      inputs.x[m * inputs.cols + c] = average_of(source.average, m, c, inputs.cols, keep);
  }
}

// Writes the inputs of one matrix: `in` where it is not null, else those of the source, on the way to the
// token before by `mix`.
template <int M>
DEVICE void fill(Inputs<M> &inputs, const Source &source, const float *moments, const float *in,
                 const float *mix, bool quantized) {
  __syncthreads();  // whoever still reads the inputs of the matrix before
  if (in) fill_plain<M>(inputs, in);
  else if (source.average.r) fill_average<M>(inputs, source);
  else if (!source.weight) fill_plain<M>(inputs, source.x);
  else if (mix) fill_normed<M, true>(inputs, source, moments, mix);
  else fill_normed<M, false>(inputs, source, moments, mix);
  if (quantized) inputs.quantize();
  __syncthreads();
}

// The first block leaves the normalized inputs for the next token, when its products are done.
template <int M>
DEVICE void leave(const Source &source, const float *moments) {
  if (!source.commit || blockIdx.x != 0 || !source.weight) return;
  ROLLED
  for (int m = 0; m < M; m++) {
    for (int c = 4 * static_cast<int>(threadIdx.x); c < source.cols; c += 4 * kInputThreads) {
      const float4 x = load4(source.x + m * source.cols + c);
      store4(state_after(source.shift, m) + c,
             normed4(x, moments + 2 * m, load4(source.weight + c), load4(source.bias + c)));
    }
  }
}
