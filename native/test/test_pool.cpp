// The pool: every piece is done exactly once, phases wait for each other, no wake-up is lost.
#include <chrono>

#include "check.h"
#include "pool.h"

namespace {

using rwkv::Pool;
using rwkv::Team;

void doze(uint32_t microseconds) {
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

void every_piece_is_done_once(int threads) {
  Pool pool(threads);
  for (int64_t count : {0, 1, 2, 7, 1000}) {
    std::vector<int> done(static_cast<size_t>(count) + 1);
    pool.run([&](Team &team) {
      team.share(count, [&](int64_t piece) { done[static_cast<size_t>(piece)]++; });
    });
    for (int64_t i = 0; i < count; i++) CHECK(done[static_cast<size_t>(i)] == 1);
  }
}

void everyone_takes_part(int threads) {
  Pool pool(threads);
  std::vector<int> seen(static_cast<size_t>(threads));
  pool.run([&](Team &team) {
    CHECK(team.size() == threads);
    seen[static_cast<size_t>(team.index())]++;
  });
  for (int times : seen) CHECK(times == 1);
}

// A phase reads what every piece of the phase before it wrote: a missing barrier shows as a wrong
// sum here, and as a race under a sanitizer.
void phases_wait_for_each_other(int threads) {
  constexpr int kPhases = 1000, kPieces = 9;
  Pool pool(threads);
  std::vector<int64_t> now(kPieces, 1), next(kPieces);
  pool.run([&](Team &team) {
    std::vector<int64_t> *from = &now, *to = &next;
    for (int phase = 0; phase < kPhases; phase++, std::swap(from, to)) {
      team.share(kPieces, [&](int64_t piece) {
        int64_t sum = 0;
        for (int64_t x : *from) sum += x;
        (*to)[static_cast<size_t>(piece)] = (sum + piece) % 1000003;
      });
    }
  });
  std::vector<int64_t> expected(kPieces, 1), made(kPieces);
  for (int phase = 0; phase < kPhases; phase++, std::swap(expected, made)) {
    int64_t sum = 0;
    for (int64_t x : expected) sum += x;
    for (int64_t piece = 0; piece < kPieces; piece++)
      made[static_cast<size_t>(piece)] = (sum + piece) % 1000003;
  }
  CHECK(now == expected);
}

void tiny_jobs(int threads, int jobs) {
  Pool pool(threads);
  std::vector<int64_t> done(5);
  for (int job = 0; job < jobs; job++) {
    pool.run([&](Team &team) {
      team.share(3, [&](int64_t piece) { done[static_cast<size_t>(piece)]++; });
      team.share(2, [&](int64_t piece) { done[static_cast<size_t>(piece) + 3]++; });
    });
  }
  for (int64_t times : done) CHECK(times == jobs);
}

// Pauses around the time after which workers fall asleep, before and inside the jobs.
void random_sleeps(int threads, int jobs) {
  Pool pool(threads);
  test::Random random(7);
  std::vector<int> done(8);
  for (int job = 0; job < jobs; job++) {
    if (job % 3 == 0) doze(random.below(300));
    const uint32_t slow = random.below(16), pause = random.below(200);
    pool.run([&](Team &team) {
      if (static_cast<uint32_t>(team.index()) == slow) doze(pause);
      team.share(8, [&](int64_t piece) {
        if (static_cast<uint32_t>(piece) == slow) doze(pause);
        done[static_cast<size_t>(piece)]++;
      });
    });
  }
  for (int times : done) CHECK(times == jobs);
}

void callers_take_turns() {
  Pool pool(3);
  int64_t sum = 0;  // guarded by the pool: one job at a time
  auto call = [&] {
    for (int job = 0; job < 500; job++) {
      pool.run([&](Team &team) {
        if (team.index() == 0) sum++;
      });
    }
  };
  std::thread first(call), second(call);
  first.join();
  second.join();
  CHECK(sum == 1000);
}

void pools_come_and_go() {
  for (int i = 0; i < 200; i++) {
    Pool pool(1 + i % 4);
    if (i % 2) pool.run([](Team &team) { team.share(4, [](int64_t) {}); });
    if (i % 8 == 3) doze(200);  // its workers sleep when it ends
  }
  CHECK(true);
}

}  // namespace

int main(int count, char **) {
  const int jobs = count > 1 ? 20000 : 100000;  // fewer under a sanitizer
  for (int threads : {1, 2, 3, 8}) {
    every_piece_is_done_once(threads);
    everyone_takes_part(threads);
    phases_wait_for_each_other(threads);
    random_sleeps(threads, 300);
  }
  tiny_jobs(2, jobs);
  tiny_jobs(4, jobs / 10);
  callers_take_turns();
  pools_come_and_go();
  return test::report("pool");
}
