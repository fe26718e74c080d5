#include <cstring>
#include <iterator>

#include "groups.h"
#include "half.h"

namespace rwkv::groups_avx2 {
#include "groups.inl"
}  // namespace rwkv::groups_avx2
