// The value matrix of channel-mixing, whose inputs relu(k)^2 are mostly zero: it lies input by input, and
// what a zero would multiply is not read. A block sums some inputs for a panel of 128 outputs; the last
// block of a panel to finish adds up all sums, in the order of the inputs, so that the result does not
// depend on who was last.
#pragma once

#include "device.cuh"

constexpr int kPanel = 128;
constexpr int kValueThreads = 256;
constexpr int kLanes = 16;                         // threads that share an input, 8 outputs each
constexpr int kTeams = kValueThreads / kLanes;     // inputs in flight
constexpr int kLooked = 2 * kLanes * kTeams;       // inputs that a block looks at together

// Loads that a thread starts before it waits.
template <int M>
constexpr int kValueAhead = M == 1 ? 8 : 4;

struct ValueArguments {
  const float *hidden;  // [M][inputs]
  const void *weights;  // float: [inputs][outputs]; packed: panels (native/src/formats.h)
  float *partial;       // [splits][M][panels * 128]
  u32 *finished;        // [panels] blocks that are done; zero before and after
  const float *gate;    // [M][outputs], null for none
  float *x;             // [M][outputs], added to
  int type, inputs, outputs, chunk;  // chunk: inputs of a block
};

// Where the weights of an input lie in a panel.
struct PanelView {
  const u8 *codes;
  const u8 *scales;
  i64 line;  // bytes from one input to the next
};

DEVICE PanelView panel_of(const ValueArguments &args, int panel) {
  const u8 *base = static_cast<const u8 *>(args.weights);
  if (args.type < kQ8) {
    const int bytes = args.type == kF32 ? 4 : 2;
    return {base + static_cast<i64>(panel) * kPanel * bytes, nullptr, static_cast<i64>(args.outputs) * bytes};
  }
  const int width = smaller(kPanel, (args.outputs - panel * kPanel + 31) / 32 * 32);
  const i64 codes = args.type == kQ8 ? kPanel : kPanel / 2, scales = kPanel / 32 * 2;
  const i64 whole = ((codes + scales) * args.inputs + 63) / 64 * 64;
  const u8 *start = base + panel * whole;
  const i64 line = args.type == kQ8 ? width : width / 2;
  return {start, start + line * args.inputs, line};
}

// The weights of one input for 8 outputs, as they were loaded.
struct Raw {
  uint4 a, b;
  u32 scale;
};

template <int T>
DEVICE Raw load_raw(const PanelView &view, i64 input, int column, int width) {
  Raw raw = {};
  if (T == kF32) {
    raw.a = stream16(view.codes + input * view.line + column * 4);
    raw.b = stream16(view.codes + input * view.line + column * 4 + 16);
  } else if (T < kQ8) {
    raw.a = stream16(view.codes + input * view.line + column * 2);
  } else {
    if (T == kQ8) {
      const uint2 codes = stream8(view.codes + input * view.line + column);
      raw.a.x = codes.x, raw.a.y = codes.y;
    } else {  // 16 bytes for 32 outputs: low nibbles the first 16
      const uint2 codes = stream8(view.codes + input * view.line + column / 32 * 16 + column % 16);
      raw.a.x = codes.x, raw.a.y = codes.y;
    }
    raw.scale = reinterpret_cast<const u16 *>(view.scales)[input * (width / 32) + column / 32];
  }
  return raw;
}

constexpr u32 kMagic = 0x4b000000u;  // 2^23, under which a byte counts by ones

// Byte i of four that are signed but for their highest bit, which is turned.
DEVICE float byte_value(u32 word, int i) {
  return as_float(__byte_perm(word, kMagic, 0x7440u | static_cast<u32>(i))) - 8388736.0f;
}

template <int T>
DEVICE void weights_of(const Raw &raw, int column, float (&w)[8]) {
  const u32 words[8] = {raw.a.x, raw.a.y, raw.a.z, raw.a.w, raw.b.x, raw.b.y, raw.b.z, raw.b.w};
  if (T == kF32) {
    UNROLL
    for (int i = 0; i < 8; i++) w[i] = as_float(words[i]);
  } else if (T < kQ8) {
    UNROLL
    for (int i = 0; i < 4; i++) {
      const u16 low = static_cast<u16>(words[i] & 0xffffu), high = static_cast<u16>(words[i] >> 16);
      w[2 * i] = T == kBF16 ? from_bf16(low) : from_f16(low);
      w[2 * i + 1] = T == kBF16 ? from_bf16(high) : from_f16(high);
    }
  } else {
    const float scale = from_f16(static_cast<u16>(raw.scale));
    u32 codes[2];
    if (T == kQ8) {
      codes[0] = words[0] ^ 0x80808080u, codes[1] = words[1] ^ 0x80808080u;
    } else {
      const u32 shift = column % 32 < 16 ? 0 : 4;
      UNROLL
      for (int i = 0; i < 2; i++) {
        const u32 nibbles = (words[i] >> shift) & 0x0f0f0f0fu;  // one a byte: bring them together
        codes[i] = four_codes(((nibbles | nibbles >> 4) & 0xffu) | ((nibbles >> 8 | nibbles >> 12) & 0xff00u)) ^ 0x80808080u;
      }
    }
    UNROLL
    for (int i = 0; i < 8; i++) w[i] = byte_value(codes[i / 4], i % 4) * scale;
  }
}

// Sums the inputs begin .. end (of `hidden` in shared memory) whose remainder by kTeams is this team's.
template <int M, int T>
DEVICE void sum_inputs(const ValueArguments &args, const float *hidden, int begin, int end, int panel,
                       float (&sums)[M][8]) {
  const PanelView view = panel_of(args, panel);
  const int team = static_cast<int>(threadIdx.x) / kLanes, place = static_cast<int>(threadIdx.x) % kLanes;
  const int width = smaller(kPanel, (args.outputs - panel * kPanel + 31) / 32 * 32), column = 8 * place;
  const bool mine = column < width;
  constexpr int kAhead = kValueAhead<M>;
  for (int base = begin; base < end; base += kLooked) {
    u32 found = 0;  // bit i: input base + i * kTeams + team
    UNROLL
    for (int half = 0; half < 2; half++) {
      const int looked = base + (half * kLanes + place) * kTeams + team;
      bool any = false;
      UNROLL
      for (int m = 0; m < M; m++) any |= looked < end && hidden[m * args.chunk + looked - begin] != 0;
      found |= ((__ballot_sync(kAllLanes, any) >> (lane() & kLanes)) & 0xffffu) << half * kLanes;
    }
    if (!mine) found = 0;
    while (found) {
      Raw raw[kAhead];
      int input[kAhead];
      UNROLL
      for (int i = 0; i < kAhead; i++) {
        input[i] = found ? base + (__ffs(static_cast<int>(found)) - 1) * kTeams + team : -1;
        found &= found - 1;
        if (input[i] >= 0) raw[i] = load_raw<T>(view, input[i], column, width);
      }
      UNROLL
      for (int i = 0; i < kAhead; i++) {
        if (input[i] < 0) continue;
        float w[8];
        weights_of<T>(raw[i], column, w);
        UNROLL
        for (int m = 0; m < M; m++) {
          const float h = hidden[m * args.chunk + input[i] - begin];
          UNROLL
          for (int o = 0; o < 8; o++) sums[m][o] = fmaf(w[o], h, sums[m][o]);
        }
      }
    }
  }
}

// Adds up what the teams of the block have, in shared memory: [M][128] of them to `out`.
template <int M>
DEVICE void sum_teams(const float (&sums)[M][8], float *scratch, float *out, i64 stride) {
  const int place = static_cast<int>(threadIdx.x) % kLanes;
  UNROLL
  for (int m = 0; m < M; m++) {
    UNROLL
    for (int o = 0; o < 8; o++) {
      const float both = sums[m][o] + __shfl_xor_sync(kAllLanes, sums[m][o], kLanes);
      if (lane() < kLanes) scratch[(warp() * M + m) * kPanel + 8 * place + o] = both;
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < M * kPanel; i += kValueThreads) {
    float sum = 0;
    for (int w = 0; w < kValueThreads / kWarp; w++) sum += scratch[w * M * kPanel + i];
    out[i / kPanel * stride + i % kPanel] = sum;
  }
}

// The sum of what the blocks of a panel have left, in their order.
DEVICE float sum_splits(const float *partial, i64 pass, int splits) {
  constexpr int kTogether = 16;
  float sum = 0;
  for (int first = 0; first < splits; first += kTogether) {
    float parts[kTogether];
    UNROLL
    for (int i = 0; i < kTogether; i++) parts[i] = first + i < splits ? fresh(partial + (first + i) * pass) : 0.0f;
    UNROLL
    for (int i = 0; i < kTogether; i++) sum += parts[i];
  }
  return sum;
}

template <int M>
DEVICE void value(const ValueArguments &args) {
  release_next();
  await_previous();
  const int panel = static_cast<int>(blockIdx.x), split = static_cast<int>(blockIdx.y);
  const int begin = split * args.chunk, end = smaller(args.inputs, begin + args.chunk);
  Carve carve;
  float *hidden = carve.take<float>(M * args.chunk);
  float *scratch = carve.take<float>(kValueThreads / kWarp * M * kPanel);
  int *last = carve.take<int>(1);
  for (int m = 0; m < M; m++) {  // chunks and inputs are multiples of 16
    for (int i = 4 * static_cast<int>(threadIdx.x); i < end - begin; i += 4 * kValueThreads)
      store4(hidden + m * args.chunk + i, load4(args.hidden + static_cast<i64>(m) * args.inputs + begin + i));
  }
  __syncthreads();
  float sums[M][8] = {};
  switch (args.type) {
    case kF32: if constexpr (kCompiled<kF32>) sum_inputs<M, kF32>(args, hidden, begin, end, panel, sums); break;
    case kBF16: if constexpr (kCompiled<kBF16>) sum_inputs<M, kBF16>(args, hidden, begin, end, panel, sums); break;
    case kF16: if constexpr (kCompiled<kF16>) sum_inputs<M, kF16>(args, hidden, begin, end, panel, sums); break;
    case kQ8: if constexpr (kCompiled<kQ8>) sum_inputs<M, kQ8>(args, hidden, begin, end, panel, sums); break;
    default: if constexpr (kCompiled<kQ4>) sum_inputs<M, kQ4>(args, hidden, begin, end, panel, sums);
  }
  const int splits = static_cast<int>(gridDim.y);
  const i64 stride = static_cast<i64>(gridDim.x) * kPanel, pass = M * stride;
  sum_teams<M>(sums, scratch, args.partial + split * pass + panel * kPanel, stride);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // what this block has written is seen before it is counted,
    *last = atomicAdd(args.finished + panel, 1u) == static_cast<u32>(splits - 1);
    __threadfence();  // and what the others have written after they are
  }
  __syncthreads();
  if (!*last) return;
  if (threadIdx.x == 0) args.finished[panel] = 0;
  for (int i = static_cast<int>(threadIdx.x); i < M * kPanel; i += kValueThreads) {
    const int m = i / kPanel, output = panel * kPanel + i % kPanel;
    if (output >= args.outputs) continue;
    const i64 at = static_cast<i64>(m) * args.outputs + output;
    const float before = args.x[at], gate = args.gate ? args.gate[at] : 1.0f;
    args.x[at] = fmaf(gate, sum_splits(args.partial + m * stride + output, pass, splits), before);
  }
}

KERNEL(value_1, ValueArguments, kValueThreads) { value<1>(args); }
KERNEL(value_2, ValueArguments, kValueThreads) { value<2>(args); }
KERNEL(value_4, ValueArguments, kValueThreads) { value<4>(args); }
KERNEL(value_8, ValueArguments, kValueThreads) { value<8>(args); }
