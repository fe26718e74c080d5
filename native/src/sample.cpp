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
#include "fail.h"
#include "lanes.h"

namespace rwkv {
namespace {

using namespace lanes;

constexpr float kColdest = 1e-6f;          // below it only the likeliest token remains
constexpr float kLeast = 1.17549435e-38f;  // what is less likely never remains; see _LEAST in Python
constexpr float kLogLeast = -87.3365448f;
constexpr double kRounding = 1 - 1e-9;     // a sum may fall short of its target by this much
constexpr int64_t kRow = 256;              // numbers summed in float before the sum becomes a double

// e^x for x <= 0, within 2 units in the last place; exactly 1 at 0; 0 below kLogLeast. Cephes' expf.
inline F4 exp_of(F4 x) {
  const I4 large = x >= all(kLogLeast);
  const F4 shift = all(12582912.0f);  // 1.5 * 2^23: adding it leaves no bits for a fraction
  const F4 safe = select(large, x, all(0));
  const F4 whole = (safe * all(1.44269504f) + shift) - shift;
  const F4 r = (safe - whole * all(0.693359375f)) + whole * all(2.12194440e-4f);
  F4 p = all(1.9875691500e-4f);
  p = p * r + all(1.3981999507e-3f);
  p = p * r + all(8.3334519073e-3f);
  p = p * r + all(4.1665795894e-2f);
  p = p * r + all(1.6666665459e-1f);
  p = p * r + all(5.0000001201e-1f);
  p = p * r * r + r + all(1);
  const I4 power = (__builtin_convertvector(whole, I4) + 127) << 23;
  return select(large, p * (F4)power, all(0));
}

// Calls `work` for every four numbers of an array whose length need not be a multiple of four; what
// lies past the end reads as `filler`, and is not written.
template <typename Work>
inline void by_fours(const float *from, float *to, int64_t count, float filler, Work &&work) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) store(to + i, work(load(from + i)));
  if (i == count) return;
  const size_t rest = static_cast<size_t>(count - i) * sizeof(float);
  float last[4] = {filler, filler, filler, filler};
  memcpy(last, from + i, rest);
  store(last, work(load(last)));
  memcpy(to + i, last, rest);
}

// The largest number; NaN if one of them is. Four maxima side by side, since each waits for itself.
float largest(const float *x, int64_t count) {
  F4 top[4] = {all(-INFINITY), all(-INFINITY), all(-INFINITY), all(-INFINITY)};
  I4 bad = {};
  auto take = [&](int lane, F4 v) {
    top[lane] = select(v > top[lane], v, top[lane]);
    bad |= v != v;
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int lane = 0; lane < 4; lane++) take(lane, load(x + i + 4 * lane));
  }
  for (; i < count; i++) take(0, all(x[i]));
  if (bad[0] | bad[1] | bad[2] | bad[3]) return NAN;
  float most = -INFINITY;
  for (F4 v : top) most = std::max({most, v[0], v[1], v[2], v[3]});
  return most;
}

// Gives the weights of numbers whose largest is `top`, and their sum.
double weigh(const float *x, int64_t count, float top, float temperature, float *weights) {
  double total = 0;
  for (int64_t start = 0; start < count; start += kRow) {
    F4 sum = {};
    by_fours(x + start, weights + start, std::min(kRow, count - start), -INFINITY, [&](F4 v) {
      const F4 w = exp_of(temperature == 1 ? v - all(top) : (v - all(top)) / all(temperature));
      sum += w;
      return w;
    });
    total += double{sum[0]} + sum[1] + sum[2] + sum[3];
  }
  return total;
}

// Kept by each thread, so that a draw allocates nothing.
struct Scratch {
  std::vector<float> weights;  // of all tokens at first, then of those that are left
  std::vector<uint32_t> ids;   // of those that are left, ascending
  std::vector<double> rows;    // sums of kRow weights
  Cutoff cutoff;

  void fit(size_t vocab) {
    if (weights.size() >= vocab) return;
    cutoff.fit(vocab);
    rows.resize(vocab / kRow + 1);
    ids.resize(vocab);
    weights.resize(vocab);
  }
};

// Keeps the tokens whose weight is at least `floor`; `id_at` gives the id at a place. Goes by fours: a
// model that is sure drops nearly all of them.
template <typename Ids>
int64_t keep_from(float *weights, Ids &&id_at, int64_t count, float floor, uint32_t *ids) {
  int64_t left = 0;
  auto take = [&](int64_t i) {
    const float w = weights[i];
    ids[left] = id_at(i);
    weights[left] = w;
    left += w >= floor;
  };
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    if (!any(load(weights + i) >= all(floor))) continue;
    for (int64_t j = i; j < i + 4; j++) take(j);
  }
  for (; i < count; i++) take(i);
  return left;
}

// Leaves the `k` largest weights; among equals the smaller ids.
int64_t keep_top(int64_t count, int64_t k, Scratch *scratch) {
  float *weights = scratch->weights.data();
  uint32_t *ids = scratch->ids.data();
  const float cutoff = scratch->cutoff.find(weights, count, static_cast<double>(k) - 0.5, true);
  auto those_left = [ids](int64_t i) { return ids[i]; };
  const int64_t candidates = keep_from(weights, those_left, count, cutoff, ids);
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
  auto everyone = [](int64_t i) { return static_cast<uint32_t>(i); };
  auto those_left = [ids](int64_t i) { return ids[i]; };
  // Tokens from top-p's cutoff down hold 1 - top_p of the sum, so the cutoff is at least their mean.
  const double mean = (1 - s.top_p) * total / static_cast<double>(vocab);
  float floor = std::max({kLeast, s.min_p, static_cast<float>(mean / 2)});
  int64_t left = keep_from(weights, everyone, vocab, floor, ids);
  if (s.top_k > 0 && s.top_k < left) left = keep_top(left, s.top_k, scratch);
  if (s.top_p == 1) return left;
  floor = scratch->cutoff.find(weights, left, s.top_p * total * kRounding, false);
  return keep_from(weights, those_left, left, floor, ids);
}

// The first place at which the running sum exceeds u times the whole sum.
int64_t choose(int64_t count, double u, Scratch *scratch) {
  const float *weights = scratch->weights.data();
  double *rows = scratch->rows.data(), total = 0;
  for (int64_t start = 0; start < count; start += kRow) {
    const int64_t end = std::min(count, start + kRow);
    F4 sum = {};
    int64_t i = start;
    for (; i + 4 <= end; i += 4) sum += load(weights + i);
    double row = double{sum[0]} + sum[1] + sum[2] + sum[3];
    for (; i < end; i++) row += weights[i];
    total += rows[start / kRow] = row;
  }
  const double target = u * total;
  double before = 0;
  int64_t i = 0, last = 0;
  for (; i + kRow < count && before + rows[i / kRow] <= target; i += kRow) before += rows[i / kRow];
  for (; i < count; i++) {
    before += weights[i];
    if (weights[i] > 0) last = i;
    if (before > target) return i;
  }
  return last;  // a sum was rounded
}

int64_t draw(const float *logits, int64_t vocab, const rwkv_sampling &s, double u) {
  const float top = largest(logits, vocab);
  if (!std::isfinite(top)) return -1;
  if (s.temperature < kColdest) {
    int64_t i = 0;
    while (logits[i] != top) i++;
    return i;
  }
  thread_local Scratch scratch;
  scratch.fit(static_cast<size_t>(vocab));
  float *weights = scratch.weights.data();
  const uint32_t *ids = scratch.ids.data();
  const double total = weigh(logits, vocab, top, s.temperature_first ? s.temperature : 1, weights);
  const int64_t left = filter(vocab, total, s, &scratch);
  if (!s.temperature_first && s.temperature != 1) {
    for (int64_t i = 0; i < left; i++) weights[i] = logits[ids[i]];
    weigh(weights, left, top, s.temperature, weights);
  }
  return ids[choose(left, u, &scratch)];
}

bool makes_sense(const rwkv_sampling &s) {
  return s.top_p >= 0 && s.top_p <= 1 && s.top_k >= 0 && s.min_p >= 0 && s.min_p <= 1 &&
         s.temperature >= 0 && std::isfinite(s.temperature);
}

}  // namespace
}  // namespace rwkv

extern "C" int rwkv_sample(const float *logits, int64_t vocab, const rwkv_sampling *sampling,
                           double uniform, int32_t *token) {
  if (!logits || !sampling || !token) return rwkv::fail(RWKV_INVALID, "a pointer is missing");
  if (vocab < 1 || vocab > int64_t{1} << 24) {
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
