// The steps that layers of all versions are made of. Each is run by every thread of a team and ends when
// all have finished it.
#pragma once

#include <algorithm>

#include "model.h"

namespace rwkv {

// Outputs that a piece of a dot product computes: about 24 KiB of weights, and a multiple of 16.
inline int64_t piece_rows(const Matrix &m) {
  const int64_t bytes = std::max<int64_t>(1, matrix_bytes(m.type, RWKV_ROWS, 16, m.cols));
  return kBlockRows * std::max<int64_t>(1, (24 << 10) / bytes);
}
inline int64_t pieces(int64_t total, int64_t size) { return (total + size - 1) / size; }

// A product to compute: out[m] = matrix * in[m], then an activation. ROWS read `in`, PANELS read `x`.
struct Product {
  Matrix matrix;
  const Activation *in;
  const float *x;
  int64_t x_stride;
  float *out;
  int64_t stride;  // for PANELS a multiple of 32
  Activate activate = Activate::kNone;
  int64_t first = 0, last = 0;  // PANELS: the inputs to read, when not all

  static Product dot(const Matrix &m, const Inputs &in, float *out, Activate activate = Activate::kNone) {
    return {m, &in.view(), nullptr, 0, out, m.rows, activate};
  }
  static Product panel(const Matrix &m, const float *x, int64_t x_stride, float *out,
                       Activate activate = Activate::kNone) {
    return {m, nullptr, x, x_stride, out, round_up(m.rows, kGroup), activate, 0, m.cols};
  }
};

// Computes several products in one step; the largest pieces go first.
template <size_t Count, typename After>
void multiply(const Model &model, const Product (&products)[Count], int64_t rows, Team &team, After after) {
  int64_t starts[Count + 1] = {0};
  for (size_t i = 0; i < Count; i++) {
    const Matrix &m = products[i].matrix;
    const int64_t size = m.layout == RWKV_PANELS ? kPanel : piece_rows(m);
    starts[i + 1] = starts[i] + (m ? pieces(m.rows, size) : 0);
  }
  team.share(starts[Count], [&](int64_t piece) {
    size_t i = 0;
    while (piece >= starts[i + 1]) i++;
    const Product &p = products[i];
    const Matrix &m = p.matrix;
    const int64_t size = m.layout == RWKV_PANELS ? kPanel : piece_rows(m);
    const int64_t begin = (piece - starts[i]) * size, end = std::min(m.rows, begin + size);
    if (m.layout == RWKV_PANELS) {
      model.k.panel(m, begin, end, p.first, p.last, p.x, p.x_stride, rows, p.out, p.stride);
    } else {
      model.k.dot(m, *p.in, begin, end, rows, p.out, p.stride);
    }
    for (int64_t row = 0; row < rows; row++) {
      model.k.activate(p.activate, p.out + row * p.stride + begin, end - begin);
      after(i, row, begin, end);
    }
  });
}
template <size_t Count>
void multiply(const Model &model, const Product (&products)[Count], int64_t rows, Team &team) {
  multiply(model, products, rows, team, [](size_t, int64_t, int64_t, int64_t) {});
}

// x += matrix * in, where the matrix is in ROWS.
inline void add_product(Model &model, const Matrix &matrix, const Inputs &in, int64_t rows, Team &team) {
  const int64_t width = model.config.width;
  const Product product[] = {Product::dot(matrix, in, model.product.data())};
  multiply(model, product, rows, team, [&](size_t, int64_t row, int64_t begin, int64_t end) {
    model.k.add(model.x.row(row, width) + begin, model.product.row(row, width) + begin, end - begin);
  });
}

// Layer norm of each row of x with what came before it: calls use(row, normed, previous). `normed` is
// where the norms of all rows go; the state of a sequence gets its last one in keep_shift.
template <typename Use>
void shifted(const Model &model, const Pass &pass, Team &team, const float *weight, const float *bias,
             float *normed, int state_array, int64_t layer, Use use) {
  constexpr int64_t kRows = 4;
  const int64_t width = model.config.width;
  team.share(pieces(pass.rows, kRows), [&](int64_t piece) {
    for (int64_t m = piece * kRows; m < std::min(pass.rows, (piece + 1) * kRows); m++) {
      float *row = normed + m * width;
      model.k.layer_norm(model.x.row(m, width), weight, bias, row, width);
      const Span &span = pass.spans[pass.span_of[m]];
      const float *previous = row - width;
      if (m == span.begin) {
        previous = Pass::state(span, state_array, layer, width);
      } else if (m == piece * kRows) {
        // Another thread's row: computed here again, which is cheaper than waiting for it. Into memory that is
        // there: a thread of the pool that asks for some and gets none would end the process.
        float *before = model.before.row(team.index(), width);
        model.k.layer_norm(model.x.row(m - 1, width), weight, bias, before, width);
        previous = before;
      }
      use(m, row, previous);
    }
  });
}

// Keeps the last norm of each sequence for its next token. Called after `shifted` has ended.
inline void keep_shift(const Model &model, const Pass &pass, const float *normed, int state_array, int64_t layer) {
  const int64_t width = model.config.width;
  for (const Span &span : pass.spans) {
    const float *last = normed + (span.begin + span.count - 1) * width;
    std::copy(last, last + width, Pass::state(span, state_array, layer, width));
  }
}

// The channel-mixing's second half, shared by all versions: x += value * relu(k)^2, gated in RWKV-4 to 6.
// Inputs that are zero are skipped where that saves reading enough of the weights.
class Value {
 public:
  Value() = default;
  explicit Value(int64_t hidden);

  // hidden: [rows][cols] after relu and square. gate: null or [rows][width].
  void add(Model &model, const Matrix &matrix, const float *hidden, const float *gate, int64_t rows, Team &team);

 private:
  Nonzeros list_;
  Buffer<int32_t> index_, start_;
  Buffer<float> value_;
};

}  // namespace rwkv
