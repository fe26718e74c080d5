// RWKV-7's recurrence over the tokens of whole sequences (arXiv:2503.14456, eq. 17):
// S = S (diag(w) + a b^T) + v k^T, y = S r.
#pragma once

#include "scans.cuh"

// Matrices [rows][width].
struct Scan7Arguments {
  const float *r;
  const float *w;
  const float *k;
  const float *v;
  const float *removal;      // a
  const float *replacement;  // b
  float *y;
  States state;
  const int *starts;  // [sequences + 1], as of rows_mix; a sequence may have no tokens
  int width, filler;
};

template <int Size>
class Recurrence7 {
 public:
  static constexpr int kOperands = 5;

  DEVICE Recurrence7(const Scan7Arguments &, i64) {}

  DEVICE void load(const Scan7Arguments &args, i64 at, int count) {
    r_.load(args.r + at, args.width, count);
    w_.load(args.w + at, args.width, count);
    k_.load(args.k + at, args.width, count);
    a_.load(args.removal + at, args.width, count);
    b_.load(args.replacement + at, args.width, count);
  }

  DEVICE void store(const Scan7Arguments &, float *to, int count) const {
    r_.store(to, count);
    w_.store(to + kPart, count);
    k_.store(to + 2 * kPart, count);
    a_.store(to + 3 * kPart, count);
    b_.store(to + 4 * kPart, count);
  }

  DEVICE float step(RowPart<Size> &row, const float *operands, float value) const {
    float4 removed = four(0, 0, 0, 0), read = four(0, 0, 0, 0);
    UNROLL
    for (int i = 0; i < row.kGroups; i++)
      removed = fma4(row.s[i], load4(operands + 3 * kPart + row.key(i)), removed);
    const float total = sum_lanes(sum4(removed), kScanSplit);
    UNROLL
    for (int i = 0; i < row.kGroups; i++) {
      const float *at = operands + row.key(i);
      // What was removed comes last: all else can be done before its sum is known.
      const float4 kept = fma4(row.s[i], load4(at + kPart), mul4(value, load4(at + 2 * kPart)));
      row.s[i] = fma4(total, load4(at + 4 * kPart), kept);
      read = fma4(row.s[i], load4(at), read);
    }
    return sum4(read);
  }

 private:
  static constexpr int kPart = kScanTokens * Size;
  Fetch<Size> r_, w_, k_, a_, b_;
};

KERNEL(scan7_32, Scan7Arguments, kScanThreads) { scan<32, Recurrence7<32>>(args); }
KERNEL(scan7_64, Scan7Arguments, kScanThreads) { scan<64, Recurrence7<64>>(args); }
KERNEL(scan7_128, Scan7Arguments, kScanThreads) { scan<128, Recurrence7<128>>(args); }
