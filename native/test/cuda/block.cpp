#include "block.h"

#include <cstdarg>
#include <cstdio>
#include <deque>
#include <vector>

#include "fibre.h"

namespace shim {

Index thread_index, block_index, block_size, grid_size;
unsigned char *shared;

namespace {

enum class State { kReady, kAtBarrier, kAtExchange, kEnded };

struct Copy {
  void *to;
  const void *from;
};

struct Thread {
  Fibre fibre;
  std::deque<std::vector<Copy>> copies;  // under way, in groups; the last one is still open
  unsigned index;
  State state;
  Site site;         // where it waits
  const char *call;  // at which call of a warp
  unsigned mask;     // with which lanes
  int board;         // of its warp, on which its numbers are
};

// The numbers of an exchange that is complete, until all its lanes have read them: lanes that exchange
// with only some of the others may be any number of exchanges ahead of those.
struct Board {
  uint64_t numbers[kWarp];
  int readers;
};

struct Warp {
  uint64_t numbers[kWarp];  // of the lanes that wait
  unsigned exist, waiting;
  Board boards[kWarp];  // when an exchange is complete, at most the lanes that were not in it still read
};

std::deque<Thread> threads;  // they stay for later blocks, with their stacks
std::vector<Warp> warps;
std::vector<Thread *> ready;
Fibre host;
Thread *current;
const Launch *launch;
Random order(0);
int at_barrier, ended;
std::string error;

Warp &warp_of(const Thread &thread) { return warps[thread.index / kWarp]; }

std::string place(Site site) {
  const char *name = std::strrchr(site.file, '/');
  return std::string(name ? name + 1 : site.file) + ":" + std::to_string(site.line);
}

bool same(Site a, Site b) { return a.line == b.line && !std::strcmp(a.file, b.file); }

std::string whereabouts(const Thread &thread) {
  switch (thread.state) {
    case State::kEnded: return "has ended";
    case State::kAtBarrier: return "waits in __syncthreads at " + place(thread.site);
    case State::kAtExchange: return "waits in " + std::string(thread.call) + " at " + place(thread.site);
    default: return "goes on";
  }
}

[[noreturn]] void stop(const std::string &sentence) {
  error = sentence;
  Fibre::change(current->fibre, host, true);
  __builtin_unreachable();
}

[[noreturn]] void diverged(const Thread &a, const Thread &b) {
  stop("divergence: thread " + std::to_string(a.index) + " " + whereabouts(a) + ", thread " +
       std::to_string(b.index) + " " + whereabouts(b));
}

void make_ready(Thread &thread) {
  thread.state = State::kReady;
  ready.push_back(&thread);
}

// Two threads that wait for what cannot come.
[[noreturn]] void diagnose() {
  for (int i = 0; i < launch->threads; i++) {
    const Thread &a = threads[i];
    if (a.state != State::kAtExchange) continue;
    for (int j = 0; j < launch->threads; j++) {
      const Thread &b = threads[j];
      const bool awaited = b.index / kWarp == a.index / kWarp && (a.mask >> b.index % kWarp & 1);
      if (awaited && (b.state != State::kAtExchange || b.mask != a.mask)) diverged(a, b);
    }
  }
  for (int i = 0; i < launch->threads; i++)
    for (int j = 0; j < launch->threads; j++)
      if (threads[i].state == State::kAtBarrier && threads[j].state != State::kAtBarrier)
        diverged(threads[i], threads[j]);
  stop("the threads wait for one another");
}

// Lets another thread go on, any that can.
void yield(bool ends) {
  if (ready.empty()) diagnose();
  Thread &self = *current;
  const size_t picked = order.below(ready.size());
  current = ready[picked];
  ready[picked] = ready.back();
  ready.pop_back();
  if (current != &self) Fibre::change(self.fibre, current->fibre, ends);
  thread_index = {self.index, 0, 0};
}

void begin_thread() {
  Fibre::entered();
  Thread &self = *current;
  thread_index = {self.index, 0, 0};
  launch->kernel.run(launch->arguments);
  for (const std::vector<Copy> &group : self.copies)
    if (!group.empty()) fail("it ends with copies under way");
  self.state = State::kEnded;
  if (++ended == launch->threads) Fibre::change(self.fibre, host, true);
  yield(true);
}

// Ends the exchange that `last` came to as the last of its lanes.
void complete(const Thread &last, unsigned lanes) {
  Warp &warp = warp_of(last);
  Thread *of_lane[kWarp];
  int count = 0;
  for (unsigned i = 0; i < kWarp; i++)
    if (lanes >> i & 1) of_lane[count++] = &threads[last.index / kWarp * kWarp + i];
  for (int i = 0; i < count; i++)
    if (of_lane[i]->mask != last.mask || !same(of_lane[i]->site, last.site) ||
        std::strcmp(of_lane[i]->call, last.call))
      diverged(*of_lane[i], last);
  int free = 0;
  while (warp.boards[free].readers) free++;
  std::memcpy(warp.boards[free].numbers, warp.numbers, sizeof warp.numbers);
  warp.boards[free].readers = count;
  for (int i = 0; i < count; i++) {
    of_lane[i]->board = free;
    make_ready(*of_lane[i]);
  }
  warp.waiting &= ~lanes;
}

}  // namespace

void fail(const char *format, ...) {
  char text[512];
  va_list list;
  va_start(list, format);
  std::vsnprintf(text, sizeof text, format, list);
  va_end(list);
  stop("thread " + std::to_string(current->index) + ": " + text);
}

void barrier(Site site) {
  Thread &self = *current;
  self.state = State::kAtBarrier;
  self.site = site;
  if (++at_barrier == launch->threads) {
    for (int i = 0; i < launch->threads; i++)
      if (!same(threads[i].site, site)) diverged(threads[i], self);
    for (int i = 0; i < launch->threads; i++) make_ready(threads[i]);
    at_barrier = 0;
  }
  yield(false);
}

Exchange exchange(const char *call, unsigned mask, uint64_t number, Site site) {
  Thread &self = *current;
  Warp &warp = warp_of(self);
  const unsigned lane = self.index % kWarp, lanes = mask & warp.exist;
  if (!(mask >> lane & 1)) fail("%s by lane %u, which its mask %08x leaves out", call, lane, mask);
  self.state = State::kAtExchange;
  self.call = call;
  self.mask = mask;
  self.site = site;
  warp.numbers[lane] = number;
  warp.waiting |= 1u << lane;
  if ((warp.waiting & lanes) == lanes) complete(self, lanes);
  yield(false);
  Board &board = warp.boards[self.board];
  board.readers--;  // it is read before anything else runs
  return {board.numbers, lanes};
}

void copy16(void *to, const void *from) {
  if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16)
    fail("a copy of 16 bytes from or to a misaligned address, %p or %p", from, to);
  std::memset(to, 0xff, 16);  // NaNs, until it is waited for
  current->copies.back().push_back({to, from});
}

void commit_copies() { current->copies.emplace_back(); }

void await_copies(int but) {
  std::deque<std::vector<Copy>> &groups = current->copies;
  for (; static_cast<int>(groups.size()) > but + 1; groups.pop_front())
    for (const Copy &copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
}

std::string run_block(const Launch &of) {
  launch = &of;
  order = Random(of.seed);
  at_barrier = ended = 0;
  error.clear();
  while (static_cast<int>(threads.size()) < of.threads) threads.emplace_back();
  warps.resize((of.threads + kWarp - 1) / kWarp);
  for (Warp &warp : warps) {
    warp.exist = warp.waiting = 0;
    for (Board &board : warp.boards) board.readers = 0;
  }
  ready.clear();
  for (int i = 0; i < of.threads; i++) {
    Thread &thread = threads[i];
    thread.index = static_cast<unsigned>(i);
    thread.copies.assign(1, {});
    warp_of(thread).exist |= 1u << i % kWarp;
    thread.fibre.start(begin_thread);
    make_ready(thread);
  }
  const size_t first = order.below(ready.size());
  current = ready[first];
  ready[first] = ready.back();
  ready.pop_back();
  Fibre::change(host, current->fibre);
  if (error.empty()) return error;
  return "block (" + std::to_string(block_index.x) + ", " + std::to_string(block_index.y) + ", " +
         std::to_string(block_index.z) + "): " + error;
}

}  // namespace shim
