// The parts of drawing a token that touch a whole vocabulary, compiled for several instruction sets. All of
// them compute the same bits, so no machine draws another token than the others.
#pragma once

#include <cstdint>

namespace rwkv {

constexpr int64_t kSumRow = 256;  // numbers summed in float before the sum becomes a double

struct Draws {
  // The largest number; NaN if one of them is.
  float (*largest)(const float *x, int64_t count);
  // Writes e^((x - top) / temperature) for numbers of which none is above `top`, and gives their sum.
  double (*weigh)(const float *x, int64_t count, float top, float temperature, float *weights);
  // Moves the weights of at least `floor` to the front, with their ids, and gives their number. Without ids
  // an id is a place. Both arrays may hold a vector of rubbish behind what is left.
  int64_t (*keep)(float *weights, int64_t count, float floor, bool has_ids, uint32_t *ids);
};

// Those for this machine.
const Draws &draws();

extern const Draws draws_generic;
#if defined(__x86_64__)
extern const Draws draws_avx2, draws_avx512;
#endif

}  // namespace rwkv
