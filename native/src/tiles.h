// Reads and writes pieces of float matrices in any precision, turned where needed.
#pragma once

#include <cstdint>

#include "formats.h"
#include "groups.h"

namespace rwkv {

// A row-major matrix of `rows` outputs and `cols` inputs, or with inputs as rows where `transposed`;
// its elements may lie at any address.
struct Source {
  const uint8_t *data;
  int32_t type;
  bool transposed;
  int64_t rows, cols;

  const uint8_t *at(int64_t output, int64_t input) const {
    const int64_t place = transposed ? input * rows + output : output * cols + input;
    return data + place * element_bytes(type);
  }
};

constexpr int64_t kTileInputs = 32;

// Converts `count` elements that lie together.
void load_line(const uint8_t *from, int32_t type, int64_t count, float *to);

// Writes `count` numbers as F32, BF16 or F16 and adds to the sums, where they are not null. False when
// a finite number is beyond float16.
bool store_line(const float *from, int32_t type, int64_t count, uint8_t *to, Squares *sums);

// Reads `outputs` x `inputs` numbers from (output, input) on into a zeroed tile, whose lines are
// `stride` long: one for each input, or for each output. At most 128 outputs and kTileInputs inputs.
void read_by_input(const Source &source, int64_t output, int64_t outputs, int64_t input, int64_t inputs,
                   float *tile, int64_t stride);
void read_by_output(const Source &source, int64_t output, int64_t outputs, int64_t input,
                    int64_t inputs, float *tile, int64_t stride);

// Copies 16-bit elements of rows [output, output + outputs) and columns [input, input + inputs) of a
// matrix that is not transposed to lines of `width` outputs, one for each input.
void turn_halves(const Source &source, int64_t output, int64_t outputs, int64_t input, int64_t inputs,
                 uint8_t *to, int64_t width);

}  // namespace rwkv
