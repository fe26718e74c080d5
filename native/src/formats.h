// How weights lie in memory. A change here is a change of RWKV_NATIVE_ABI and of the packed files.
//
// ROWS, for matrices that every token multiplies whole (receptance, key, output, head, ...):
//   float types: row-major [rows][cols], as in a checkpoint and used there in place, at any address.
//   q8, q4: blocks of 16 rows x 64 columns, block row after block row; rows and columns that do not
//     exist are zero. A block begins with 2 x 16 float16 scales: the 16 rows' of columns 0-31, then of
//     columns 32-63. Codes follow:
//     q8: [16][16 rows][4] bytes code + 128; the first index counts columns by four. 1,088 bytes.
//     q4: [8][16 rows][4] bytes; of byte [p][row][j] the low nibble belongs to column
//       32 (p / 4) + 4 (p % 4) + j, the high one to the column 16 further. 576 bytes.
//
// PANELS, for matrices whose inputs are often zero (ffn.value) or that have few of them (low rank):
//   panels of 128 outputs; the last one has what is left, rounded up to 32, the rest zero. A panel is
//     float types: [cols][width] elements.
//     q8: [cols][width] signed bytes, then [cols][width / 32] float16 scales.
//     q4: [cols][width / 2] bytes, of each 16 the low nibbles belong to outputs 0-15 of a group of 32
//       and the high ones to outputs 16-31; then the scales.
//   and ends at a multiple of 64 bytes.
//
// A q8 weight is code * scale with |code| <= 127; a q4 weight is kCodebook[code] * scale, where the
// scale may be negative. A group of 32 shares a scale: along the inputs in ROWS, along the outputs in
// PANELS, where a skipped input must skip its scales as well.
#pragma once

#include <cstdint>

#include "rwkv_native.h"

namespace rwkv {

constexpr int64_t kGroup = 32;
constexpr int64_t kBlockRows = 16;
constexpr int64_t kBlockCols = 64;
constexpr int64_t kQ8Block = 64 + 1024;
constexpr int64_t kQ4Block = 64 + 512;
constexpr int64_t kPanel = 128;

// Steps that are fine around zero, where most weights lie, and coarse at the ends.
constexpr int8_t kCodebook[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

inline bool is_float(int32_t type) { return type >= RWKV_F32 && type <= RWKV_F16; }

// Bytes of a float type's element.
inline int64_t element_bytes(int32_t type) { return type == RWKV_F64 ? 8 : type == RWKV_F32 ? 4 : 2; }

// Outputs of a panel.
inline int64_t panel_width(int64_t rows, int64_t panel) {
  int64_t left = round_up(rows - panel * kPanel, kGroup);
  return left < kPanel ? left : kPanel;
}

// Bytes of a panel of `width` outputs.
inline int64_t panel_bytes(int32_t type, int64_t width, int64_t cols) {
  int64_t row = type == RWKV_Q8   ? width + width / kGroup * 2
                : type == RWKV_Q4 ? width / 2 + width / kGroup * 2
                                  : width * element_bytes(type);
  return round_up(row * cols, 64);
}

// Bytes of a whole matrix; the caller has checked that the sizes are positive and below 2^40.
inline int64_t matrix_bytes(int32_t type, int32_t layout, int64_t rows, int64_t cols) {
  if (layout == RWKV_PANELS) {
    int64_t full = rows / kPanel, rest = rows % kPanel;
    int64_t bytes = full * panel_bytes(type, kPanel, cols);
    return rest ? bytes + panel_bytes(type, round_up(rest, kGroup), cols) : bytes;
  }
  if (is_float(type)) return rows * cols * element_bytes(type);
  int64_t blocks = round_up(rows, kBlockRows) / kBlockRows * (round_up(cols, kBlockCols) / kBlockCols);
  return blocks * (type == RWKV_Q8 ? kQ8Block : kQ4Block);
}

}  // namespace rwkv
