// Stacks of their own to run on, in turns, within one thread of the operating system.
#pragma once

#include <cstddef>

// Whether the switch is a few instructions (fibre.cpp); elsewhere it is the system's.
#ifndef SHIM_SWITCH
#if defined(__x86_64__) || defined(__aarch64__)
#define SHIM_SWITCH 1
#else
#define SHIM_SWITCH 0
#endif
#endif
#if !SHIM_SWITCH
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SHIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHIM_ASAN 1
#endif
#endif
#ifndef SHIM_ASAN
#define SHIM_ASAN 0
#endif

namespace shim {

// What to come back to: a fibre, or the thread that started them (without a stack of its own here).
class Fibre {
 public:
  Fibre() = default;
  Fibre(const Fibre &) = delete;
  Fibre &operator=(const Fibre &) = delete;
  ~Fibre();

  // Makes the next switch to it begin `entry`, which never returns, on an empty stack.
  void start(void (*entry)());
  // Goes from `from`, which is running, on to `to`. One that `ends` is not come back to.
  static void change(Fibre &from, Fibre &to, bool ends = false);
  // To be called first by an entry.
  static void entered();

 private:
  unsigned char *stack_ = nullptr;  // its lowest page is a guard
#if SHIM_SWITCH
  void *pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  [[maybe_unused]] void *fake_stack_ = nullptr;  // the address sanitizer's
  const void *bottom_ = nullptr;
  size_t size_ = 0;
};

}  // namespace shim
