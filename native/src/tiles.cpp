#include "tiles.h"

#include <cmath>
#include <cstring>

#include "half.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace rwkv {
namespace {

template <typename T, typename Convert>
void load_as(const uint8_t *from, int64_t count, float *to, Convert convert) {
  for (int64_t j = 0; j < count; j++) {
    T x;
    memcpy(&x, from + j * static_cast<int64_t>(sizeof x), sizeof x);
    to[j] = convert(x);
  }
}

template <typename T, typename Convert>
void store_as(const float *from, int64_t count, uint8_t *to, Convert convert) {
  for (int64_t j = 0; j < count; j++) {
    const T x = convert(from[j]);
    memcpy(to + j * static_cast<int64_t>(sizeof x), &x, sizeof x);
  }
}

// Turns lines of `inner` numbers into lines of `outer` ones, in squares that stay in the first cache.
void turn(const float *from, int64_t from_stride, int64_t outer, int64_t inner, float *to,
          int64_t to_stride) {
  for (int64_t a = 0; a < outer; a += 8) {
    const int64_t end = a + 8 < outer ? a + 8 : outer;
    for (int64_t b = 0; b < inner; b++) {
      for (int64_t i = a; i < end; i++) to[b * to_stride + i] = from[i * from_stride + b];
    }
  }
}

#if defined(__SSE2__)
// Eight lines of eight 16-bit elements: line i of the result is column i.
inline void turn_square(const uint8_t *from, int64_t from_stride, uint8_t *to, int64_t to_stride) {
  __m128i a[8], b[8];
  for (int i = 0; i < 8; i++) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i * from_stride));
  for (int i = 0; i < 4; i++) {  // pairs of lines i and i + 4, of columns 0-3 and 4-7
    b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
    b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
  }
  for (int i = 0; i < 4; i++) {
    a[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
    a[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
  }
  for (int i = 0; i < 4; i++) {
    b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
    b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
  }
  for (int i = 0; i < 8; i++) _mm_storeu_si128(reinterpret_cast<__m128i *>(to + i * to_stride), b[i]);
}
#else
inline void turn_square(const uint8_t *from, int64_t from_stride, uint8_t *to, int64_t to_stride) {
  for (int i = 0; i < 8; i++) {
    for (int j = 0; j < 8; j++) memcpy(to + i * to_stride + 2 * j, from + j * from_stride + 2 * i, 2);
  }
}
#endif

}  // namespace

void load_line(const uint8_t *from, int32_t type, int64_t count, float *to) {
  switch (type) {
    case RWKV_F32:
      memcpy(to, from, static_cast<size_t>(count) * sizeof *to);
      break;
    case RWKV_BF16:
      load_as<uint16_t>(from, count, to, from_bf16);
      break;
    case RWKV_F16:
      load_as<uint16_t>(from, count, to, from_f16);
      break;
    default:
      load_as<double>(from, count, to, [](double x) { return static_cast<float>(x); });
  }
}

bool store_line(const float *from, int32_t type, int64_t count, uint8_t *to, Squares *sums) {
  if (type == RWKV_F32) {
    memcpy(to, from, static_cast<size_t>(count) * sizeof *from);
  } else if (type == RWKV_BF16) {
    store_as<uint16_t>(from, count, to, to_bf16);
  } else {
    store_as<uint16_t>(from, count, to, to_f16);
    float most = 0;
    for (int64_t j = 0; j < count; j++) {
      const float magnitude = std::fabs(from[j]);
      most = magnitude > most && magnitude <= 3.402823466e38f ? magnitude : most;
    }
    if (most >= 65520.0f) return false;
  }
  for (int64_t j = 0; sums && j < count; j++) {
    float decoded;
    load_line(to + j * element_bytes(type), type, 1, &decoded);
    const double x = from[j], off = x - static_cast<double>(decoded);
    if (!std::isfinite(x)) continue;
    sums->source += x * x;
    sums->error += off * off;
  }
  return true;
}

void read_by_input(const Source &source, int64_t output, int64_t outputs, int64_t input, int64_t inputs,
                   float *tile, int64_t stride) {
  if (source.transposed) {
    for (int64_t i = 0; i < inputs; i++) {
      load_line(source.at(output, input + i), source.type, outputs, tile + i * stride);
    }
    return;
  }
  float lines[kPanel * kTileInputs];
  for (int64_t o = 0; o < outputs; o++) {
    load_line(source.at(output + o, input), source.type, inputs, lines + o * kTileInputs);
  }
  turn(lines, kTileInputs, outputs, inputs, tile, stride);
}

void read_by_output(const Source &source, int64_t output, int64_t outputs, int64_t input,
                    int64_t inputs, float *tile, int64_t stride) {
  if (!source.transposed) {
    for (int64_t o = 0; o < outputs; o++) {
      load_line(source.at(output + o, input), source.type, inputs, tile + o * stride);
    }
    return;
  }
  float lines[kPanel * kTileInputs];
  for (int64_t i = 0; i < inputs; i++) {
    load_line(source.at(output, input + i), source.type, outputs, lines + i * kPanel);
  }
  turn(lines, kPanel, inputs, outputs, tile, stride);
}

void turn_halves(const Source &source, int64_t output, int64_t outputs, int64_t input, int64_t inputs,
                 uint8_t *to, int64_t width) {
  const int64_t from_stride = source.cols * 2, to_stride = width * 2;
  const int64_t squares = inputs / 8 * 8;
  for (int64_t o = 0; o < outputs; o += 8) {
    const bool whole = o + 8 <= outputs;
    for (int64_t i = 0; whole && i < squares; i += 8) {
      turn_square(source.at(output + o, input + i), from_stride, to + i * to_stride + o * 2, to_stride);
    }
    const int64_t end = whole ? o + 8 : outputs;
    for (int64_t i = whole ? squares : 0; i < inputs; i++) {
      for (int64_t row = o; row < end; row++) {
        memcpy(to + i * to_stride + row * 2, source.at(output + row, input + i), 2);
      }
    }
  }
}

}  // namespace rwkv
