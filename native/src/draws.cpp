#include "draws.h"

namespace rwkv {

const Draws &draws() {
#if defined(__x86_64__)
  static const Draws &best = __builtin_cpu_supports("avx512f") ? draws_avx512
                             : __builtin_cpu_supports("avx2")  ? draws_avx2
                                                               : draws_generic;
  return best;
#else
  return draws_generic;
#endif
}

}  // namespace rwkv
