// Products of whole matrices with the inputs of M sequences: several matrices that read the same inputs in
// one launch (receptance, key, value, ...). A block computes some rows of one matrix, then of the next in its
// share. An output of a sequence is summed in the same order for every M.
//
// Weights come to shared memory by copies that a warp starts long before it needs them, the first ones before the
// kernel before has ended. So as many bytes are under way as memory needs to be busy, whatever else a block waits
// for: its inputs, a sum, another block.
#pragma once

#include "inputs.cuh"

constexpr int kMaxRoles = 9;
constexpr int kDotThreads = kInputThreads;
constexpr int kDotWarps = kDotThreads / kWarp;
constexpr int kBlockRows = 16;     // of a packed block, and of what a thread block sums up together
constexpr int kRowsTogether = 4;   // of a float matrix, which meet the same inputs
constexpr int kSlab = 512;         // bytes of such a row that a warp multiplies at once
constexpr int kRing = 6144;        // bytes on their way to a warp, for up to two sequences,
constexpr int kRingOfMany = 4096;  // and for more, whose inputs need the memory
constexpr i64 kLine = 128;         // bytes that are fetched at least

// A matrix [rows][cols] and where its products go.
struct Role {
  const void *weights;
  const float *mix;  // how far its inputs lie towards those of the token before; null: not at all
  const float *in;   // [M][cols] inputs of its own; null: those of the source
  float *out;        // [M][stride]
  int type, rows, stride, activation;
  int add;    // to what `out` has, as the residual stream
  int first;  // of the launch's units that is this matrix's
};

struct DotArguments {
  Source source;
  Role roles[kMaxRoles];
  int count, units;  // of roles, and of all their units
  int unit, parts;   // rows of a float matrix in a unit; slabs of a row, or warps where those are more
};

template <int M>
constexpr int kRingBytes = M <= 2 ? kRing : kRingOfMany;

DEVICE int unit_rows(const DotArguments &args, const Role &role) { return role.type >= kQ8 ? kBlockRows : args.unit; }

DEVICE int row_bytes(int type, int cols) { return cols * (type == kF32 ? 4 : 2); }

DEVICE void store(const Role &role, int row, int m, float sum) {
  float *to = role.out + static_cast<i64>(m) * role.stride + row;
  const float value = activate(role.activation, sum);
  *to = role.add ? *to + value : value;
}

// --- weights on their way ------------------------------------------------------------------------------

// What a warp multiplies at once: rows from `row` on, and which part of their columns. Of a float matrix four
// rows and a slab of columns, whichever warp has its turn; of a packed one a block of 16 rows and 64 columns, the
// same columns always by the same warp.
struct Task {
  int row, part;
};

// The tasks of a warp in the rows up to `end` of a matrix, in order, and the copies of their weights.
template <int M, int T>
class Stream {
 public:
  static constexpr bool kBlocks = T >= kQ8;
  static constexpr int kBytes = T == kQ8 ? 1088 : T == kQ4 ? 576 : kRowsTogether * kSlab;  // of a task
  static constexpr int kStages = kRingBytes<M> / kBytes;

  DEVICE Stream(const Role &role, int cols, int end, u8 *ring)
      : weights_(static_cast<const u8 *>(role.weights)), ring_(ring), line_(row_bytes(T, cols)), end_(end),
        parts_(kBlocks ? pieces(cols, kBlockCols) : pieces(row_bytes(T, cols), kSlab)) {}

  DEVICE Task first(int row) const { return settled({row, warp()}); }
  DEVICE Task after(Task task) const { return settled({task.row, task.part + kDotWarps}); }
  DEVICE bool has(Task task) const { return task.row < end_ && task.part < parts_; }

  // Starts the copies of a task, if it is one, and counts them as a group.
  DEVICE void ask(Task task, int stage) const {
    u8 *to = ring_ + stage * kBytes;
    if (has(task)) {
      if constexpr (kBlocks) {
        const u8 *from = weights_ + (static_cast<i64>(task.row / kBlockRows) * parts_ + task.part) * kBytes;
        UNROLL
        for (int i = 0; i < (kBytes + 16 * kWarp - 1) / (16 * kWarp); i++) {
          const int at = 16 * (i * kWarp + lane());
          if (at < kBytes) copy16(to + at, from + at);
        }
      } else {
        const int at = task.part * kSlab + 16 * lane();
        const u8 *from = weights_ + static_cast<i64>(task.row) * line_ + at;
        UNROLL
        for (int r = 0; r < kRowsTogether; r++, from += line_)
          if (at < line_ && task.row + r < end_) copy16(to + r * kSlab + 16 * lane(), from);
      }
    }
    commit_copies();
  }
  // The weights of the oldest task that has been asked for, when `kStages` have.
  DEVICE const u8 *got(int stage) const {
    await_copies<kStages - 1>();
    __syncwarp();
    return ring_ + stage * kBytes;
  }

 private:
  DEVICE Task settled(Task task) const {
    if (kBlocks) {
      if (task.part >= parts_ && task.part >= kDotWarps) task.row += kBlockRows, task.part = warp();
    } else {
      while (task.part >= parts_) task.row += kRowsTogether, task.part -= parts_;
    }
    return task;
  }

  const u8 *weights_;
  u8 *ring_;
  int line_, end_, parts_;
};

// --- products ------------------------------------------------------------------------------------------

// Sixteen bytes of a row as floats; of float32 four, and else eight.
template <int T>
DEVICE void floats_of(uint4 raw, float (&w)[8]) {
  const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
  UNROLL
  for (int i = 0; i < 4; i++) {
    if (T == kF32) {
      w[i] = as_float(words[i]);
    } else {
      w[2 * i] = T == kBF16 ? as_float(words[i] << 16) : from_f16(static_cast<u16>(words[i] & 0xffffu));
      w[2 * i + 1] = T == kBF16 ? as_float(words[i] & 0xffff0000u) : from_f16(static_cast<u16>(words[i] >> 16));
    }
  }
}

// A slab of four rows; `sums` gets [4][M].
template <int M, int T>
DEVICE void multiply_slab(const Inputs<M> &inputs, const u8 *weights, int slab, float *sums_at) {
  constexpr int kEach = T == kF32 ? 4 : 8, kCount = kRowsTogether * M;
  const int column = (slab * kWarp + lane()) * kEach;
  float sums[kCount] = {};
  if (column < inputs.cols) {
    float w[kRowsTogether][8];
    UNROLL
    for (int r = 0; r < kRowsTogether; r++)
      floats_of<T>(*reinterpret_cast<const uint4 *>(weights + r * kSlab + 16 * lane()), w[r]);
    UNROLL
    for (int m = 0; m < M; m++) {
      UNROLL
      for (int half = 0; half < kEach / 4; half++) {
        const float4 x = load4(inputs.x + m * inputs.wide + inputs.place(column + 4 * half));
        UNROLL
        for (int r = 0; r < kRowsTogether; r++) {
          const float *v = w[r] + 4 * half;
          float &sum = sums[r * M + m];
          sum = fmaf(v[3], x.w, fmaf(v[2], x.z, fmaf(v[1], x.y, fmaf(v[0], x.x, sum))));
        }
      }
    }
  }
  const float mine = spread_sum<kCount>(sums);
  constexpr int kShare = kWarp / kCount;
  if (lane() % kShare == 0) sums_at[lane() / kShare] = mine;
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
  const uint2 raw = *reinterpret_cast<const uint2 *>(block + 32 * half + 8 * (lane() % 4));
  scales[0] = from_f16(static_cast<u16>(raw.x & 0xffffu)), scales[1] = from_f16(static_cast<u16>(raw.x >> 16));
  scales[2] = from_f16(static_cast<u16>(raw.y & 0xffffu)), scales[3] = from_f16(static_cast<u16>(raw.y >> 16));
}

// One block of 16 rows and 64 columns: a lane has rows 4 (lane % 4) to + 3.
template <int M>
DEVICE void add_q8_block(const u8 *block, const Inputs<M> &inputs, int column, float (&sums)[4][M]) {
  UNROLL
  for (int half = 0; half < 2; half++) {
    const uint4 raw = *reinterpret_cast<const uint4 *>(block + 64 + 512 * half + 16 * lane());
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
  const uint4 raw = *reinterpret_cast<const uint4 *>(block + 64 + 16 * lane());
  const u32 packed[4] = {raw.x, raw.y, raw.z, raw.w};
  const int p = lane() / 4;
  float scales[4];
  scales_of(block, p / 4, scales);
  u32 codes[2][4];  // columns 4 (p % 4) to + 3 of the group, and those 16 further
  UNROLL
  for (int r = 0; r < 4; r++) {
    u32 even, odd;
    eight_codes(packed[r], even, odd);
    codes[0][r] = __byte_perm(even, odd, 0x6420u);
    codes[1][r] = __byte_perm(even, odd, 0x7531u);
  }
  const int at = column + 32 * (p / 4) + 4 * (p % 4);
  const int columns[2] = {at, at + 16};
  add_group<M, 2>(inputs, codes, scales, columns, sums);
}

// A warp's sums of a packed matrix's rows; `sums_at` gets [16][M].
template <int M>
DEVICE void leave_sums(const float (&sums)[4][M], float *sums_at) {
  UNROLL
  for (int r = 0; r < 4; r++) {
    UNROLL
    for (int m = 0; m < M; m++) {
      float sum = sums[r][m];
      for (int step = 4; step < kWarp; step *= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
      if (lane() < 4) sums_at[(4 * lane() + r) * M + m] = sum;
    }
  }
}

// --- a share of a matrix -------------------------------------------------------------------------------

// Where a block keeps what is on its way, and sums that are to be added up: two times [parts][16][M].
struct Bench {
  u8 *ring;  // the warp's
  float *sums;
  int parts;
};

template <int M, int T>
DEVICE Task begin_as(const Role &role, int cols, int first, int end, u8 *ring) {
  const Stream<M, T> stream(role, cols, end, ring);
  Task task = stream.first(first);
  ROLLED
  for (int stage = 0; stage < stream.kStages; stage++, task = stream.after(task)) stream.ask(task, stage);
  return task;
}

// Rows first .. end of a matrix; `ahead` is the first task whose weights have not been asked for.
template <int M, int T>
DEVICE void multiply_as(const Role &role, const Inputs<M> &inputs, int first, int end, Task ahead, const Bench &bench) {
  constexpr int kSums = kBlockRows * M;
  const Stream<M, T> stream(role, inputs.cols, end, bench.ring);
  const int parts = stream.kBlocks ? kDotWarps : pieces(row_bytes(T, inputs.cols), kSlab);
  Task task = stream.first(first);
  int stage = 0, turn = 0;
  ROLLED
  for (int piece = first; piece < end; piece += kBlockRows, turn ^= 1) {
    float *sums_at = bench.sums + turn * bench.parts * kSums, sums[4][M] = {};
    ROLLED
    while (stream.has(task) && task.row < piece + kBlockRows) {
      const u8 *weights = stream.got(stage);
      if constexpr (T == kQ8) add_q8_block<M>(weights, inputs, task.part * kBlockCols, sums);
      else if constexpr (T == kQ4) add_q4_block<M>(weights, inputs, task.part * kBlockCols, sums);
      else multiply_slab<M, T>(inputs, weights, task.part, sums_at + task.part * kSums + (task.row - piece) * M);
      __syncwarp();  // whoever still reads them
      stream.ask(ahead, stage);
      ahead = stream.after(ahead), task = stream.after(task);
      stage = stage + 1 < stream.kStages ? stage + 1 : 0;
    }
    if constexpr (stream.kBlocks) leave_sums<M>(sums, sums_at + warp() * kSums);
    // The sums of the next piece go to the other half: who adds up is in nobody's way until the next wait.
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kSums && piece + i / M < end; i += kDotThreads) {
      float sum = 0;
      for (int p = 0; p < parts; p++) sum += sums_at[p * kSums + i];
      store(role, piece + i / M, i % M, sum);
    }
  }
}

template <int M>
DEVICE Task begin(const Role &role, int cols, int first, int end, u8 *ring) {
  switch (role.type) {
    case kF32: if constexpr (kCompiled<kF32>) return begin_as<M, kF32>(role, cols, first, end, ring); break;
    case kBF16: if constexpr (kCompiled<kBF16>) return begin_as<M, kBF16>(role, cols, first, end, ring); break;
    case kF16: if constexpr (kCompiled<kF16>) return begin_as<M, kF16>(role, cols, first, end, ring); break;
    case kQ8: if constexpr (kCompiled<kQ8>) return begin_as<M, kQ8>(role, cols, first, end, ring); break;
    default: if constexpr (kCompiled<kQ4>) return begin_as<M, kQ4>(role, cols, first, end, ring);
  }
  return {0, 0};
}

template <int M>
DEVICE void multiply(const Role &role, const Inputs<M> &inputs, int first, int end, Task ahead, const Bench &bench) {
  switch (role.type) {
    case kF32: if constexpr (kCompiled<kF32>) multiply_as<M, kF32>(role, inputs, first, end, ahead, bench); break;
    case kBF16: if constexpr (kCompiled<kBF16>) multiply_as<M, kBF16>(role, inputs, first, end, ahead, bench); break;
    case kF16: if constexpr (kCompiled<kF16>) multiply_as<M, kF16>(role, inputs, first, end, ahead, bench); break;
    case kQ8: if constexpr (kCompiled<kQ8>) multiply_as<M, kQ8>(role, inputs, first, end, ahead, bench); break;
    default: if constexpr (kCompiled<kQ4>) multiply_as<M, kQ4>(role, inputs, first, end, ahead, bench);
  }
}

// --- a launch ------------------------------------------------------------------------------------------

// Asks for what inputs are normalized and mixed by, and for the token before: none of it depends on the kernel
// before, and all of it is cold.
template <int M>
DEVICE void fetch_ahead(const Source &source, const Role &role) {
  if (role.in || !source.weight) return;
  for (int c = static_cast<int>(threadIdx.x * kLine) / 4; c < source.cols; c += kDotThreads * kLine / 4) {
    prefetch(source.weight + c), prefetch(source.bias + c);
    if (!role.mix) continue;
    prefetch(role.mix + c);
    ROLLED
    for (int m = 0; m < M; m++) prefetch(state_before(source.shift, m) + c);
  }
}

template <int M>
DEVICE void dot(const DotArguments &args) {
  const int cols = args.source.cols, block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  const int end = (block + 1) * args.units / blocks;
  int unit = block * args.units / blocks, index = 0;
  while (index + 1 < args.count && args.roles[index + 1].first <= unit) index++;
  release_next();
  Carve carve;
  Bench bench;
  bench.ring = carve.take<u8>(kDotWarps * kRingBytes<M>) + warp() * kRingBytes<M>;
  bench.parts = args.parts;
  bench.sums = carve.take<float>(2 * bench.parts * kBlockRows * M);
  float *found = carve.take<float>(2 * M * kDotWarps);
  Moments *moments = carve.take<Moments>(M);
  Inputs<M> inputs(carve, cols);
  for (bool fresh = true; unit < end; index++, fresh = false) {
    const Role &role = args.roles[index];
    const int stop = index + 1 < args.count ? smaller(end, args.roles[index + 1].first) : end;
    const int rows = unit_rows(args, role), first = (unit - role.first) * rows;
    const int last = smaller(role.rows, (stop - role.first) * rows);
    const Task ahead = begin<M>(role, cols, first, last, bench.ring);
    if (fresh) {
      fetch_ahead<M>(args.source, role);
      await_previous();
      if (args.source.weight) {
        moments_of<M>(args.source.x, cols, found);
        const int m = static_cast<int>(threadIdx.x);
        if (m < M) moments[m] = Moments::of<M>(found, m, cols);  // which all see after the next wait
      }
    }
    fill<M>(inputs, args.source, moments, role.in, role.mix, role.type >= kQ8);
    multiply<M>(role, inputs, first, last, ahead, bench);
    unit = stop;
  }
  leave<M>(args.source, moments);
}

// So many blocks of a launch are on a processor; where there are fewer of one, the next launch's ask for their
// weights meanwhile.
KERNEL_TOGETHER(dot_1, DotArguments, kDotThreads, 3) { dot<1>(args); }
KERNEL_TOGETHER(dot_2, DotArguments, kDotThreads, 3) { dot<2>(args); }
KERNEL_TOGETHER(dot_4, DotArguments, kDotThreads, 2) { dot<4>(args); }
KERNEL_TOGETHER(dot_8, DotArguments, kDotThreads, 2) { dot<8>(args); }
