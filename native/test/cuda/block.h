// One block of a launch: its threads as fibres, in turns.
#pragma once

#include <string>

#include "threads.h"

namespace shim {

struct Launch {
  const Kernel &kernel;
  const void *arguments;
  int threads;
  uint64_t seed;
};

// Runs the block that the indices and the shared memory of threads.h describe. What is wrong, or nothing.
std::string run_block(const Launch &launch);

// Numbers in an order that a seed decides.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
  uint64_t below(uint64_t count) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % count;
  }

 private:
  uint64_t state_;
};

}  // namespace shim
