// Draws a token of each sequence of a batch from its logits, as rwkv_cli/sampling.py does on the host, so
// that many steps of decoding are one graph without a word from it, or that the logits of a batch need not be
// copied to the host. The two give the same token unless rounding decides: exponentials differ in their last
// bit, sums in their seventh digit.
//
// A draw mostly reads the logits twice, from the second-level cache: for the largest; for the sum of all
// weights, and how many reach certain bounds; and the few tiles with weights that may remain once more.
#pragma once

#include "sample_filter.cuh"

// One block a sequence. The vocabulary has at most kSampleVocab tokens.
struct SampleArguments {
  const float *const *logits;    // of each sequence, [vocab]
  const DrawSettings *settings;  // [sequences]
  // [sequences]: the number in [0, 1) that decides; the counts stay as they are. Null: it is that of the
  // settings' seed, stream and position, and what is drawn is counted.
  const double *uniform;
  i64 *position;  // [sequences]: tokens before the drawn one; counted on; null beside `uniform`
  // Of each sequence, [vocab]: how often each token was generated, faded; negative: never. Null, for one or
  // for all: no penalties.
  float *const *counts;
  // Of each sequence, a bit for each token, set at least where it has a count; the kernel adds the drawn one.
  // Null, for one or for all: every count is read to find these few, which costs as much as the logits do.
  u32 *const *seen;
  const u32 *const *banned;  // of each sequence, a bit for each token that is never drawn; null as `counts`
  const u32 *uncounted;      // a bit for each token whose repetition is not counted again; may be null
  int *token;                // [sequences]: the drawn one; stays as it is when none can be drawn; may be null
  int *drawn;                // [sequences]: the same for the host, -1 when none can be drawn; may be null
  int vocab, filler;
};

constexpr int kCountThreads = 256;

// Puts down for `sample` how often tokens were generated, and takes it away again: a block a sequence.
struct SampleCountsArguments {
  const int *starts;     // [sequences + 1]: where the tokens of each begin
  const int *ids;        // tokens, each once in a sequence
  const float *numbers;  // how often each was generated, faded
  float *const *counts;  // of each sequence, [vocab]: -1 before and after
  u32 *const *seen;      // the same: no bit before and after
  int clears, filler;
};

namespace drawing {

// The sums over a warp up to each lane.
DEVICE float sum_to_lane(float x) {
  UNROLL
  for (int step = 1; step < kWarp; step *= 2) {
    const float before = __shfl_up_sync(kAllLanes, x, static_cast<u32>(step));
    if (lane() >= step) x += before;
  }
  return x;
}

// The lane at which a running sum exceeds a target; the last one with anything where rounding lets none.
DEVICE int lane_past(float running, float own, float target) {
  const u32 any = __ballot_sync(kAllLanes, own > 0);
  const u32 past = __ballot_sync(kAllLanes, own > 0 && running > target);
  if (past) return __ffs(static_cast<int>(past)) - 1;
  return any ? 31 - __clz(static_cast<int>(any)) : 0;
}

// One round of finding the first token at which the running sum of a pass exceeds a target: leaves the
// stretch of one warp, and in the last round its token, and tells that. `own` is what the pass gave this
// lane; a target below 0 is not known yet, but a part of the whole sum.
DEVICE bool locate(Block &b, float own, double part, Range *range, float *target) {
  const float sum = sum_lanes(own);
  __syncthreads();  // whoever still reads what is written next
  if (lane() == 0) b.numbers[0][warp()] = sum;
  __syncthreads();
  const float stretches = b.numbers[0][lane()], running = sum_to_lane(stretches);
  if (*target < 0) *target = rounded_down(part * __shfl_sync(kAllLanes, running, kWarp - 1));
  const int chosen = lane_past(running, stretches, *target);
  const float before = __shfl_sync(kAllLanes, running, larger(chosen - 1, 0));
  if (chosen > 0) *target = fmaxf(*target - before, 0.0f);
  const bool is_last = stretch_of(*range) == kWarp;
  *range = own_stretch(*range, chosen);
  if (!is_last) return false;
  if (warp() == chosen) {
    const int place = range->begin + lane_past(sum_to_lane(own), own, *target);
    if (lane() == 0) b.place = place;
  }
  __syncthreads();
  return true;
}

// Whether weights that are all the same take the tokens beyond top-k, and which part of them stays.
DEVICE bool has_too_many(const Block &b) {
  return b.bracket.counted && b.bracket.from_low.count > b.enough.count;
}
DEVICE double inside_part(const Block &b) {
  return (b.enough.count - b.bracket.from_high.count - 0.5) / static_cast<double>(between(b.bracket));
}

// The first pass after the look.
DEVICE Pass after_look(Block &b, float own) {
  own = max_lanes(own);
  if (lane() == 0) b.numbers[0][warp()] = own;
  __syncthreads();
  const float top = max_lanes(b.numbers[0][lane()]);
  if (threadIdx.x == 0) b.top = top;
  __syncthreads();
  if (!(fabsf(top) < infinity())) return kNone;
  if (b.settings->temperature < kSampleColdest) return kLargest;
  return b.settings->top_p < 1 || b.enough.count < static_cast<float>(b.vocab) ? kSurvey : kRemain;
}

// The pass that draws.
DEVICE Pass last_pass(Block &b, const float *logits) {
  const int i = static_cast<int>(threadIdx.x);
  if (b.few == 0) return kRemain;
  if (i < b.few) {
    const int id = b.ids[i];
    float weight = remains(limits(b, kFew), b.last, b.weights[i], id) ? b.weights[i] : 0;
    if (weight > 0 && b.later) {
      const float x = b.counts ? penalized(b, logits[id], b.counts[id]) : logits[id];
      weight = expf(divided(b, x - b.top));
    }
    b.weights[i] = weight;
  }
  __syncthreads();
  return kFew;
}

// Gives the token, -1 if none can be drawn. The only loop: it holds every pass, so that there is one text
// of them for the instruction caches. When it ends, no thread reads counts any more.
DEVICE int draw(Block &b, const float *logits) {
  Pass pass = kLook;
  Range range = {0, b.vocab};
  float target = -1;
  bool is_first = true;
  ROLLED
  for (;;) {
    float own = 0;
    if (pass != kFew) own = sweep(b, logits, pass, own_stretch(range, warp()));
    else if (static_cast<int>(threadIdx.x) < b.few) own = b.weights[threadIdx.x];
    const Pass done = pass;
    if (pass == kLook) {
      pass = after_look(b, own);
      if (pass == kNone) return -1;
    } else if (pass == kSurvey) {
      pass = after_survey(b, is_first);
      is_first = false;
    } else if (pass == kGather) {
      after_gather(b);
      pass = kRemain;
    } else {
      const double part = pass == kLargest ? 0 : pass == kInside ? inside_part(b) : b.uniform;
      if (!locate(b, own, part, &range, &target)) continue;
      if (pass != kInside) return pass == kFew ? b.ids[b.place] : b.place;
      if (threadIdx.x == 0) b.last = b.place;
      __syncthreads();
      pass = kRemain;
    }
    // Among equals the smaller ids stay.
    if (pass == kRemain && done != kInside && has_too_many(b)) pass = kInside;
    if (pass == kRemain) pass = last_pass(b, logits);
    range = {0, pass == kFew ? b.few : b.vocab};
    target = -1;
  }
}

// All counts fade, then the token is counted.
DEVICE void record(const Block &b, float *counts, u32 *seen, int token, bool is_counted) {
  constexpr int kEach = 2 * kSampleEach;
  const float decay = b.settings->penalty_decay;
  ROLLED
  for (int i = warp() * kEach * kWarp; i < b.vocab; i += kSampleThreads * kEach) {
    float count[kEach];
    UNROLL
    for (int k = 0; k < kEach; k++) {
      const int group = i + k * kWarp, id = group + lane();
      const bool has_any = !seen || (group < b.vocab && seen[group / kWarp]);
      count[k] = has_any && id < b.vocab ? counts[id] : -1;
    }
    UNROLL
    for (int k = 0; k < kEach; k++) {
      const int id = i + k * kWarp + lane();
      if (count[k] < 0 && id != token) continue;
      const float faded = __fmul_rn(fmaxf(count[k], 0.0f), decay);
      counts[id] = id == token && is_counted ? __fadd_rn(faded, 1.0f) : faded;
    }
  }
  __syncthreads();  // whoever still looks for others
  if (threadIdx.x == 0 && seen) seen[token / kWarp] |= 1u << token % kWarp;
}

// By one thread.
DEVICE void begin(const SampleArguments &args, int sequence, Block &b) {
  b.counts = args.counts ? args.counts[sequence] : nullptr;
  b.seen = args.seen ? args.seen[sequence] : nullptr;
  b.banned = args.banned ? args.banned[sequence] : nullptr;
  b.settings = args.settings + sequence;
  b.vocab = args.vocab;
  const DrawSettings &settings = *b.settings;
  const bool matters = settings.temperature != 1 && settings.temperature >= kSampleColdest;
  b.divisor = settings.temperature;
  b.inverse = 1.0f / settings.temperature;
  b.first = matters && settings.temperature_first;
  b.later = matters && !settings.temperature_first;
  begin_search(b);
}

}  // namespace drawing

KERNEL(sample, SampleArguments, kSampleThreads) {
  using namespace drawing;
  release_next();
  await_previous();
  Block &b = block();
  const int sequence = static_cast<int>(blockIdx.x);
  const bool is_last = threadIdx.x == kSampleThreads - 1;
  if (is_last) begin(args, sequence, b);
  __syncthreads();
  if (is_last) {
    const DrawSettings &settings = *b.settings;
    if (args.uniform) b.uniform = args.uniform[sequence];
    else b.uniform = uniform(settings.seed, settings.stream, static_cast<u64>(args.position[sequence]));
  }
  const int token = draw(b, args.logits[sequence]);
  if (token >= 0 && b.counts && !args.uniform) {
    const bool is_uncounted = args.uncounted && (args.uncounted[token / kWarp] >> (token % kWarp) & 1);
    record(b, args.counts[sequence], args.seen ? args.seen[sequence] : nullptr, token, !is_uncounted);
  }
  if (!is_last) return;
  if (args.drawn) args.drawn[sequence] = token;
  if (token < 0) return;
  if (args.token) args.token[sequence] = token;
  if (args.position) args.position[sequence]++;
}

KERNEL(sample_counts, SampleCountsArguments, kCountThreads) {
  release_next();
  await_previous();
  const int sequence = static_cast<int>(blockIdx.x), end = args.starts[sequence + 1];
  float *counts = args.counts[sequence];
  u32 *seen = args.seen[sequence];
  for (int i = args.starts[sequence] + static_cast<int>(threadIdx.x); i < end; i += kCountThreads) {
    const int id = args.ids[i];
    counts[id] = args.clears ? -1 : args.numbers[i];
    if (args.clears) seen[id / kWarp] = 0;
    else atomicAdd(seen + id / kWarp, 1u << id % kWarp);  // an OR, since no bit is there yet
  }
}
