// The arithmetic under the formulas of each version, as a table of functions: one table for each
// instruction set. Every function computes one row (token) or one output exactly the same way
// whatever else is computed beside it, so a batch, a prefill and a single step agree bit for bit.
#pragma once

#include <cstdint>

#include "formats.h"

namespace rwkv {

// Weights in one of the layouts of formats.h.
struct Matrix {
  int32_t type = RWKV_F32;
  int32_t layout = RWKV_ROWS;
  int64_t rows = 0, cols = 0;  // outputs, inputs
  const uint8_t *data = nullptr;

  explicit operator bool() const { return data != nullptr; }
  bool is_quantized() const { return !is_float(type); }
};

// Quantized products take several rows at once, so that a weight is fetched once for all of them. The
// rows of a pass fall into tiles of 12, 8, 4, 2 or 1, whose numbers lie interleaved.
struct Tile {
  int64_t begin;
  int64_t width;
};
inline Tile tile_of(int64_t row, int64_t rows) {
  int64_t begin = 0;
  constexpr int64_t kWidths[] = {12, 8, 4, 2};
  for (const int64_t width : kWidths) {
    const int64_t end = begin + (rows - begin) / width * width;
    if (row < end) return {begin + (row - begin) / width * width, width};
    begin = end;
  }
  return {row, 1};
}

// Inputs of a dot product: rows of float32 and, for quantized weights, the same in 16 bits:
// x = code * scale in groups of 32.
struct Activation {
  float *x = nullptr;         // [rows][cols]
  int16_t *codes = nullptr;   // of a tile: [code_stride / 4][width][4], zero past the last column; of
                              // four columns the order is 0, 2, 1, 3, as the products take them
  float *scales = nullptr;    // of a tile: [groups][width]
  int32_t *offsets = nullptr; // the same; -128 * the sum of the codes, since weights are stored + 128
  int64_t cols = 0, code_stride = 0, groups = 0;

  float *row(int64_t m) const { return x + m * cols; }
};

// The inputs of a row that are not zero, in ascending order, in tiles of kInputTile inputs: one tile's
// weights stay in the second-level cache while all rows use them, even as float32.
constexpr int64_t kInputTile = 512;

struct Nonzeros {
  int32_t *index = nullptr;  // [rows][stride]
  float *value = nullptr;    // [rows][stride]
  int32_t *start = nullptr;  // [rows][tiles + 1]
  int64_t cols = 0, stride = 0, tiles = 0;  // stride: at least 16 more than cols
};

enum class Activate { kNone, kSigmoid, kTanh, kSilu, kSquaredRelu };

// One head of RWKV-7 over the tokens of one sequence; see recurrence.inl.
struct Wkv7 {
  int64_t tokens, stride, size;  // stride: floats from a token to the next, in all token arrays
  const float *r, *k, *v;
  const float *w, *a, *g, *share;           // low-rank outputs; share is null in layer 0
  const float *w0, *a0, *v0, *k_k, *k_a, *r_k, *ln_weight, *ln_bias;
  float *first;                             // values of layer 0, written there and read elsewhere
  float *state;                             // [size][size], value by key
  float *y;
};

// One head of RWKV-5 or 6 over the tokens of one sequence.
struct Wkv6 {
  int64_t tokens, stride, size;
  const float *r, *k, *v, *g;  // g is null in RWKV-5.0
  const float *w;              // decay: [tokens][stride] low-rank outputs (w0 given) or [size] constants
  const float *w0;             // null: w is the decay itself, the same for every token
  const float *u, *ln_weight, *ln_bias;
  float *state, *y;
};

// Channels begin .. end of RWKV-4 over the tokens of one sequence.
struct Wkv4 {
  int64_t tokens, stride, begin, end;
  const float *r, *k, *v;  // r after its sigmoid
  const float *log_w, *u;
  float *numerator, *denominator, *exponent, *y;
};

struct Kernels {
  const char *name;

  void (*layer_norm)(const float *x, const float *weight, const float *bias, float *out, int64_t n);
  // out = x + (previous - x) * mix
  void (*lerp)(const float *x, const float *previous, const float *mix, float *out, int64_t n);
  // out = x + (previous - x) * (mix + more)
  void (*lerp_more)(const float *x, const float *previous, const float *mix, const float *more,
                    float *out, int64_t n);
  void (*add)(float *x, const float *y, int64_t n);
  void (*multiply)(float *x, const float *y, int64_t n);
  void (*activate)(Activate kind, float *x, int64_t n);
  // To 16 bits; n is a multiple of 32, `width` that of the tile that the targets lie in.
  void (*quantize)(const float *x, int64_t n, int64_t width, int16_t *codes, float *scales,
                   int32_t *offsets);
  // A row of a float type to float32.
  void (*widen)(int32_t type, const void *source, float *out, int64_t n);

  // out[m][o] for outputs begin .. end (begin a multiple of 16) and rows 0 .. rows of a matrix in
  // ROWS; out points at output 0 of row 0.
  void (*dot)(const Matrix &matrix, const Activation &in, int64_t begin, int64_t end, int64_t rows,
              float *out, int64_t out_stride);
  // The same for a matrix in PANELS: outputs of one panel, from `begin`, a multiple of 32; the inputs
  // are columns first .. last of the matrix. Writes whole groups of 32 outputs.
  void (*panel)(const Matrix &matrix, int64_t begin, int64_t end, int64_t first, int64_t last,
                const float *x, int64_t x_stride, int64_t rows, float *out, int64_t out_stride);
  // The same, touching only the weights of nonzero inputs.
  void (*panel_sparse)(const Matrix &matrix, int64_t begin, int64_t end, const Nonzeros &in,
                       int64_t rows, float *out, int64_t out_stride);
  void (*collect)(const float *x, int64_t row, const Nonzeros &out);

  void (*wkv4)(const Wkv4 &args);
  void (*wkv6)(const Wkv6 &args);
  void (*wkv7)(const Wkv7 &args);
};

// Kernels by name ("generic", "avx2", ...); null where this library or this machine has none such.
const Kernels *find_kernels(const char *name);

// Names of the kernels that run here, the best one last; ends with a null.
const char *const *runnable_kernels();

}  // namespace rwkv
