#include "pool.h"

#include <chrono>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace rwkv {
namespace {

// A hint to the core that it waits; about 20 to 40 ns.
inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

constexpr int kBarrierSpins = 400;  // about 10 us: longer than any imbalance of a phase
constexpr int kJobSpins = 4000;     // about 100 us: a token is drawn in less

}  // namespace

Pool::Pool(int threads) : threads_(threads) {
  for (auto &claimed : claimed_) claimed.reset(new Line[threads]);
  for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { worker(i); });
}

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(sleep_mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto &thread : workers_) thread.join();
}

void Pool::run_erased(Call call, void *context) {
  std::lock_guard<std::mutex> one(run_mutex_);
  call_ = call;
  context_ = context;
  for (auto &claimed : claimed_)
    for (int i = 0; i < threads_; i++) claimed[i].value.store(0, std::memory_order_relaxed);
  generation_.value.fetch_add(1);  // sequentially consistent with asleep_: no wake-up is lost
  if (asleep_.load() > 0) {
    std::lock_guard<std::mutex> lock(sleep_mutex_);
    wake_.notify_all();
  }
  Team team(*this, 0);
  call(context, team);
  team.barrier();  // the work lives on this stack: nobody may still be in it
}

bool Pool::wait_for_job(uint64_t seen) {
  for (int i = 0; i < kJobSpins; i++) {
    if (generation_.value.load(std::memory_order_acquire) != seen) return true;
    if (stop_.load(std::memory_order_relaxed)) return false;
    pause();
  }
  std::unique_lock<std::mutex> lock(sleep_mutex_);
  asleep_.fetch_add(1);
  wake_.wait(lock, [&] { return stop_.load() || generation_.value.load() != seen; });
  asleep_.fetch_sub(1);
  return generation_.value.load() != seen;
}

void Pool::worker(int index) {
  // A job moves the count on by one and ends only when every worker has taken part in it.
  for (uint64_t seen = 0; wait_for_job(seen); seen++) {
    Team team(*this, index);
    call_(context_, team);
    team.barrier();
  }
}

Team::Team(Pool &pool, int index)
    : pool_(pool), index_(index), phase_(pool.phase_.value.load(std::memory_order_acquire)) {}

void Team::barrier() {
  const uint64_t mine = phase_++;
  if (pool_.threads_ == 1) return;
  if (pool_.arrived_.value.fetch_add(1, std::memory_order_acq_rel) + 1 ==
      static_cast<uint64_t>(pool_.threads_)) {
    // All have left the phase before this one, so its counts are free for the phase after.
    for (int i = 0; i < pool_.threads_; i++)
      pool_.claimed_[phase_ & 1][i].value.store(0, std::memory_order_relaxed);
    pool_.arrived_.value.store(0, std::memory_order_relaxed);
    pool_.phase_.value.store(phase_, std::memory_order_release);
    return;
  }
  for (int i = 0; pool_.phase_.value.load(std::memory_order_acquire) == mine; i++) {
    if (i < kBarrierSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace rwkv
