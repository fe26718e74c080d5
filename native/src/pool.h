// Threads that work on one thing together: a function run by all of them, in phases.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace rwkv {

// What one thread of a running job sees of the others.
class Team;

// Workers sleep between jobs. Inside a job a thread that waits spins for some microseconds, since the
// others are expected that soon, then gives its core away: on a busy machine the thread it waits for
// may need that very core.
class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool &) = delete;
  Pool &operator=(const Pool &) = delete;

  int threads() const { return threads_; }

  // Runs `work(team)` on every thread and returns when all have finished. One job at a time: a second
  // caller waits.
  template <typename Work>
  void run(Work &&work) {
    run_erased([](void *context, Team &team) { (*static_cast<Work *>(context))(team); }, &work);
  }

 private:
  friend class Team;
  using Call = void (*)(void *, Team &);

  void run_erased(Call call, void *context);
  void worker(int index);
  bool wait_for_job(uint64_t seen);

  // Each in its own cache line: one is written by all threads, the other read by all.
  struct alignas(64) Line {
    std::atomic<int64_t> value{0};
  };
  struct alignas(64) Flag {
    std::atomic<uint64_t> value{0};
  };

  int threads_;
  std::vector<std::thread> workers_;
  Flag generation_;   // counts jobs
  Flag arrived_;      // threads that have reached the present barrier
  Flag phase_;        // counts barriers
  // Pieces that were claimed of each thread's share, in this phase and in the one after it.
  std::unique_ptr<Line[]> claimed_[2];
  Call call_ = nullptr;
  void *context_ = nullptr;
  std::atomic<bool> stop_{false};
  std::atomic<int> asleep_{0};
  std::mutex run_mutex_, sleep_mutex_;
  std::condition_variable wake_;
};

class Team {
 public:
  Team(Pool &pool, int index);

  int index() const { return index_; }
  int size() const { return pool_.threads_; }

  // Waits until every thread has come here, and opens the next phase.
  void barrier();

  // Has pieces 0 .. count-1 of a phase done, each exactly once, by whichever thread is free. What a
  // piece computes must not depend on who does it. Ends with a barrier.
  //
  // Every thread begins with a stretch of its own, so that it reads memory in order, which the hardware
  // rewards; then it helps those that were slower or lost their core.
  template <typename Piece>
  void share(int64_t count, Piece &&piece) {
    if (pool_.threads_ == 1) {
      for (int64_t i = 0; i < count; i++) piece(i);
      return;
    }
    const int64_t threads = pool_.threads_;
    for (int64_t turn = 0, owner = index_; turn < threads; turn++, owner = (owner + 1) % threads) {
      const int64_t begin = count * owner / threads, end = count * (owner + 1) / threads;
      auto &claimed = pool_.claimed_[phase_ & 1][owner].value;
      for (int64_t i; (i = begin + claimed.fetch_add(1, std::memory_order_relaxed)) < end;) piece(i);
    }
    barrier();
  }

 private:
  Pool &pool_;
  int index_;
  uint64_t phase_;
};

}  // namespace rwkv

// As the C interface knows it.
struct rwkv_pool {
  rwkv::Pool pool;
};
