// The rows path, for many tokens at once: the vendor's library multiplies matrices, and these kernels do
// everything between two products. A row is a token: those of a sequence lie one after the other, those of the
// next sequence behind them, and rows that are no token's come last.
// Matrices of floats are dense [rows][width], with a width that is a multiple of 4, and begin at a multiple
// of 16 bytes. A plane is an input of a product: a matrix of any float type.
//
// Here: the residual stream, its layer norm, and the mixing of a token with the one before it.
#pragma once

#include "device.cuh"

constexpr int kRowThreads = 256;
constexpr int kMixPlanes = 6;

// --- four numbers at once ------------------------------------------------------------------------------

DEVICE float4 four(float x, float y, float z, float w) {
  float4 out;
  out.x = x, out.y = y, out.z = z, out.w = w;
  return out;
}
DEVICE float4 fma4(float4 a, float4 b, float4 c) {
  return four(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y), fmaf(a.z, b.z, c.z), fmaf(a.w, b.w, c.w));
}
DEVICE float4 fma4(float a, float4 b, float4 c) { return fma4(four(a, a, a, a), b, c); }
DEVICE float4 mul4(float a, float4 b) { return four(a * b.x, a * b.y, a * b.z, a * b.w); }
DEVICE float4 add4(float4 a, float4 b) { return four(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
DEVICE float4 minus4(float4 a, float b) { return four(a.x - b, a.y - b, a.z - b, a.w - b); }
DEVICE float sum4(float4 x) { return (x.x + x.y) + (x.z + x.w); }

// Elements i to i + 3 of a plane; i is a multiple of 4.
DEVICE void write4(void *plane, int type, i64 i, float4 x) {
  if (type == kF32) {
    store4(static_cast<float *>(plane) + i, x);
    return;
  }
  u16 h[4];
  write(h, type, 0, x.x), write(h, type, 1, x.y), write(h, type, 2, x.z), write(h, type, 3, x.w);
  uint2 packed;
  packed.x = h[0] | static_cast<u32>(h[1]) << 16, packed.y = h[2] | static_cast<u32>(h[3]) << 16;
  *reinterpret_cast<uint2 *>(static_cast<u16 *>(plane) + i) = packed;
}

// --- the residual stream -------------------------------------------------------------------------------

// The residual stream before the last product has been added: x + add * add_scale * sigmoid(add_gate).
struct Residual {
  const float *x;          // [rows][width]
  const float *add;        // [rows][width]; null: nothing is added
  const float *add_scale;  // [rows]; null: 1
  const float *add_gate;   // [rows][width]; null: no gate
};

DEVICE float4 residual4(const Residual &from, i64 row, int width, int c) {
  const i64 at = row * width + c;
  const float4 x = load4(from.x + at);
  if (!from.add) return x;
  const float scale = from.add_scale ? from.add_scale[row] : 1.0f;
  float4 share = four(scale, scale, scale, scale);
  if (from.add_gate) {
    const float4 gate = load4(from.add_gate + at);
    share = mul4(scale, four(sigmoid(gate.x), sigmoid(gate.y), sigmoid(gate.z), sigmoid(gate.w)));
  }
  return fma4(load4(from.add + at), share, x);
}

// --- rows_mix ------------------------------------------------------------------------------------------

// Adds the last product to the residual stream, normalizes it, and writes planes of the normalized vector
// moved towards that of the token before: normed + (previous - normed) * (mix + more).
struct RowsMixArguments {
  Residual residual;
  float *x_out;  // the new residual stream, in other memory than the old one; null: not written
  const float *weight;
  const float *bias;
  States shift;  // normalized vectors of the tokens before the first; `before` null: nothing is mixed
  const float *mix[kMixPlanes];   // [width]; null: that plane is the normalized vector itself
  const float *more[kMixPlanes];  // [rows][width], added to mix; null: nothing
  void *plane[kMixPlanes];
  const int *starts;  // [sequences + 1]: the first row of each, and where the last one ends
  const int *owner;   // [rows]: the sequence of each row, -1 where there is none; null, like `starts`: no shift
  int rows, width, planes, plane_type;
  int commit, filler;  // commit: whether the last token of a sequence leaves its normalized vector in the state
};

// Two vectors in shared memory: a row's, and that of the token before it, in the same sequence.
struct RowPair {
  float *vector[2];
  float *scratch;
  int width;
};

// `count` of the two: what is given for the other has no meaning.
DEVICE void mean_and_scale(const RowPair &pair, int count, float (&mean)[2], float (&scale)[2]) {
  const int step = 4 * static_cast<int>(blockDim.x);
  float sums[2] = {0, 0};
  UNROLL
  for (int which = 0; which < 2; which++) {
    if (which >= count) break;
    for (int c = 4 * static_cast<int>(threadIdx.x); c < pair.width; c += step)
      sums[which] += sum4(load4(pair.vector[which] + c));
  }
  sum_block(sums, pair.scratch);
  UNROLL
  for (int which = 0; which < 2; which++) {
    mean[which] = sums[which] / static_cast<float>(pair.width);
    sums[which] = 0;
    if (which >= count) break;
    float4 squares = four(0, 0, 0, 0);
    for (int c = 4 * static_cast<int>(threadIdx.x); c < pair.width; c += step) {
      const float4 x = minus4(load4(pair.vector[which] + c), mean[which]);
      squares = fma4(x, x, squares);
    }
    sums[which] = sum4(squares);
  }
  sum_block(sums, pair.scratch);
  UNROLL
  for (int which = 0; which < 2; which++)
    scale[which] = 1.0f / sqrtf(sums[which] / static_cast<float>(pair.width) + kNormEps);
}

DEVICE float4 normed4(float4 x, float mean, float scale, float4 weight, float4 bias) {
  return fma4(mul4(scale, minus4(x, mean)), weight, bias);
}

// The residual streams of the row and, with a count of 2, of the row before it.
DEVICE void fill_pair(const RowsMixArguments &args, const RowPair &pair, i64 row, int count) {
  const int width = args.width, step = 4 * static_cast<int>(blockDim.x);
  for (int c = 4 * static_cast<int>(threadIdx.x); c < width; c += step) {
    const float4 x = residual4(args.residual, row, width, c);
    store4(pair.vector[0] + c, x);
    if (args.x_out) store4(args.x_out + row * width + c, x);
    if (count > 1) store4(pair.vector[1] + c, residual4(args.residual, row - 1, width, c));
  }
}

DEVICE void write_planes(const RowsMixArguments &args, i64 row, int c, float4 normed, float4 delta) {
  const i64 at = row * args.width + c;
  for (int j = 0; j < args.planes; j++) {
    float4 out = normed;
    if (args.mix[j]) {
      float4 share = load4(args.mix[j] + c);
      if (args.more[j]) share = add4(share, load4(args.more[j] + at));
      out = fma4(delta, share, normed);
    }
    write4(args.plane[j], args.plane_type, at, out);
  }
}

DEVICE void mix_row(const RowsMixArguments &args, const RowPair &pair, i64 row) {
  const int sequence = args.shift.before ? args.owner[row] : -1;
  const bool shifts = sequence >= 0, is_first = shifts && row == args.starts[sequence];
  const bool is_last = shifts && row + 1 == args.starts[sequence + 1], has_neighbour = shifts && !is_first;
  const int count = has_neighbour ? 2 : 1;
  fill_pair(args, pair, row, count);  // each thread reads only what it wrote itself
  float mean[2], scale[2];
  mean_and_scale(pair, count, mean, scale);
  const float *before = is_first ? state_before(args.shift, sequence) : nullptr;
  float *after = args.commit && is_last ? state_after(args.shift, sequence) : nullptr;
  const int step = 4 * static_cast<int>(blockDim.x);
  for (int c = 4 * static_cast<int>(threadIdx.x); c < args.width; c += step) {
    const float4 weight = load4(args.weight + c), bias = load4(args.bias + c);
    const float4 normed = normed4(load4(pair.vector[0] + c), mean[0], scale[0], weight, bias);
    float4 delta = four(0, 0, 0, 0);
    if (shifts) {
      const float4 previous = before ? load4(before + c)
                                     : normed4(load4(pair.vector[1] + c), mean[1], scale[1], weight, bias);
      delta = add4(previous, mul4(-1.0f, normed));
    }
    // With one token, the states before and after may be the same memory: read above, written here.
    if (after) store4(after + c, normed);
    write_planes(args, row, c, normed, delta);
  }
}

KERNEL(rows_mix, RowsMixArguments, kRowThreads) {
  release_next();
  await_previous();
  Carve carve;
  RowPair pair;
  pair.vector[0] = carve.take<float>(args.width);
  pair.vector[1] = carve.take<float>(args.width);
  pair.scratch = carve.take<float>(2 * warps());
  pair.width = args.width;
  for (i64 row = blockIdx.x; row < args.rows; row += gridDim.x) mix_row(args, pair, row);
}

// --- rows_last -----------------------------------------------------------------------------------------

// The residual stream of each sequence's last token, with the last product added. Sequences without tokens come
// last: what they are given has no meaning.
struct RowsLastArguments {
  Residual residual;
  float *out;         // [sequences][width]
  const int *starts;  // [sequences + 1], as of rows_mix
  int sequences, width;
};

KERNEL(rows_last, RowsLastArguments, kRowThreads) {
  release_next();
  await_previous();
  const int step = 4 * static_cast<int>(blockDim.x);
  for (i64 sequence = blockIdx.x; sequence < args.sequences; sequence += gridDim.x) {
    const i64 row = args.starts[sequence + 1] - 1;
    for (int c = 4 * static_cast<int>(threadIdx.x); c < args.width; c += step)
      store4(args.out + sequence * args.width + c, residual4(args.residual, row, args.width, c));
  }
}

// --- rows_copy -----------------------------------------------------------------------------------------

// Copies each row to memory of its own: the logits of a pass, before the next one overwrites them. A block has
// a stretch of a row.
struct RowsCopyArguments {
  const float *from;  // [rows][width]
  float *const *to;   // of each row, [width]
  int width, filler;
};

KERNEL(rows_copy, RowsCopyArguments, kRowThreads) {
  release_next();
  await_previous();
  const float *from = args.from + static_cast<i64>(blockIdx.x) * args.width;
  float *to = args.to[blockIdx.x];
  const int step = static_cast<int>(gridDim.y * blockDim.x);
  for (int c = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x); c < args.width; c += step) to[c] = from[c];
}
