// Time-mixing after its first products: a block has one head of one sequence. It finishes the low-rank
// products, advances the head's matrix, and normalizes, gates and leaves what the output matrix reads.
// Four threads share a row of the matrix (a value channel); each has a quarter of its keys in registers.
#pragma once

#include "device.cuh"

// The second factor of a low-rank product, [rank][width] as in the checkpoint, and its inputs.
struct LowRank {
  const void *weights;
  const float *low;  // [M][stride]
  int type, rank, stride, filler;
};

constexpr int kRaiseAhead = 8;  // inputs whose weights a thread loads together: they are cold

// Eight weights of an input, for channels next to each other, as they were loaded.
struct Eight {
  uint4 a, b;
};

template <int T>
DEVICE void eight_of(const Eight &raw, float (&w)[8]) {
  const u32 words[8] = {raw.a.x, raw.a.y, raw.a.z, raw.a.w, raw.b.x, raw.b.y, raw.b.z, raw.b.w};
  UNROLL
  for (int i = 0; i < 8; i++) {
    const u16 half = static_cast<u16>(words[i / 2] >> (i % 2 * 16));
    w[i] = T == kF32 ? as_float(words[i]) : T == kBF16 ? from_bf16(half) : from_f16(half);
  }
}

// `base`: the weights of the first input for this thread's channels.
template <int T>
DEVICE void raise_as(const u8 *base, i64 line, const float *low, int first, int step, int rank, float (&sums)[8]) {
  for (int begin = first; begin < rank; begin += kRaiseAhead * step) {
    Eight raw[kRaiseAhead] = {};
    float input[kRaiseAhead] = {};
    UNROLL
    for (int i = 0; i < kRaiseAhead; i++) {
      const int r = begin + i * step;
      if (r >= rank) continue;
      raw[i].a = stream16(base + r * line);
      if (T == kF32) raw[i].b = stream16(base + r * line + 16);
      input[i] = low[r];
    }
    UNROLL
    for (int i = 0; i < kRaiseAhead; i++) {
      float w[8];
      eight_of<T>(raw[i], w);
      UNROLL
      for (int c = 0; c < 8; c++) sums[c] = fmaf(w[c], input[i], sums[c]);
    }
  }
}

// Sums over the ranks for N channels from `channel` on, some of each thread's share; `finish_raise` adds up
// the shares. `start`: the element of the weights at which the first input begins.
template <int N>
DEVICE void raise(const LowRank &w, int sequence, i64 start, int width, int channel, float (&sums)[8]) {
  constexpr int kSpan = N / 8;  // threads that share an input
  const int thread = static_cast<int>(threadIdx.x), at = channel + 8 * (thread % kSpan);
  if (at >= width) return;
  const float *low = w.low + static_cast<i64>(sequence) * w.stride;
  const int step = static_cast<int>(blockDim.x) / kSpan, bytes = w.type == kF32 ? 4 : 2;
  const u8 *base = static_cast<const u8 *>(w.weights) + (start + at) * bytes;
  const i64 line = static_cast<i64>(width) * bytes;
  switch (w.type) {
    case kF32: if constexpr (kCompiled<kF32>) raise_as<kF32>(base, line, low, thread / kSpan, step, w.rank, sums); break;
    case kBF16: if constexpr (kCompiled<kBF16>) raise_as<kBF16>(base, line, low, thread / kSpan, step, w.rank, sums); break;
    default: if constexpr (kCompiled<kF16>) raise_as<kF16>(base, line, low, thread / kSpan, step, w.rank, sums);
  }
}

// Asks for the weights of a head, which do not depend on the kernel before.
template <int N>
DEVICE void fetch_raise(const LowRank &w, int width, int channel) {
  const int bytes = w.type == kF32 ? 4 : 2;
  for (int r = static_cast<int>(threadIdx.x); r < w.rank; r += static_cast<int>(blockDim.x)) {
    const u8 *line = static_cast<const u8 *>(w.weights) + (static_cast<i64>(r) * width + channel) * bytes;
    for (int at = 0; at < N * bytes; at += 128) prefetch(line + at);
  }
}

// Leaves the sums of `Count` products in out[product][N], shared memory; scratch: Count * warps() * N floats.
template <int N, int Count>
DEVICE void finish_raise(float (&sums)[Count][8], float *scratch, float *out) {
  constexpr int kSpan = N / 8;
  UNROLL
  for (int p = 0; p < Count; p++) {
    UNROLL
    for (int i = 0; i < 8; i++) {
      for (int step = kSpan; step < kWarp; step *= 2) sums[p][i] += __shfl_xor_sync(kAllLanes, sums[p][i], step);
      if (lane() < kSpan) scratch[(p * warps() + warp()) * N + 8 * lane() + i] = sums[p][i];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < Count * N; i += static_cast<int>(blockDim.x)) {
    float sum = 0;
    for (int w = 0; w < warps(); w++) sum += scratch[(i / N * warps() + w) * N + i % N];
    out[i] = sum;
  }
  __syncthreads();
}

// A thread's quarter of a row of the head's matrix.
template <int N>
struct Quarter {
  float s[N / 4];

  DEVICE void load(const float *row) {
    UNROLL
    for (int j = 0; j < N / 4; j += 4) {
      const float4 v = *reinterpret_cast<const float4 *>(row + j);
      s[j] = v.x, s[j + 1] = v.y, s[j + 2] = v.z, s[j + 3] = v.w;
    }
  }
  DEVICE void save(float *row) const {
    UNROLL
    for (int j = 0; j < N / 4; j += 4)
      *reinterpret_cast<float4 *>(row + j) = make_float4(s[j], s[j + 1], s[j + 2], s[j + 3]);
  }
  // The row's product with a vector of N keys; all four threads get it.
  DEVICE float times(const float *keys) const {
    float sum = 0;
    UNROLL
    for (int j = 0; j < N / 4; j++) sum = fmaf(s[j], keys[j], sum);
    return sum_lanes(sum, 4);
  }
};

// Normalizes y over the head's N channels; every fourth thread has a channel of its own.
template <int N>
DEVICE float head_normed(float y, bool mine, float weight, float bias, float *scratch) {
  float sum[1] = {mine ? y : 0.0f};
  sum_block(sum, scratch);
  const float mean = sum[0] / N;
  float square[1] = {mine ? (y - mean) * (y - mean) : 0.0f};
  sum_block(square, scratch);
  return fmaf((y - mean) / sqrtf(square[0] / N + kHeadEps), weight, bias);
}

// --- RWKV-5 and 6 (arXiv:2404.05892, eq. 7 and 16 to 19) ------------------------------------------------

struct Head6Arguments {
  const float *r;  // r, k, v, gate: [M][width]
  const float *k;
  const float *v;
  const float *gate;   // activated; null for none
  const float *decay;  // [width]: itself, or what the low-rank product is added to
  const float *u;
  const float *norm_weight;
  const float *norm_bias;
  float *y;  // [M][width]
  LowRank raise_decay;  // rank 0: the decay is constant
  States wkv;
  int width, filler;
};

template <int N>
DEVICE void head6(const Head6Arguments &args) {
  const int head = static_cast<int>(blockIdx.x), m = static_cast<int>(blockIdx.y), t = static_cast<int>(threadIdx.x);
  const int i = t / 4, j = t % 4 * (N / 4), c = head * N;
  release_next();
  fetch_raise<N>(args.raise_decay, args.width, c);
  const i64 place = (static_cast<i64>(head) * N + i) * N + j;
  const float *before = state_before(args.wkv, m) + place;
  prefetch(before);  // a line is two rows' quarters; registers are short meanwhile
  // Everything that is cold is asked for before anything is waited for.
  const bool mine = t < N;
  const float decay = mine ? args.decay[c + t] : 0, bonus_u = mine ? args.u[c + t] : 0;
  const float norm_weight = args.norm_weight[c + i], norm_bias = args.norm_bias[c + i];
  await_previous();
  const i64 row = static_cast<i64>(m) * args.width + c;
  Carve carve;
  float *scratch = carve.take<float>(4 * N / kWarp * N);
  float *w = carve.take<float>(N), *r = carve.take<float>(N), *k = carve.take<float>(N), *ruk = carve.take<float>(N);
  const float receptance = mine ? args.r[row + t] : 0, key = mine ? args.k[row + t] : 0;
  const float v = args.v[row + i], gate = args.gate ? args.gate[row + i] : 1.0f;
  float sums[1][8] = {};
  raise<N>(args.raise_decay, m, 0, args.width, c, sums[0]);
  finish_raise<N, 1>(sums, scratch, w);
  Quarter<N> state;
  state.load(before);
  if (mine) {
    w[t] = args.raise_decay.rank ? expf(-expf(decay + w[t])) : decay;
    r[t] = receptance, k[t] = key;
    ruk[t] = receptance * bonus_u * key;
  }
  __syncthreads();
  float bonus = 0;
  UNROLL
  for (int n = 0; n < N / 4; n++) bonus += ruk[j + n];
  const float y = fmaf(sum_lanes(bonus, 4), v, state.times(r + j));
  UNROLL
  for (int n = 0; n < N / 4; n++) state.s[n] = fmaf(state.s[n], w[j + n], v * k[j + n]);
  state.save(state_after(args.wkv, m) + place);
  const float out = head_normed<N>(y, t % 4 == 0, norm_weight, norm_bias, scratch);
  if (t % 4 == 0) args.y[row + i] = out * gate;
}

KERNEL(head6_32, Head6Arguments, 128) { head6<32>(args); }
KERNEL(head6_64, Head6Arguments, 256) { head6<64>(args); }
KERNEL(head6_128, Head6Arguments, 512) { head6<128>(args); }

// --- RWKV-7 (arXiv:2503.14456, eq. 4 to 8, 17 and 20) ---------------------------------------------------

struct Head7Arguments {
  const float *r;  // r, k, v: [M][width]
  const float *k;
  const float *v;
  float *first;  // [M][width] values of the first layer
  const float *w0;
  const float *a0;
  const float *v0;  // null in the first layer, which writes `first`
  const float *k_k;
  const float *k_a;
  const float *r_k;
  const float *norm_weight;
  const float *norm_bias;
  float *y;            // [M][width]
  LowRank up[4];       // decay, rate, value share, gate; their inputs are activated
  States wkv;
  int width, filler;
};

template <int N>
DEVICE void head7(const Head7Arguments &args) {
  const int head = static_cast<int>(blockIdx.x), m = static_cast<int>(blockIdx.y), t = static_cast<int>(threadIdx.x);
  const int i = t / 4, j = t % 4 * (N / 4), c = head * N;
  release_next();
  UNROLL
  for (int p = 0; p < 4; p++) fetch_raise<N>(args.up[p], args.width, c);
  const i64 place = (static_cast<i64>(head) * N + i) * N + j;
  const float *before = state_before(args.wkv, m) + place;
  prefetch(before);  // a line is two rows' quarters; registers are short meanwhile
  // Everything that is cold is asked for before anything is waited for.
  const bool mine = t < N, later = args.v0 != nullptr;
  const float w0 = mine ? args.w0[c + t] : 0, a0 = mine ? args.a0[c + t] : 0;
  const float v0 = mine && later ? args.v0[c + t] : 0, k_k = mine ? args.k_k[c + t] : 0;
  const float k_a = mine ? args.k_a[c + t] : 0, r_k = mine ? args.r_k[c + t] : 0;
  const float norm_weight = args.norm_weight[c + i], norm_bias = args.norm_bias[c + i];
  await_previous();
  const i64 row = static_cast<i64>(m) * args.width + c;
  Carve carve;
  float *scratch = carve.take<float>(4 * (4 * N / kWarp) * N), *raised = carve.take<float>(4 * N);
  float *r = carve.take<float>(N), *k = carve.take<float>(N), *v = carve.take<float>(N), *w = carve.take<float>(N);
  float *removal = carve.take<float>(N), *replace = carve.take<float>(N), *rkk = carve.take<float>(N);
  const float key = mine ? args.k[row + t] : 0, receptance = mine ? args.r[row + t] : 0;
  const float own = mine ? args.v[row + t] : 0, first = mine && later ? args.first[row + t] : 0;

  float sums[4][8] = {};
  UNROLL
  for (int p = 0; p < 4; p++) raise<N>(args.up[p], m, 0, args.width, c, sums[p]);
  finish_raise<N, 4>(sums, scratch, raised);
  Quarter<N> state;
  state.load(before);

  float rate = 0;
  const float removed = key * k_k;
  if (mine) {
    w[t] = expf(-0.60653065971263342f * sigmoid(w0 + raised[t]));  // exp(-0.5)
    rate = sigmoid(a0 + raised[N + t]);
    v[t] = later ? fmaf(first - own, sigmoid(v0 + raised[2 * N + t]), own) : own;
    if (!later) args.first[row + t] = own;
  }
  float square[1] = {removed * removed};
  sum_block(square, scratch);
  if (mine) {
    const float unit = removed / fmaxf(sqrtf(square[0]), 1e-12f);
    r[t] = receptance;
    k[t] = key * fmaf(rate - 1, k_a, 1.0f);
    removal[t] = -unit, replace[t] = unit * rate;
    rkk[t] = r[t] * k[t] * r_k;
  }
  __syncthreads();
  const float gone = state.times(removal + j), value = v[i];
  float bonus = 0;
  UNROLL
  for (int n = 0; n < N / 4; n++) {
    state.s[n] = fmaf(state.s[n], w[j + n], fmaf(gone, replace[j + n], value * k[j + n]));
    bonus += rkk[j + n];
  }
  state.save(state_after(args.wkv, m) + place);
  const float y = state.times(r + j);
  const float out = head_normed<N>(y, t % 4 == 0, norm_weight, norm_bias, scratch);
  bonus = sum_lanes(bonus, 4);
  if (t % 4 == 0) args.y[row + i] = fmaf(bonus, value, out) * raised[3 * N + i];
}

KERNEL(head7_32, Head7Arguments, 128) { head7<32>(args); }
KERNEL_TOGETHER(head7_64, Head7Arguments, 256, 2) { head7<64>(args); }
KERNEL(head7_128, Head7Arguments, 512) { head7<128>(args); }
