// The rows path: planes made of one product alone, element by element.
#pragma once

#include "rows.cuh"

constexpr int kSegments = 5;
constexpr int kPlaneAlign = 8;  // elements; lines of a plane that begin at 16 bytes suit tensor cores

// --- rows_activate -------------------------------------------------------------------------------------

// The activation of some columns of a product. The plane is [rows][width rounded up to kPlaneAlign], and
// zero in the columns that the product does not have.
struct Segment {
  const float *in;
  void *plane;
  i64 stride;  // from a row of `in` to the next, in floats
  int width, activation;
};

struct RowsActivateArguments {
  Segment segment[kSegments];  // gridDim.y of them
  int rows, plane_type;
};

KERNEL(rows_activate, RowsActivateArguments, kRowThreads) {
  release_next();
  await_previous();
  const Segment &segment = args.segment[blockIdx.y];
  const int width = segment.width, padded = pieces(width, kPlaneAlign) * kPlaneAlign;
  const i64 step = static_cast<i64>(gridDim.x) * warps();
  for (i64 row = static_cast<i64>(blockIdx.x) * warps() + warp(); row < args.rows; row += step) {
    const float *in = segment.in + row * segment.stride;
    for (int c = lane(); c < padded; c += kWarp) {
      const float x = c < width ? activate(segment.activation, in[c]) : 0.0f;
      write(segment.plane, args.plane_type, row * padded + c, x);
    }
  }
}

// --- rows_relu2 ----------------------------------------------------------------------------------------

// relu(x)^2, which float16 may not be able to hold: a row is first multiplied by a power of two that brings
// its largest number to between 2^11 and 2^12. Its product must be multiplied by scale[row].
struct RowsRelu2Arguments {
  const float *in;  // [rows][width]
  void *plane;
  float *scale;
  int rows, width, plane_type;
};

// The most of the whole block's numbers; every thread gets it. `scratch` has room for warps() floats.
DEVICE float max_block(float x, float *scratch) {
  x = max_lanes(x);
  __syncthreads();  // whoever still reads the scratch of the row before
  if (lane() == 0) scratch[warp()] = x;
  __syncthreads();
  for (int w = 0; w < warps(); w++) x = fmaxf(x, scratch[w]);
  return x;
}

DEVICE float4 relu2_4(float4 x) {
  return four(activate(kSquaredRelu, x.x), activate(kSquaredRelu, x.y), activate(kSquaredRelu, x.z),
              activate(kSquaredRelu, x.w));
}

// The exponent e of the power of two that a row is divided by, 2^e, given its largest number.
DEVICE int row_exponent(float largest, int plane_type) {
  if (plane_type == kF32 || largest == 0.0f) return 0;
  // largest < 2^(biased - 126). Below 2^-114 neither power would be a normal number any more.
  const int biased = larger(static_cast<int>(as_bits(largest) >> 23), 12);
  return biased - 126 - 12;
}
DEVICE float power_of_two(int e) { return as_float(static_cast<u32>(e + 127) << 23); }

KERNEL(rows_relu2, RowsRelu2Arguments, kRowThreads) {
  release_next();
  await_previous();
  Carve carve;
  float *scratch = carve.take<float>(warps());
  const int first = 4 * static_cast<int>(threadIdx.x), step = 4 * static_cast<int>(blockDim.x);
  for (i64 row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const i64 at = row * args.width;
    float largest = 0;
    for (int c = first; c < args.width; c += step) {
      const float4 x = relu2_4(load4(args.in + at + c));
      largest = fmaxf(largest, fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w)));
    }
    const int e = row_exponent(max_block(largest, scratch), args.plane_type);
    const float shrink = power_of_two(-e);
    for (int c = first; c < args.width; c += step)
      write4(args.plane, args.plane_type, at + c, mul4(shrink, relu2_4(load4(args.in + at + c))));
    if (threadIdx.x == 0) args.scale[row] = power_of_two(e);
  }
}
