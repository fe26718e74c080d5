// The rows path: what is done to each head of each row, by a warp: before the recurrence (RWKV-7) and after
// it (all but RWKV-4). Head sizes are multiples of 32, up to 128.
#pragma once

#include "rows.cuh"

constexpr int kLaneChannels = 4;             // of a head, at most, in a lane: 32 apart
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

// One channel but for its removal key; gives the learning rate.
DEVICE float gates7_channel(const RowsGates7Arguments &args, i64 at, int c) {
  args.decay[at] = expf(kDecayScale * sigmoid(args.w0[c] + args.decay[at]));
  const float a = sigmoid(args.a0[c] + args.rate[at]);
  args.k[at] = args.k[at] * fmaf(a - 1.0f, args.k_a[c], 1.0f);
  const float v = args.v[at];
  if (args.v0) {
    args.v[at] = fmaf(args.first[at] - v, sigmoid(args.v0[c] + args.share[at]), v);
  } else {
    args.first[at] = v;
  }
  return a;
}

KERNEL(rows_gates7, RowsGates7Arguments, kRowThreads) {
  release_next();
  await_previous();
  const int head = static_cast<int>(blockIdx.y) * args.head_size;
  const i64 width = static_cast<i64>(gridDim.y) * args.head_size;
  const i64 step = static_cast<i64>(gridDim.x) * warps();
  for (i64 row = static_cast<i64>(blockIdx.x) * warps() + warp(); row < args.rows; row += step) {
    float kappa[kLaneChannels], a[kLaneChannels], length = 0;
    UNROLL
    for (int i = 0; i < kLaneChannels; i++) {
      const int j = i * kWarp + lane(), c = head + j;
      if (j >= args.head_size) break;
      kappa[i] = args.k[row * width + c] * args.k_k[c];
      length = fmaf(kappa[i], kappa[i], length);
      a[i] = gates7_channel(args, row * width + c, c);
    }
    const float norm = 1.0f / fmaxf(sqrtf(sum_lanes(length)), 1e-12f);
    UNROLL
    for (int i = 0; i < kLaneChannels; i++) {
      const int j = i * kWarp + lane();
      if (j >= args.head_size) break;
      const i64 at = row * width + head + j;
      const float removal = kappa[i] * norm;
      args.removal[at] = -removal;
      args.rate[at] = removal * a[i];
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

// The lane's channels of a head's group norm, each 32 from the next.
DEVICE void head_norm(const RowsPostArguments &args, i64 at, int c, float (&y)[kLaneChannels]) {
  const float size = static_cast<float>(args.head_size);
  float sum = 0, squares = 0;
  UNROLL
  for (int i = 0; i < kLaneChannels; i++) {
    y[i] = i * kWarp + lane() < args.head_size ? args.y[at + i * kWarp] : 0.0f;
    sum += y[i];
  }
  const float mean = sum_lanes(sum) / size;
  UNROLL
  for (int i = 0; i < kLaneChannels; i++) {
    y[i] = i * kWarp + lane() < args.head_size ? y[i] - mean : 0.0f;
    squares = fmaf(y[i], y[i], squares);
  }
  const float scale = 1.0f / sqrtf(sum_lanes(squares) / size + kHeadEps);
  UNROLL
  for (int i = 0; i < kLaneChannels; i++) {
    if (i * kWarp + lane() >= args.head_size) break;
    y[i] = fmaf(y[i] * scale, args.weight[c + i * kWarp], args.bias[c + i * kWarp]);
  }
}

// The sum over a head of r * k * r_k.
DEVICE float head_bonus(const RowsPostArguments &args, i64 at, int c) {
  float bonus = 0;
  UNROLL
  for (int i = 0; i < kLaneChannels; i++) {
    if (i * kWarp + lane() >= args.head_size) break;
    bonus = fmaf(args.r[at + i * kWarp] * args.k[at + i * kWarp], args.r_k[c + i * kWarp], bonus);
  }
  return sum_lanes(bonus);
}

KERNEL(rows_post, RowsPostArguments, kRowThreads) {
  release_next();
  await_previous();
  const int c = static_cast<int>(blockIdx.y) * args.head_size + lane();
  const i64 width = static_cast<i64>(gridDim.y) * args.head_size;
  const i64 step = static_cast<i64>(gridDim.x) * warps();
  for (i64 row = static_cast<i64>(blockIdx.x) * warps() + warp(); row < args.rows; row += step) {
    const i64 at = row * width + c;
    float y[kLaneChannels];
    head_norm(args, at, c, y);
    const float bonus = args.r_k ? head_bonus(args, at, c) : 0.0f;
    UNROLL
    for (int i = 0; i < kLaneChannels; i++) {
      if (i * kWarp + lane() >= args.head_size) break;
      const i64 here = at + i * kWarp;
      if (args.r_k) y[i] = fmaf(bonus, args.v[here], y[i]);
      if (args.gate) y[i] *= activate(args.activation, args.gate[here]);
      write(args.plane, args.plane_type, here, y[i]);
    }
  }
}
