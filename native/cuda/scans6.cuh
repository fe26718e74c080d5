// The recurrence of RWKV-5 and 6 over the tokens of whole sequences (arXiv:2404.05892, eq. 7 and 17):
// y = (S + diag(u) v k^T) r, S = S diag(w) + v k^T.
#pragma once

#include "scans.cuh"

// Matrices [rows][width].
struct Scan6Arguments {
  const float *r;
  const float *k;
  const float *v;
  const float *product;  // RWKV-6: of the decay's low-rank matrices; null: the decay is constant
  const float *decay;    // [width]; RWKV-6: time_decay, for w = exp(-exp(decay + product)); else w itself
  const float *u;        // [width]
  float *y;
  States state;
  const int *starts;  // [sequences + 1], as of rows_mix; a sequence may have no tokens
  int width, filler;
};

template <int Size>
class Recurrence6 {
 public:
  static constexpr int kOperands = 3;

  DEVICE Recurrence6(const Scan6Arguments &args, i64 head) : decay_(args.decay + head) {
    bonus_.load(args.u + head);
  }

  DEVICE void load(const Scan6Arguments &args, i64 at, int count) {
    r_.load(args.r + at, args.width, count);
    k_.load(args.k + at, args.width, count);
    if (args.product) w_.load(args.product + at, args.width, count);
    else w_.load(decay_, 0, count);
  }

  DEVICE void store(const Scan6Arguments &args, float *to, int count) {
    if (args.product) w_.decay(decay_, count);
    r_.store(to, count);
    w_.store(to + kPart, count);
    k_.store(to + 2 * kPart, count);
  }

  DEVICE float step(RowPart<Size> &row, const float *operands, float value) const {
    float4 read = four(0, 0, 0, 0);
    UNROLL
    for (int i = 0; i < row.kGroups; i++) {
      const float *at = operands + row.key(i);
      const float4 present = mul4(value, load4(at + 2 * kPart));
      read = fma4(fma4(bonus_.s[i], present, row.s[i]), load4(at), read);
      row.s[i] = fma4(row.s[i], load4(at + kPart), present);
    }
    return sum4(read);
  }

 private:
  static constexpr int kPart = kScanTokens * Size;
  Fetch<Size> r_, w_, k_;
  RowPart<Size> bonus_;
  const float *decay_;
};

KERNEL(scan6_32, Scan6Arguments, kScanThreads) { scan<32, Recurrence6<32>>(args); }
KERNEL(scan6_64, Scan6Arguments, kScanThreads) { scan<64, Recurrence6<64>>(args); }
KERNEL(scan6_128, Scan6Arguments, kScanThreads) { scan<128, Recurrence6<128>>(args); }
