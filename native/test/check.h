// A test is a program: it checks, prints what fails, and ends with the number of failures.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "rwkv_native.h"

namespace test {

inline std::atomic<int> checks{0}, failures{0};  // threads of a pool check as well

inline bool check(bool good, const char *what, const char *file, int line) {
  checks++;
  if (!good && ++failures <= 20) std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
  return good;
}

// Whether an error is within a bound; prints both when it is not.
inline bool within(double error, double bound, const std::string &what, const char *file,
                   int line) {
  if (error <= bound) return check(true, "", file, line);
  return check(false, (what + ": " + std::to_string(error) + " > " + std::to_string(bound)).c_str(),
               file, line);
}

// Whether a call of the library was refused with this code and a sentence.
inline bool refused(int64_t code, int64_t expected, const char *what, const char *file, int line) {
  const char *sentence = rwkv_last_error();
  return check(code == expected && sentence && std::strlen(sentence) > 8, what, file, line);
}

inline int report(const char *name) {
  std::printf("%s: %d checks, %d failures\n", name, checks.load(), failures.load());
  return failures ? 1 : 0;
}

// Numbers that are the same everywhere: the standard's distributions differ between libraries.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t below(uint32_t n) { return engine_() % n; }
  float uniform() { return static_cast<float>(engine_() >> 8) * 0x1p-24f; }
  // About normal: mean 0, variance 1.
  float normal() {
    float sum = 0;
    for (int i = 0; i < 12; i++) sum += uniform();
    return sum - 6;
  }
  std::vector<float> normals(int64_t count, float scale = 1, float mean = 0) {
    std::vector<float> all(static_cast<size_t>(count));
    for (float &x : all) x = normal() * scale + mean;
    return all;
  }

 private:
  std::mt19937 engine_;
};

// ||a - b|| / ||b||
template <typename A, typename B>
double distance(const A *a, const B *b, int64_t count) {
  double difference = 0, whole = 0;
  for (int64_t i = 0; i < count; i++) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    difference += (x - y) * (x - y);
    whole += y * y;
  }
  return difference == 0 ? 0 : std::sqrt(difference / whole);
}

}  // namespace test

#define CHECK(condition) test::check(condition, #condition, __FILE__, __LINE__)
#define WITHIN(error, bound, what) test::within(error, bound, what, __FILE__, __LINE__)
#define REFUSED(call, code) test::refused(call, code, #call, __FILE__, __LINE__)
