// From 32 numbers to their codes and the scale they share; knows no layout.
#pragma once

#include <cstdint>

#include "formats.h"

namespace rwkv {

struct Group {
  uint16_t scale;       // a float16
  int8_t code[kGroup];  // q8: the number divided by the scale; q4: an index into kCodebook
};

// Of some numbers and of what their encoding differs from them by.
struct Squares {
  double source = 0, error = 0;
};

enum class Encoded { kFine, kNotFinite, kTooLarge };

// Encodes `count` groups as RWKV_Q8 or RWKV_Q4 and adds to the sums. The same numbers give the same
// codes on every machine: the search for a scale is done in integers. A group whose scale is below
// float16 becomes zero; one whose scale is above it, or that has a NaN or an infinity, ends the work.
Encoded encode_groups(int32_t type, const float *numbers, int64_t count, Group *groups, Squares *sums);

// The same, compiled for one instruction set.
namespace groups_generic {
Encoded encode(int32_t type, const float *numbers, int64_t count, Group *groups, Squares *sums);
}
namespace groups_avx2 {
Encoded encode(int32_t type, const float *numbers, int64_t count, Group *groups, Squares *sums);
}

}  // namespace rwkv
