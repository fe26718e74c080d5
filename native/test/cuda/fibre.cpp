#include "fibre.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

#if SHIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace shim {
namespace {

constexpr size_t kStack = 256 << 10;  // an instrumented frame is several times as large as a plain one

Fibre *left = nullptr;  // the one that the switch under way goes away from

size_t guard() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

// --- the switch itself ---------------------------------------------------------------------------------

#if SHIM_SWITCH
#if defined(__APPLE__)
#define SHIM_SYMBOL "_shim_switch"
#else
#define SHIM_SYMBOL "shim_switch"
#endif

// Saves what a call must preserve on this stack and restores it from the other.
extern "C" void shim_switch(void **from, void *to) __asm__(SHIM_SYMBOL);

#if defined(__x86_64__)
__asm__(".text\n" SHIM_SYMBOL ":\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n");
constexpr size_t kFrame = 8, kEntry = 6;  // words of a first frame, and which of them is returned to
#else
__asm__(".text\n.balign 4\n" SHIM_SYMBOL ":\n"
        "  sub sp, sp, #160\n"
        "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
        "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
        "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
        "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
        "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
        "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
        "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
        "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
        "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
        "  add sp, sp, #160\n  ret\n");
constexpr size_t kFrame = 20, kEntry = 11;
#endif
#endif

// --- fibres --------------------------------------------------------------------------------------------

Fibre::~Fibre() {
  if (stack_) munmap(stack_, guard() + kStack);
}

void Fibre::start(void (*entry)()) {
  if (!stack_) {
    void *const pages = mmap(nullptr, guard() + kStack, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    stack_ = static_cast<unsigned char *>(pages);
    mprotect(stack_, guard(), PROT_NONE);
    bottom_ = stack_ + guard();
    size_ = kStack;
  }
#if SHIM_ASAN
  // A fibre that was left in the middle of a function has not cleared its variables' red zones.
  __asan_unpoison_memory_region(bottom_, size_);
#endif
#if SHIM_SWITCH
  void **const frame = reinterpret_cast<void **>(stack_ + guard() + kStack) - kFrame;
  std::memset(frame, 0, kFrame * sizeof *frame);
  frame[kEntry] = reinterpret_cast<void *>(entry);
  pointer_ = frame;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_ + guard();
  context_.uc_stack.ss_size = kStack;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#endif
}

void Fibre::change(Fibre &from, Fibre &to, [[maybe_unused]] bool ends) {
  left = &from;
#if SHIM_ASAN
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake_stack_, to.bottom_, to.size_);
#endif
#if SHIM_SWITCH
  shim_switch(&from.pointer_, to.pointer_);
#else
  swapcontext(&from.context_, &to.context_);
#endif
#if SHIM_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack_, &left->bottom_, &left->size_);
#endif
}

void Fibre::entered() {
#if SHIM_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &left->bottom_, &left->size_);
#endif
}

}  // namespace shim
