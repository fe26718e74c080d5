#include "groups.h"

namespace rwkv {

Encoded encode_groups(int32_t type, const float *numbers, int64_t count, Group *groups, Squares *sums) {
#if defined(__x86_64__)
  static const bool is_wide = __builtin_cpu_supports("avx2");
  if (is_wide) return groups_avx2::encode(type, numbers, count, groups, sums);
#endif
  return groups_generic::encode(type, numbers, count, groups, sums);
}

}  // namespace rwkv
