// Half precisions to float32 and back, one number at a time; branch-free, so that loops over them
// become vector code.
#pragma once

#include <cstdint>
#include <cstring>

namespace rwkv {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline float from_bf16(uint16_t h) { return float_of(static_cast<uint32_t>(h) << 16); }

// Rounds to nearest, ties to even; a NaN stays one, made quiet.
inline uint16_t to_bf16(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

inline float from_f16(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = (magnitude << 13) | 0x7f800000;
  // The fraction of 2^-14 + subnormal, less 2^-14: no float32 subnormal, which a processor may be set
  // to read as zero.
  const uint32_t subnormal = bits_of(float_of((magnitude << 13) + (113u << 23)) - float_of(113u << 23));
  const uint32_t bits = magnitude >= 0x7c00 ? special : magnitude < 0x400 ? subnormal : normal;
  return float_of(bits | sign);
}

// Rounds to nearest, ties to even; from 65520 on it is infinity, and a NaN stays one.
inline uint16_t to_f16(float x) {
  const uint32_t sign = (bits_of(x) >> 16) & 0x8000, magnitude = bits_of(x) & 0x7fffffff;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // At 0.5 a step of float32 is 2^-24, float16's smallest: the addition itself rounds.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  const uint32_t special = magnitude > 0x7f800000 ? 0x7e00u : 0x7c00u;
  const uint32_t half = magnitude >= (143u << 23)   ? special
                        : magnitude < (113u << 23) ? subnormal
                                                   : normal;
  return static_cast<uint16_t>(half | sign);
}

}  // namespace rwkv
