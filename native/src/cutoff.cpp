// Sorts weights into buckets, then those of one bucket into smaller ones, until they all agree.
#include "cutoff.h"

#include <algorithm>

#include "lanes.h"

namespace rwkv {
namespace {

using namespace lanes;

constexpr size_t kBuckets = 1024;
constexpr size_t kTables = 4;  // used in turn: adding to one number twice in a row would wait

uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

float of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Weights that lie close together, the largest first: bucket b has those whose bits are b << shift or
// more below those of the largest. The bits of positive numbers are in the order of the numbers.
struct Buckets {
  uint32_t top, shift;
  size_t count;

  Buckets(float least, float most) : top(bits_of(most)), shift(0) {
    const uint32_t range = top - bits_of(least);
    while (range >> shift >= kBuckets) shift++;
    count = (range >> shift) + 1;
  }
  size_t of(float weight) const { return (top - bits_of(weight)) >> shift; }
  float most(uint32_t bucket) const { return of_bits(top - (bucket << shift)); }
  float least(uint32_t bucket) const { return of_bits(top - ((bucket + 1) << shift) + 1); }
};

// The smallest and the largest weight.
void extent(const float *weights, int64_t count, float *least, float *most) {
  F4 low = all(weights[0]), high = low;
  auto take = [&](F4 v) {
    low = select(v < low, v, low);
    high = select(v > high, v, high);
  };
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) take(load(weights + i));
  for (; i < count; i++) take(all(weights[i]));
  *least = std::min({low[0], low[1], low[2], low[3]});
  *most = std::max({high[0], high[1], high[2], high[3]});
}

// Adds weights, or 1 for each of them, to their buckets.
void fill(const Buckets &buckets, const float *weights, int64_t count, bool by_count, double *sums) {
  std::fill(sums, sums + buckets.count * kTables, 0.0);
  for (int64_t i = 0; i < count; i++) {
    const size_t at = buckets.of(weights[i]) * kTables + static_cast<size_t>(i) % kTables;
    sums[at] += by_count ? 1.0 : weights[i];
  }
}

// The bucket in which the sum first exceeds a target, the last one that is not empty if it never
// does; adds what comes before it to `before`.
uint32_t reached(const Buckets &buckets, const double *sums, double target, double *before) {
  uint32_t chosen = 0;
  double sum = 0;
  for (uint32_t b = 0; b < buckets.count; b++) {
    const double *s = sums + b * kTables;
    const double next = (s[0] + s[1]) + (s[2] + s[3]);
    if (next == 0) continue;
    *before += sum;
    sum = next;
    chosen = b;
    if (*before + sum > target) break;
  }
  return chosen;
}

// Copies the weights from `least` to `most`; the copy may begin where the weights do.
int64_t copy_between(const float *weights, int64_t count, float least, float most, float *copy) {
  int64_t left = 0;
  auto take = [&](float w) {
    copy[left] = w;
    left += (w >= least) & (w <= most);
  };
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const F4 v = load(weights + i);
    if (!any((v >= all(least)) & (v <= all(most)))) continue;
    for (int j = 0; j < 4; j++) take(v[j]);
  }
  for (; i < count; i++) take(weights[i]);
  return left;
}

}  // namespace

void Cutoff::fit(size_t count) {
  if (inside_.size() < count) inside_.resize(count);
  if (sums_.empty()) sums_.resize(kBuckets * kTables);
}

float Cutoff::find(const float *weights, int64_t count, double target, bool by_count) {
  double before = 0;
  for (;;) {
    float least, most;
    extent(weights, count, &least, &most);
    if (least == most) return least;
    const Buckets buckets(least, most);
    fill(buckets, weights, count, by_count, sums_.data());
    const uint32_t chosen = reached(buckets, sums_.data(), target, &before);
    count = copy_between(weights, count, buckets.least(chosen), buckets.most(chosen), inside_.data());
    weights = inside_.data();
  }
}

}  // namespace rwkv
