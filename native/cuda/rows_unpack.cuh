// The rows path: packed matrices (native/src/formats.h) as planes, for the vendor's products.
#pragma once

#include "dot.cuh"
#include "rows.cuh"
#include "value.cuh"

constexpr int kBlockScales = 64;  // bytes before the codes of a block

// unpack_rows gives [rows][cols], unpack_panels [cols][rows]: a line for each input, as panels have them.
struct UnpackArguments {
  const void *matrix;
  void *plane;
  int rows, cols;  // outputs, inputs
  int type, plane_type;
};

// The values of four bytes, each 128 too large, under a scale.
DEVICE float4 scaled4(u32 codes, float scale) {
  const int x = static_cast<int>(codes & 0xffu), y = static_cast<int>(codes >> 8 & 0xffu);
  const int z = static_cast<int>(codes >> 16 & 0xffu), w = static_cast<int>(codes >> 24);
  return mul4(scale, four(static_cast<float>(x - 128), static_cast<float>(y - 128), static_cast<float>(z - 128),
                          static_cast<float>(w - 128)));
}

// The low or the high nibbles of four bytes, as values plus 128.
DEVICE u32 nibbles_of(u32 packed, bool high) {
  return __byte_perm(four_codes(packed & 0xffffu), four_codes(packed >> 16), high ? 0x7531u : 0x6420u) ^ 0x80808080u;
}

// Up to four elements of a plane's line that begin at column c; there are `width` columns.
DEVICE void write_line4(const UnpackArguments &args, i64 line, int c, int width, float4 x) {
  const i64 at = line * width + c;
  if (width % 4 == 0) {
    write4(args.plane, args.plane_type, at, x);
    return;
  }
  const float values[4] = {x.x, x.y, x.z, x.w};
  UNROLL
  for (int i = 0; i < 4; i++)
    if (c + i < width) write(args.plane, args.plane_type, at + i, values[i]);
}

// A thread has four columns of one row of a block. Its neighbours have the columns beside, so that writes
// are whole lines; what a block's reads leave in the first-level cache is read by its other threads.
DEVICE void unpack_block(const UnpackArguments &args, const u8 *block, int row_block, int column_block) {
  const int row = static_cast<int>(threadIdx.x) / 16, column = static_cast<int>(threadIdx.x) % 16 * 4;
  const int half = column / kGroup, place = column % kGroup;
  const i64 line = static_cast<i64>(row_block) * kBlockRows + row;
  const int c = column_block * kBlockCols + column;
  if (line >= args.rows || c >= args.cols) return;
  const float scale = from_f16(reinterpret_cast<const u16 *>(block)[half * kBlockRows + row]);
  const u32 *codes = reinterpret_cast<const u32 *>(block + kBlockScales) + row;
  const u32 bytes = args.type == kQ8 ? codes[column / 4 * kBlockRows]
                                     : nibbles_of(codes[(half * 4 + place % 16 / 4) * kBlockRows], place >= 16);
  write_line4(args, line, c, args.cols, scaled4(bytes, scale));
}

KERNEL(unpack_rows, UnpackArguments, kRowThreads) {
  release_next();
  await_previous();
  const int down = pieces(args.rows, kBlockRows), across = pieces(args.cols, kBlockCols);
  const i64 bytes = args.type == kQ8 ? 1088 : 576;
  for (int y = static_cast<int>(blockIdx.y); y < down; y += static_cast<int>(gridDim.y)) {
    const u8 *line = static_cast<const u8 *>(args.matrix) + y * (across * bytes);
    for (int x = static_cast<int>(blockIdx.x); x < across; x += static_cast<int>(gridDim.x))
      unpack_block(args, line + x * bytes, y, x);
  }
}

// Outputs `at` to at + 3 of the panel that begins at `panel`, `width` outputs wide, for the input c.
DEVICE float4 in_panel4(const UnpackArguments &args, const u8 *panel, int width, int c, int at) {
  const i64 line = args.type == kQ8 ? width : width / 2, group = at / kGroup, groups = width / kGroup;
  const float scale = from_f16(reinterpret_cast<const u16 *>(panel + line * args.cols)[c * groups + group]);
  const u8 *codes = panel + line * c;
  if (args.type == kQ8) return scaled4(*reinterpret_cast<const u32 *>(codes + at) ^ 0x80808080u, scale);
  const u32 packed = *reinterpret_cast<const u32 *>(codes + group * 16 + at % 16);
  return scaled4(nibbles_of(packed, at % kGroup >= 16), scale);
}

// gridDim.y panels; a warp has a panel's outputs for one input after another.
KERNEL(unpack_panels, UnpackArguments, kRowThreads) {
  release_next();
  await_previous();
  const int first = static_cast<int>(blockIdx.y) * kPanel;
  const int width = smaller(kPanel, pieces(args.rows - first, kGroup) * kGroup);
  // Full panels go before this one; panels end at multiples of 64 bytes.
  const i64 line = args.type == kQ8 ? kPanel + kPanel / kGroup * 2
                                    : kPanel / 2 + kPanel / kGroup * 2;
  const i64 bytes = (line * args.cols + 63) / 64 * 64;
  const u8 *panel = static_cast<const u8 *>(args.matrix) + blockIdx.y * bytes;
  const int at = 4 * lane();
  if (at >= width || first + at >= args.rows) return;
  const i64 step = static_cast<i64>(gridDim.x) * warps();
  for (i64 c = static_cast<i64>(blockIdx.x) * warps() + warp(); c < args.cols; c += step)
    write_line4(args, c, first + at, args.rows, in_panel4(args, panel, width, static_cast<int>(c), at));
}
