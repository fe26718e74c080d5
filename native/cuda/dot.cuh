// Products of whole matrices with the inputs of M sequences: several matrices that read the same inputs in
// one launch (receptance, key, value, ...). A block computes some outputs ("a piece") of one matrix, then of
// the next piece in its share. An output of a sequence is summed in the same order for every M.
#pragma once

#include "inputs.cuh"

constexpr int kMaxRoles = 9;
constexpr int kDotThreads = kInputThreads;
constexpr int kBlockRows = 16;  // of a packed block
constexpr i64 kLine = 128;      // bytes that are fetched at least

// A matrix [rows][cols] and where its products go.
struct Role {
  const void *weights;
  const float *mix;  // how far its inputs lie towards those of the token before; null: not at all
  const float *in;   // [M][cols] inputs of its own; null: those of the source
  float *out;        // [M][stride]
  int type, rows, stride, activation;
  int add;    // to what `out` has, as the residual stream
  int first;  // of the launch's pieces that is this matrix's
};

struct DotArguments {
  Source source;
  Role roles[kMaxRoles];
  int count, pieces;     // of roles, and of all their pieces
  int quantized, filler; // quantized: at least one of them is
};

// While one block waits for its inputs, the other computes.
template <>
constexpr int kTogether<DotArguments> = 2;

// Outputs of a float matrix that a warp computes side by side: enough to use each input often.
template <int M>
constexpr int kSideBySide = M < 4 ? 2 : 4;

// Steps whose loads a thread starts together.
template <int M>
constexpr int kUnrolled = M < 4 ? 4 : M < 8 ? 2 : 1;

template <int M>
DEVICE int piece_rows(int type) {
  return type >= kQ8 ? kBlockRows : kDotThreads / kWarp * kSideBySide<M>;
}

DEVICE i64 row_bytes(int type, int cols) {
  if (type < kQ8) return static_cast<i64>(cols) * (type == kF32 ? 4 : 2);
  return static_cast<i64>(pieces(cols, kBlockCols)) * (type == kQ8 ? 1088 : 576) / kBlockRows;
}

// Four weights as they were loaded.
template <int T>
DEVICE uint4 load_four(const u8 *row, int k) {
  uint4 raw = {};
  if (T == kF32) {
    raw = stream16(row + static_cast<i64>(k) * 4);
  } else {
    const uint2 half = stream8(row + static_cast<i64>(k) * 2);
    raw.x = half.x, raw.y = half.y;
  }
  return raw;
}

template <int T>
DEVICE float4 four_of(uint4 raw) {
  float4 w;
  if (T == kF32) {
    w.x = as_float(raw.x), w.y = as_float(raw.y), w.z = as_float(raw.z), w.w = as_float(raw.w);
  } else if (T == kBF16) {
    w.x = as_float(raw.x << 16), w.y = as_float(raw.x & 0xffff0000u);
    w.z = as_float(raw.y << 16), w.w = as_float(raw.y & 0xffff0000u);
  } else {
    w.x = from_f16(static_cast<u16>(raw.x & 0xffffu)), w.y = from_f16(static_cast<u16>(raw.x >> 16));
    w.z = from_f16(static_cast<u16>(raw.y & 0xffffu)), w.w = from_f16(static_cast<u16>(raw.y >> 16));
  }
  return w;
}

DEVICE void store(const Role &role, int row, int m, float sum) {
  float *to = role.out + static_cast<i64>(m) * role.stride + row;
  const float value = activate(role.activation, sum);
  *to = role.add ? *to + value : value;
}

// Adds four columns of some rows.
template <int M, int R, int T>
DEVICE void add_four(const Inputs<M> &inputs, int k, const uint4 (&raw)[R], float (&sums)[R][M]) {
  float4 w[R];
  UNROLL
  for (int r = 0; r < R; r++) w[r] = four_of<T>(raw[r]);
  UNROLL
  for (int m = 0; m < M; m++) {
    const float4 x = load4(inputs.x + m * inputs.cols + k);
    UNROLL
    for (int r = 0; r < R; r++)
      sums[r][m] = fmaf(w[r].w, x.w, fmaf(w[r].z, x.z, fmaf(w[r].y, x.y, fmaf(w[r].x, x.x, sums[r][m]))));
  }
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
  constexpr int kAhead = T == kF32 ? (kUnrolled<M> + 1) / 2 : kUnrolled<M>;  // as many bytes
  for (int first_k = 4 * lane(); first_k < inputs.cols; first_k += 4 * kAhead * kWarp) {
    uint4 raw[kAhead][R];
    UNROLL
    for (int a = 0; a < kAhead; a++) {
      const int k = first_k + 4 * a * kWarp;
      UNROLL
      for (int r = 0; r < R; r++)
        if (k < inputs.cols) raw[a][r] = load_four<T>(base[r], k);
    }
    UNROLL
    for (int a = 0; a < kAhead; a++) {
      const int k = first_k + 4 * a * kWarp;
      if (k < inputs.cols) add_four<M, R, T>(inputs, k, raw[a], sums);
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

// Adds `Count` times four columns of 4 rows, all of one group: `codes` has signed bytes.
template <int M, int Count>
DEVICE void add_group(const Inputs<M> &inputs, const u32 (&codes)[Count][4], const float (&scales)[4],
                      const int (&columns)[Count], float (&sums)[4][M]) {
  UNROLL
  for (int m = 0; m < M; m++) {
    u32 high[Count], low[Count];
    UNROLL
    for (int i = 0; i < Count; i++) {
      high[i] = *reinterpret_cast<const u32 *>(inputs.high + m * inputs.padded + columns[i]);
      low[i] = *reinterpret_cast<const u32 *>(inputs.low + m * inputs.padded + columns[i]);
    }
    const float scale = inputs.scales[(m * inputs.padded + columns[0]) / kGroup];
    UNROLL
    for (int r = 0; r < 4; r++) {
      int top = 0, bottom = 0;
      UNROLL
      for (int i = 0; i < Count; i++) top = dot4(codes[i][r], high[i], top), bottom = dot4(codes[i][r], low[i], bottom);
      sums[r][m] = fmaf(static_cast<float>(top * 256 + bottom), scales[r] * scale, sums[r][m]);
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
    const u32 flip = 0x80808080u;  // from codes plus 128 to signed ones
    const u32 codes[1][4] = {{raw.x ^ flip, raw.y ^ flip, raw.z ^ flip, raw.w ^ flip}};
    const int columns[1] = {column + 32 * half + 4 * (lane() / 4)};
    float scales[4];
    scales_of(block, half, scales);
    add_group<M, 1>(inputs, codes, scales, columns, sums);
  }
}

template <int M>
DEVICE void add_q4_block(const u8 *block, const Inputs<M> &inputs, int column, float (&sums)[4][M]) {
  const uint4 raw = stream16(block + 64 + 16 * lane());
  const u32 packed[4] = {raw.x, raw.y, raw.z, raw.w};
  const int p = lane() / 4;
  float scales[4];
  scales_of(block, p / 4, scales);
  u32 codes[2][4];  // columns 4 (p % 4) to + 3 of the group, and those 16 further
  UNROLL
  for (int r = 0; r < 4; r++) {
    const u32 even = four_codes(packed[r] & 0xffffu), odd = four_codes(packed[r] >> 16);
    codes[0][r] = __byte_perm(even, odd, 0x6420u);
    codes[1][r] = __byte_perm(even, odd, 0x7531u);
  }
  const int at = column + 32 * (p / 4) + 4 * (p % 4);
  const int columns[2] = {at, at + 16};
  add_group<M, 2>(inputs, codes, scales, columns, sums);
}

// A piece of a packed matrix: 16 rows, whose columns the warps share.
template <int M, int T>
DEVICE void dot_packed(const Role &role, const Inputs<M> &inputs, int piece, float *partial) {
  constexpr int kBytes = T == kQ8 ? 1088 : 576;
  const int blocks = inputs.padded / kBlockCols;
  const u8 *line = static_cast<const u8 *>(role.weights) + static_cast<i64>(piece) * blocks * kBytes;
  float sums[4][M] = {};
#pragma unroll (M == 1 ? 2 : 1)
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

// Asks for a block's first piece of weights, and for what its inputs are normalized and mixed by: none of it
// depends on the kernel before, and all of it is cold.
template <int M>
DEVICE void fetch_ahead(const DotArguments &args, const Role &role, int piece) {
  const int rows = piece_rows<M>(role.type), thread = static_cast<int>(threadIdx.x);
  const i64 line = row_bytes(role.type, args.source.cols);
  const i64 start = static_cast<i64>(piece) * rows * line, end = smaller(role.rows, (piece + 1) * rows) * line;
  for (i64 at = start + thread * kLine; at < end; at += kDotThreads * kLine)
    prefetch(static_cast<const u8 *>(role.weights) + at);
  for (int c = thread * kLine / 4; c < args.source.cols; c += kDotThreads * kLine / 4) {
    if (args.source.weight) prefetch(args.source.weight + c), prefetch(args.source.bias + c);
    if (role.mix) prefetch(role.mix + c);
  }
}

template <int M>
DEVICE void dot(const DotArguments &args) {
  const int first = static_cast<int>(blockIdx.x) * args.pieces / static_cast<int>(gridDim.x);
  const int end = (static_cast<int>(blockIdx.x) + 1) * args.pieces / static_cast<int>(gridDim.x);
  int index = 0;
  while (index + 1 < args.count && args.roles[index + 1].first <= first) index++;
  release_next();
  fetch_ahead<M>(args, args.roles[index], first - args.roles[index].first);
  await_previous();

  Carve carve;
  float *partial = carve.take<float>(M * kDotThreads / kWarp * kBlockRows);
  float *moments = carve.take<float>(2 * M);
  Inputs<M> inputs(carve, args.source.cols, args.quantized != 0);
  if (args.source.weight) moments_of<M>(args.source.x, args.source.cols, partial, moments);
  for (int piece = first; piece < end; index++) {
    const Role &role = args.roles[index];
    const int stop = index + 1 < args.count ? smaller(end, args.roles[index + 1].first) : end;
    fill<M>(inputs, args.source, moments, role.in, role.mix, role.type >= kQ8);
    for (; piece < stop; piece++) dot_piece<M>(role, inputs, piece - role.first, partial);
  }
  leave<M>(args.source, moments);
}

KERNEL(dot_1, DotArguments, kDotThreads) { dot<1>(args); }
KERNEL(dot_2, DotArguments, kDotThreads) { dot<2>(args); }
KERNEL(dot_4, DotArguments, kDotThreads) { dot<4>(args); }
KERNEL(dot_8, DotArguments, kDotThreads) { dot<8>(args); }
