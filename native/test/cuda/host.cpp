// A library of kernels, compiled for the CPU, with a launch for tests (tests/oracle/cuda_host.py).
#include <algorithm>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "block.h"
#include "fibre.h"

#ifndef SHIM_KERNELS
#define SHIM_KERNELS "../../cuda/rwkv.cu"
#endif
#include SHIM_KERNELS

namespace shim {
namespace {

constexpr int kMaxShared = 227 << 10;  // the most that any GPU gives a block
constexpr int kGuard = SHIM_ASAN ? 0 : 64;
constexpr unsigned char kPoison = 0xff;  // NaNs and negative numbers

std::vector<Kernel> &kernels() {
  static std::vector<Kernel> all;
  return all;
}

const Kernel *find(const char *name) {
  for (const Kernel &kernel : kernels())
    if (!std::strcmp(kernel.name, name)) return &kernel;
  return nullptr;
}

std::string last_error;

int refuse(const std::string &sentence) {
  last_error = sentence;
  return -1;
}

std::string check(const Kernel &kernel, const int (&grid)[3], int threads, int shared_bytes) {
  if (threads < 1 || threads > kernel.threads)
    return std::to_string(threads) + " threads, declared for 1 to " + std::to_string(kernel.threads);
  if (shared_bytes < 0 || shared_bytes > kMaxShared)
    return std::to_string(shared_bytes) + " bytes of shared memory, the most are " +
           std::to_string(kMaxShared);
  for (int axis = 0; axis < 3; axis++)
    if (grid[axis] < 1 || (axis > 0 && grid[axis] > 65535))
      return "a grid of " + std::to_string(grid[0]) + " x " + std::to_string(grid[1]) + " x " +
             std::to_string(grid[2]) + " blocks";
  return "";
}

// One block on shared memory of its own; an overrun is found by the address sanitizer, or afterwards.
std::string run_alone(const Launch &launch, int shared_bytes) {
  const size_t bytes = static_cast<size_t>(shared_bytes);
  const std::unique_ptr<unsigned char[]> memory(new unsigned char[bytes + kGuard]);
  std::memset(memory.get(), kPoison, bytes + kGuard);
  shared = memory.get();
  const std::string wrong = run_block(launch);
  if (!wrong.empty()) return wrong;
  for (size_t i = bytes; i < bytes + kGuard; i++)
    if (memory[i] != kPoison) return "shared memory is written to behind its end";
  return "";
}

int launch(const Kernel &kernel, const int (&grid)[3], int threads, int shared_bytes,
           const void *arguments, unsigned seed) {
  grid_size = {static_cast<unsigned>(grid[0]), static_cast<unsigned>(grid[1]),
               static_cast<unsigned>(grid[2])};
  block_size = {static_cast<unsigned>(threads), 1, 1};
  std::vector<uint64_t> blocks(static_cast<size_t>(grid[0]) * grid_size.y * grid_size.z);
  std::iota(blocks.begin(), blocks.end(), uint64_t{0});
  Random order(seed);
  for (size_t i = blocks.size(); i > 1; i--) std::swap(blocks[i - 1], blocks[order.below(i)]);
  for (const uint64_t block : blocks) {
    block_index = {static_cast<unsigned>(block % grid_size.x),
                   static_cast<unsigned>(block / grid_size.x % grid_size.y),
                   static_cast<unsigned>(block / grid_size.x / grid_size.y)};
    const std::string wrong = run_alone({kernel, arguments, threads, order.below(1u << 30)}, shared_bytes);
    if (!wrong.empty()) return refuse(std::string(kernel.name) + ": " + wrong);
  }
  return 0;
}

}  // namespace

Registration::Registration(const Kernel &kernel) { kernels().push_back(kernel); }

}  // namespace shim

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const char *rwkv_host_error() { return shim::last_error.c_str(); }

// The bytes of a kernel's structure; -1 where there is no such kernel.
EXPORT int64_t rwkv_host_arguments_bytes(const char *name) {
  const shim::Kernel *kernel = shim::find(name);
  return kernel ? kernel->arguments_bytes : -1;
}

// The names of the kernels in turn, then null.
EXPORT const char *rwkv_host_kernel(int index) {
  const auto &all = shim::kernels();
  return index >= 0 && index < static_cast<int>(all.size()) ? all[index].name : nullptr;
}

// Runs a kernel to its end: 0, or -1 with a sentence in rwkv_host_error. One launch at a time.
EXPORT int rwkv_host_launch(const char *name, int gx, int gy, int gz, int threads, int shared_bytes,
                            const void *arguments, unsigned seed) {
  static std::mutex one;
  const std::lock_guard<std::mutex> lock(one);
  const shim::Kernel *kernel = shim::find(name);
  if (!kernel) return shim::refuse("there is no kernel " + std::string(name));
  const int grid[3] = {gx, gy, gz};
  const std::string wrong = shim::check(*kernel, grid, threads, shared_bytes);
  if (!wrong.empty()) return shim::refuse(std::string(name) + ": " + wrong);
  // A copy of exactly its size, as a launch makes one.
  const size_t bytes = static_cast<size_t>(kernel->arguments_bytes);
  const std::unique_ptr<unsigned char[]> copy(new unsigned char[bytes]);
  std::memcpy(copy.get(), arguments, bytes);
  return shim::launch(*kernel, grid, threads, shared_bytes, copy.get(), seed);
}
