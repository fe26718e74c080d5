// Puts matrices into the layouts of formats.h.
#include <atomic>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "fail.h"
#include "formats.h"
#include "groups.h"
#include "half.h"
#include "pool.h"
#include "tiles.h"
#include "unpack.h"

namespace rwkv {
namespace {

constexpr int64_t kPieceInputs = 512;  // of a panel: small enough to keep many threads busy

constexpr int64_t kTurned = 128;       // four cache lines of each output

struct Target {
  int32_t type, layout;
  uint8_t *data;
};

// Sixteen bytes of two codes each: the second half of a group in the high nibbles.
void pair_up(const int8_t *codes, uint8_t *bytes) {
  for (int j = 0; j < 16; j++) bytes[j] = static_cast<uint8_t>(codes[j] | codes[j + 16] << 4);
}

// Places a group into the block that has its 16 rows and 64 columns.
void put_in_block(const Group &group, int32_t type, int64_t row, int64_t half, uint8_t *block) {
  uint8_t bytes[kGroup];
  memcpy(block + half * 32 + row * 2, &group.scale, 2);
  uint8_t *codes = block + 64 + row * 4;
  if (type == RWKV_Q8) {
    for (int j = 0; j < kGroup; j++) bytes[j] = static_cast<uint8_t>(group.code[j] + 128);
    for (int64_t p = 0; p < 8; p++) memcpy(codes + (half * 8 + p) * 64, bytes + p * 4, 4);
  } else {
    pair_up(group.code, bytes);
    for (int64_t p = 0; p < 4; p++) memcpy(codes + (half * 4 + p) * 64, bytes + p * 4, 4);
  }
}

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Takes out of the error what was added to fill groups: no code of q4 is zero, and nobody reads those.
void forget_filling(int32_t type, const Group *groups, int64_t count, int64_t filling, Squares *sums) {
  for (int64_t g = 0; type == RWKV_Q4 && filling > 0 && g < count; g++) {
    const double off = static_cast<double>(from_f16(groups[g].scale)) * kCodebook[groups[g].code[31]];
    sums->error -= static_cast<double>(filling) * off * off;
  }
}

// One block row of a quantized matrix.
Encoded pack_block_row(const Source &source, const Target &target, int64_t piece, Squares *sums) {
  const int64_t blocks = round_up(source.cols, kBlockCols) / kBlockCols;
  const int64_t size = target.type == RWKV_Q8 ? kQ8Block : kQ4Block;
  const int64_t row = piece * kBlockRows, rows = smaller(kBlockRows, source.rows - row);
  for (int64_t b = 0; b < blocks; b++) {
    uint8_t *block = target.data + (piece * blocks + b) * size;
    for (int64_t half = 0; half < 2; half++) {
      float tile[kBlockRows * kGroup] = {};
      Group groups[kBlockRows];
      const int64_t col = b * kBlockCols + half * kGroup, cols = smaller(kGroup, source.cols - col);
      if (cols > 0) read_by_output(source, row, rows, col, cols, tile, kGroup);
      const Encoded outcome = encode_groups(target.type, tile, kBlockRows, groups, sums);
      if (outcome != Encoded::kFine) return outcome;
      forget_filling(target.type, groups, rows, kGroup - cols, sums);
      for (int64_t r = 0; r < kBlockRows; r++) put_in_block(groups[r], target.type, r, half, block);
    }
  }
  return Encoded::kFine;
}

// Some rows of a float matrix that keeps its order.
Encoded pack_float_rows(const Source &source, const Target &target, int64_t row, int64_t rows,
                        Squares *sums) {
  const int64_t bytes = element_bytes(target.type);
  if (target.type == source.type && !source.transposed) {
    memcpy(target.data + row * source.cols * bytes, source.at(row, 0),
           static_cast<size_t>(rows * source.cols * bytes));
    return Encoded::kFine;
  }
  for (int64_t r = row; r < row + rows; r += kPanel) {
    const int64_t tall = smaller(kPanel, row + rows - r);
    for (int64_t col = 0; col < source.cols; col += kTileInputs) {
      const int64_t wide = smaller(kTileInputs, source.cols - col);
      float tile[kPanel * kTileInputs];
      read_by_output(source, r, tall, col, wide, tile, kTileInputs);
      for (int64_t i = 0; i < tall; i++) {
        uint8_t *to = target.data + ((r + i) * source.cols + col) * bytes;
        if (!store_line(tile + i * kTileInputs, target.type, wide, to, sums)) return Encoded::kTooLarge;
      }
    }
  }
  return Encoded::kFine;
}

// Where a panel lies, and its parts.
struct Panel {
  int64_t output, outputs, width, cols;
  uint8_t *data;

  Panel(const Source &source, const Target &target, int64_t index)
      : output(index * kPanel),
        outputs(smaller(kPanel, source.rows - output)),
        width(panel_width(source.rows, index)),
        cols(source.cols),
        data(target.data + index * panel_bytes(target.type, kPanel, cols)) {}

  uint8_t *scales(int32_t type) const { return data + cols * (type == RWKV_Q8 ? width : width / 2); }
};

// Quantizes the lines of a tile, each of `width` outputs of one input.
Encoded pack_lines(const Panel &panel, int32_t type, const float *tile, int64_t input, int64_t inputs,
                   Squares *sums) {
  const int64_t groups = panel.width / kGroup, line = type == RWKV_Q8 ? panel.width : panel.width / 2;
  for (int64_t i = 0; i < inputs; i++) {
    Group coded[kPanel / kGroup];
    const Encoded outcome = encode_groups(type, tile + i * panel.width, groups, coded, sums);
    if (outcome != Encoded::kFine) return outcome;
    forget_filling(type, coded + groups - 1, 1, panel.width - panel.outputs, sums);
    uint8_t *codes = panel.data + (input + i) * line;
    uint8_t *scales = panel.scales(type) + (input + i) * groups * 2;
    for (int64_t g = 0; g < groups; g++) {
      memcpy(scales + g * 2, &coded[g].scale, 2);
      if (type == RWKV_Q8) memcpy(codes + g * kGroup, coded[g].code, kGroup);
      if (type == RWKV_Q4) pair_up(coded[g].code, codes + g * kGroup / 2);
    }
  }
  return Encoded::kFine;
}

// Inputs [input, end) of a panel.
Encoded pack_panel(const Source &source, const Target &target, const Panel &panel, int64_t input,
                   int64_t end, Squares *sums) {
  const int64_t bytes = element_bytes(target.type);
  if (target.type == source.type && bytes == 2 && !source.transposed) {
    uint8_t *to = panel.data + input * panel.width * 2;
    if (panel.outputs < panel.width) memset(to, 0, static_cast<size_t>((end - input) * panel.width * 2));
    for (int64_t i = input; i < end; i += kTurned) {
      turn_halves(source, panel.output, panel.outputs, i, smaller(kTurned, end - i),
                  panel.data + i * panel.width * 2, panel.width);
    }
    return Encoded::kFine;
  }
  for (; input < end; input += kTileInputs) {
    const int64_t inputs = smaller(kTileInputs, end - input);
    float tile[kTileInputs * kPanel] = {};
    read_by_input(source, panel.output, panel.outputs, input, inputs, tile, panel.width);
    if (is_float(target.type)) {
      uint8_t *to = panel.data + input * panel.width * bytes;
      if (!store_line(tile, target.type, inputs * panel.width, to, sums)) return Encoded::kTooLarge;
    } else {
      const Encoded outcome = pack_lines(panel, target.type, tile, input, inputs, sums);
      if (outcome != Encoded::kFine) return outcome;
    }
  }
  return Encoded::kFine;
}

// A matrix cut into pieces that any thread may do; the cut depends on its sizes alone.
class Job {
 public:
  Job(const Source &source, const Target &target)
      : source_(source),
        target_(target),
        rows_(is_float(target.type) ? 1 + 65536 / source.cols : kBlockRows),
        parts_(round_up(source.cols, kPieceInputs) / kPieceInputs) {}

  int64_t pieces() const {
    if (target_.layout == RWKV_ROWS) return round_up(source_.rows, rows_) / rows_;
    return round_up(source_.rows, kPanel) / kPanel * parts_;
  }

  Encoded pack(int64_t piece, Squares *sums) const {
    if (target_.layout == RWKV_PANELS) return pack_part(piece / parts_, piece % parts_, sums);
    if (!is_float(target_.type)) return pack_block_row(source_, target_, piece, sums);
    const int64_t row = piece * rows_;
    return pack_float_rows(source_, target_, row, smaller(rows_, source_.rows - row), sums);
  }

 private:
  Encoded pack_part(int64_t index, int64_t part, Squares *sums) const {
    const Panel panel(source_, target_, index);
    const int64_t input = part * kPieceInputs, end = smaller(source_.cols, input + kPieceInputs);
    if (part == parts_ - 1) clear_end(panel);
    return pack_panel(source_, target_, panel, input, end, sums);
  }

  // What the panel has after its last scale or element.
  void clear_end(const Panel &panel) const {
    const bool plain = is_float(target_.type);
    const uint8_t *end = plain ? panel.data + panel.cols * panel.width * element_bytes(target_.type)
                               : panel.scales(target_.type) + panel.cols * (panel.width / kGroup) * 2;
    const int64_t used = end - panel.data;
    const int64_t all = panel_bytes(target_.type, panel.width, panel.cols);
    memset(panel.data + used, 0, static_cast<size_t>(all - used));
  }

  Source source_;
  Target target_;
  int64_t rows_, parts_;
};

int explain(Encoded outcome, int32_t type) {
  if (outcome == Encoded::kNotFinite) {
    return fail(RWKV_UNSUPPORTED, "the matrix has a NaN or an infinity, which no code stands for");
  }
  return fail(RWKV_UNSUPPORTED, "the matrix has numbers too large for %s",
              type == RWKV_F16 ? "float16" : "a float16 scale");
}

// Packs with all threads; the sums are added in the order of the pieces, so that they do not depend on
// who did which.
int pack(Pool &pool, const Source &source, const Target &target, double *error) {
  const Job job(source, target);
  const int64_t pieces = job.pieces();
  std::vector<Squares> sums(static_cast<size_t>(pieces));
  std::atomic<int> worst{static_cast<int>(Encoded::kFine)};
  const bool counted = error != nullptr || !is_float(target.type);
  pool.run([&](Team &team) {
    team.share(pieces, [&](int64_t piece) {
      if (worst.load(std::memory_order_relaxed) != static_cast<int>(Encoded::kFine)) return;
      Squares *mine = counted ? &sums[static_cast<size_t>(piece)] : nullptr;
      const Encoded outcome = job.pack(piece, mine);
      if (outcome != Encoded::kFine) worst.store(static_cast<int>(outcome));
    });
  });
  const Encoded outcome = static_cast<Encoded>(worst.load());
  if (outcome != Encoded::kFine) return explain(outcome, target.type);
  if (error) {
    Squares all;
    for (const Squares &s : sums) {
      all.source += s.source;
      all.error += s.error;
    }
    *error = all.error > 0 ? std::sqrt(all.error / all.source) : 0;
  }
  return RWKV_OK;
}

}  // namespace
}  // namespace rwkv

using namespace rwkv;

extern "C" int rwkv_pack(rwkv_pool *pool, const void *source, int32_t source_type, int32_t transposed,
                         int32_t type, int32_t layout, int64_t rows, int64_t cols, void *target,
                         int64_t target_bytes, double *error) {
  if (!pool || !source || !target) return fail(RWKV_INVALID, "packing needs threads and two matrices");
  if (!is_float(source_type) && source_type != RWKV_F64) {
    return fail(RWKV_INVALID, "a matrix of type %d cannot be packed", source_type);
  }
  const int code = check_kind(type, layout, rows, cols);
  if (code != RWKV_OK) return code;
  if (target_bytes < matrix_bytes(type, layout, rows, cols)) {
    return fail(RWKV_FULL, "the matrix needs %lld bytes, there are %lld",
                static_cast<long long>(matrix_bytes(type, layout, rows, cols)),
                static_cast<long long>(target_bytes));
  }
  const Source from{static_cast<const uint8_t *>(source), source_type, transposed != 0, rows, cols};
  try {
    return pack(pool->pool, from, {type, layout, static_cast<uint8_t *>(target)},
                error);
  } catch (const std::bad_alloc &) {
    return fail(RWKV_NO_MEMORY, "there is not enough memory to pack a matrix");
  }
}
