// Where a token enters the stack, and RWKV-6's mixing of inputs by an amount that depends on them.
#pragma once

#include "heads.cuh"
#include "inputs.cuh"

constexpr int kEndThreads = kInputThreads;

struct EmbedArguments {
  const int *tokens;   // [rows]
  const void *weights;  // [vocabulary][width]
  const float *norm_weight;
  const float *norm_bias;
  float *x;  // [rows][width]
  int type, width;
};

// A row of the embedding, normalized: a block has a token.
KERNEL(embed, EmbedArguments, kEndThreads) {
  release_next();
  await_previous();
  Carve carve;
  float *parts = carve.take<float>(2 * kEndThreads / kWarp);
  const int width = args.width, row = static_cast<int>(blockIdx.x);
  float *x = args.x + static_cast<i64>(row) * width;
  const i64 start = static_cast<i64>(args.tokens[row]) * width;
  for (int first = 4 * static_cast<int>(threadIdx.x); first < width; first += 4 * kEndThreads) {
    UNROLL
    for (int c = first; c < first + 4; c++) x[c] = read(args.weights, args.type, start + c);
  }
  moments_of<1>(x, width, parts);  // each thread reads what it wrote
  const Moments moments = Moments::of<1>(parts, 0, width);
  for (int c = 4 * static_cast<int>(threadIdx.x); c < width; c += 4 * kEndThreads)
    store4(x + c, normed4(load4(x + c), moments, load4(args.norm_weight + c), load4(args.norm_bias + c)));
}

constexpr int kMixes = 5;
constexpr int kMixChannels = 64;

struct Mix6Arguments {
  Source source;
  const float *maa[kMixes];  // [cols]
  LowRank up;                // all five: weights [5][rank][cols], inputs [M][5 * rank]
  float *out;                // [5][M][cols]
  int sequences, filler;
};

// RWKV-6's five inputs (arXiv:2404.05892, eq. 14 and 15): a block has 64 channels of one of them.
KERNEL(mix6, Mix6Arguments, kEndThreads) {
  release_next();
  await_previous();
  Carve carve;
  float *scratch = carve.take<float>(kEndThreads / kWarp * kMixChannels), *raised = carve.take<float>(kMixChannels);
  float *parts = carve.take<float>(2 * kEndThreads / kWarp);
  const int mix = static_cast<int>(blockIdx.y), m = static_cast<int>(blockIdx.z), cols = args.source.cols;
  const int channel = static_cast<int>(blockIdx.x) * kMixChannels;
  Source source = args.source;
  source.x += static_cast<i64>(m) * cols;
  moments_of<1>(source.x, cols, parts);
  const Moments moments = Moments::of<1>(parts, 0, cols);
  LowRank up = args.up;
  up.low += mix * up.rank;
  float sums[1][8] = {};
  raise<kMixChannels>(up, m, static_cast<i64>(mix) * up.rank * cols, cols, channel, sums[0]);
  finish_raise<kMixChannels, 1>(sums, scratch, raised);
  const int c = channel + static_cast<int>(threadIdx.x);
  if (static_cast<int>(threadIdx.x) >= kMixChannels || c >= cols) return;
  const float present = normed(source.x[c], moments, source.weight[c], source.bias[c]);
  const float before = state_before(source.shift, m)[c], share = args.maa[mix][c] + raised[threadIdx.x];
  args.out[(static_cast<i64>(mix) * args.sequences + m) * cols + c] = fmaf(before - present, share, present);
}
