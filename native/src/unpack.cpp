// Sizes of packed matrices, and their numbers one at a time.
#include "unpack.h"

#include <cstring>

#include "fail.h"
#include "formats.h"
#include "half.h"
#include "tiles.h"

namespace rwkv {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 40;

bool sizes_make_sense(int64_t rows, int64_t cols) {
  return rows >= 1 && cols >= 1 && rows < kMostElements && cols <= kMostElements / rows;
}

bool is_packed_type(int32_t type) { return is_float(type) || type == RWKV_Q8 || type == RWKV_Q4; }

}  // namespace

int check_kind(int32_t type, int32_t layout, int64_t rows, int64_t cols) {
  if (!is_packed_type(type)) return fail(RWKV_INVALID, "weights cannot be kept as type %d", type);
  if (layout != RWKV_ROWS && layout != RWKV_PANELS) {
    return fail(RWKV_INVALID, "there is no layout %d", layout);
  }
  if (sizes_make_sense(rows, cols)) return RWKV_OK;
  return fail(RWKV_INVALID, "a matrix cannot have %lld rows and %lld columns",
              static_cast<long long>(rows), static_cast<long long>(cols));
}

namespace {

float weight_in_block(const uint8_t *matrix, int32_t type, int64_t cols, int64_t row, int64_t col) {
  const int64_t blocks = round_up(cols, kBlockCols) / kBlockCols;
  const int64_t index = row / kBlockRows * blocks + col / kBlockCols;
  const uint8_t *block = matrix + index * (type == RWKV_Q8 ? kQ8Block : kQ4Block);
  const int64_t half = col % kBlockCols / kGroup, line = row % kBlockRows;
  uint16_t scale;
  memcpy(&scale, block + half * 32 + line * 2, 2);
  const uint8_t *codes = block + 64 + line * 4 + col % 4;
  if (type == RWKV_Q8) {
    return static_cast<float>(codes[col % kBlockCols / 4 * 64] - 128) * from_f16(scale);
  }
  const uint8_t byte = codes[(half * 4 + col % 16 / 4) * 64];
  return static_cast<float>(kCodebook[col % kGroup < 16 ? byte & 15 : byte >> 4]) * from_f16(scale);
}

float weight_in_panel(const uint8_t *matrix, int32_t type, int64_t rows, int64_t cols, int64_t row,
                      int64_t col) {
  const int64_t width = panel_width(rows, row / kPanel), place = row % kPanel, group = place / kGroup;
  const uint8_t *panel = matrix + row / kPanel * panel_bytes(type, kPanel, cols);
  float x;
  if (is_float(type)) {
    load_line(panel + (col * width + place) * element_bytes(type), type, 1, &x);
    return x;
  }
  const int64_t line = type == RWKV_Q8 ? width : width / 2;
  uint16_t scale;
  memcpy(&scale, panel + cols * line + (col * (width / kGroup) + group) * 2, 2);
  if (type == RWKV_Q8) {
    return static_cast<float>(static_cast<int8_t>(panel[col * line + place])) * from_f16(scale);
  }
  const uint8_t byte = panel[col * line + group * 16 + place % 16];
  return static_cast<float>(kCodebook[place % kGroup < 16 ? byte & 15 : byte >> 4]) * from_f16(scale);
}

}  // namespace
}  // namespace rwkv

using namespace rwkv;

extern "C" int64_t rwkv_packed_bytes(int32_t type, int32_t layout, int64_t rows, int64_t cols) {
  const int code = check_kind(type, layout, rows, cols);
  return code == RWKV_OK ? matrix_bytes(type, layout, rows, cols) : code;
}

extern "C" int rwkv_unpack(const void *source, int32_t type, int32_t layout, int64_t rows, int64_t cols,
                           int64_t source_bytes, float *target) {
  if (!source || !target) return fail(RWKV_INVALID, "unpacking needs two matrices");
  const int code = check_kind(type, layout, rows, cols);
  if (code != RWKV_OK) return code;
  if (source_bytes < matrix_bytes(type, layout, rows, cols)) {
    return fail(RWKV_INVALID, "the packed matrix is cut short");
  }
  const uint8_t *matrix = static_cast<const uint8_t *>(source);
  for (int64_t row = 0; row < rows; row++) {
    float *to = target + row * cols;
    if (layout == RWKV_ROWS && is_float(type)) {
      load_line(matrix + row * cols * element_bytes(type), type, cols, to);
      continue;
    }
    for (int64_t col = 0; col < cols; col++) {
      to[col] = layout == RWKV_ROWS ? weight_in_block(matrix, type, cols, row, col)
                                    : weight_in_panel(matrix, type, rows, cols, row, col);
    }
  }
  return RWKV_OK;
}
