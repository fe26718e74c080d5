// Bad arguments at the border give a code and a sentence, never a crash.
#include <climits>
#include <cstdlib>

#include "check.h"
#include "tiny_model.h"

namespace {

constexpr int64_t kHuge = INT64_MAX;

void versions_and_names() {
  CHECK(rwkv_abi_version() == RWKV_NATIVE_ABI);
  char buffer[256];
  CHECK(rwkv_instruction_sets(buffer, sizeof buffer) == RWKV_OK);
  CHECK(std::strstr(buffer, "generic") == buffer);
  REFUSED(rwkv_instruction_sets(nullptr, 10), RWKV_INVALID);
  REFUSED(rwkv_instruction_sets(buffer, 0), RWKV_INVALID);
  REFUSED(rwkv_instruction_sets(buffer, 3), RWKV_FULL);
  REFUSED(rwkv_choose_instruction_set("abacus"), RWKV_UNSUPPORTED);
  REFUSED(rwkv_choose_instruction_set(""), RWKV_UNSUPPORTED);
  REFUSED(rwkv_choose_instruction_set(std::string(5000, 'x').c_str()), RWKV_UNSUPPORTED);
  CHECK(rwkv_choose_instruction_set("generic") == RWKV_OK);
  CHECK(rwkv_choose_instruction_set(nullptr) == RWKV_OK);
}

void pools() {
  rwkv_pool *pool = nullptr;
  REFUSED(rwkv_pool_new(1, nullptr), RWKV_INVALID);
  for (int32_t threads : {0, -1, INT32_MIN, 1025, INT32_MAX}) {
    REFUSED(rwkv_pool_new(threads, &pool), RWKV_INVALID);
    CHECK(pool == nullptr);
  }
  rwkv_pool_free(nullptr);
  CHECK(rwkv_pool_new(2, &pool) == RWKV_OK);
  rwkv_pool_free(pool);
}

void sizes_of_packed_matrices() {
  for (int32_t type : {-1, 5, 6, INT32_MAX})
    REFUSED(rwkv_packed_bytes(type, RWKV_ROWS, 32, 32), RWKV_INVALID);
  for (int32_t layout : {-1, 2, INT32_MIN})
    REFUSED(rwkv_packed_bytes(RWKV_Q8, layout, 32, 32), RWKV_INVALID);
  for (int64_t size : {int64_t{0}, int64_t{-1}, INT64_MIN, kHuge}) {
    REFUSED(rwkv_packed_bytes(RWKV_Q8, RWKV_ROWS, size, 32), RWKV_INVALID);
    REFUSED(rwkv_packed_bytes(RWKV_F32, RWKV_PANELS, 32, size), RWKV_INVALID);
  }
  REFUSED(rwkv_packed_bytes(RWKV_F32, RWKV_ROWS, int64_t{1} << 35, int64_t{1} << 35), RWKV_INVALID);
  CHECK(rwkv_packed_bytes(RWKV_F32, RWKV_ROWS, 3, 5) == 60);
}

void packing(rwkv_pool *pool) {
  std::vector<float> source(32 * 64, 1.0f), back(32 * 64);
  std::vector<uint8_t> packed(1 << 16);
  const auto size = static_cast<int64_t>(packed.size());
  double error = -1;
  auto pack = [&](const void *from, int32_t from_type, int32_t type, int32_t layout, int64_t rows,
                  int64_t cols, void *to, int64_t bytes) {
    return rwkv_pack(pool, from, from_type, 0, type, layout, rows, cols, to, bytes, &error);
  };
  REFUSED(rwkv_pack(nullptr, source.data(), RWKV_F32, 0, RWKV_Q8, RWKV_ROWS, 32, 64, packed.data(),
                    size, nullptr),
          RWKV_INVALID);
  REFUSED(pack(nullptr, RWKV_F32, RWKV_Q8, RWKV_ROWS, 32, 64, packed.data(), size), RWKV_INVALID);
  REFUSED(pack(source.data(), RWKV_F32, RWKV_Q8, RWKV_ROWS, 32, 64, nullptr, size), RWKV_INVALID);
  for (int32_t type : {-1, 3, 4, 6})
    REFUSED(pack(source.data(), type, RWKV_Q8, RWKV_ROWS, 32, 64, packed.data(), size),
            RWKV_INVALID);
  REFUSED(pack(source.data(), RWKV_F32, RWKV_F64, RWKV_ROWS, 32, 64, packed.data(), size),
          RWKV_INVALID);
  REFUSED(pack(source.data(), RWKV_F32, RWKV_Q8, 2, 32, 64, packed.data(), size), RWKV_INVALID);
  REFUSED(pack(source.data(), RWKV_F32, RWKV_Q8, RWKV_ROWS, -32, 64, packed.data(), size),
          RWKV_INVALID);
  REFUSED(pack(source.data(), RWKV_F32, RWKV_Q8, RWKV_ROWS, kHuge, kHuge, packed.data(), size),
          RWKV_INVALID);
  const int64_t needed = rwkv_packed_bytes(RWKV_Q8, RWKV_ROWS, 32, 64);
  REFUSED(pack(source.data(), RWKV_F32, RWKV_Q8, RWKV_ROWS, 32, 64, packed.data(), needed - 1),
          RWKV_FULL);
  REFUSED(pack(source.data(), RWKV_F32, RWKV_Q8, RWKV_ROWS, 32, 64, packed.data(), -1), RWKV_FULL);
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    source[77] = bad;
    REFUSED(pack(source.data(), RWKV_F32, RWKV_Q4, RWKV_PANELS, 32, 64, packed.data(), size),
            RWKV_UNSUPPORTED);
  }
  source[77] = 1;
  CHECK(pack(source.data(), RWKV_F32, RWKV_Q8, RWKV_ROWS, 32, 64, packed.data(), needed) ==
        RWKV_OK);
  REFUSED(rwkv_unpack(nullptr, RWKV_Q8, RWKV_ROWS, 32, 64, needed, back.data()), RWKV_INVALID);
  REFUSED(rwkv_unpack(packed.data(), RWKV_Q8, RWKV_ROWS, 32, 64, needed, nullptr), RWKV_INVALID);
  REFUSED(rwkv_unpack(packed.data(), RWKV_Q8, RWKV_ROWS, 32, 64, needed - 1, back.data()),
          RWKV_INVALID);
  REFUSED(rwkv_unpack(packed.data(), 9, RWKV_ROWS, 32, 64, needed, back.data()), RWKV_INVALID);
  REFUSED(rwkv_unpack(packed.data(), RWKV_Q8, RWKV_ROWS, 0, 64, needed, back.data()), RWKV_INVALID);
  CHECK(rwkv_unpack(packed.data(), RWKV_Q8, RWKV_ROWS, 32, 64, needed, back.data()) == RWKV_OK);
}

// Each bad config alone makes a model impossible.
void configs(const test::TinyModel &tiny, rwkv_pool *pool) {
  rwkv_model *model = nullptr;
  auto make = [&](const rwkv_config &config) {
    return rwkv_model_new(&config, tiny.tensors.data(), tiny.tensors.size(), pool, &model);
  };
  auto with = [&](int32_t rwkv_config::*field, int32_t value) {
    rwkv_config config = tiny.config;
    config.*field = value;
    const int code = make(config);
    CHECK(code < 0 || model);
    CHECK(code == RWKV_OK || !model);
    rwkv_model_free(model);
    return code;
  };
  for (int32_t version : {0, -1, 7, 41, 53, 71, INT32_MAX})
    REFUSED(with(&rwkv_config::version, version), RWKV_UNSUPPORTED);
  for (auto field : {&rwkv_config::layers, &rwkv_config::width, &rwkv_config::attention,
                     &rwkv_config::ffn, &rwkv_config::vocab}) {
    for (int32_t size : {0, -1, INT32_MIN, INT32_MAX}) REFUSED(with(field, size), RWKV_INVALID);
  }
  CHECK(with(&rwkv_config::layers, 100) < 0);
  CHECK(with(&rwkv_config::vocab, tiny.config.vocab + 1) < 0);
  CHECK(with(&rwkv_config::ffn, tiny.config.ffn + 32) < 0);
  CHECK(with(&rwkv_config::width, tiny.config.width + 32) < 0);
  CHECK(with(&rwkv_config::width, tiny.config.width + 1) < 0);
  if (tiny.config.version != 40) {  // which has no heads
    for (int32_t heads : {-1, 0, INT32_MAX}) CHECK(with(&rwkv_config::heads, heads) < 0);
    for (int32_t size : {0, -16, 1, 48, 256, INT32_MAX})
      CHECK(with(&rwkv_config::head_size, size) < 0);
    rwkv_config wider = tiny.config;
    wider.heads *= 2, wider.attention *= 2;
    CHECK(make(wider) < 0);
    rwkv_model_free(model);
  }
  REFUSED(rwkv_model_new(nullptr, tiny.tensors.data(), tiny.tensors.size(), pool, &model),
          RWKV_INVALID);
  REFUSED(rwkv_model_new(&tiny.config, nullptr, 3, pool, &model), RWKV_INVALID);
  REFUSED(rwkv_model_new(&tiny.config, tiny.tensors.data(), tiny.tensors.size(), nullptr, &model),
          RWKV_INVALID);
  REFUSED(rwkv_model_new(&tiny.config, tiny.tensors.data(), tiny.tensors.size(), pool, nullptr),
          RWKV_INVALID);
  CHECK(rwkv_model_new(&tiny.config, tiny.tensors.data(), 0, pool, &model) < 0);
  rwkv_model_free(nullptr);
  CHECK(std::strlen(rwkv_model_instruction_set(nullptr)) == 0);
  REFUSED(rwkv_state_arrays(nullptr), RWKV_INVALID);
}

// A tensor that is missing, or one of whose fields is wrong.
void tensors(const test::TinyModel &tiny, rwkv_pool *pool) {
  rwkv_model *model = nullptr;
  std::vector<rwkv_tensor> table = tiny.tensors;
  auto make = [&] {
    const int code = rwkv_model_new(&tiny.config, table.data(), table.size(), pool, &model);
    if (model) rwkv_model_free(model);
    return code;
  };
  for (size_t i = 0; i < table.size(); i++) {
    const rwkv_tensor good = table[i];
    auto broken = [&](auto change) {
      change(table[i]);
      const int code = make();
      table[i] = good;
      return code;
    };
    CHECK(broken([](rwkv_tensor &t) { t.name = "nobody"; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.name = nullptr; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.data = nullptr; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.bytes--; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.bytes = -1; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.type = 99; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.type = -1; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.rows = -t.rows; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.rows = kHuge; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.rows = 0; }) < 0);
    CHECK(broken([](rwkv_tensor &t) { t.cols = INT64_MIN; }) < 0);
    if (good.cols > 1) CHECK(broken([](rwkv_tensor &t) { t.layout = 7; }) < 0);
    if (good.cols > 1) CHECK(broken([](rwkv_tensor &t) { t.layout = 1 - t.layout; }) < 0);
  }
  CHECK(make() == RWKV_OK);
}

void forwards(const test::TinyModel &tiny, rwkv_pool *pool) {
  rwkv_model *model = nullptr;
  if (!CHECK(rwkv_model_new(&tiny.config, tiny.tensors.data(), tiny.tensors.size(), pool, &model) ==
             RWKV_OK))
    return;
  CHECK(rwkv_state_arrays(model) == tiny.state_arrays());
  test::State state(tiny);
  std::vector<float> scores(static_cast<size_t>(tiny.config.vocab));
  float *logits[] = {scores.data()};
  int32_t tokens[] = {1, 2, 3}, length = 3;
  auto run = [&] {
    return rwkv_forward(model, tokens, &length, 1, state.arrays.data(), logits);
  };
  CHECK(run() == RWKV_OK);
  const std::vector<std::vector<float>> before = state.memory;
  REFUSED(rwkv_forward(nullptr, tokens, &length, 1, state.arrays.data(), logits),
          RWKV_INVALID);
  REFUSED(rwkv_forward(model, nullptr, &length, 1, state.arrays.data(), logits),
          RWKV_INVALID);
  REFUSED(rwkv_forward(model, tokens, nullptr, 1, state.arrays.data(), logits),
          RWKV_INVALID);
  REFUSED(rwkv_forward(model, tokens, &length, 1, nullptr, logits.data()), RWKV_INVALID);
  for (int32_t sequences : {0, -1, INT32_MIN}) {
    REFUSED(rwkv_forward(model, tokens, &length, sequences, state.arrays.data(), logits),
            RWKV_INVALID);
  }
  for (int32_t bad : {0, -1, INT32_MIN}) {
    length = bad;
    REFUSED(run(), RWKV_INVALID);
  }
  length = 3;
  for (int32_t bad : {-1, INT32_MIN, tiny.config.vocab, INT32_MAX}) {
    tokens[2] = bad;
    REFUSED(run(), RWKV_INVALID);
  }
  tokens[2] = 3;
  for (float *&array : state.arrays) {
    float *kept = array;
    array = nullptr;
    REFUSED(run(), RWKV_INVALID);
    array = kept;
  }
  CHECK(state.memory == before);  // a refused call changes nothing
  CHECK(rwkv_forward(model, tokens, &length, 1, state.arrays.data(), nullptr) == RWKV_OK);
  logits[0] = nullptr;
  CHECK(run() == RWKV_OK);
  rwkv_model_free(model);
}

void measuring(rwkv_pool *pool) {
  double result = 0;
  REFUSED(rwkv_measure_read(nullptr, 1 << 20, 0.01, &result), RWKV_INVALID);
  REFUSED(rwkv_measure_read(pool, 1 << 20, 0.01, nullptr), RWKV_INVALID);
  for (int64_t bytes : {int64_t{0}, int64_t{-1}})
    REFUSED(rwkv_measure_read(pool, bytes, 0.01, &result), RWKV_INVALID);
  CHECK(rwkv_measure_read(pool, kHuge, 0.01, &result) < 0);
  for (double seconds : {-1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    CHECK(rwkv_measure_read(pool, 1 << 20, seconds, &result) < 0);
  }
  REFUSED(rwkv_measure_arithmetic(nullptr, RWKV_FP32_FMA, &result), RWKV_INVALID);
  REFUSED(rwkv_measure_arithmetic(pool, RWKV_FP32_FMA, nullptr), RWKV_INVALID);
  for (int32_t kind : {-1, 3, INT32_MAX}) CHECK(rwkv_measure_arithmetic(pool, kind, &result) < 0);
  CHECK(rwkv_measure_read(pool, 1 << 20, 0.01, &result) == RWKV_OK && result > 0);
}

}  // namespace

int main() {
  versions_and_names();
  pools();
  sizes_of_packed_matrices();
  rwkv_pool *pool = nullptr;
  if (!CHECK(rwkv_pool_new(2, &pool) == RWKV_OK)) return test::report("abi");
  packing(pool);
  for (int32_t version : {40, 50, 51, 52, 60, 70}) {
    const test::TinyModel tiny(version);
    configs(tiny, pool);
    tensors(tiny, pool);
    forwards(tiny, pool);
  }
  measuring(pool);
  rwkv_pool_free(pool);
  return test::report("abi");
}
