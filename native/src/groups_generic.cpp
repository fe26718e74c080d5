#include <cstring>
#include <iterator>

#include "groups.h"
#include "half.h"

namespace rwkv::groups_generic {
#include "groups.inl"
}  // namespace rwkv::groups_generic
