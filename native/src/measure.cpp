// What the machine can do at best: how fast its cores read memory together, and how many operations
// they do when nothing is read at all. `rwkv bench` states its shares against these.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "fail.h"
#include "peaks.h"
#include "pool.h"

namespace rwkv {
namespace {

constexpr int64_t kPiece = 1 << 18;           // bytes that a thread claims at once
constexpr int64_t kSmallest = 1 << 20;
constexpr int64_t kLargest = int64_t{1} << 34;
constexpr int64_t kRounds = 2000;             // about 20 us of arithmetic
constexpr double kArithmeticSeconds = 0.15;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Reads a piece once. Four sums, so that no addition waits for the one before it.
uint64_t read_piece(const unsigned char *data, int64_t bytes) {
  uint64_t sums[4] = {0, 0, 0, 0};
  for (int64_t i = 0; i + 32 <= bytes; i += 32) {
    uint64_t words[4];
    memcpy(words, data + i, sizeof words);
    for (int j = 0; j < 4; j++) sums[j] += words[j];
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

#if defined(__x86_64__)
#define RWKV_TARGET(isa) __attribute__((target(isa)))

RWKV_TARGET("avx2") uint64_t read_piece_avx2(const unsigned char *data, int64_t bytes) {
  __m256i sums[8];
  for (auto &sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i + 256 <= bytes; i += 256) {
    for (int64_t j = 0; j < 8; j++) {
      const auto *at = reinterpret_cast<const __m256i *>(data + i + 32 * j);
      sums[j] = _mm256_add_epi64(sums[j], _mm256_loadu_si256(at));
    }
  }
  for (int j = 1; j < 8; j++) sums[0] = _mm256_add_epi64(sums[0], sums[j]);
  uint64_t words[4];
  memcpy(words, &sums[0], sizeof words);
  return words[0] + words[1] + words[2] + words[3];
}

RWKV_TARGET("avx512f") uint64_t read_piece_avx512(const unsigned char *data, int64_t bytes) {
  __m512i sums[8];
  for (auto &sum : sums) sum = _mm512_setzero_si512();
  for (int64_t i = 0; i + 512 <= bytes; i += 512) {
    for (int64_t j = 0; j < 8; j++) {
      sums[j] = _mm512_add_epi64(sums[j], _mm512_loadu_si512(data + i + 64 * j));
    }
  }
  for (int j = 1; j < 8; j++) sums[0] = _mm512_add_epi64(sums[0], sums[j]);
  uint64_t words[8], total = 0;
  memcpy(words, &sums[0], sizeof words);
  for (uint64_t word : words) total += word;
  return total;
}
#endif

using Reader = uint64_t (*)(const unsigned char *, int64_t);

Reader best_reader() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return read_piece_avx512;
  if (__builtin_cpu_supports("avx2")) return read_piece_avx2;
#endif
  return read_piece;
}

// The fastest pass of all that fit into a time: what the machine gives when nobody else wants it.
template <typename Pass>
double fastest(double seconds, Pass &&pass) {
  const double end = now() + seconds;
  double best = 0;
  do {
    const double begin = now();
    pass();
    const double taken = now() - begin;
    if (best == 0 || taken < best) best = taken;
  } while (now() < end);
  return std::max(best, 1e-9);
}

std::atomic<uint64_t> g_seen;  // what was read must be used, or it need not be read

}  // namespace
}  // namespace rwkv

extern "C" int rwkv_measure_read(rwkv_pool *handle, int64_t bytes, double seconds,
                                 double *bytes_per_second) {
  using namespace rwkv;
  if (!handle || !bytes_per_second) return fail(RWKV_INVALID, "measuring needs a pool and a result");
  if (bytes < kSmallest || bytes > kLargest) {
    return fail(RWKV_INVALID, "%lld bytes to read; it must be 1 MiB to 16 GiB",
                static_cast<long long>(bytes));
  }
  if (!(seconds > 0 && seconds <= 60)) return fail(RWKV_INVALID, "measuring takes 0 to 60 seconds");
  const int64_t pieces = bytes / kPiece;
  std::unique_ptr<unsigned char, decltype(&free)> memory(
      static_cast<unsigned char *>(malloc(static_cast<size_t>(pieces * kPiece))), &free);
  if (!memory) return fail(RWKV_NO_MEMORY, "no memory to measure the bandwidth with");
  unsigned char *data = memory.get();
  Pool &pool = handle->pool;
  // Pages that were never written are all the same one, which stays in the cache.
  pool.run([&](Team &team) {
    team.share(pieces, [&](int64_t i) { memset(data + i * kPiece, static_cast<int>(i) + 1, kPiece); });
  });
  const Reader reader = best_reader();
  const double best = fastest(seconds, [&] {
    pool.run([&](Team &team) {
      uint64_t sum = 0;
      team.share(pieces, [&](int64_t i) { sum += reader(data + i * kPiece, kPiece); });
      g_seen.store(sum, std::memory_order_relaxed);
    });
  });
  *bytes_per_second = static_cast<double>(pieces * kPiece) / best;
  return RWKV_OK;
}

extern "C" int rwkv_measure_arithmetic(rwkv_pool *handle, int32_t kind, double *ops_per_second) {
  using namespace rwkv;
  if (!handle || !ops_per_second) return fail(RWKV_INVALID, "measuring needs a pool and a result");
  if (kind < RWKV_FP32_FMA || kind > RWKV_INT8_DOT) {
    return fail(RWKV_INVALID, "%d is no kind of arithmetic", kind);
  }
  const Peak peak = best_peak(kind);
  if (!peak.loop) return fail(RWKV_UNSUPPORTED, "this processor has no such instruction");
  Pool &pool = handle->pool;
  // A piece for each thread and some more: one that loses its core for a while does fewer.
  const int64_t pieces = 16 * pool.threads();
  const double best = fastest(kArithmeticSeconds, [&] {
    pool.run([&](Team &team) {
      uint64_t sum = 0;
      team.share(pieces, [&](int64_t i) { sum += peak.loop(kRounds, static_cast<int>(i)); });
      g_seen.store(sum, std::memory_order_relaxed);
    });
  });
  *ops_per_second = peak.ops_per_round * static_cast<double>(kRounds * pieces) / best;
  return RWKV_OK;
}
