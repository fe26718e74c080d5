// CUDA's words as plain C++, so that the kernels of native/cuda run in tests on a machine without a GPU;
// what a kernel may not do on a GPU ends the launch with a sentence.
#pragma once

#include <math.h>

#include "../../src/half.h"
#include "threads.h"

// --- what device.cuh takes from here -------------------------------------------------------------------

#define KERNEL(name, Arguments, threads)                                                           \
  static void name(const Arguments &args);                                                         \
  static void name##_on_host(const void *args) { name(*static_cast<const Arguments *>(args)); }    \
  static const shim::Registration name##_registration(                                             \
      {#name, name##_on_host, static_cast<int64_t>(sizeof(Arguments)), static_cast<int>(threads)}); \
  static void name([[maybe_unused]] const Arguments &args)
#define KERNEL_TOGETHER(name, Arguments, threads, together) KERNEL(name, Arguments, threads)
#define DEVICE inline
#define UNROLL
#define ROLLED

#define threadIdx shim::thread_index
#define blockIdx shim::block_index
#define blockDim shim::block_size
#define gridDim shim::grid_size
#define rwkv_shared shim::shared

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace shim {

template <typename To, typename From>
inline To cast(From from) {
  static_assert(sizeof(To) == sizeof(From) && std::is_trivially_copyable<From>::value, "bit for bit");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float from_f16(uint16_t h) { return rwkv::from_f16(h); }
inline uint16_t to_f16(float x) { return rwkv::to_f16(x); }

// dp4a: signed bytes of `a` times bytes of `b`, on a sum that wraps around.
inline int dot4(unsigned a, unsigned b, int sum, bool signed_b) {
  unsigned total = static_cast<unsigned>(sum);
  for (int shift = 0; shift < 32; shift += 8) {
    const int x = static_cast<int8_t>(a >> shift);
    const int y = signed_b ? static_cast<int8_t>(b >> shift) : static_cast<uint8_t>(b >> shift);
    total += static_cast<unsigned>(x * y);
  }
  return static_cast<int>(total);
}

// A load of one instruction, which faults on a GPU at an address that is not a multiple of its size.
template <typename T>
inline T load(const void *address) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T))
    fail("a load of %d bytes at the misaligned address %p", static_cast<int>(sizeof(T)), address);
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
}

// A prefetch, which faults nowhere; here it reads a byte, so that one of what is no array's is seen.
inline void touch(const void *address) { static_cast<void>(*static_cast<const volatile unsigned char *>(address)); }

}  // namespace shim

// --- numbers -------------------------------------------------------------------------------------------

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }

// prmt: each of four nibbles of `selector` picks a byte of x (0 to 3) and y (4 to 7); its highest bit
// asks for the byte's sign eight times instead of the byte.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
  unsigned picked = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned nibble = selector >> (4 * i) & 0xf;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (nibble & 7))) & 0xff;
    if (nibble & 8) byte = byte & 0x80 ? 0xff : 0;
    picked |= byte << (8 * i);
  }
  return picked;
}

inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}

inline float rsqrtf(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }
// Compiled without contraction, so that a product is rounded before it is added to.
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
