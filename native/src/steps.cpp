#include "steps.h"

namespace rwkv {
namespace {

// Above this share of nonzero inputs, reading all weights in order is faster than picking them.
constexpr double kWorthSkipping = 0.5;
// For several rows at once: the dense kernel uses each weight for all of them.
constexpr double kWorthSkippingRows = 0.3;

}  // namespace

Value::Value(int64_t hidden) {
  list_.cols = hidden;
  list_.stride = hidden + 16;
  list_.tiles = pieces(hidden, kInputTile);
  index_ = Buffer<int32_t>(kMaxRows * list_.stride);
  value_ = Buffer<float>(kMaxRows * list_.stride);
  start_ = Buffer<int32_t>(kMaxRows * (list_.tiles + 1));
  list_.index = index_.data();
  list_.value = value_.data();
  list_.start = start_.data();
}

void Value::add(Model &model, const Matrix &matrix, const float *hidden, const float *gate, int64_t rows,
                Team &team) {
  team.share(rows, [&](int64_t row) { model.k.collect(hidden + row * matrix.cols, row, list_); });
  int64_t nonzero = 0;
  for (int64_t row = 0; row < rows; row++) nonzero += list_.start[(row + 1) * (list_.tiles + 1) - 1];
  const double limit = rows == 1 ? kWorthSkipping : kWorthSkippingRows;
  const bool sparse = static_cast<double>(nonzero) < limit * static_cast<double>(rows * matrix.cols);
  const int64_t width = model.config.width, stride = round_up(width, kGroup);
  team.share(pieces(width, kPanel), [&](int64_t piece) {
    const int64_t begin = piece * kPanel, end = std::min(width, begin + kPanel);
    float *out = model.product.data();
    if (sparse) {
      model.k.panel_sparse(matrix, begin, end, list_, rows, out, stride);
    } else {
      model.k.panel(matrix, begin, end, 0, matrix.cols, hidden, matrix.cols, rows, out, stride);
    }
    for (int64_t row = 0; row < rows; row++) {
      float *part = out + row * stride + begin;
      if (gate) model.k.multiply(part, gate + row * width + begin, end - begin);
      model.k.add(model.x.row(row, width) + begin, part, end - begin);
    }
  });
}

}  // namespace rwkv
