// What every kernel is written on: the types, the few instructions that C++ has no words for, and sums
// over warps and blocks. It includes no header of CUDA's, so that NVRTC needs no files,
// and every line of a kernel also compiles as plain C++ on a CPU (native/test/cuda/shim.h), where the tests
// run it.
//
// A kernel takes one structure by value and is written KERNEL(name, Arguments, threads) { ... }, or with
// KERNEL_TOGETHER and the blocks for which a processor must have registers at the same time; inside,
// `args` is the structure. Its shared memory is one block whose size the launch gives; `Carve` deals it out.
// rwkv_cli/native/cuda/structures.py reads the structures, those without functions, from these files.
#pragma once

#if defined(__CUDACC__)
#define KERNEL(name, Arguments, threads) KERNEL_TOGETHER(name, Arguments, threads, 1)
#define KERNEL_TOGETHER(name, Arguments, threads, together) \
  extern "C" __global__ void __launch_bounds__(threads, together) name(const __grid_constant__ Arguments args)
#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")  // loops that run too seldom to be worth more instructions
extern __shared__ __align__(16) unsigned char rwkv_shared[];
#else
#include "shim.h"
#endif

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

constexpr int kWarp = 32;
constexpr float kNormEps = 1e-5f;   // layer norms
constexpr float kHeadEps = 64e-5f;  // group norms of heads

// Precisions of weights and of planes; the order of rwkv_type in native/include/rwkv_native.h.
enum Type { kF32 = 0, kBF16 = 1, kF16 = 2, kQ8 = 3, kQ4 = 4 };
// Weights of which types the kernels are compiled for, a bit each: all, or those of a model, since most of a
// compiler's time is theirs.
#if !defined(RWKV_TYPES)
#define RWKV_TYPES 31
#endif
template <int T>
constexpr bool kCompiled = (RWKV_TYPES >> T & 1) != 0;

enum Activation { kNone = 0, kTanh = 1, kSigmoid = 2, kSquaredRelu = 3, kSilu = 4 };

// --- numbers -------------------------------------------------------------------------------------------

#if defined(__CUDACC__)

DEVICE float from_f16(u16 h) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
  return x;
}
DEVICE u16 to_f16(float x) {
  u16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}
// Four products of signed bytes of `a` with bytes of `b`, signed or not, added to `sum`.
DEVICE int dot4(u32 a, u32 b, int sum) {
  int out;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
  return out;
}
DEVICE int dot4_unsigned(u32 a, u32 b, int sum) {
  int out;
  asm("dp4a.s32.u32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
  return out;
}
DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 as_bits(float x) { return __float_as_uint(x); }

// Weights are read once and never written: past the first-level cache.
DEVICE uint4 stream16(const void *p) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}
DEVICE uint2 stream8(const void *p) {
  uint2 v;
  asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}
DEVICE u32 stream4(const void *p) {
  u32 v;
  asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}
// What another block has just written: past the first-level cache, which may hold older numbers.
DEVICE float fresh(const float *p) {
  float v;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
  return v;
}
DEVICE void prefetch(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// Sixteen bytes on their way from global to shared memory, past the registers, so that a thread can have many
// under way. Copies since the last `commit_copies` are a group; `await_copies<N>` waits for all of the thread's
// groups but the last N. Both addresses are multiples of 16.
DEVICE void copy16(void *to, const void *from) {
#if __CUDA_ARCH__ >= 800
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
#else
  *static_cast<uint4 *>(to) = stream16(from);
#endif
}
DEVICE void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N>
DEVICE void await_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Between kernels launched as programmatic dependents: what precedes `await_previous` may run while kernels
// before are still at work. It may read what none of them writes: weights, addresses of states, and the states
// before.
DEVICE void release_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
DEVICE void await_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#else

DEVICE float as_float(u32 bits) { return shim::cast<float>(bits); }
DEVICE u32 as_bits(float x) { return shim::cast<u32>(x); }
DEVICE float from_f16(u16 h) { return shim::from_f16(h); }
DEVICE u16 to_f16(float x) { return shim::to_f16(x); }
DEVICE int dot4(u32 a, u32 b, int sum) { return shim::dot4(a, b, sum, true); }
DEVICE int dot4_unsigned(u32 a, u32 b, int sum) { return shim::dot4(a, b, sum, false); }
DEVICE uint4 stream16(const void *p) { return shim::load<uint4>(p); }
DEVICE uint2 stream8(const void *p) { return shim::load<uint2>(p); }
DEVICE u32 stream4(const void *p) { return shim::load<u32>(p); }
DEVICE float fresh(const float *p) { return *p; }
DEVICE void prefetch(const void *p) { shim::touch(p); }
DEVICE void copy16(void *to, const void *from) { shim::copy16(to, from); }
DEVICE void commit_copies() { shim::commit_copies(); }
template <int N>
DEVICE void await_copies() { shim::await_copies(N); }
DEVICE void release_next() {}
DEVICE void await_previous() {}

#endif

DEVICE float infinity() { return as_float(0x7f800000u); }

DEVICE int smaller(int a, int b) { return a < b ? a : b; }
DEVICE int larger(int a, int b) { return a > b ? a : b; }
DEVICE int pieces(int total, int size) { return (total + size - 1) / size; }

DEVICE float from_bf16(u16 h) { return as_float(static_cast<u32>(h) << 16); }
// Rounds to nearest, ties to even; a NaN stays one.
DEVICE u16 to_bf16(float x) {
  const u32 bits = as_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<u16>((bits >> 16) | 0x40u);
  return static_cast<u16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Element i of an array of a float type.
DEVICE float read(const void *data, int type, i64 i) {
  if (type == kF32) return static_cast<const float *>(data)[i];
  const u16 h = static_cast<const u16 *>(data)[i];
  return type == kBF16 ? from_bf16(h) : from_f16(h);
}
// What float16 cannot hold becomes its largest number: an infinity would make NaNs of a whole row.
DEVICE void write(void *data, int type, i64 i, float x) {
  if (type == kF32) {
    static_cast<float *>(data)[i] = x;
  } else if (type == kBF16) {
    static_cast<u16 *>(data)[i] = to_bf16(x);
  } else {
    static_cast<u16 *>(data)[i] = to_f16(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
  }
}

// Four numbers at a multiple of 16 bytes.
DEVICE float4 load4(const float *from) { return *reinterpret_cast<const float4 *>(from); }
DEVICE void store4(float *to, float4 x) { *reinterpret_cast<float4 *>(to) = x; }

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
DEVICE float activate(int activation, float x) {
  switch (activation) {
    case kTanh: return tanhf(x);
    case kSigmoid: return sigmoid(x);
    case kSquaredRelu: return x > 0 ? x * x : 0.0f;
    case kSilu: return x * sigmoid(x);
    default: return x;
  }
}

// The values of four codes of 4 bits as four signed bytes: kCodebook of native/src/formats.h.
DEVICE u32 four_codes(u32 nibbles) {
  const u32 low = nibbles & 0x7777u;
  const u32 below = __byte_perm(0xbfad9881u, 0xf6eaddcfu, low);  // -127 -104 -83 -65 -49 -35 -22 -10
  const u32 above = __byte_perm(0x26190d01u, 0x71594535u, low);  // 1 13 25 38 53 69 89 113
  return __byte_perm(below, above, 0x3210u | ((nibbles & 0x8888u) >> 1));
}

// The same of eight codes, the lower four and the upper four, for fewer instructions than twice.
DEVICE void eight_codes(u32 codes, u32 &lower, u32 &upper) {
  const u32 low = codes & 0x77777777u, half = 0x32103210u | ((codes >> 1) & 0x44444444u);
  const u32 below = __byte_perm(0xbfad9881u, 0xf6eaddcfu, low), above = __byte_perm(0x26190d01u, 0x71594535u, low);
  lower = __byte_perm(below, above, half);
  const u32 next = low >> 16;
  upper = __byte_perm(__byte_perm(0xbfad9881u, 0xf6eaddcfu, next), __byte_perm(0x26190d01u, 0x71594535u, next), half >> 16);
}

// --- threads -------------------------------------------------------------------------------------------

constexpr u32 kAllLanes = 0xffffffffu;

DEVICE int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
DEVICE int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
DEVICE int warps() { return static_cast<int>(blockDim.x) / kWarp; }

// The sum over the lanes whose numbers differ in the bits below `width` only; every lane gets the same,
// added in the same order.
DEVICE float sum_lanes(float x, int width = kWarp) {
  for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
DEVICE float max_lanes(float x, int width = kWarp) {
  for (int step = width / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// Sums each of `Count` numbers, a power of two, over the warp: lane i gets number i * Count / 32. Each sum is
// added up in the same order for every Count.
template <int Count, int Step = kWarp / 2>
DEVICE float spread_sum(float *x) {
  if constexpr (Count > 1) {
    constexpr int kHalf = Count / 2;
    const bool upper = (lane() & Step) != 0;
    UNROLL
    for (int i = 0; i < kHalf; i++) {
      const float given = upper ? x[i] : x[i + kHalf], kept = upper ? x[i + kHalf] : x[i];
      x[i] = kept + __shfl_xor_sync(kAllLanes, given, Step);
    }
    return spread_sum<kHalf, Step / 2>(x);
  } else if constexpr (Step > 0) {
    x[0] += __shfl_xor_sync(kAllLanes, x[0], Step);
    return spread_sum<1, Step / 2>(x);
  } else {
    return x[0];
  }
}

// Sums `Count` numbers over the block at once; every thread gets them. `scratch` has room for
// Count * warps() floats; the whole block calls.
template <int Count>
DEVICE void sum_block(float (&x)[Count], float *scratch) {
  UNROLL
  for (int i = 0; i < Count; i++) x[i] = sum_lanes(x[i]);
  __syncthreads();  // whoever still reads the scratch of a sum before
  if (lane() == 0) {
    UNROLL
    for (int i = 0; i < Count; i++) scratch[warp() * Count + i] = x[i];
  }
  __syncthreads();
  UNROLL
  for (int i = 0; i < Count; i++) {
    x[i] = 0;
    for (int w = 0; w < warps(); w++) x[i] += scratch[w * Count + i];
  }
}

// Deals out the block's shared memory, each part at a multiple of 16 bytes.
class Carve {
 public:
  template <typename T>
  DEVICE T *take(int count) {
    T *part = reinterpret_cast<T *>(rwkv_shared + used_);
    used_ += (count * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
    return part;
  }

 private:
  int used_ = 0;
};

// --- states --------------------------------------------------------------------------------------------

// States of the sequences of a batch: the one before and the one after, never the same where several
// blocks read it. A state is one array of floats in which `offset` finds the part that a kernel means.
struct States {
  const float *const *before;
  float *const *after;
  i64 offset;
};
DEVICE const float *state_before(const States &states, int sequence) {
  return states.before[sequence] + states.offset;
}
DEVICE float *state_after(const States &states, int sequence) { return states.after[sequence] + states.offset; }
