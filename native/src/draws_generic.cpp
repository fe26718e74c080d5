#include <cmath>
#include <cstdint>
#include <cstring>

#include "draws.h"

namespace rwkv {
namespace {
#include "draws.inl"
}  // namespace

const Draws draws_generic = {largest, weigh, keep};

}  // namespace rwkv
