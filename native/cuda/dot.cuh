// Products of whole matrices with the inputs of M sequences: several matrices that read the same inputs in
// one launch (receptance, key, value, ...). A block computes some outputs ("a piece") of one matrix, then of
// the next piece in its share. An output of a sequence is summed in the same order for every M.
#pragma once

#include "inputs.cuh"

constexpr int kMaxRoles = 9;
constexpr int kDotThreads = 256;
constexpr int kBlockRows = 16;  // of a packed block

// A matrix [rows][cols] and where its products go.
struct Role {
  const void *weights;
  const float *mix;  // how far its inputs lie towards those of the token before; null: not at all
  const float *in;   // [M][cols] inputs of its own; null: those of the source
  float *out;        // [M][stride]
  int type, rows, stride, activation;
  int add, filler;  // add: to what `out` has, as the residual stream
};

struct DotArguments {
  Source source;
  Role roles[kMaxRoles];
  int count, quantized;  // quantized: at least one of them is
};

// Outputs of a float matrix that a warp computes side by side: enough to use each input often.
template <int M>
constexpr int kSideBySide = M < 4 ? 2 : 4;

// Steps whose loads a thread starts together.
template <int M>
constexpr int kUnrolled = M < 4 ? 4 : 2;

template <int M>
DEVICE int piece_rows(int type) {
  return type >= kQ8 ? kBlockRows : kDotThreads / kWarp * kSideBySide<M>;
}

DEVICE i64 row_bytes(int type, int cols) {
  if (type < kQ8) return static_cast<i64>(cols) * (type == kF32 ? 4 : 2);
  return static_cast<i64>(pieces(cols, kBlockCols)) * (type == kQ8 ? 1088 : 576) / kBlockRows;
}

template <int T>
DEVICE void load_four(const u8 *row, int k, float (&w)[4]) {
  if (T == kF32) {
    const uint4 raw = stream16(row + static_cast<i64>(k) * 4);
    w[0] = as_float(raw.x), w[1] = as_float(raw.y), w[2] = as_float(raw.z), w[3] = as_float(raw.w);
  } else {
    const uint2 raw = stream8(row + static_cast<i64>(k) * 2);
    const u32 pair[2] = {raw.x, raw.y};
    UNROLL
    for (int i = 0; i < 2; i++) {
      if (T == kBF16) {
        w[2 * i] = as_float(pair[i] << 16), w[2 * i + 1] = as_float(pair[i] & 0xffff0000u);
      } else {
        w[2 * i] = from_f16(static_cast<u16>(pair[i] & 0xffffu));
        w[2 * i + 1] = from_f16(static_cast<u16>(pair[i] >> 16));
      }
    }
  }
}

DEVICE void store(const Role &role, int row, int m, float sum) {
  float *to = role.out + static_cast<i64>(m) * role.stride + row;
  const float value = activate(role.activation, sum);
  *to = role.add ? *to + value : value;
}

// A piece of a float matrix: a warp has some rows, a lane every 32nd four columns.
template <int M, int T>
DEVICE void dot_floats(const Role &role, const Inputs<M> &inputs, int piece) {
  constexpr int R = kSideBySide<M>;
  const int first = piece * piece_rows<M>(T) + warp() * R;
  const i64 bytes = row_bytes(T, inputs.cols);
  const u8 *base[R];
  UNROLL
  for (int r = 0; r < R; r++)
    base[r] = static_cast<const u8 *>(role.weights) + smaller(first + r, role.rows - 1) * bytes;
  float sums[R][M] = {};
#pragma unroll kUnrolled<M>
  for (int k = 4 * lane(); k < inputs.cols; k += 4 * kWarp) {
    float w[R][4];
    UNROLL
    for (int r = 0; r < R; r++) load_four<T>(base[r], k, w[r]);
    UNROLL
    for (int m = 0; m < M; m++) {
      const float4 x = *reinterpret_cast<const float4 *>(inputs.x + m * inputs.cols + k);
      UNROLL
      for (int r = 0; r < R; r++)
        sums[r][m] = fmaf(w[r][3], x.w, fmaf(w[r][2], x.z, fmaf(w[r][1], x.y, fmaf(w[r][0], x.x, sums[r][m]))));
    }
  }
  float mine = 0;  // a lane stores one of the sums
  UNROLL
  for (int r = 0; r < R; r++) {
    UNROLL
    for (int m = 0; m < M; m++) {
      const float sum = sum_lanes(sums[r][m]);
      if (lane() == r * M + m) mine = sum;
    }
  }
  const int row = first + lane() / M;
  if (lane() < R * M && row < role.rows) store(role, row, lane() % M, mine);
}

// Adds 4 rows of packed codes, four columns each, for one group: `codes` has a row's four bytes.
template <int M>
DEVICE void add_group(const Inputs<M> &inputs, const u32 (&codes)[4], const float (&scales)[4], int column,
                      float (&sums)[4][M]) {
  UNROLL
  for (int m = 0; m < M; m++) {
    const int at = m * inputs.padded + column;
    const u32 high = *reinterpret_cast<const u32 *>(inputs.high + at);
    const u32 low = *reinterpret_cast<const u32 *>(inputs.low + at);
    const float scale = inputs.scales[at / kGroup];
    UNROLL
    for (int r = 0; r < 4; r++) {
      const int sum = dot4(codes[r], high, 0) * 256 + dot4(codes[r], low, 0);
      sums[r][m] = fmaf(static_cast<float>(sum), scales[r] * scale, sums[r][m]);
    }
  }
}

DEVICE void scales_of(const u8 *block, int half, float (&scales)[4]) {
  const uint2 raw = stream8(block + 32 * half + 8 * (lane() % 4));
  scales[0] = from_f16(static_cast<u16>(raw.x & 0xffffu)), scales[1] = from_f16(static_cast<u16>(raw.x >> 16));
  scales[2] = from_f16(static_cast<u16>(raw.y & 0xffffu)), scales[3] = from_f16(static_cast<u16>(raw.y >> 16));
}

// One block of 16 rows and 64 columns: a lane has rows 4 (lane % 4) to + 3.
template <int M>
DEVICE void add_q8_block(const u8 *block, const Inputs<M> &inputs, int column, float (&sums)[4][M]) {
  UNROLL
  for (int half = 0; half < 2; half++) {
    const uint4 raw = stream16(block + 64 + 512 * half + 16 * lane());
    const u32 codes[4] = {raw.x ^ 0x80808080u, raw.y ^ 0x80808080u, raw.z ^ 0x80808080u, raw.w ^ 0x80808080u};
    float scales[4];
    scales_of(block, half, scales);
    add_group<M>(inputs, codes, scales, column + 32 * half + 4 * (lane() / 4), sums);
  }
}

template <int M>
DEVICE void add_q4_block(const u8 *block, const Inputs<M> &inputs, int column, float (&sums)[4][M]) {
  const uint4 raw = stream16(block + 64 + 16 * lane());
  const u32 packed[4] = {raw.x, raw.y, raw.z, raw.w};
  const int p = lane() / 4;
  float scales[4];
  scales_of(block, p / 4, scales);
  u32 left[4], right[4];  // columns 4 (p % 4) to + 3 of the group, and those 16 further
  UNROLL
  for (int r = 0; r < 4; r++) {
    const u32 even = four_codes(packed[r] & 0xffffu), odd = four_codes(packed[r] >> 16);
    left[r] = __byte_perm(even, odd, 0x6420u) ^ 0x80808080u;
    right[r] = __byte_perm(even, odd, 0x7531u) ^ 0x80808080u;
  }
  const int at = column + 32 * (p / 4) + 4 * (p % 4);
  add_group<M>(inputs, left, scales, at, sums);
  add_group<M>(inputs, right, scales, at + 16, sums);
}

// A piece of a packed matrix: 16 rows, whose columns the warps share.
template <int M, int T>
DEVICE void dot_packed(const Role &role, const Inputs<M> &inputs, int piece, float *partial) {
  constexpr int kBytes = T == kQ8 ? 1088 : 576;
  const int blocks = inputs.padded / kBlockCols;
  const u8 *line = static_cast<const u8 *>(role.weights) + static_cast<i64>(piece) * blocks * kBytes;
  float sums[4][M] = {};
#pragma unroll kUnrolled<M> / 2
  for (int b = warp(); b < blocks; b += kDotThreads / kWarp) {
    const u8 *block = line + static_cast<i64>(b) * kBytes;
    if (T == kQ8) add_q8_block<M>(block, inputs, b * kBlockCols, sums);
    else add_q4_block<M>(block, inputs, b * kBlockCols, sums);
  }
  __syncthreads();  // whoever still reads the piece before
  UNROLL
  for (int r = 0; r < 4; r++) {
    UNROLL
    for (int m = 0; m < M; m++) {
      float sum = sums[r][m];
      for (int step = 4; step < kWarp; step *= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
      if (lane() < 4) partial[(warp() * M + m) * kBlockRows + 4 * lane() + r] = sum;
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < M * kBlockRows; i += kDotThreads) {
    float sum = 0;
    for (int w = 0; w < kDotThreads / kWarp; w++) sum += partial[w * M * kBlockRows + i];
    const int row = piece * kBlockRows + i % kBlockRows;
    if (row < role.rows) store(role, row, i / kBlockRows, sum);
  }
}

template <int M>
DEVICE void dot_piece(const Role &role, const Inputs<M> &inputs, int piece, float *partial) {
  switch (role.type) {
    case kF32: if constexpr (kCompiled<kF32>) dot_floats<M, kF32>(role, inputs, piece); break;
    case kBF16: if constexpr (kCompiled<kBF16>) dot_floats<M, kBF16>(role, inputs, piece); break;
    case kF16: if constexpr (kCompiled<kF16>) dot_floats<M, kF16>(role, inputs, piece); break;
    case kQ8: if constexpr (kCompiled<kQ8>) dot_packed<M, kQ8>(role, inputs, piece, partial); break;
    default: if constexpr (kCompiled<kQ4>) dot_packed<M, kQ4>(role, inputs, piece, partial);
  }
}

// Asks for the first weights of this block's share, which do not depend on the kernel before.
template <int M>
DEVICE void fetch_ahead(const DotArguments &args, int piece) {
  for (int i = 0; i < args.count; i++) {
    const Role &role = args.roles[i];
    const int rows = piece_rows<M>(role.type), count = pieces(role.rows, rows);
    if (piece < count) {
      const i64 line = row_bytes(role.type, args.source.cols);
      const i64 start = piece * rows * line, end = (static_cast<i64>(smaller(role.rows, (piece + 1) * rows))) * line;
      const i64 at = start + static_cast<i64>(threadIdx.x) * 128;
      if (at < end) prefetch(static_cast<const u8 *>(role.weights) + at);
      return;
    }
    piece -= count;
  }
}

template <int M>
DEVICE void dot(const DotArguments &args) {
  int total = 0;
  for (int i = 0; i < args.count; i++) total += pieces(args.roles[i].rows, piece_rows<M>(args.roles[i].type));
  const int first = static_cast<int>(static_cast<i64>(blockIdx.x) * total / gridDim.x);
  const int end = static_cast<int>((static_cast<i64>(blockIdx.x) + 1) * total / gridDim.x);
  release_next();
  fetch_ahead<M>(args, first);
  await_previous();

  Carve carve;
  float *partial = carve.take<float>(M * kDotThreads / kWarp * kBlockRows);
  float *moments = carve.take<float>(2 * M);
  Inputs<M> inputs(carve, args.source.cols, args.quantized != 0);
  if (args.source.weight) moments_of<M>(args.source.x, args.source.cols, partial, moments);
  int start = 0, filled = -1;
  for (int i = 0; i < args.count; i++) {
    const Role &role = args.roles[i];
    const int count = pieces(role.rows, piece_rows<M>(role.type));
    for (int piece = larger(first, start); piece < smaller(end, start + count); piece++) {
      if (filled != i) fill<M>(inputs, args.source, moments, role.in, role.mix, role.type >= kQ8);
      filled = i;
      dot_piece<M>(role, inputs, piece - start, partial);
    }
    start += count;
  }
}

KERNEL(dot_1, DotArguments, kDotThreads) { dot<1>(args); }
KERNEL(dot_2, DotArguments, kDotThreads) { dot<2>(args); }
KERNEL(dot_4, DotArguments, kDotThreads) { dot<4>(args); }
KERNEL(dot_8, DotArguments, kDotThreads) { dot<8>(args); }
