// Half precisions: all 65,536 of each against the formats' definitions, and rounding against
// doubles.
#include "check.h"
#include "half.h"

namespace {

// A float16 by its definition (IEEE 754, binary16), a bfloat16 by its own.
double value(uint32_t h, int exponent_bits, int fraction_bits) {
  const uint32_t fraction = h & ((1u << fraction_bits) - 1);
  const uint32_t exponent = (h >> fraction_bits) & ((1u << exponent_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const double sign = h >> (exponent_bits + fraction_bits) ? -1 : 1;
  if (static_cast<int>(exponent) == top)
    return fraction ? static_cast<double>(NAN) : sign * static_cast<double>(INFINITY);
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fraction + (1u << fraction_bits),
                           static_cast<int>(exponent) - bias - fraction_bits);
}

struct Format {
  int exponent_bits, fraction_bits;
  float (*widen)(uint16_t);
  uint16_t (*narrow)(float);
};

void widening(const Format &format) {
  for (uint32_t h = 0; h < 65536; h++) {
    const double expected = value(h, format.exponent_bits, format.fraction_bits);
    const double got = static_cast<double>(format.widen(static_cast<uint16_t>(h)));
    if (std::isnan(expected)) {
      CHECK(std::isnan(got));
      CHECK(std::isnan(format.widen(format.narrow(static_cast<float>(got)))));
    } else {
      CHECK(got == expected && std::signbit(got) == std::signbit(expected));
      CHECK(format.narrow(static_cast<float>(got)) == h);
    }
  }
}

// Between two neighbours lies a number that goes to the nearer one, and in the middle to the even
// one.
void rounding(const Format &format, uint32_t finite) {
  for (uint32_t h = 0; h + 1 < finite; h++) {
    const double low = value(h, format.exponent_bits, format.fraction_bits);
    const double high = value(h + 1, format.exponent_bits, format.fraction_bits);
    const float middle = static_cast<float>((low + high) / 2);
    CHECK(format.narrow(middle) == (h & 1 ? h + 1 : h));
    CHECK(format.narrow(-middle) == ((h & 1 ? h + 1 : h) | 0x8000u));
    CHECK(format.narrow(std::nextafter(middle, 0.0f)) == h);
    CHECK(format.narrow(std::nextafter(middle, INFINITY)) == h + 1);
  }
}

}  // namespace

int main() {
  const Format f16{5, 10, rwkv::from_f16, rwkv::to_f16}, bf16{8, 7, rwkv::from_bf16, rwkv::to_bf16};
  widening(f16);
  widening(bf16);
  rounding(f16, 0x7c00);
  rounding(bf16, 0x7f80);
  CHECK(rwkv::to_f16(65519.996f) == 0x7bff);
  CHECK(rwkv::to_f16(65520.0f) == 0x7c00);
  CHECK(rwkv::to_f16(1e30f) == 0x7c00);
  CHECK(rwkv::to_f16(-INFINITY) == 0xfc00);
  CHECK(rwkv::to_bf16(3.4e38f) == 0x7f80);
  return test::report("half");
}
