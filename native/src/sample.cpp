// Draws a token from logits: what rwkv_cli/sampling.py says in numpy, without sorting a vocabulary.
//
// Weights are exp(logit - largest), so the largest is 1. Top-p and top-k ask for one weight each, the
// smallest that remains.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "cutoff.h"
#include "draws.h"
#include "fail.h"
#include "lanes.h"
#include "pool.h"

namespace rwkv {
namespace {

using namespace lanes;

constexpr float kColdest = 1e-6f;          // below it only the likeliest token remains
constexpr float kLeast = 1.17549435e-38f;  // what is less likely never remains; see _LEAST in Python
constexpr double kRounding = 1 - 1e-9;     // a sum may fall short of its target by this much

// Kept by each thread, so that a draw allocates nothing.
struct Scratch {
  std::vector<float> weights;  // of all tokens at first, then of those that are left
  std::vector<uint32_t> ids;   // of those that are left, ascending
  std::vector<double> rows;    // sums of kSumRow weights
  std::vector<float> scores;   // logits after penalties
  Cutoff cutoff;

  void fit(size_t vocab) {
    if (weights.size() >= vocab) return;
    cutoff.fit(vocab);
    rows.resize(vocab / kSumRow + 1);
    ids.resize(vocab);
    weights.resize(vocab);
  }
};

// Leaves the `k` largest weights; among equals the smaller ids.
int64_t keep_top(int64_t count, int64_t k, Scratch *scratch) {
  float *weights = scratch->weights.data();
  uint32_t *ids = scratch->ids.data();
  const float cutoff = scratch->cutoff.find(weights, count, static_cast<double>(k) - 0.5, true);
  const int64_t candidates = draws().keep(weights, count, cutoff, true, ids);
  int64_t equals = k, left = 0;
  for (int64_t i = 0; i < candidates; i++) equals -= weights[i] > cutoff;
  for (int64_t i = 0; i < candidates; i++) {
    const bool keep = weights[i] > cutoff || equals-- > 0;
    ids[left] = ids[i];
    weights[left] = weights[i];
    left += keep;
  }
  return left;
}

// Applies the filters: gives how many tokens remain, at the start of the scratch. Top-k goes first,
// since it leaves few; what top-p and min-p leave begins with the likeliest too, so the order of the
// filters makes no difference.
int64_t filter(int64_t vocab, double total, const rwkv_sampling &s, Scratch *scratch) {
  float *weights = scratch->weights.data();
  uint32_t *ids = scratch->ids.data();
  // Tokens from top-p's cutoff down hold 1 - top_p of the sum, so the cutoff is at least their mean.
  const double mean = (1 - s.top_p) * total / static_cast<double>(vocab);
  float floor = std::max({kLeast, s.min_p, static_cast<float>(mean / 2)});
  int64_t left = draws().keep(weights, vocab, floor, false, ids);
  if (s.top_k > 0 && s.top_k < left) left = keep_top(left, s.top_k, scratch);
  if (s.top_p == 1) return left;
  floor = scratch->cutoff.find(weights, left, s.top_p * total * kRounding, false);
  return draws().keep(weights, left, floor, true, ids);
}

// The first place at which the running sum exceeds u times the whole sum.
int64_t choose(int64_t count, double u, Scratch *scratch) {
  const float *weights = scratch->weights.data();
  double *rows = scratch->rows.data(), total = 0;
  for (int64_t start = 0; start < count; start += kSumRow) {
    const int64_t end = std::min(count, start + kSumRow);
    F4 sum = {};
    int64_t i = start;
    for (; i + 4 <= end; i += 4) sum += load(weights + i);
    double row = double{sum[0]} + sum[1] + sum[2] + sum[3];
    for (; i < end; i++) row += weights[i];
    total += rows[start / kSumRow] = row;
  }
  const double target = u * total;
  double before = 0;
  int64_t i = 0, last = 0;
  for (; i + kSumRow < count && before + rows[i / kSumRow] <= target; i += kSumRow) before += rows[i / kSumRow];
  for (; i < count; i++) {
    before += weights[i];
    if (weights[i] > 0) last = i;
    if (before > target) return i;
  }
  return last;  // a sum was rounded
}

Scratch &own_scratch(int64_t vocab) {
  thread_local Scratch scratch;
  scratch.fit(static_cast<size_t>(vocab));
  return scratch;
}

int64_t draw(const float *logits, int64_t vocab, const rwkv_sampling &s, double u) {
  const float top = draws().largest(logits, vocab);
  if (!std::isfinite(top)) return -1;
  if (s.temperature < kColdest) {
    int64_t i = 0;
    while (logits[i] != top) i++;
    return i;
  }
  Scratch &scratch = own_scratch(vocab);
  float *weights = scratch.weights.data();
  const uint32_t *ids = scratch.ids.data();
  const double total = draws().weigh(logits, vocab, top, s.temperature_first ? s.temperature : 1, weights);
  const int64_t left = filter(vocab, total, s, &scratch);
  if (!s.temperature_first && s.temperature != 1) {
    for (int64_t i = 0; i < left; i++) weights[i] = logits[ids[i]];
    draws().weigh(weights, left, top, s.temperature, weights);
  }
  return ids[choose(left, u, &scratch)];
}

// The same from logits that stay as they are, after bans and penalties; without fused multiply-adds, as
// numpy does it.
int64_t draw_penalized(const rwkv_choice &choice, int64_t vocab) {
  Scratch &scratch = own_scratch(vocab);
  scratch.scores.resize(static_cast<size_t>(vocab));
  float *scores = scratch.scores.data();
  std::copy(choice.logits, choice.logits + vocab, scores);
  for (int64_t i = 0; i < choice.never_count; i++) scores[choice.never[i]] = -INFINITY;
  for (int64_t i = 0; i < choice.penalized_count; i++) {
    const float counted = choice.counts[i] * choice.frequency;
    scores[choice.penalized[i]] -= choice.presence + counted;
  }
  return draw(scores, vocab, choice.sampling, choice.uniform);
}

bool makes_sense(const rwkv_sampling &s) {
  return s.top_p >= 0 && s.top_p <= 1 && s.top_k >= 0 && s.min_p >= 0 && s.min_p <= 1 &&
         s.temperature >= 0 && std::isfinite(s.temperature);
}

bool is_vocabulary(int64_t vocab) { return vocab >= 1 && vocab <= int64_t{1} << 24; }

// What is wrong with a choice, or null.
const char *fault_of(const rwkv_choice &c, int64_t vocab) {
  if (!c.logits || (c.never_count && !c.never)) return "a pointer is missing";
  if (c.penalized_count && !(c.penalized && c.counts)) return "a pointer is missing";
  if (c.never_count < 0 || c.penalized_count < 0) return "a list has a negative length";
  if (!makes_sense(c.sampling) || !(c.uniform >= 0 && c.uniform < 1)) return "a sampling setting is out of range";
  if (!std::isfinite(c.presence) || !std::isfinite(c.frequency)) return "a penalty is not finite";
  for (int64_t i = 0; i < c.never_count; i++)
    if (c.never[i] < 0 || c.never[i] >= vocab) return "a banned token is outside the vocabulary";
  for (int64_t i = 0; i < c.penalized_count; i++)
    if (c.penalized[i] >= vocab) return "a penalized token is outside the vocabulary";
  return nullptr;
}

}  // namespace
}  // namespace rwkv

extern "C" int rwkv_sample(const float *logits, int64_t vocab, const rwkv_sampling *sampling,
                           double uniform, int32_t *token) {
  if (!logits || !sampling || !token) return rwkv::fail(RWKV_INVALID, "a pointer is missing");
  if (!rwkv::is_vocabulary(vocab)) {
    return rwkv::fail(RWKV_INVALID, "no vocabulary has %lld tokens", static_cast<long long>(vocab));
  }
  if (!rwkv::makes_sense(*sampling) || !(uniform >= 0 && uniform < 1)) {
    return rwkv::fail(RWKV_INVALID, "a sampling setting is out of range");
  }
  try {
    *token = static_cast<int32_t>(rwkv::draw(logits, vocab, *sampling, uniform));
  } catch (const std::bad_alloc &) {
    return rwkv::fail(RWKV_NO_MEMORY, "not enough memory to draw a token");
  }
  return RWKV_OK;
}

extern "C" int rwkv_choose(rwkv_pool *pool, const rwkv_choice *choices, int32_t count, int64_t vocab,
                           int32_t *tokens) {
  if (!pool || !choices || !tokens) return rwkv::fail(RWKV_INVALID, "a pointer is missing");
  if (!rwkv::is_vocabulary(vocab)) {
    return rwkv::fail(RWKV_INVALID, "no vocabulary has %lld tokens", static_cast<long long>(vocab));
  }
  if (count < 1) return rwkv::fail(RWKV_INVALID, "%d tokens cannot be drawn", count);
  for (int32_t i = 0; i < count; i++) {
    if (const char *fault = rwkv::fault_of(choices[i], vocab)) {
      return rwkv::fail(RWKV_INVALID, "choice %d: %s", i, fault);
    }
  }
  std::atomic<bool> is_short{false};  // of memory: nothing may be thrown on another thread
  pool->pool.run([&](rwkv::Team &team) {
    team.share(count, [&](int64_t i) {
      try {
        tokens[i] = static_cast<int32_t>(rwkv::draw_penalized(choices[i], vocab));
      } catch (const std::bad_alloc &) {
        is_short = true;
      }
    });
  });
  return is_short ? rwkv::fail(RWKV_NO_MEMORY, "not enough memory to draw tokens") : RWKV_OK;
}
