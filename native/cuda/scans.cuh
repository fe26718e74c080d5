// The recurrences over the tokens of sequences whose state is a matrix for each head, in float32. A
// block has 16 value channels of one head of one sequence: rows of the state, which depend on no other row.
// Four threads share a row in registers, each with every fourth group of four keys. The operands of some
// tokens at a time go through shared memory; those of the next tokens are on their way while the present
// ones are worked on. The states before and after may be the same memory.
//
// Here: what all of them share; scans6.cuh and scans7.cuh have the recurrences themselves.
#pragma once

#include "rows.cuh"

constexpr int kScanRows = 16;
constexpr int kScanSplit = 4;   // threads of a row
constexpr int kScanThreads = kScanRows * kScanSplit;
constexpr int kScanTokens = 8;  // of a tile

// --- operands ------------------------------------------------------------------------------------------

// One operand of a tile between global and shared memory: Width floats of each token.
template <int Width>
class Fetch {
 public:
  // Asks for those of `count` tokens, each `stride` floats after the last.
  DEVICE void load(const float *from, i64 stride, int count) {
    UNROLL
    for (int i = 0; i < kEach; i++)
      if (token(i) < count) part_[i] = load4(from + token(i) * stride + channel(i));
  }
  // Puts them at to[token][Width]; tokens past the last keep what was there.
  DEVICE void store(float *to, int count) const {
    UNROLL
    for (int i = 0; i < kEach; i++)
      if (token(i) < count) store4(to + token(i) * Width + channel(i), part_[i]);
  }
  // Replaces them by what RWKV-6 derives from them, its decays: exp(-exp(x + shift)).
  DEVICE void decay(const float *shift, int count) {
    UNROLL
    for (int i = 0; i < kEach; i++) {
      if (token(i) >= count) continue;
      const float4 x = add4(part_[i], load4(shift + channel(i)));
      part_[i] = four(expf(-expf(x.x)), expf(-expf(x.y)), expf(-expf(x.z)), expf(-expf(x.w)));
    }
  }

 private:
  static constexpr int kEach = (kScanTokens * Width / 4 + kScanThreads - 1) / kScanThreads;
  DEVICE static int index(int i) { return i * kScanThreads + static_cast<int>(threadIdx.x); }
  DEVICE static int token(int i) { return index(i) / (Width / 4); }
  DEVICE static int channel(int i) { return index(i) % (Width / 4) * 4; }

  float4 part_[kEach];
};

// A thread's part of a row of Size keys: group i is keys 16 i + 4 (thread % 4) to + 3.
template <int Size>
struct RowPart {
  static constexpr int kGroups = Size / (4 * kScanSplit);
  float4 s[kGroups];

  DEVICE static int key(int group) {
    return (group * kScanSplit + static_cast<int>(threadIdx.x) % kScanSplit) * 4;
  }
  DEVICE void load(const float *row) {
    UNROLL
    for (int i = 0; i < kGroups; i++) s[i] = load4(row + key(i));
  }
  DEVICE void store(float *row) const {
    UNROLL
    for (int i = 0; i < kGroups; i++) store4(row + key(i), s[i]);
  }
};

// Where a block and a thread of a scan stand.
template <int Size>
struct ScanPlace {
  int sequence, row, lead;  // row: the thread's in the block; lead: 1 for one thread of each row
  i64 head, channel;        // the head's first channel; the thread's value channel
  i64 values;               // the block's first value channel

  DEVICE ScanPlace()
      : sequence(static_cast<int>(blockIdx.z)),
        row(static_cast<int>(threadIdx.x) / kScanSplit),
        lead(threadIdx.x % kScanSplit == 0),
        head(static_cast<i64>(blockIdx.x) * Size),
        channel(head + blockIdx.y * kScanRows + row),
        values(head + blockIdx.y * kScanRows) {}
};

// --- the scan ------------------------------------------------------------------------------------------

// Runs a recurrence over the tokens of a sequence, for the rows of this block. A Recurrence<Size> has
// kOperands operands of Size floats a token beside the values; it fetches them as a Fetch does, and `step`
// advances a row by one token, whose operands it finds kScanTokens * Size floats apart, and gives the
// thread's part of what is read.
template <int Size, typename Recurrence, typename Arguments>
DEVICE void scan(const Arguments &args) {
  release_next();
  await_previous();
  Carve carve;
  float *operands = carve.take<float>(kScanTokens * Size * Recurrence::kOperands);
  float *values = carve.take<float>(kScanTokens * kScanRows);
  const ScanPlace<Size> place;
  const int begin = args.starts[place.sequence], tokens = args.starts[place.sequence + 1] - begin;
  if (tokens == 0) return;
  const i64 first = static_cast<i64>(begin) * args.width;
  Recurrence ahead(args, place.head);
  Fetch<kScanRows> values_ahead;
  RowPart<Size> row;
  const int begun = smaller(kScanTokens, tokens);
  ahead.load(args, first + place.head, begun);
  values_ahead.load(args.v + first + place.values, args.width, begun);
  row.load(state_before(args.state, place.sequence) + place.channel * Size);
  for (int t = 0; t < tokens; t += kScanTokens) {
    const int count = smaller(kScanTokens, tokens - t);
    const int left = smaller(kScanTokens, tokens - t - kScanTokens);
    const i64 present = first + static_cast<i64>(t) * args.width;
    const i64 next = present + static_cast<i64>(kScanTokens) * args.width;
    __syncthreads();  // whoever still reads the tokens before
    ahead.store(args, operands, count);
    values_ahead.store(values, count);
    __syncthreads();
    ahead.load(args, next + place.head, left);
    values_ahead.load(args.v + next + place.values, args.width, left);
#pragma unroll 2
    for (int i = 0; i < count; i++) {
      const float part = ahead.step(row, operands + i * Size, values[i * kScanRows + place.row]);
      const float y = sum_lanes(part, kScanSplit);
      if (place.lead) args.y[present + static_cast<i64>(i) * args.width + place.channel] = y;
    }
  }
  row.store(state_after(args.state, place.sequence) + place.channel * Size);
}
