// The encoders of groups.h, in vectors as wide as the compiler's flags allow. Included only by the files
// groups_*.cpp, each inside its own namespace. All of them compute the same bits.

constexpr int kN = static_cast<int>(kGroup);
constexpr int kSteps = 15;
constexpr int32_t kInfinity = 0x7f800000;

// Where one code ends and the next begins, doubled to be whole: twice the mean of both.
constexpr int16_t kEdge2[] = {-231, -187, -148, -114, -84, -57, -32, -9, 14, 38, 63, 91, 122, 158, 202};
// The last whole unit that belongs to the lower one.
constexpr int8_t kLast[] = {-116, -94, -75, -58, -43, -29, -17, -5, 6, 18, 31, 45, 60, 78, 100};
constexpr int8_t kRise[] = {23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24};

#if defined(__AVX2__)
constexpr int kVector = 32;
#else
constexpr int kVector = 16;
#endif
typedef int8_t Bytes __attribute__((vector_size(kVector)));
typedef int16_t Shorts __attribute__((vector_size(kVector)));
typedef int32_t Ints __attribute__((vector_size(kVector)));
// Of one size everywhere, so that sums are added in one order.
constexpr int kSums = 8;
typedef float Floats __attribute__((vector_size(kSums * 4)));

// What the group's largest number is tried as, in units of the codebook, on either end of it. Beyond
// the end means that it is cut to the end, so that the others fall on finer steps.
constexpr int kTries[] = {-116, -121, -127, -132, -138, -144, -151, 100, 104, 108, 113, 118, 124, 131};

// The bits of the largest magnitude: as integers, magnitudes have the order of their numbers, and a
// NaN is above infinity.
inline int32_t largest(const float *x) {
  Ints most = {};
  for (int j = 0; j < kN; j += kVector / 4) {
    Ints magnitude;
    memcpy(&magnitude, x + j, sizeof magnitude);
    magnitude &= 0x7fffffff;
    const Ints more = magnitude > most;
    most = (magnitude & more) | (most & ~more);
  }
  int32_t result = 0;
  for (int l = 0; l < kVector / 4; l++) result = most[l] > result ? most[l] : result;
  return result;
}

// Rounds numbers below 2^21 to the nearest integer: 1.5 * 2^23 leaves no bits for a fraction.
inline int32_t nearest(float x) {
  return static_cast<int32_t>(bits_of(x + 12582912.0f) - bits_of(12582912.0f));
}

inline float total(const Floats &v) {
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

// What codes times a scale miss, and what they are along the numbers. A number whose group has a scale
// lies between 1e-12 and 1e7 of either sign or does not count, so float32 holds the squares.
struct Match {
  float source, error;  // squares
  float along, length;  // sum of number * weight, of weight^2
};

inline Match match(const float *x, const int16_t *weights, float scale) {
  Floats source = {}, error = {}, along = {}, length = {};
  float converted[kN];
  for (int j = 0; j < kN; j++) converted[j] = weights[j];
  for (int j = 0; j < kN; j += kSums) {
    Floats number, weight;
    memcpy(&number, x + j, sizeof number);
    memcpy(&weight, converted + j, sizeof weight);
    const Floats off = number - weight * scale;
    source += number * number;
    error += off * off;
    along += number * weight;
    length += weight * weight;
  }
  return {total(source), total(error), total(along), total(length)};
}

inline void add(const Match &match, Squares *sums) {
  sums->source += static_cast<double>(match.source);
  sums->error += static_cast<double>(match.error);
}

// The group when its scale is zero: codes of zero, or of what is next to it.
inline void encode_zero(const float *x, int8_t code, Group *group, Squares *sums) {
  group->scale = 0;
  for (int j = 0; j < kN; j++) {
    const double square = static_cast<double>(x[j]) * static_cast<double>(x[j]);
    group->code[j] = code;
    sums->source += square;
    sums->error += square;
  }
}

inline Encoded encode_q8(const float *x, Group *group, Squares *sums) {
  const int32_t most = largest(x);
  if (most >= kInfinity) return Encoded::kNotFinite;
  group->scale = to_f16(float_of(static_cast<uint32_t>(most)) / 127.0f);
  if (group->scale >= 0x7c00) return Encoded::kTooLarge;
  if (group->scale == 0) {
    encode_zero(x, 0, group, sums);
    return Encoded::kFine;
  }
  const float scale = from_f16(group->scale), inverse = 1.0f / scale;
  int16_t codes[kN];
  for (int j = 0; j < kN; j++) {
    int32_t code = nearest(x[j] * inverse);
    code = code > 127 ? 127 : code;
    codes[j] = static_cast<int16_t>(code < -127 ? -127 : code);
  }
  for (int j = 0; j < kN; j++) group->code[j] = static_cast<int8_t>(codes[j]);
  add(match(x, codes, scale), sums);
  return Encoded::kFine;
}

// How well the codebook fits when a number of 32767 counts as `as` in its units: the square of
// `along` divided by `length` is what the best scale for these codes takes off the error.
struct Fit {
  int32_t along;   // sum of number * code
  int32_t length;  // sum of code^2, never zero: no code stands for zero
};

// The steps of the codebook as whole vectors in memory, where comparisons read them at no cost; the
// compiler would make each from a number again and again.
struct Steps {
  Bytes last[kSteps], rise[kSteps];

  Steps() {
    for (int i = 0; i < kSteps; i++) {
      last[i] = Bytes{} + kLast[i];
      rise[i] = Bytes{} + kRise[i];
    }
  }
};

inline Fit try_scale(const int16_t *x, int as, const Steps &steps) {
  // Rounded down to whole units: half of the edges move by half a unit, which a search can bear.
  const int16_t twice = static_cast<int16_t>(2 * as);
  int8_t units[kN], weights[kN];
  for (int j = 0; j < kN; j++) {
    int16_t y = static_cast<int16_t>((x[j] * twice) >> 16);
    y = y > 127 ? int16_t{127} : y;
    y = y < -128 ? int16_t{-128} : y;
    units[j] = static_cast<int8_t>(y);
  }
  for (int j = 0; j < kN; j += kVector) {
    Bytes y, weight = Bytes{} + kCodebook[0];
    memcpy(&y, units + j, sizeof y);
    for (int i = 0; i < kSteps; i++) weight += (y > steps.last[i]) & steps.rise[i];
    memcpy(weights + j, &weight, sizeof weight);
  }
  int16_t wide[kN];
  Fit fit{0, 0};
  for (int j = 0; j < kN; j++) wide[j] = weights[j];
  for (int j = 0; j < kN; j++) fit.along += x[j] * wide[j];
  for (int j = 0; j < kN; j++) fit.length += wide[j] * wide[j];
  return fit;
}

// The scale, in units of 1/32767 of the largest number, that the best of kTries leads to.
inline double search_scale(const int16_t *x, const Steps &steps) {
  int16_t most = 0, least = 0;
  for (int j = 0; j < kN; j++) most = x[j] > most ? x[j] : most;
  for (int j = 0; j < kN; j++) least = x[j] < least ? x[j] : least;
  const int sign = most >= -least ? 1 : -1;
  Fit fits[std::size(kTries)];
  double taken[std::size(kTries)];
  for (size_t i = 0; i < std::size(kTries); i++) fits[i] = try_scale(x, sign * kTries[i], steps);
  for (size_t i = 0; i < std::size(kTries); i++) {
    taken[i] = static_cast<double>(fits[i].along) * fits[i].along / fits[i].length;
  }
  size_t best = 0;
  for (size_t i = 1; i < std::size(kTries); i++) best = taken[i] > taken[best] ? i : best;
  return static_cast<double>(fits[best].along) / fits[best].length;
}

struct Trial {
  Group group;
  Match match;
};

// Gives each number the code that is nearest under a scale.
inline void encode_with(const float *x, uint16_t half, Trial *trial) {
  const float scale = from_f16(half), inverse = 2.0f / scale;
  int16_t above[kN], index[kN], weight[kN];
  for (int j = 0; j < kN; j++) {
    const float twice = x[j] * inverse;
    const int32_t whole = nearest(twice);
    above[j] = static_cast<int16_t>(whole + (twice > static_cast<float>(whole) ? 1 : 0));
  }
  for (int j = 0; j < kN; j += kVector / 2) {
    Shorts y, found = {}, value = Shorts{} + kCodebook[0];
    memcpy(&y, above + j, sizeof y);
    for (int i = 0; i < kSteps; i++) {
      const Shorts beyond = y > kEdge2[i];
      found -= beyond;
      value += beyond & kRise[i];
    }
    memcpy(index + j, &found, sizeof found);
    memcpy(weight + j, &value, sizeof value);
  }
  for (int j = 0; j < kN; j++) trial->group.code[j] = static_cast<int8_t>(index[j]);
  trial->group.scale = half;
  trial->match = match(x, weight, scale);
}

inline bool is_scale(uint16_t half) { return (half & 0x7fff) != 0 && (half & 0x7fff) < 0x7c00; }

inline Encoded encode_q4(const float *x, const Steps &steps, Group *group, Squares *sums) {
  const int32_t bits = largest(x);
  if (bits >= kInfinity) return Encoded::kNotFinite;
  const float most = float_of(static_cast<uint32_t>(bits));
  if (to_f16(most / 127.0f) == 0) {
    encode_zero(x, 8, group, sums);
    return Encoded::kFine;
  }
  int16_t numbers[kN];
  const float unit = 32767.0f / most;
  for (int j = 0; j < kN; j++) numbers[j] = static_cast<int16_t>(nearest(x[j] * unit));
  const double found = search_scale(numbers, steps) * static_cast<double>(most) / 32767.0;
  Trial best, other;
  uint16_t half = to_f16(static_cast<float>(found));
  if ((half & 0x7fff) >= 0x7c00) return Encoded::kTooLarge;
  if (!is_scale(half)) half = to_f16(most / 127.0f);
  encode_with(x, half, &best);
  for (int round = 0; round < 2; round++) {
    half = to_f16(best.match.along / best.match.length);  // the scale that suits these codes best
    if (half == best.group.scale || !is_scale(half)) break;
    encode_with(x, half, &other);
    if (other.match.error >= best.match.error) break;
    best = other;
  }
  *group = best.group;
  add(best.match, sums);
  return Encoded::kFine;
}

Encoded encode(int32_t type, const float *x, int64_t count, Group *groups, Squares *sums) {
  static const Steps steps;
  Encoded outcome = Encoded::kFine;
  for (int64_t g = 0; g < count && outcome == Encoded::kFine; g++) {
    outcome = type == RWKV_Q8 ? encode_q8(x + g * kGroup, groups + g, sums)
                              : encode_q4(x + g * kGroup, steps, groups + g, sums);
  }
  return outcome;
}
