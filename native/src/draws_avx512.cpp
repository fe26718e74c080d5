#include <cmath>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "draws.h"

namespace rwkv {
namespace {
#include "draws.inl"
}  // namespace

const Draws draws_avx512 = {largest, weigh, keep};

}  // namespace rwkv
