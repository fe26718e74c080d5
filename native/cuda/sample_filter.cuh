// Top-p, top-k and min-p without sorting: the smallest weight that remains is searched between two bounds
// until few weights lie between them; these go to shared memory, where the search ends.
#pragma once

#include "sample_sweep.cuh"

namespace drawing {

DEVICE float between(const Bracket &b) { return b.from_low.count - b.from_high.count; }
DEVICE bool is_single(const Bracket &b) { return b.high - b.low <= 1; }
DEVICE bool reaches(const Tally &here, const Tally &enough) {
  return here.sum > enough.sum || here.count >= enough.count;
}

// A float exceeds `x`, which is not negative, just when it exceeds this one.
DEVICE float rounded_down(double x) {
  const float near = static_cast<float>(x);
  return static_cast<double>(near) > x ? as_float(as_bits(near) - 1) : near;
}

// Sets a bound that is tried next, inside the bracket.
DEVICE void try_next(Block &b, int i, u32 bound) {
  if (bound < b.bracket.low) bound = b.bracket.low;
  b.bounds[i] = bound < b.bracket.high ? bound : b.bracket.high - 1;
}

// By one thread, before everything.
DEVICE void begin_search(Block &b) {
  const DrawSettings &settings = *b.settings;
  const u32 least = as_bits(fmaxf(as_float(kSampleLeast), settings.min_p));
  b.bracket = {least, kSampleAbove, {}, {}, false, false};
  b.enough = {infinity(), settings.top_k > 0 ? static_cast<float>(settings.top_k) : infinity()};
  b.last = b.vocab;
  b.few = 0;
  // Most distributions end between two of these.
  try_next(b, 0, as_bits(0x1p-3f));
  try_next(b, 1, as_bits(0x1p-7f));
  try_next(b, 2, as_bits(0x1p-12f));
}

// By the first warp, after a survey: narrows the bracket to two bounds between which there is enough.
DEVICE void narrow(Block &b, bool is_first) {
  float number = 0;
  ROLLED
  for (int w = 0; w < kSampleWarps && lane() < kSampleNumbers; w++) number += b.numbers[lane()][w];
  const double total = __shfl_sync(kAllLanes, number, kSampleNumbers - 1);
  const float sum = __shfl_sync(kAllLanes, number, 2 * lane());
  const Tally here = {sum, __shfl_sync(kAllLanes, number, 2 * lane() + 1)};
  Tally enough = b.enough;
  // A sum may fall short of its target by a rounding.
  const double top_p = b.settings->top_p;
  if (is_first && top_p < 1) enough.sum = rounded_down(top_p * total * (1 - 1e-9));
  const bool is_level = lane() < kSampleLevels;
  const u32 bound = is_level ? b.bounds[lane()] : 0;
  const u32 reached = __ballot_sync(kAllLanes, is_level && reaches(here, enough));
  const u32 ends = __ballot_sync(kAllLanes, is_level && bound == b.bracket.low) | reached;
  const int low = ends ? __ffs(static_cast<int>(ends)) - 1 : kSampleLevels, high = low - 1;
  const float own_low = b.numbers[smaller(2 * low + 1, kSampleNumbers - 1)][lane()];
  const float own_high = b.numbers[larger(2 * high + 1, 0)][lane()];
  __syncwarp();  // all have read
  if (ends) b.own_low[lane()] = own_low;
  if (high >= 0) b.own_high[lane()] = own_high;
  if (lane() == high) b.bracket.high = bound, b.bracket.from_high = here;
  if (ends && lane() == low) {
    b.bracket.low = bound, b.bracket.from_low = here;
    b.bracket.counted = true;
    b.bracket.settled = !(reached >> low & 1);
  }
  __syncwarp();
  if (lane() != 0) return;
  b.enough = enough;
  constexpr u32 kOctave = 1u << 23;
  const Bracket &now = b.bracket;
  const u32 step = now.counted ? (now.high - now.low) / (kSampleLevels + 1) + 1 : 0;
  try_next(b, 0, now.counted ? now.low + 3 * step : now.high - 6 * kOctave);
  try_next(b, 1, now.counted ? now.low + 2 * step : now.high - 14 * kOctave);
  try_next(b, 2, now.low + step);
}

// Narrows a bracket whose weights are in shared memory until a single value lies in it. Every warp tries a
// bound of its own.
DEVICE void search_few(Bracket *bracket, Block &b) {
  const int count = static_cast<int>(between(*bracket));
  const Tally above = bracket->from_high, enough = b.enough;
  ROLLED
  for (int turn = 0; !is_single(*bracket) && between(*bracket) > 1; turn ^= 2) {
    float *sums = b.numbers[turn], *counts = b.numbers[turn + 1];
    const u32 step = (bracket->high - bracket->low + kSampleWarps - 1) / kSampleWarps;
    const float least = as_float(bracket->low + step * static_cast<u32>(warp()));
    Tally mine = {};
    ROLLED
    for (int i = lane(); i < count; i += kWarp) {
      const float weight = b.weights[i];
      if (weight < least) continue;
      mine.sum += weight;
      mine.count += 1;
    }
    mine = {above.sum + sum_lanes(mine.sum), above.count + sum_lanes(mine.count)};
    if (lane() == 0) sums[warp()] = mine.sum, counts[warp()] = mine.count;
    __syncthreads();
    const bool inside = bracket->low + step * static_cast<u32>(lane()) < bracket->high;
    const Tally here = {sums[lane()], counts[lane()]};
    const u32 which = __ballot_sync(kAllLanes, inside && reaches(here, enough));
    bracket->settled = which == 0;
    if (bracket->settled) return;
    const int last = 31 - __clz(static_cast<int>(which));
    bracket->low += step * static_cast<u32>(last);
    bracket->from_low = {sums[last], counts[last]};
    if (last == kSampleWarps - 1 || bracket->low + step >= bracket->high) continue;
    bracket->high = bracket->low + step;
    bracket->from_high = {sums[last + 1], counts[last + 1]};
  }
}

// After a survey.
DEVICE Pass after_survey(Block &b, bool is_first) {
  __syncthreads();
  if (warp() == 0) narrow(b, is_first);
  __syncthreads();
  const Bracket &now = b.bracket;
  const bool ends = is_single(now) || now.settled;
  if (!ends && !(now.counted && between(now) <= kSampleRoom)) return kSurvey;
  const bool has_room = between(now) <= kSampleRoom, is_all = now.high == kSampleAbove;
  return has_room && (is_all || !now.settled) ? kGather : kRemain;
}

// After the weights in the bracket were gathered.
DEVICE void after_gather(Block &b) {
  __syncthreads();
  Bracket bracket = b.bracket;
  const int few = bracket.high == kSampleAbove ? static_cast<int>(between(bracket)) : 0;
  if (!bracket.settled) search_few(&bracket, b);
  __syncthreads();  // whoever still reads the bracket
  if (threadIdx.x == 0) b.bracket = bracket, b.few = few;
  __syncthreads();
}

}  // namespace drawing
