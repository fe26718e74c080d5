// Chooses among the kernels of kernels.h by what the machine can do.
#include "kernels.h"

#include <cstring>

namespace rwkv {

extern const Kernels kernels_generic;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512, kernels_vnni;
#elif defined(__aarch64__)
extern const Kernels kernels_neon;
#endif

namespace {

struct Choice {
  const Kernels *kernels;
  bool (*runs)();
};

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif

bool always() { return true; }

const Choice kChoices[] = {
    {&kernels_generic, always},
#if defined(__x86_64__)
    {&kernels_avx2, has_avx2},
    {&kernels_avx512, has_avx512},
    {&kernels_vnni, has_vnni},
#elif defined(__aarch64__)
    {&kernels_neon, always},
#endif
};
constexpr int kCount = sizeof kChoices / sizeof *kChoices;

}  // namespace

const Kernels *find_kernels(const char *name) {
  for (const Choice &choice : kChoices)
    if (!std::strcmp(choice.kernels->name, name) && choice.runs()) return choice.kernels;
  return nullptr;
}

const char *const *runnable_kernels() {
  static const char *names[kCount + 1];
  static const bool once = [] {
    int count = 0;
    for (const Choice &choice : kChoices)
      if (choice.runs()) names[count++] = choice.kernels->name;
    return true;
  }();
  (void)once;
  return names;
}

}  // namespace rwkv
