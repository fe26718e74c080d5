// Packing: what comes back is what was put in, as far as the type can keep it, from every source
// type, either orientation and any address, whatever the sizes, and with any number of threads.
#include "check.h"
#include "formats.h"
#include "half.h"

namespace {

const int64_t kSizes[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 520};
const int32_t kTypes[] = {RWKV_F32, RWKV_BF16, RWKV_F16, RWKV_Q8, RWKV_Q4};

double bound_of(int32_t type) {
  const double bounds[] = {0, 0.004, 0.0005, 0.0075, 0.09};
  return bounds[type];
}

rwkv_pool *new_pool(int32_t threads) {
  rwkv_pool *pool = nullptr;
  CHECK(rwkv_pool_new(threads, &pool) == RWKV_OK);
  return pool;
}

// The numbers in a source type, row-major or turned, one byte off any alignment.
std::vector<uint8_t> written(const std::vector<float> &numbers, int64_t rows, int64_t cols,
                             int32_t type, bool turned) {
  const int64_t each = rwkv::element_bytes(type);
  std::vector<uint8_t> bytes(static_cast<size_t>(rows * cols * each) + 1);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < cols; c++) {
      const float x = numbers[static_cast<size_t>(r * cols + c)];
      uint8_t *to = bytes.data() + 1 + (turned ? c * rows + r : r * cols + c) * each;
      const double wide = static_cast<double>(x);
      const uint16_t half = type == RWKV_BF16 ? rwkv::to_bf16(x) : rwkv::to_f16(x);
      const void *from = type == RWKV_F64   ? static_cast<const void *>(&wide)
                         : type == RWKV_F32 ? static_cast<const void *>(&x)
                                            : &half;
      std::memcpy(to, from, static_cast<size_t>(each));
    }
  }
  return bytes;
}

void round_trip(rwkv_pool *one, rwkv_pool *many, int64_t rows, int64_t cols, int32_t type,
                int32_t layout) {
  test::Random random(static_cast<uint32_t>(rows * 1000 + cols));
  const std::vector<float> numbers = random.normals(rows * cols);
  const int64_t bytes = rwkv_packed_bytes(type, layout, rows, cols);
  const size_t count = static_cast<size_t>(rows * cols);
  const std::string what = "type " + std::to_string(type) + ", layout " + std::to_string(layout) +
                           ", " + std::to_string(rows) + " x " + std::to_string(cols);
  std::vector<uint8_t> packed(static_cast<size_t>(bytes), 0xAA), again(packed.size(), 0x55);
  std::vector<float> back(count);
  double error = -1;
  const std::vector<uint8_t> source = written(numbers, rows, cols, RWKV_F32, false);
  CHECK(rwkv_pack(one, source.data() + 1, RWKV_F32, 0, type, layout, rows, cols, packed.data(),
                  bytes, &error) == RWKV_OK);
  CHECK(rwkv_unpack(packed.data(), type, layout, rows, cols, bytes, back.data()) == RWKV_OK);
  const double measured = test::distance(back.data(), numbers.data(), rows * cols);
  // A matrix of a few numbers can be unlucky; the bound is one of statistics.
  if (count >= 256) WITHIN(measured, bound_of(type), what);
  WITHIN(std::fabs(measured - error), 1e-6, what + ", the reported error");

  const std::vector<uint8_t> turned = written(numbers, rows, cols, RWKV_F32, true);
  CHECK(rwkv_pack(many, turned.data() + 1, RWKV_F32, 1, type, layout, rows, cols, again.data(),
                  bytes, nullptr) == RWKV_OK);
  CHECK(packed == again);
  const std::vector<uint8_t> wide = written(numbers, rows, cols, RWKV_F64, true);
  CHECK(rwkv_pack(many, wide.data() + 1, RWKV_F64, 1, type, layout, rows, cols, again.data(), bytes,
                  nullptr) == RWKV_OK);
  CHECK(packed == again);

  // From a half precision it is as from the numbers that its bits mean.
  for (int32_t half : {RWKV_BF16, RWKV_F16}) {
    std::vector<float> rounded = numbers;
    for (float &x : rounded)
      x = half == RWKV_BF16 ? rwkv::from_bf16(rwkv::to_bf16(x)) : rwkv::from_f16(rwkv::to_f16(x));
    const std::vector<uint8_t> halves = written(numbers, rows, cols, half, false);
    CHECK(rwkv_pack(one, halves.data() + 1, half, 0, type, layout, rows, cols, packed.data(), bytes,
                    nullptr) == RWKV_OK);
    CHECK(rwkv_pack(one, rounded.data(), RWKV_F32, 0, type, layout, rows, cols, again.data(), bytes,
                    nullptr) == RWKV_OK);
    CHECK(packed == again);
  }
}

void odd_numbers(rwkv_pool *pool) {
  std::vector<float> numbers(64 * 64, 0.0f), back(numbers.size());
  numbers[5] = 1e-40f, numbers[100] = -0.0f, numbers[2000] = 1e-30f;
  for (int32_t type : kTypes) {
    for (int32_t layout : {RWKV_ROWS, RWKV_PANELS}) {
      std::vector<uint8_t> packed(static_cast<size_t>(rwkv_packed_bytes(type, layout, 64, 64)));
      const auto bytes = static_cast<int64_t>(packed.size());
      double error = -1;
      CHECK(rwkv_pack(pool, numbers.data(), RWKV_F32, 0, type, layout, 64, 64, packed.data(), bytes,
                      &error) == RWKV_OK);
      CHECK(std::isfinite(error));
      CHECK(rwkv_unpack(packed.data(), type, layout, 64, 64, bytes, back.data()) == RWKV_OK);
      for (float x : back) CHECK(std::fabs(x) < 1e-29f);
    }
  }
}

}  // namespace

int main(int count, char **) {
  rwkv_pool *one = new_pool(1), *many = new_pool(3);
  for (int64_t rows : kSizes) {
    for (int64_t cols : kSizes) {
      if (count > 1 && (rows + cols) % 3) continue;  // fewer under a sanitizer
      for (int32_t type : kTypes)
        for (int32_t layout : {RWKV_ROWS, RWKV_PANELS})
          round_trip(one, many, rows, cols, type, layout);
    }
  }
  odd_numbers(one);
  rwkv_pool_free(one);
  rwkv_pool_free(many);
  return test::report("pack");
}
