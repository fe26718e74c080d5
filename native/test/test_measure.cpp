// Measuring the machine: figures that can be, and what is refused.
#include <climits>

#include "check.h"

namespace {

void figures(rwkv_pool *pool) {
  double rate = 0;
  CHECK(rwkv_measure_read(pool, 1 << 20, 0.01, &rate) == RWKV_OK);
  CHECK(rate > 1e6 && rate < 1e14);
  CHECK(rwkv_measure_read(pool, (1 << 20) + 12345, 0.01, &rate) == RWKV_OK);
  for (int32_t kind : {RWKV_FP32_FMA, RWKV_BF16_DOT, RWKV_INT8_DOT}) {
    rate = 0;
    const int code = rwkv_measure_arithmetic(pool, kind, &rate);
    CHECK(code == RWKV_OK || (code == RWKV_UNSUPPORTED && kind != RWKV_FP32_FMA));
    CHECK(code != RWKV_OK || (rate > 1e6 && rate < 1e16));
  }
}

void refusals(rwkv_pool *pool) {
  double rate = -1;
  REFUSED(rwkv_measure_read(nullptr, 1 << 20, 0.01, &rate), RWKV_INVALID);
  REFUSED(rwkv_measure_read(pool, 1 << 20, 0.01, nullptr), RWKV_INVALID);
  for (int64_t bytes : {int64_t{0}, int64_t{-1}, INT64_MIN, INT64_MAX, int64_t{(1 << 20) - 1}}) {
    REFUSED(rwkv_measure_read(pool, bytes, 0.01, &rate), RWKV_INVALID);
  }
  for (double seconds :
       {0.0, -1.0, 61.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    REFUSED(rwkv_measure_read(pool, 1 << 20, seconds, &rate), RWKV_INVALID);
  }
  REFUSED(rwkv_measure_arithmetic(nullptr, RWKV_FP32_FMA, &rate), RWKV_INVALID);
  REFUSED(rwkv_measure_arithmetic(pool, RWKV_FP32_FMA, nullptr), RWKV_INVALID);
  for (int32_t kind : {-1, 3, INT_MIN, INT_MAX}) {
    REFUSED(rwkv_measure_arithmetic(pool, kind, &rate), RWKV_INVALID);
  }
  CHECK(rate == -1);
}

}  // namespace

int main() {
  for (int32_t threads : {1, 2}) {
    rwkv_pool *pool = nullptr;
    CHECK(rwkv_pool_new(threads, &pool) == RWKV_OK);
    figures(pool);
    refusals(pool);
    rwkv_pool_free(pool);
  }
  return test::report("measure");
}
