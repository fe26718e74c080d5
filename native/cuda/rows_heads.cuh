// The rows path: what is done to each head of each row, by a warp: before the recurrence (RWKV-7) and after
// it (all but RWKV-4). Heads have 32, 64 or 128 channels, a lane those that are 32 apart.
#pragma once

#include "rows.cuh"

constexpr float kDecayScale = -0.60653065971f;  // -exp(-0.5), RWKV-7 eq. 5

// --- rows_gates7 ---------------------------------------------------------------------------------------

// RWKV-7 (arXiv:2503.14456), equations 4 to 8, on products [rows][width]; gridDim.y heads.
struct RowsGates7Arguments {
  float *k;      // in: keys; out: keys that equation 7 has weighed
  float *v;      // in: values; out: values with their share of the first layer's
  float *decay;  // in: the product of its low-rank matrices; out: the decay w itself
  float *rate;   // in: the same for the in-context learning rate a; out: replacement keys, kappa * a
  const float *share;  // the same for the share of the first layer's values
  float *first;        // the first layer's values, which that layer writes
  float *removal;      // out: removal keys, -kappa
  const float *w0;
  const float *a0;
  const float *v0;  // null in the first layer
  const float *k_k;
  const float *k_a;
  int rows, head_size;
};

// What is read of a channel of a row. All of it is, of all channels of a lane, before anything is written: the
// compiler cannot know that what is written is not what is read next.
struct Gates7 {
  float k, v, decay, rate, share, first, w0, a0, v0, k_k, k_a;

  DEVICE void load(const RowsGates7Arguments &args, i64 at, int c) {
    k = args.k[at], v = args.v[at], decay = args.decay[at], rate = args.rate[at];
    share = args.v0 ? args.share[at] : 0, first = args.v0 ? args.first[at] : 0, v0 = args.v0 ? args.v0[c] : 0;
    w0 = args.w0[c], a0 = args.a0[c], k_k = args.k_k[c], k_a = args.k_a[c];
  }
};

// `norm`: what the head's removal keys are multiplied by.
DEVICE void write_gates7(const RowsGates7Arguments &args, i64 at, const Gates7 &in, float norm) {
  const float rate = sigmoid(in.a0 + in.rate), removal = in.k * in.k_k * norm;
  args.decay[at] = expf(kDecayScale * sigmoid(in.w0 + in.decay));
  args.k[at] = in.k * fmaf(rate - 1.0f, in.k_a, 1.0f);
  if (args.v0) args.v[at] = fmaf(in.first - in.v, sigmoid(in.v0 + in.share), in.v);
  else args.first[at] = in.v;
  args.removal[at] = -removal;
  args.rate[at] = removal * rate;
}

template <int Channels>
DEVICE void gates7_row(const RowsGates7Arguments &args, i64 at, int c) {
  Gates7 in[Channels];
  float length = 0;
  UNROLL
  for (int i = 0; i < Channels; i++) in[i].load(args, at + i * kWarp, c + i * kWarp);
  UNROLL
  for (int i = 0; i < Channels; i++) {
    const float kappa = in[i].k * in[i].k_k;
    length = fmaf(kappa, kappa, length);
  }
  const float norm = 1.0f / fmaxf(sqrtf(sum_lanes(length)), 1e-12f);
  UNROLL
  for (int i = 0; i < Channels; i++) write_gates7(args, at + i * kWarp, in[i], norm);
}

KERNEL(rows_gates7, RowsGates7Arguments, kRowThreads) {
  release_next();
  await_previous();
  const int c = static_cast<int>(blockIdx.y) * args.head_size + lane();
  const i64 width = static_cast<i64>(gridDim.y) * args.head_size;
  const i64 step = static_cast<i64>(gridDim.x) * warps();
  for (i64 row = static_cast<i64>(blockIdx.x) * warps() + warp(); row < args.rows; row += step) {
    const i64 at = row * width + c;
    switch (args.head_size / kWarp) {
      case 1: gates7_row<1>(args, at, c); break;
      case 2: gates7_row<2>(args, at, c); break;
      default: gates7_row<4>(args, at, c);
    }
  }
}

// --- rows_post -----------------------------------------------------------------------------------------

// What a head's reading becomes before the output matrix: its group norm, plus (RWKV-7, eq. 20) the bonus
// of the present token, times the gate. gridDim.y heads; matrices [rows][width].
struct RowsPostArguments {
  const float *y;
  const float *weight;
  const float *bias;
  const float *r_k;  // [width]; null: no bonus, and neither r, k nor v is read
  const float *r;
  const float *k;
  const float *v;
  const float *gate;  // null: no gate
  void *plane;
  int rows, head_size, activation, plane_type;  // activation: of the gate
};

// What is read of a channel of a row, before anything is written.
struct Post {
  float y, weight, bias, r_k, r, k, v, gate;

  DEVICE void load(const RowsPostArguments &args, i64 at, int c) {
    y = args.y[at], weight = args.weight[c], bias = args.bias[c], gate = args.gate ? args.gate[at] : 0;
    r_k = r = k = v = 0;
    if (args.r_k) r_k = args.r_k[c], r = args.r[at], k = args.k[at], v = args.v[at];
  }
};

template <int Channels>
DEVICE void post_row(const RowsPostArguments &args, i64 at, int c) {
  const float size = static_cast<float>(args.head_size);
  Post in[Channels];
  float sum = 0, squares = 0, bonus = 0;
  UNROLL
  for (int i = 0; i < Channels; i++) in[i].load(args, at + i * kWarp, c + i * kWarp);
  UNROLL
  for (int i = 0; i < Channels; i++) {
    sum += in[i].y;
    bonus = fmaf(in[i].r * in[i].k, in[i].r_k, bonus);
  }
  const float mean = sum_lanes(sum) / size;
  UNROLL
  for (int i = 0; i < Channels; i++) squares = fmaf(in[i].y - mean, in[i].y - mean, squares);
  const float scale = 1.0f / sqrtf(sum_lanes(squares) / size + kHeadEps);
  if (args.r_k) bonus = sum_lanes(bonus);
  UNROLL
  for (int i = 0; i < Channels; i++) {
    const float normed = fmaf((in[i].y - mean) * scale, in[i].weight, in[i].bias);
    const float y = fmaf(bonus, in[i].v, normed);
    write(args.plane, args.plane_type, at + i * kWarp, args.gate ? y * activate(args.activation, in[i].gate) : y);
  }
}

KERNEL(rows_post, RowsPostArguments, kRowThreads) {
  release_next();
  await_previous();
  const int c = static_cast<int>(blockIdx.y) * args.head_size + lane();
  const i64 width = static_cast<i64>(gridDim.y) * args.head_size;
  const i64 step = static_cast<i64>(gridDim.x) * warps();
  for (i64 row = static_cast<i64>(blockIdx.x) * warps() + warp(); row < args.rows; row += step) {
    const i64 at = row * width + c;
    switch (args.head_size / kWarp) {
      case 1: post_row<1>(args, at, c); break;
      case 2: post_row<2>(args, at, c); break;
      default: post_row<4>(args, at, c);
    }
  }
}
