// The threads of a launch on the CPU, and CUDA's words for what they do together: waiting for one another,
// handing numbers over, counting in common. They are fibres (block.cpp) that yield only where they wait,
// and go on in a random order.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace shim {

struct Index {
  unsigned x, y, z;
};

// Where a call stands in the source: its own defaults find out.
struct Site {
  const char *file;
  int line;
  static constexpr Site here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

struct Kernel {
  const char *name;
  void (*run)(const void *arguments);
  int64_t arguments_bytes;
  int threads;  // at most, in a block
};

struct Registration {
  explicit Registration(const Kernel &kernel);
};

// Numbers that the lanes of a warp have handed to one another.
struct Exchange {
  const uint64_t *numbers;  // of each lane
  unsigned lanes;           // which have one
};

constexpr unsigned kWarp = 32;

extern Index thread_index, block_index, block_size, grid_size;
extern unsigned char *shared;

// Ends the launch; the rest of the block does not run.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void barrier(Site site);
// cp.async: a copy has been made when its group has been waited for, and is made no earlier.
void copy16(void *to, const void *from);
void commit_copies();
void await_copies(int but);
// Waits until all existing lanes of `mask` are at this call, each with its number.
Exchange exchange(const char *call, unsigned mask, uint64_t number, Site site);

inline unsigned lane() { return thread_index.x % kWarp; }

// The number of lane `source`, which must be one that handed in a number.
template <typename T>
inline T shuffle(const char *call, unsigned mask, T value, unsigned source, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "what a shuffle can carry");
  uint64_t number = 0;
  std::memcpy(&number, &value, sizeof value);
  const Exchange all = exchange(call, mask, number, site);
  if (!(all.lanes >> source & 1)) fail("%s from lane %u, which takes no part", call, source);
  std::memcpy(&value, &all.numbers[source], sizeof value);
  return value;
}

// The lanes of the mask that say yes.
inline unsigned votes(const char *call, unsigned mask, bool yes, Site site) {
  const Exchange all = exchange(call, mask, yes, site);
  unsigned found = 0;
  for (unsigned i = 0; i < kWarp; i++)
    if (all.lanes >> i & 1) found |= static_cast<unsigned>(all.numbers[i]) << i;
  return found;
}

inline void check_width(const char *call, int width) {
  if (width < 1 || width > static_cast<int>(kWarp) || (width & (width - 1)))
    fail("%s with the width %d, not a power of two up to 32", call, width);
}

}  // namespace shim

// --- waiting for one another ---------------------------------------------------------------------------

inline void __syncthreads(shim::Site site = shim::Site::here()) { shim::barrier(site); }

inline void __syncwarp(unsigned mask = 0xffffffffu, shim::Site site = shim::Site::here()) {
  shim::exchange("__syncwarp", mask, 0, site);
}

template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                     shim::Site site = shim::Site::here()) {
  shim::check_width("__shfl_sync", width);
  const unsigned inside = static_cast<unsigned>(width) - 1;
  const unsigned from = (shim::lane() & ~inside) | (static_cast<unsigned>(source) & inside);
  return shim::shuffle("__shfl_sync", mask, value, from, site);
}

template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                        shim::Site site = shim::Site::here()) {
  shim::check_width("__shfl_up_sync", width);
  const unsigned position = shim::lane() & (static_cast<unsigned>(width) - 1);
  const unsigned from = delta <= position ? shim::lane() - delta : shim::lane();
  return shim::shuffle("__shfl_up_sync", mask, value, from, site);
}

template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                          shim::Site site = shim::Site::here()) {
  shim::check_width("__shfl_down_sync", width);
  const unsigned position = shim::lane() & (static_cast<unsigned>(width) - 1);
  const unsigned left = static_cast<unsigned>(width) - 1 - position;
  const unsigned from = delta <= left ? shim::lane() + delta : shim::lane();
  return shim::shuffle("__shfl_down_sync", mask, value, from, site);
}

template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                         shim::Site site = shim::Site::here()) {
  shim::check_width("__shfl_xor_sync", width);
  const unsigned last = shim::lane() | (static_cast<unsigned>(width) - 1);
  const unsigned other = shim::lane() ^ static_cast<unsigned>(bits);
  return shim::shuffle("__shfl_xor_sync", mask, value, other <= last ? other : shim::lane(), site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, shim::Site site = shim::Site::here()) {
  return shim::votes("__ballot_sync", mask, predicate != 0, site);
}

inline int __any_sync(unsigned mask, int predicate, shim::Site site = shim::Site::here()) {
  return shim::votes("__any_sync", mask, predicate != 0, site) != 0;
}

inline int __all_sync(unsigned mask, int predicate, shim::Site site = shim::Site::here()) {
  return shim::votes("__all_sync", mask, predicate == 0, site) == 0;
}

// Fibres yield only at the calls above: anything between is atomic, and seen by all.
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
inline T atomicAdd(T *address, std::common_type_t<T> value) {
  static_assert(std::is_integral<T>::value, "a sum of floats would depend on the order");
  const T before = *address;
  using Bits = std::make_unsigned_t<T>;
  *address = static_cast<T>(static_cast<Bits>(before) + static_cast<Bits>(value));
  return before;
}

template <typename T>
inline T atomicMax(T *address, std::common_type_t<T> value) {
  const T before = *address;
  if (value > before) *address = value;
  return before;
}

template <typename T>
inline T atomicMin(T *address, std::common_type_t<T> value) {
  const T before = *address;
  if (value < before) *address = value;
  return before;
}
