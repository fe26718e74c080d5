// Random numbers that belong to a place: Philox4x64 with ten rounds (Salmon et al. 2011, "Parallel Random
// Numbers: As Easy as 1, 2, 3"), as numpy's generator of that name gives them.
#pragma once

#include "device.cuh"

// The first number of numpy.random.Philox(key=[seed, stream], counter=position).
DEVICE u64 philox(u64 seed, u64 stream, u64 position) {
  constexpr u64 kFirst = 0xD2E7470EE14C6C93ull, kSecond = 0xCA5A826395121157ull;
  u64 a = position + 1, c = 0, d = 0;  // numpy counts on before its first number
  u64 b = a == 0 ? 1 : 0;
  ROLLED
  for (int round = 0; round < 10; round++) {
    const u64 high_a = __umul64hi(kFirst, a), low_a = kFirst * a;
    const u64 high_c = __umul64hi(kSecond, c), low_c = kSecond * c;
    a = high_c ^ b ^ seed;
    b = low_c;
    c = high_a ^ d ^ stream;
    d = low_a;
    seed += 0x9E3779B97F4A7C15ull;
    stream += 0xBB67AE8584CAA73Bull;
  }
  return a;
}

// From [0, 1): the upper 53 bits.
DEVICE double uniform(u64 seed, u64 stream, u64 position) {
  return static_cast<double>(philox(seed, stream, position) >> 11) * 0x1p-53;
}
