// Four numbers at a time, in what every processor that we know has; for code that is compiled once.
#pragma once

#include <cstdint>
#include <cstring>

namespace rwkv {
namespace lanes {

typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));

inline F4 all(float x) { return F4{x, x, x, x}; }
inline F4 select(I4 mask, F4 yes, F4 no) { return (F4)((mask & (I4)yes) | (~mask & (I4)no)); }

inline F4 load(const float *from) {
  F4 v;
  memcpy(&v, from, sizeof v);
  return v;
}
inline void store(float *to, F4 v) { memcpy(to, &v, sizeof v); }

// Whether a mask has a bit for any of its four.
inline bool any(I4 mask) {
  uint64_t halves[2];
  memcpy(halves, &mask, sizeof halves);
  return (halves[0] | halves[1]) != 0;
}

}  // namespace lanes
}  // namespace rwkv
