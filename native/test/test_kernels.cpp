// Every kernel of every instruction set that runs here against plain loops in double precision.
#include <algorithm>
#include <functional>
#include <limits>
#include <type_traits>

#include "check.h"
#include "half.h"
#include "kernels.h"
#include "model.h"

namespace {

using rwkv::Kernels;
using rwkv::Matrix;
using rwkv::Nonzeros;

const int32_t kTypes[] = {RWKV_F32, RWKV_BF16, RWKV_F16, RWKV_Q8, RWKV_Q4};

std::string named(const Kernels &k, const char *what, int64_t n) {
  return std::string(k.name) + ", " + what + ", " + std::to_string(n);
}

// A packed random matrix, with the numbers that its codes mean.
struct Packed {
  std::vector<uint8_t> memory;
  std::vector<float> numbers;
  Matrix matrix;

  Packed(rwkv_pool *pool, int32_t type, int32_t layout, int64_t rows, int64_t cols,
         test::Random &random) {
    const std::vector<float> source = random.normals(rows * cols);
    const int64_t bytes = rwkv_packed_bytes(type, layout, rows, cols);
    memory.resize(static_cast<size_t>(bytes) + 64);
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    uint8_t *data = memory.data() + (64 - address % 64) % 64;
    if (type <= RWKV_F16 && layout == RWKV_ROWS && address % 64 == 0)
      data += 2;  // these may lie anywhere
    CHECK(rwkv_pack(pool, source.data(), RWKV_F32, 0, type, layout, rows, cols, data, bytes,
                    nullptr) == RWKV_OK);
    numbers.resize(source.size());
    CHECK(rwkv_unpack(data, type, layout, rows, cols, bytes, numbers.data()) == RWKV_OK);
    matrix.type = type, matrix.layout = layout, matrix.rows = rows, matrix.cols = cols,
    matrix.data = data;
  }
};

// What the codes keep of a row: groups of 32 that share a scale.
using Code = std::remove_pointer_t<decltype(rwkv::Activation::codes)>;
constexpr float kTop = std::numeric_limits<Code>::max();

void round_to_codes(float *x, int64_t n) {
  for (int64_t g = 0; g < n; g += rwkv::kGroup) {
    float peak = 0;
    for (int64_t i = g; i < g + rwkv::kGroup; i++) peak = std::max(peak, std::fabs(x[i]));
    for (int64_t i = g; i < g + rwkv::kGroup; i++)
      x[i] = std::nearbyint(x[i] * (kTop / peak)) * (peak / kTop);
  }
}

// Some rows as the model hands them to a matrix.
rwkv::Inputs inputs_of(const Kernels &k, const Matrix &matrix, const float *x, int64_t rows) {
  rwkv::Inputs in(rows, matrix.cols, {matrix});
  for (int64_t m = 0; m < rows; m++)
    std::copy(x + m * matrix.cols, x + (m + 1) * matrix.cols, in.row(m));
  for (int64_t m = 0; m < rows; m++) in.seal(k, m, rows, 0, matrix.cols);
  return in;
}

// The largest difference, in terms of what a sum of `count` products of random numbers is.
double off(const float *out, const double *expected, int64_t outputs, int64_t count) {
  double worst = 0;
  for (int64_t o = 0; o < outputs; o++)
    worst = std::max(worst, std::fabs(static_cast<double>(out[o]) - expected[o]));
  return worst / std::sqrt(static_cast<double>(count));
}

std::vector<double> product(const std::vector<float> &weights, const std::vector<float> &x,
                            int64_t outputs, int64_t cols, int64_t rows, int64_t first,
                            int64_t last) {
  std::vector<double> out(static_cast<size_t>(rows * outputs));
  for (int64_t m = 0; m < rows; m++)
    for (int64_t o = 0; o < outputs; o++)
      for (int64_t j = first; j < last; j++)
        out[static_cast<size_t>(m * outputs + o)] +=
            static_cast<double>(weights[static_cast<size_t>(o * cols + j)]) *
            static_cast<double>(x[static_cast<size_t>(m * cols + j)]);
  return out;
}

void dots(const Kernels &k, rwkv_pool *pool, int32_t type, int64_t outputs, int64_t cols,
          int64_t rows) {
  test::Random random(static_cast<uint32_t>(outputs + cols + rows));
  const Packed w(pool, type, RWKV_ROWS, outputs, cols, random);
  const std::vector<float> x = random.normals(rows * cols);
  std::vector<float> seen = x;
  if (w.matrix.is_quantized())
    for (int64_t m = 0; m < rows; m++) round_to_codes(seen.data() + m * cols, cols);
  const int64_t stride = outputs + 3, middle = std::min(outputs, rwkv::kBlockRows);
  std::vector<float> out(static_cast<size_t>(rows * stride), 77), alone(out.size(), 77);
  const rwkv::Inputs in = inputs_of(k, w.matrix, x.data(), rows);
  k.dot(w.matrix, in.view(), 0, middle, rows, out.data(), stride);
  if (middle < outputs) k.dot(w.matrix, in.view(), middle, outputs, rows, out.data(), stride);
  const std::vector<double> expected = product(w.numbers, seen, outputs, cols, rows, 0, cols);
  for (int64_t m = 0; m < rows; m++) {
    WITHIN(off(out.data() + m * stride, expected.data() + m * outputs, outputs, cols), 3e-6,
           named(k, "dot", type));
    for (int64_t o = outputs; o < stride; o++)
      CHECK(out[static_cast<size_t>(m * stride + o)] ==
            77);  // nothing beside the outputs is written
    const rwkv::Inputs row = inputs_of(k, w.matrix, x.data() + m * cols, 1);
    k.dot(w.matrix, row.view(), 0, outputs, 1, alone.data() + m * stride, stride);
  }
  CHECK(out == alone);  // whatever is computed beside it
}

void panels(const Kernels &k, rwkv_pool *pool, int32_t type, int64_t outputs, int64_t cols,
            int64_t rows, int64_t first, int64_t last) {
  test::Random random(static_cast<uint32_t>(outputs * cols + rows));
  const Packed w(pool, type, RWKV_PANELS, outputs, cols, random);
  std::vector<float> x = random.normals(rows * cols);
  for (float &value : x)
    if (random.below(3)) value = 0;
  const int64_t stride = rwkv::round_up(outputs, rwkv::kGroup) + 32;
  std::vector<float> out(static_cast<size_t>(rows * stride), 77), sparse(out.size(), 77);
  Nonzeros list;
  list.cols = cols, list.stride = cols + 16,
  list.tiles = (cols + rwkv::kInputTile - 1) / rwkv::kInputTile;
  std::vector<int32_t> index(static_cast<size_t>(rows * list.stride)),
      start(static_cast<size_t>(rows * (list.tiles + 1)));
  std::vector<float> value(index.size());
  list.index = index.data(), list.value = value.data(), list.start = start.data();
  for (int64_t m = 0; m < rows; m++) k.collect(x.data() + m * cols, m, list);
  for (int64_t begin = 0; begin < outputs; begin += rwkv::kPanel) {
    const int64_t end = std::min(outputs, begin + rwkv::kPanel);
    k.panel(w.matrix, begin, end, first, last, x.data(), cols, rows, out.data(), stride);
    k.panel_sparse(w.matrix, begin, end, list, rows, sparse.data(), stride);
  }
  const std::vector<double> expected = product(w.numbers, x, outputs, cols, rows, first, last);
  for (int64_t m = 0; m < rows; m++) {
    WITHIN(off(out.data() + m * stride, expected.data() + m * outputs, outputs, last - first), 3e-6,
           named(k, "panel", type));
    for (int64_t o = rwkv::round_up(outputs, rwkv::kGroup); o < stride; o++)
      CHECK(out[static_cast<size_t>(m * stride + o)] == 77);
  }
  if (first == 0 && last == cols) CHECK(out == sparse);  // skipping zeros changes no bit
}

void collecting(const Kernels &k) {
  test::Random random(5);
  for (int64_t cols : {1, 15, 16, 17, 2048, 2049, 5000}) {
    std::vector<float> x = random.normals(cols);
    for (float &value : x)
      if (random.below(2)) value = random.below(2) ? 0.0f : -0.0f;
    Nonzeros list;
    list.cols = cols, list.stride = cols + 16,
    list.tiles = (cols + rwkv::kInputTile - 1) / rwkv::kInputTile;
    std::vector<int32_t> index(static_cast<size_t>(2 * list.stride)),
        start(static_cast<size_t>(2 * (list.tiles + 1)));
    std::vector<float> value(index.size());
    list.index = index.data(), list.value = value.data(), list.start = start.data();
    k.collect(x.data(), 1, list);
    int32_t count = 0;
    for (int64_t j = 0; j <= cols; j++) {
      if (j % rwkv::kInputTile == 0 || j == cols)
        CHECK(start[static_cast<size_t>(list.tiles + 1 +
                                        (j + rwkv::kInputTile - 1) / rwkv::kInputTile)] == count);
      if (j == cols || x[static_cast<size_t>(j)] == 0) continue;
      const auto at = static_cast<size_t>(list.stride + count++);
      CHECK(index[at] == j && value[at] == x[static_cast<size_t>(j)]);
    }
  }
}

void norms(const Kernels &k, int64_t n, float mean) {
  test::Random random(static_cast<uint32_t>(n));
  const std::vector<float> x = random.normals(n, 2, mean), weight = random.normals(n),
                           bias = random.normals(n);
  std::vector<float> out(x.size());
  k.layer_norm(x.data(), weight.data(), bias.data(), out.data(), n);
  double sum = 0, squares = 0;
  for (float v : x) sum += static_cast<double>(v);
  for (float v : x) squares += std::pow(static_cast<double>(v) - sum / static_cast<double>(n), 2);
  std::vector<double> expected;
  for (size_t i = 0; i < x.size(); i++)
    expected.push_back((static_cast<double>(x[i]) - sum / static_cast<double>(n)) /
                           std::sqrt(squares / static_cast<double>(n) + 1e-5) *
                           static_cast<double>(weight[i]) +
                       static_cast<double>(bias[i]));
  WITHIN(test::distance(out.data(), expected.data(), n), mean > 10 ? 1e-4 : 2e-6,
         named(k, "layer_norm", n));
}

// What is done number by number.
void elements(const Kernels &k, int64_t n) {
  test::Random random(static_cast<uint32_t>(n));
  const std::vector<float> x = random.normals(n, 4), p = random.normals(n), m = random.normals(n),
                           o = random.normals(n);
  auto compare = [&](const char *what, const std::vector<float> &out,
                     const std::function<double(size_t)> &f) {
    std::vector<double> expected;
    for (size_t i = 0; i < x.size(); i++) expected.push_back(f(i));
    WITHIN(test::distance(out.data(), expected.data(), n), 5e-7, named(k, what, n));
  };
  auto d = [](float v) { return static_cast<double>(v); };
  std::vector<float> out(x.size());
  k.lerp(x.data(), p.data(), m.data(), out.data(), n);
  compare("lerp", out, [&](size_t i) { return d(x[i]) + (d(p[i]) - d(x[i])) * d(m[i]); });
  k.lerp_more(x.data(), p.data(), m.data(), o.data(), out.data(), n);
  compare("lerp_more", out,
          [&](size_t i) { return d(x[i]) + (d(p[i]) - d(x[i])) * (d(m[i]) + d(o[i])); });
  out = x;
  k.add(out.data(), p.data(), n);
  compare("add", out, [&](size_t i) { return d(x[i]) + d(p[i]); });
  out = x;
  k.multiply(out.data(), p.data(), n);
  compare("multiply", out, [&](size_t i) { return d(x[i]) * d(p[i]); });
  const auto sigmoid = [&](size_t i) { return 1 / (1 + std::exp(-d(x[i]))); };
  const std::pair<rwkv::Activate, std::function<double(size_t)>> all[] = {
      {rwkv::Activate::kNone, [&](size_t i) { return d(x[i]); }},
      {rwkv::Activate::kSigmoid, sigmoid},
      {rwkv::Activate::kTanh, [&](size_t i) { return std::tanh(d(x[i])); }},
      {rwkv::Activate::kSilu, [&](size_t i) { return d(x[i]) * sigmoid(i); }},
      {rwkv::Activate::kSquaredRelu, [&](size_t i) { return x[i] > 0 ? d(x[i]) * d(x[i]) : 0; }},
  };
  for (const auto &[kind, f] : all) {
    out = x;
    k.activate(kind, out.data(), n);
    compare("activate", out, f);
  }
}

void extremes(const Kernels &k) {
  float x[] = {-1e30f, -1000, -100, -88, 0, 88, 100, 1000, 1e30f, -0.0f, 1e-30f};
  const int64_t n = sizeof x / sizeof *x;
  for (rwkv::Activate kind :
       {rwkv::Activate::kSigmoid, rwkv::Activate::kTanh, rwkv::Activate::kSilu}) {
    float out[n];
    std::memcpy(out, x, sizeof x);
    k.activate(kind, out, n);
    for (int64_t i = 0; i < n; i++) {
      const double v = static_cast<double>(x[i]), s = v < -700 ? 0 : 1 / (1 + std::exp(-v));
      const double expected = kind == rwkv::Activate::kTanh   ? std::tanh(v)
                              : kind == rwkv::Activate::kSilu ? v * s
                                                              : s;
      // The sigmoid of -1000 is not quite zero, which x times it shows.
      const double slack = kind == rwkv::Activate::kSilu ? 1e-7 : 1e-30;
      CHECK(std::fabs(static_cast<double>(out[i]) - expected) <=
            1e-6 * std::fabs(expected) + slack);
    }
  }
}

void quantizing(const Kernels &k) {
  test::Random random(3);
  for (float scale : {1.0f, 1e-20f, 1e20f, 0.0f, 1e-35f, 1e-42f}) {
    const std::vector<float> x = random.normals(96, scale);
    std::vector<Code> codes(96);
    float scales[3];
    int32_t offsets[3];
    k.quantize(x.data(), 96, 1, codes.data(), scales, offsets);
    for (size_t g = 0; g < 3; g++) {
      int32_t sum = 0;
      for (size_t i = 32 * g; i < 32 * g + 32; i++) {
        sum += codes[i];
        CHECK(static_cast<float>(codes[i]) >= -kTop);
        // Four columns lie in the kernel's own order, so the nearest of them is the one.
        float nearest = INFINITY;
        for (size_t j = i / 4 * 4; j < i / 4 * 4 + 4; j++)
          nearest = std::min(nearest, std::fabs(static_cast<float>(codes[i]) * scales[g] - x[j]));
        CHECK(nearest <= scales[g] * 0.51f + 1e-30f);
      }
      CHECK(offsets[g] == -128 * sum);
    }
  }
}

void widening(const Kernels &k) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<uint16_t>(i);
  for (int32_t type : {RWKV_BF16, RWKV_F16}) {
    std::vector<uint8_t> bytes(65536 * 2 + 1);
    std::memcpy(bytes.data() + 1, all.data(), 65536 * 2);
    std::vector<float> out(65536);
    const int64_t odd = 65536 - 5;
    k.widen(type, bytes.data() + 1, out.data(), odd);
    k.widen(type, bytes.data() + 1 + 2 * odd, out.data() + odd, 5);
    for (size_t i = 0; i < all.size(); i++) {
      const float expected = type == RWKV_BF16 ? rwkv::from_bf16(all[i]) : rwkv::from_f16(all[i]);
      CHECK(out[i] == expected || (std::isnan(out[i]) && std::isnan(expected)));
    }
  }
}

}  // namespace

int main(int count, char **) {
  const bool is_short = count > 1;
  rwkv_pool *pool = nullptr;
  CHECK(rwkv_pool_new(1, &pool) == RWKV_OK);
  CHECK(rwkv::find_kernels("abacus") == nullptr);
  for (const char *const *name = rwkv::runnable_kernels(); *name; name++) {
    const Kernels &k = *rwkv::find_kernels(*name);
    CHECK(std::strcmp(k.name, *name) == 0);
    for (int32_t type : kTypes) {
      for (int64_t cols : {32, 64, 96, 224, 1056})
        for (int64_t outputs : {1, 15, 16, 17, 50, 200})
          for (int64_t rows : {1, 2, 3, 5, 7, 12, 13, 33, 67}) {
            if (rows * cols * outputs < (is_short ? 40000 : 3000000))
              dots(k, pool, type, outputs, cols, rows);
          }
      for (int64_t cols : {1, 8, 40, 224, 2100})
        for (int64_t outputs : {32, 64, 96, 200, 256})
          for (int64_t rows : {1, 2, 3, 6, 9, 20}) {
            if (rows * cols * outputs > (is_short ? 200000 : 3000000)) continue;
            panels(k, pool, type, outputs, cols, rows, 0, cols);
            if (cols == 40) panels(k, pool, type, outputs, cols, rows, 8, 16);
          }
    }
    collecting(k);
    for (int64_t n : {16, 32, 33, 64, 100, 1000}) {
      norms(k, n, 0);
      norms(k, n, 100);
      elements(k, n);
    }
    extremes(k);
    quantizing(k);
    widening(k);
  }
  rwkv_pool_free(pool);
  return test::report("kernels");
}
