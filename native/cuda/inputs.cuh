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
      const float most = max_lanes(fabsf(value));
      const float scale = most / kSteps;
      const int code = most > 0 ? static_cast<int>(rintf(value / scale)) : 0;
      const int top = (code + 128) >> 8;
      high[m * padded + c] = static_cast<signed char>(top);
      low[m * padded + c] = static_cast<signed char>(code - 256 * top);
      if (lane() == 0) scales[g] = scale;
    }
  }
};

// Leaves mean and reciprocal deviation of M rows, [M][2] in shared memory; the whole block calls.
template <int M>
DEVICE void moments_of(const float *x, int cols, float *scratch, float *moments) {
  float sums[M] = {}, squares[M] = {};
  for (int c = static_cast<int>(threadIdx.x); c < cols; c += static_cast<int>(blockDim.x)) {
    UNROLL
    for (int m = 0; m < M; m++) sums[m] += x[m * cols + c];
  }
  sum_block(sums, scratch);
  for (int c = static_cast<int>(threadIdx.x); c < cols; c += static_cast<int>(blockDim.x)) {
    UNROLL
    for (int m = 0; m < M; m++) {
      const float off = x[m * cols + c] - sums[m] / static_cast<float>(cols);
      squares[m] += off * off;
    }
  }
  sum_block(squares, scratch);
  if (threadIdx.x == 0) {
    UNROLL
    for (int m = 0; m < M; m++) {
      moments[2 * m] = sums[m] / static_cast<float>(cols);
      moments[2 * m + 1] = 1.0f / sqrtf(squares[m] / static_cast<float>(cols) + kNormEps);
    }
  }
  __syncthreads();
}

DEVICE float normed(const Source &source, const float *moments, int m, int c) {
  const float x = source.x[m * source.cols + c];
  return (x - moments[2 * m]) * moments[2 * m + 1] * source.weight[c] + source.bias[c];
}

// One channel of RWKV-4's average, and what it leaves behind when `keep` is set.
DEVICE float average_of(const Average &a, int m, int c, int cols, bool keep) {
  const i64 at = static_cast<i64>(m) * cols + c;
  const float k = a.k[at], v = a.v[at], u = a.u[c], log_w = a.log_w[c];
  const float numerator = state_before(a.numerator, m)[c], denominator = state_before(a.denominator, m)[c];
  const float exponent = state_before(a.exponent, m)[c];
  const float top = fmaxf(exponent, u + k);
  const float past = expf(exponent - top), now = expf(u + k - top);
  const float y = (past * numerator + now * v) / (past * denominator + now);
  if (keep) {
    const float highest = fmaxf(exponent + log_w, k);
    const float old = expf(exponent + log_w - highest), fresh_one = expf(k - highest);
    state_after(a.numerator, m)[c] = old * numerator + fresh_one * v;
    state_after(a.denominator, m)[c] = old * denominator + fresh_one;
    state_after(a.exponent, m)[c] = highest;
  }
  return sigmoid(a.r[at]) * y;
}

// Writes the inputs of one matrix: `in` where it is not null, else those of the source, on the way to the
// token before by `mix`. The first block also leaves what the next token needs.
template <int M>
DEVICE void fill(Inputs<M> &inputs, const Source &source, const float *moments, const float *in,
                 const float *mix, bool quantized) {
  const int cols = source.cols;
  const bool keep = source.commit && blockIdx.x == 0;
  __syncthreads();  // whoever still reads the inputs of the matrix before
  ROLLED
  for (int m = 0; m < M; m++) {
    for (int c = static_cast<int>(threadIdx.x); c < cols; c += static_cast<int>(blockDim.x)) {
      float value;
      if (in) {
        value = in[m * cols + c];
      } else if (source.average.r) {
        value = average_of(source.average, m, c, cols, keep);
      } else if (!source.weight) {
        value = source.x[m * cols + c];
      } else {
        value = normed(source, moments, m, c);
        if (keep) state_after(source.shift, m)[c] = value;
        if (mix) value += (state_before(source.shift, m)[c] - value) * mix[c];
      }
      inputs.x[m * cols + c] = value;
    }
  }
  if (quantized) inputs.quantize();
  __syncthreads();
}
