// The passes over the logits, which are one loop: what a pass does with a tile is a word to it, so that a
// kernel that runs once a token needs few instructions, which no near cache may hold.
//
// A weight is e^(score - largest), so that the largest is 1. Every sum is taken in an order that depends on
// nothing but the logits.
#pragma once

#include "sample_scores.cuh"

namespace drawing {

enum Pass {
  kLook,     // finds the largest score
  kSurvey,   // sums and counts the weights from each of the bounds up
  kGather,   // brings those in the bracket to shared memory
  kLargest,  // counts tokens with the largest score
  kInside,   // counts the weights in the bracket
  kRemain,   // sums what the tokens that remain are drawn by
  kFew,      // the same of the tokens in shared memory
  kNone,     // is the last: no token can be drawn
};

// Tokens of the vocabulary.
struct Range {
  int begin, count;
};
// How many each warp has of some, the last ones fewer or none: a multiple of 32.
DEVICE int stretch_of(const Range &all) { return pieces(all.count, kSampleThreads) * kWarp; }
DEVICE Range own_stretch(const Range &all, int owner) {
  const int begin = all.begin + owner * stretch_of(all);
  return {begin, smaller(stretch_of(all), all.begin + all.count - begin)};
}

// The bounds that a pass is about: those that a survey tries, and the low end of the bracket, as far as
// bounds have been tried; of other passes, the first is its high end.
struct Limits {
  float low, bounds[kSampleLevels];
};
DEVICE Limits limits(const Block &b, Pass pass) {
  Limits l = {as_float(b.bracket.low), {}};
  UNROLL
  for (int i = 0; i < kSampleLevels; i++) l.bounds[i] = as_float(b.bounds[i]);
  if (pass != kSurvey) l.bounds[0] = as_float(b.bracket.high);
  else if (!b.bracket.counted) l.low = l.bounds[kSampleLevels - 1];
  return l;
}
DEVICE bool is_inside(const Limits &l, float weight) { return weight >= l.low && weight < l.bounds[0]; }
// Those in the bracket remain as far as a token.
DEVICE bool remains(const Limits &l, int last, float weight, int token) {
  return weight >= l.low && (weight >= l.bounds[0] || token <= last);
}

DEVICE float sum_of(const float (&w)[kSampleEach]) { return (w[0] + w[1]) + (w[2] + w[3]); }

// Adds to the sum and the number of the weights from each bound up; tells whether weights lie in the bracket.
DEVICE bool tally(const Limits &l, const float (&w)[kSampleEach], float (&numbers)[2 * kSampleLevels]) {
  const float most = fmaxf(fmaxf(w[0], w[1]), fmaxf(w[2], w[3]));
  if (!__any_sync(kAllLanes, most >= l.low)) return false;
  UNROLL
  for (int i = 0; i < kSampleLevels; i++) {
    UNROLL
    for (int k = 0; k < kSampleEach; k++) {
      if (w[k] < l.bounds[i]) continue;
      numbers[2 * i] += w[k];
      numbers[2 * i + 1] += 1;
    }
  }
  return true;
}

DEVICE void leave_tally(Block &b, u32 tiles, float total, const float (&numbers)[2 * kSampleLevels]) {
  UNROLL
  for (int i = 0; i < kSampleNumbers; i++) {
    const float sum = sum_lanes(i < 2 * kSampleLevels ? numbers[i] : total);
    if (lane() == 0) b.numbers[i][warp()] = sum;
  }
  if (lane() == 0) b.tiles[warp()] = tiles;
}

// Where in shared memory the weights of this warp begin.
DEVICE int own_place(const Block &b) {
  const float above = b.bracket.from_high.count > 0 ? b.own_high[lane()] : 0.0f;
  return static_cast<int>(sum_lanes(lane() < warp() ? b.own_low[lane()] - above : 0.0f));
}

// Puts the weights in the bracket down from `place` on, in the order of their tokens; gives the next place.
DEVICE int put_down(Block &b, const Limits &l, int begin, const float (&w)[kSampleEach], int place) {
  UNROLL
  for (int k = 0; k < kSampleEach; k++) {
    const bool inside = is_inside(l, w[k]);
    const u32 which = __ballot_sync(kAllLanes, inside);
    if (inside) {
      const int at = place + __popc(which & ((1u << lane()) - 1));
      b.weights[at] = w[k];
      b.ids[at] = begin + k * kWarp + lane();
    }
    place += __popc(which);
  }
  return place;
}

// What the other passes count or sum.
DEVICE float weigh(const Block &b, const Limits &l, Pass pass, int begin,
                   const float (&score)[kSampleEach], const float (&w)[kSampleEach]) {
  float sum = 0;
  UNROLL
  for (int k = 0; k < kSampleEach; k++) {
    bool counts = pass == kLargest ? score[k] == 0 : is_inside(l, w[k]);
    if (pass == kRemain) counts = remains(l, b.last, w[k], begin + k * kWarp + lane());
    if (counts) sum += pass != kRemain ? 1 : b.later ? expf(divided(b, score[k])) : w[k];
  }
  return sum;
}

DEVICE void to_weights(const Block &b, float top, bool is_first, float (&x)[kSampleEach],
                       float (&w)[kSampleEach]) {
  UNROLL
  for (int k = 0; k < kSampleEach; k++) x[k] -= top;
  if (is_first) {
    UNROLL
    for (int k = 0; k < kSampleEach; k++) x[k] = divided(b, x[k]);
  }
  UNROLL
  for (int k = 0; k < kSampleEach; k++) w[k] = expf(x[k]);
}

// Goes over a stretch of at most 32 tiles. Gives what this lane has found: the largest score, a count or a
// sum; what else a pass finds is left in shared memory.
DEVICE float sweep(Block &b, const float *logits, Pass pass, const Range &stretch) {
  const Limits l = limits(b, pass);
  const int begin = stretch.begin, end = begin + stretch.count;
  u32 wanted = pass == kGather ? b.tiles[warp()] : ~0u, changed = changed_tiles(b, begin, end), tiles = 0;
  int place = pass == kGather ? own_place(b) : 0;
  float found = pass == kLook ? -infinity() : 0, numbers[2 * kSampleLevels] = {}, next[kSampleEach] = {};
  const float *own = logits + begin + lane();
  const float top = b.top;
  const bool is_first = b.first;
  int left = stretch.count - lane();
  bool bad = false;
  if (wanted & 1) load(own, left, next);
  ROLLED
  for (int i = begin, turn = 0; i < end; i += kSampleTile, turn++, wanted >>= 1, left -= kSampleTile) {
    float x[kSampleEach], w[kSampleEach];
    UNROLL
    for (int k = 0; k < kSampleEach; k++) x[k] = next[k];
    own += kSampleTile;
    if (wanted & 2) load(own, left - kSampleTile, next);
    if (!(wanted & 1)) continue;
    if (changed >> turn & 1) change(b, i, left, x);
    if (pass == kLook) {
      UNROLL
      for (int k = 0; k < kSampleEach; k++) found = fmaxf(found, x[k]), bad |= x[k] != x[k];
      continue;
    }
    to_weights(b, top, is_first, x, w);
    if (pass == kSurvey) {
      found += sum_of(w);
      tiles |= tally(l, w, numbers) ? 1u << turn : 0;
    } else if (pass == kGather) {
      place = put_down(b, l, i, w, place);
    } else {
      found += weigh(b, l, pass, i, x, w);
    }
  }
  if (pass == kSurvey) leave_tally(b, tiles, found, numbers);
  return bad ? infinity() : found;
}

}  // namespace drawing
