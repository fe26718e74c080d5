// RWKV-4's average over the tokens of whole sequences (arXiv:2305.13048, eq. 16, in the form of appendix D),
// and its gate (eq. 17): a thread has one channel of one sequence. Both sums are kept divided by
// e^exponent, so that no key overflows. The states before and after may be the same memory.
#pragma once

#include "device.cuh"

constexpr int kScan4Threads = 64;
constexpr int kScan4Tokens = 8;  // whose operands are on their way while those before are worked on

struct Scan4Arguments {
  const float *r;  // [rows][width], like k and v
  const float *k;
  const float *v;
  const float *log_w;  // [width]
  const float *u;      // [width]
  void *plane;         // sigmoid(r) * average
  States state;        // its offset finds the numerators
  i64 denominator;     // offsets of the denominators and exponents, like that of `state`
  i64 exponent;
  const int *starts;  // [sequences + 1], as of rows_mix; a sequence may have no tokens
  int width, plane_type;
};

struct Operands4 {
  float r[kScan4Tokens], k[kScan4Tokens], v[kScan4Tokens];
};

DEVICE void load_operands(Operands4 &to, const Scan4Arguments &args, i64 at, int count) {
  UNROLL
  for (int i = 0; i < kScan4Tokens; i++) {
    if (i >= count) break;
    to.r[i] = args.r[at + i * static_cast<i64>(args.width)];
    to.k[i] = args.k[at + i * static_cast<i64>(args.width)];
    to.v[i] = args.v[at + i * static_cast<i64>(args.width)];
  }
}

// Sums of values and of their weights, both divided by e^exponent.
struct Sums4 {
  float numerator, denominator, exponent;
};

// Gives the average with the present token, then adds that to the sums.
DEVICE float step4(Sums4 &sums, float log_w, float u, float k, float v) {
  const float highest = fmaxf(sums.exponent, u + k);
  const float past = expf(sums.exponent - highest), now = expf(u + k - highest);
  const float average = fmaf(past, sums.numerator, now * v) / fmaf(past, sums.denominator, now);
  const float top = fmaxf(sums.exponent + log_w, k);
  const float kept = expf(sums.exponent + log_w - top), added = expf(k - top);
  sums.numerator = fmaf(kept, sums.numerator, added * v);
  sums.denominator = fmaf(kept, sums.denominator, added);
  sums.exponent = top;
  return average;
}

KERNEL(scan4, Scan4Arguments, kScan4Threads) {
  release_next();
  await_previous();
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int sequence = static_cast<int>(blockIdx.y);
  const int begin = args.starts[sequence], tokens = args.starts[sequence + 1] - begin;
  if (c >= args.width || tokens == 0) return;
  const float log_w = args.log_w[c], u = args.u[c];
  const float *before = args.state.before[sequence] + c;
  Sums4 sums = {before[args.state.offset], before[args.denominator], before[args.exponent]};
  const i64 first = static_cast<i64>(begin) * args.width + c;
  Operands4 ahead;
  load_operands(ahead, args, first, tokens);
  for (int t = 0; t < tokens; t += kScan4Tokens) {
    const Operands4 now = ahead;
    const i64 at = first + static_cast<i64>(t) * args.width;
    const i64 next = at + static_cast<i64>(kScan4Tokens) * args.width;
    load_operands(ahead, args, next, tokens - t - kScan4Tokens);
    UNROLL
    for (int i = 0; i < kScan4Tokens; i++) {
      if (t + i >= tokens) break;
      const float average = step4(sums, log_w, u, now.k[i], now.v[i]);
      write(args.plane, args.plane_type, at + i * static_cast<i64>(args.width), sigmoid(now.r[i]) * average);
    }
  }
  float *after = args.state.after[sequence] + c;
  after[args.state.offset] = sums.numerator;
  after[args.denominator] = sums.denominator;
  after[args.exponent] = sums.exponent;
}
