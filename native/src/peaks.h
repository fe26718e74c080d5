// Loops that keep a core's multipliers busy and touch no memory, for each kind of arithmetic.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rwkv {

struct Peak {
  // Does `rounds` rounds on numbers that depend on `seed`, and gives something that depends on all.
  uint64_t (*loop)(int64_t rounds, int seed);
  double ops_per_round;  // a multiplication and its addition are two
};

// The best loop that runs here; without one where the processor has no such instruction.
Peak best_peak(int32_t kind);

}  // namespace rwkv
