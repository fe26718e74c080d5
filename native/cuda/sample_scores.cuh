// What drawing a token knows of its sequence, and the logits as every pass reads them: penalties
// subtracted, banned tokens at minus infinity, nothing written back.
#pragma once

#include "philox.cuh"

// How the next token of a sequence is drawn: rwkv_cli/sampling.py has the meaning of each.
struct DrawSettings {
  float temperature, min_p;
  double top_p;
  int top_k, temperature_first;
  float presence, frequency, penalty_decay;
  int filler;
  u64 seed, stream;
};

constexpr int kSampleThreads = 1024;
constexpr int kSampleWarps = kSampleThreads / kWarp;
constexpr int kSampleEach = 4;  // tokens of a lane in a tile
constexpr int kSampleTile = kSampleEach * kWarp;
constexpr int kSampleVocab = kSampleWarps * kWarp * kSampleTile;  // at most: 131,072 tokens
constexpr int kSampleLevels = 3;                                  // bounds of weights that one pass tries
constexpr int kSampleNumbers = 2 * kSampleLevels + 1;
constexpr int kSampleRoom = kSampleThreads;  // weights in shared memory
constexpr u32 kSampleLeast = 0x00800000u;    // the smallest normal float: what is less likely never remains
constexpr u32 kSampleAbove = 0x40000000u;    // 2, more than any weight
constexpr float kSampleColdest = 1e-6f;      // below it only the likeliest token remains

namespace drawing {

DEVICE float infinity() { return as_float(0x7f800000u); }

// Sum and number of the weights from some bound up.
struct Tally {
  float sum, count;
};

// Between two bounds, as the bits of floats, lies the smallest weight that remains: those from `high` up
// are not enough, those from `low` up are, or are all that may remain.
struct Bracket {
  u32 low, high;
  Tally from_low, from_high;
  bool counted;  // from_low is known
  bool settled;  // all from `low` up remain
};

// The block's shared memory.
struct Block {
  const DrawSettings *settings;  // of the sequence, as are
  const float *counts;           // these; each may be null
  const u32 *seen, *banned;
  int vocab;
  float top;               // the largest logit
  float divisor, inverse;  // the temperature
  bool first, later;       // whether it changes the weights that the filters look at, or those after
  int last;                // of the weights in the bracket, those of later tokens go
  Bracket bracket;
  Tally enough;               // as soon as the sum exceeds or the count reaches this, smaller weights go
  u32 bounds[kSampleLevels];  // to be tried next, descending
  double uniform;
  // From each warp; a row has one more, so that the first numbers of rows lie in different banks.
  float numbers[kSampleNumbers][kSampleWarps + 1];
  float own_low[kSampleWarps], own_high[kSampleWarps];  // how many weights from the bracket's ends up
  u32 tiles[kSampleWarps];  // a bit for each tile with weights in the bracket
  float weights[kSampleRoom];
  int ids[kSampleRoom];
  int few;    // how many weights there are, if they are all that remain
  int place;  // where a running sum has reached its target
};
constexpr int kSampleShared = 10240;  // bytes
static_assert(sizeof(Block) <= kSampleShared, "the launch gives as much");

DEVICE Block &block() { return *reinterpret_cast<Block *>(rwkv_shared); }

// Rounded as numpy does, step by step; a negative count is that of a token that never was.
DEVICE float penalized(const Block &b, float x, float count) {
  if (count < 0) return x;
  return x - __fadd_rn(b.settings->presence, __fmul_rn(count, b.settings->frequency));
}

// The logits of a lane in a tile: own[32 k], as far as there are `left` from its first one.
DEVICE void load(const float *own, int left, float (&x)[kSampleEach]) {
  UNROLL
  for (int k = 0; k < kSampleEach; k++) x[k] = k * kWarp < left ? own[k * kWarp] : -infinity();
}

// Which of at most 32 tiles may have tokens with penalties or bans.
DEVICE u32 changed_tiles(const Block &b, int begin, int end) {
  u32 any = 0;
  const int group = begin / kWarp + lane() * kSampleEach;
  UNROLL
  for (int k = 0; k < kSampleEach; k++) {
    if ((group + k) * kWarp >= end) continue;
    if (b.counts) any |= b.seen ? b.seen[group + k] : 1;
    if (b.banned) any |= b.banned[group + k];
  }
  return __ballot_sync(kAllLanes, any != 0);
}

// Applies both to the logits of a lane in a tile.
DEVICE void change(const Block &b, int begin, int left, float (&x)[kSampleEach]) {
  if (b.counts) {
    const float *own = b.counts + begin + lane();
    float counts[kSampleEach];
    UNROLL
    for (int k = 0; k < kSampleEach; k++) counts[k] = k * kWarp < left ? own[k * kWarp] : -1;
    UNROLL
    for (int k = 0; k < kSampleEach; k++) x[k] = penalized(b, x[k], counts[k]);
  }
  if (b.banned) {
    const u32 *own = b.banned + begin / kWarp;
    UNROLL
    for (int k = 0; k < kSampleEach; k++)
      if (k * kWarp < left && (own[k] >> lane() & 1)) x[k] = -infinity();
  }
}

// Divides scores, which are not above 0, by the temperature. A product with the inverse and one step of
// correction round as a division does.
DEVICE float divided(const Block &b, float score) {
  const float x = fmaxf(score, -1e30f);  // an infinity would leave no number to correct by
  const float quotient = x * b.inverse;
  return fmaf(fmaf(-quotient, b.divisor, x), b.inverse, quotient);
}

}  // namespace drawing
