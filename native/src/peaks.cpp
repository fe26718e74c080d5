#include "peaks.h"

#include <cstring>

#if defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif

#include "rwkv_native.h"

namespace rwkv {
namespace {

// Sums that do not wait for each other: a result is ready after some 4 cycles, and two may begin in
// each.
constexpr int kChains = 12;

// The chains must lie in registers, which an array does only when its loop is unrolled whole.
#if defined(__clang__)
#define RWKV_UNROLLED _Pragma("clang loop unroll(full)")
#else
#define RWKV_UNROLLED _Pragma("GCC unroll 12")
#endif

template <typename Vector>
uint64_t digest(const Vector *chains) {
  uint64_t sum = 0;
  for (int i = 0; i < kChains; i++) {
    uint64_t word;
    memcpy(&word, &chains[i], sizeof word);
    sum += word;
  }
  return sum;
}

float start(int seed) { return 1.0f + static_cast<float>(seed) * 1e-3f; }

#if !defined(__aarch64__)
// Four numbers side by side, which every compiler turns into what the machine has at least.
uint64_t plain_fp32(int64_t rounds, int seed) {
  float chains[kChains][4];
  for (auto &chain : chains) {
    for (float &number : chain) number = start(seed++);
  }
  const float factor = 0.999f, term = start(seed) * 1e-3f;
  for (int64_t r = 0; r < rounds; r++) {
    RWKV_UNROLLED
    for (auto &chain : chains) {
      for (float &number : chain) number = number * factor + term;
    }
  }
  return digest(chains);
}
#endif

#if defined(__x86_64__)
#define RWKV_TARGET(isa) __attribute__((target(isa)))

RWKV_TARGET("avx2,fma") uint64_t avx2_fp32(int64_t rounds, int seed) {
  __m256 chains[kChains];
  for (int i = 0; i < kChains; i++) chains[i] = _mm256_set1_ps(start(seed + i));
  const __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(start(seed) * 1e-3f);
  for (int64_t r = 0; r < rounds; r++) {
    RWKV_UNROLLED
    for (auto &chain : chains) chain = _mm256_fmadd_ps(chain, factor, term);
  }
  return digest(chains);
}

// Without dot products in the machine, the products of bytes are added in two steps.
RWKV_TARGET("avx2") uint64_t avx2_int8(int64_t rounds, int seed) {
  __m256i chains[kChains];
  for (int i = 0; i < kChains; i++) chains[i] = _mm256_set1_epi32(seed + i);
  const __m256i ones = _mm256_set1_epi16(1), codes = _mm256_set1_epi32(0x01020304 + seed);
  for (int64_t r = 0; r < rounds; r++) {
    RWKV_UNROLLED
    for (auto &chain : chains) {
      // The chain itself is an operand, or the product would be computed once.
      const __m256i pairs = _mm256_maddubs_epi16(chain, codes);
      chain = _mm256_add_epi32(chain, _mm256_madd_epi16(pairs, ones));
    }
  }
  return digest(chains);
}

RWKV_TARGET("avx512f") uint64_t avx512_fp32(int64_t rounds, int seed) {
  __m512 chains[kChains];
  for (int i = 0; i < kChains; i++) chains[i] = _mm512_set1_ps(start(seed + i));
  const __m512 factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(start(seed) * 1e-3f);
  for (int64_t r = 0; r < rounds; r++) {
    RWKV_UNROLLED
    for (auto &chain : chains) chain = _mm512_fmadd_ps(chain, factor, term);
  }
  return digest(chains);
}

RWKV_TARGET("avx512f,avx512bf16") uint64_t avx512_bf16(int64_t rounds, int seed) {
  __m512 chains[kChains];
  for (int i = 0; i < kChains; i++) chains[i] = _mm512_set1_ps(start(seed + i));
  const __m512 ones = _mm512_set1_ps(start(seed));
  const __m512bh left = _mm512_cvtne2ps_pbh(ones, ones);
  const __m512bh right = _mm512_cvtne2ps_pbh(chains[0], chains[1]);
  for (int64_t r = 0; r < rounds; r++) {
    RWKV_UNROLLED
    for (auto &chain : chains) chain = _mm512_dpbf16_ps(chain, left, right);
  }
  return digest(chains);
}

RWKV_TARGET("avx512f,avx512vnni") uint64_t avx512_int8(int64_t rounds, int seed) {
  __m512i chains[kChains];
  for (int i = 0; i < kChains; i++) chains[i] = _mm512_set1_epi32(seed + i);
  const __m512i left = _mm512_set1_epi32(0x01020304 + seed), right = _mm512_set1_epi32(0x04030201);
  for (int64_t r = 0; r < rounds; r++) {
    RWKV_UNROLLED
    for (auto &chain : chains) chain = _mm512_dpbusd_epi32(chain, left, right);
  }
  return digest(chains);
}

Peak fp32_peak() {
  if (__builtin_cpu_supports("avx512f")) return {avx512_fp32, kChains * 16 * 2.0};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {avx2_fp32, kChains * 8 * 2.0};
  }
  return {plain_fp32, kChains * 4 * 2.0};
}

Peak bf16_peak() {
  if (__builtin_cpu_supports("avx512bf16")) return {avx512_bf16, kChains * 32 * 2.0};
  return {nullptr, 0};
}

Peak int8_peak() {
  if (__builtin_cpu_supports("avx512vnni")) return {avx512_int8, kChains * 64 * 2.0};
  if (__builtin_cpu_supports("avx2")) return {avx2_int8, kChains * 32 * 2.0};
  return {nullptr, 0};
}

#elif defined(__aarch64__)

uint64_t neon_fp32(int64_t rounds, int seed) {
  float32x4_t chains[kChains];
  for (int i = 0; i < kChains; i++) chains[i] = vdupq_n_f32(start(seed + i));
  const float32x4_t left = vdupq_n_f32(start(seed)), right = vdupq_n_f32(start(seed) * 1e-3f);
  for (int64_t r = 0; r < rounds; r++) {
    RWKV_UNROLLED
    for (auto &chain : chains) chain = vfmaq_f32(chain, left, right);
  }
  return digest(chains);
}

// In assembly: compilers disagree on how a function of its own asks for the dot products.
uint64_t neon_int8(int64_t rounds, int seed) {
  int32x4_t chains[kChains];
  for (int i = 0; i < kChains; i++) chains[i] = vdupq_n_s32(seed + i);
  const int8x16_t left = vdupq_n_s8(static_cast<int8_t>(seed)), right = vdupq_n_s8(3);
  for (int64_t r = 0; r < rounds; r++) {
    RWKV_UNROLLED
    for (auto &chain : chains) {
      asm(".arch_extension dotprod\n\tsdot %0.4s, %1.16b, %2.16b"
          : "+w"(chain)
          : "w"(left), "w"(right));
    }
  }
  return digest(chains);
}

uint64_t neon_bf16(int64_t rounds, int seed) {
  float32x4_t chains[kChains];
  for (int i = 0; i < kChains; i++) chains[i] = vdupq_n_f32(start(seed + i));
  const int8x16_t left = vdupq_n_s8(0x3f), right = vdupq_n_s8(0x3e);  // 0.74 and 0.19 as bf16
  for (int64_t r = 0; r < rounds; r++) {
    RWKV_UNROLLED
    for (auto &chain : chains) {
      asm(".arch_extension bf16\n\tbfdot %0.4s, %1.8h, %2.8h"
          : "+w"(chain)
          : "w"(left), "w"(right));
    }
  }
  return digest(chains);
}

#if defined(__linux__)
// Bits of the kernel's interface, asm/hwcap.h.
bool has_dotprod() { return getauxval(AT_HWCAP) >> 20 & 1; }
bool has_bf16() { return getauxval(AT_HWCAP2) >> 14 & 1; }
#else
bool has_dotprod() { return true; }  // every Apple processor that runs 64-bit programs on a Mac
bool has_bf16() { return false; }
#endif

Peak fp32_peak() { return {neon_fp32, kChains * 4 * 2.0}; }

Peak bf16_peak() {
  if (has_bf16()) return {neon_bf16, kChains * 8 * 2.0};
  return {nullptr, 0};
}

Peak int8_peak() {
  if (has_dotprod()) return {neon_int8, kChains * 16 * 2.0};
  return {nullptr, 0};
}

#else

Peak fp32_peak() { return {plain_fp32, kChains * 4 * 2.0}; }
Peak bf16_peak() { return {nullptr, 0}; }
Peak int8_peak() { return {nullptr, 0}; }

#endif

}  // namespace

Peak best_peak(int32_t kind) {
  if (kind == RWKV_FP32_FMA) return fp32_peak();
  return kind == RWKV_BF16_DOT ? bf16_peak() : int8_peak();
}

}  // namespace rwkv
