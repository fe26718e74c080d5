// The recurrences of every instruction set against their formulas in double precision.
#include "check.h"
#include "kernels.h"

namespace {

using rwkv::Kernels;
using Floats = std::vector<float>;

constexpr int64_t kTokens = 37;
constexpr double kEps = 64e-5;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// y normalized over a head, in place.
void normalize(std::vector<double> &y, const Floats &weight, const Floats &bias) {
  const auto n = static_cast<double>(y.size());
  double mean = 0, variance = 0;
  for (double v : y) mean += v / n;
  for (double v : y) variance += (v - mean) * (v - mean) / n;
  for (size_t i = 0; i < y.size(); i++)
    y[i] = (y[i] - mean) / std::sqrt(variance + kEps) * static_cast<double>(weight[i]) +
           static_cast<double>(bias[i]);
}

// Vectors of `n` channels for every token, `stride` apart, as the model has them.
struct Tokens {
  int64_t stride;
  Floats data;
  Tokens(int64_t n, test::Random &random, float scale = 1, float mean = 0)
      : stride(n + 32), data(random.normals(kTokens * stride, scale, mean)) {}
  double at(int64_t t, int64_t j) const {
    return static_cast<double>(data[static_cast<size_t>(t * stride + j)]);
  }
};

void compare(const Kernels &k, const char *what, const Floats &y,
             const std::vector<double> &expected, int64_t n, int64_t stride) {
  for (int64_t t = 0; t < kTokens; t++)
    WITHIN(test::distance(y.data() + t * stride, expected.data() + t * n, n), 1e-5,
           std::string(k.name) + ", " + what + ", token " + std::to_string(t));
}

// RWKV-7: S = S (diag(w) - kappa^T (a * kappa)) + v^T k; y = S r, normalized, + (r . r_k k) v;
// gated.
void goose(const Kernels &k, int64_t n, bool first_layer) {
  test::Random random(static_cast<uint32_t>(n));
  const size_t size = static_cast<size_t>(n);
  const Tokens r(n, random), key(n, random), value(n, random), w(n, random), a(n, random),
      g(n, random), share(n, random);
  Tokens first(n, random);
  const Floats w0 = random.normals(n), a0 = random.normals(n), v0 = random.normals(n),
               k_k = random.normals(n, 0.3f, 1), k_a = random.normals(n, 0.3f, 1),
               r_k = random.normals(n), weight = random.normals(n, 0.2f, 1),
               bias = random.normals(n);
  Floats state = random.normals(n * n), y(static_cast<size_t>(kTokens * r.stride));
  std::vector<double> s(state.begin(), state.end()), expected;
  auto d = [](const Floats &v, int64_t j) {
    return static_cast<double>(v[static_cast<size_t>(j)]);
  };
  for (int64_t t = 0; t < kTokens; t++) {
    std::vector<double> decay(size), kappa(size), in(size), rate(size), v(size), out(size);
    double length = 0, bonus = 0;
    for (int64_t j = 0; j < n; j++) {
      const auto i = static_cast<size_t>(j);
      decay[i] = std::exp(-std::exp(-0.5) * sigmoid(d(w0, j) + w.at(t, j)));
      rate[i] = sigmoid(d(a0, j) + a.at(t, j));
      kappa[i] = key.at(t, j) * d(k_k, j);
      length += kappa[i] * kappa[i];
      in[i] = key.at(t, j) * (1 + (rate[i] - 1) * d(k_a, j));
      bonus += r.at(t, j) * in[i] * d(r_k, j);
      v[i] = value.at(t, j);
      if (!first_layer) v[i] += (first.at(t, j) - v[i]) * sigmoid(d(v0, j) + share.at(t, j));
    }
    for (double &x : kappa) x /= std::sqrt(length);
    for (size_t i = 0; i < size; i++) {
      double removed = 0;
      for (size_t j = 0; j < size; j++) removed += s[i * size + j] * kappa[j];
      for (size_t j = 0; j < size; j++) {
        s[i * size + j] = s[i * size + j] * decay[j] - removed * kappa[j] * rate[j] + v[i] * in[j];
        out[i] += s[i * size + j] * r.at(t, static_cast<int64_t>(j));
      }
    }
    normalize(out, weight, bias);
    for (size_t i = 0; i < size; i++)
      expected.push_back((out[i] + bonus * v[i]) * g.at(t, static_cast<int64_t>(i)));
  }
  const Floats kept = first.data;
  rwkv::Wkv7 args{};
  args.tokens = kTokens, args.stride = r.stride, args.size = n;
  args.r = r.data.data(), args.k = key.data.data(), args.v = value.data.data(),
  args.w = w.data.data(), args.a = a.data.data();
  args.g = g.data.data(), args.share = first_layer ? nullptr : share.data.data();
  args.w0 = w0.data(), args.a0 = a0.data(), args.v0 = v0.data(), args.k_k = k_k.data(),
  args.k_a = k_a.data(), args.r_k = r_k.data();
  args.ln_weight = weight.data(), args.ln_bias = bias.data(), args.first = first.data.data(),
  args.state = state.data(), args.y = y.data();
  k.wkv7(args);
  compare(k, "wkv7", y, expected, n, r.stride);
  WITHIN(test::distance(state.data(), s.data(), n * n), 1e-5,
         std::string(k.name) + ", the state of wkv7");
  if (!first_layer) CHECK(first.data == kept);
  for (int64_t t = 0; first_layer && t < kTokens; t++)
    for (int64_t j = 0; j < n; j++) CHECK(first.at(t, j) == value.at(t, j));
}

// RWKV-5 and 6: y = (S + v^T (u k)) r, normalized, gated; S = S diag(w) + v^T k.
void finch(const Kernels &k, int64_t n, bool moving_decay, bool gated) {
  test::Random random(static_cast<uint32_t>(n) + 1);
  const size_t size = static_cast<size_t>(n);
  const Tokens r(n, random), key(n, random), value(n, random), w(n, random), g(n, random);
  const Floats w0 = random.normals(n, 1, -2), u = random.normals(n),
               weight = random.normals(n, 0.2f, 1), bias = random.normals(n);
  Floats fixed = random.normals(n, 0.02f, 0.9f), state = random.normals(n * n),
         y(static_cast<size_t>(kTokens * r.stride));
  std::vector<double> s(state.begin(), state.end()), expected;
  for (int64_t t = 0; t < kTokens; t++) {
    std::vector<double> out(size);
    for (size_t i = 0; i < size; i++) {
      const double v = value.at(t, static_cast<int64_t>(i));
      for (size_t j = 0; j < size; j++) {
        const auto c = static_cast<int64_t>(j);
        const double decay = moving_decay
                                 ? std::exp(-std::exp(static_cast<double>(w0[j]) + w.at(t, c)))
                                 : static_cast<double>(fixed[j]);
        double &cell = s[i * size + j];
        out[i] += (cell + v * static_cast<double>(u[j]) * key.at(t, c)) * r.at(t, c);
        cell = cell * decay + v * key.at(t, c);
      }
    }
    normalize(out, weight, bias);
    for (size_t i = 0; i < size; i++)
      expected.push_back(gated ? out[i] * g.at(t, static_cast<int64_t>(i)) : out[i]);
  }
  rwkv::Wkv6 args{};
  args.tokens = kTokens, args.stride = r.stride, args.size = n;
  args.r = r.data.data(), args.k = key.data.data(), args.v = value.data.data(),
  args.g = gated ? g.data.data() : nullptr;
  args.w = moving_decay ? w.data.data() : fixed.data(),
  args.w0 = moving_decay ? w0.data() : nullptr;
  args.u = u.data(), args.ln_weight = weight.data(), args.ln_bias = bias.data(),
  args.state = state.data(), args.y = y.data();
  k.wkv6(args);
  compare(k, "wkv6", y, expected, n, r.stride);
  WITHIN(test::distance(state.data(), s.data(), n * n), 1e-5,
         std::string(k.name) + ", the state of wkv6");
}

// RWKV-4: a mean of all values, weighted by e^(key - age * decay), the present one by e^(u + key).
void dove(const Kernels &k, float key_scale) {
  constexpr int64_t n = 64, begin = 32;
  test::Random random(4);
  const Tokens r(n, random), key(n, random, key_scale), value(n, random);
  const Floats u = random.normals(n);
  Floats log_w = random.normals(n, 0.3f, -1), numerator(n), denominator(n), exponent(n, -1e30f),
         y(static_cast<size_t>(kTokens * r.stride), 77);
  for (float &x : log_w) x = std::min(x, -0.01f);
  rwkv::Wkv4 args{};
  args.tokens = kTokens, args.stride = r.stride, args.begin = begin, args.end = n;
  args.r = r.data.data(), args.k = key.data.data(), args.v = value.data.data(),
  args.log_w = log_w.data(), args.u = u.data();
  args.numerator = numerator.data(), args.denominator = denominator.data(),
  args.exponent = exponent.data(), args.y = y.data();
  k.wkv4(args);
  for (int64_t c = 0; c < n; c++) {
    for (int64_t t = 0; t < kTokens; t++) {
      const float got = y[static_cast<size_t>(t * r.stride + c)];
      if (c < begin) {
        CHECK(got == 77);
        continue;
      }
      const auto at = static_cast<size_t>(c);
      double top = static_cast<double>(u[at]) + key.at(t, c), above = 0, below = 0;
      for (int64_t i = 0; i < t; i++)
        top = std::max(
            top, static_cast<double>(log_w[at]) * static_cast<double>(t - 1 - i) + key.at(i, c));
      for (int64_t i = 0; i <= t; i++) {
        const double age = static_cast<double>(t - 1 - i) * static_cast<double>(log_w[at]);
        const double weight =
            std::exp((i == t ? static_cast<double>(u[at]) : age) + key.at(i, c) - top);
        above += weight * value.at(i, c);
        below += weight;
      }
      const double expected = above / below * r.at(t, c);
      CHECK(std::fabs(static_cast<double>(got) - expected) <
            2e-5 * std::max(1.0, static_cast<double>(key_scale)));
    }
  }
}

}  // namespace

int main() {
  for (const char *const *name = rwkv::runnable_kernels(); *name; name++) {
    const Kernels &k = *rwkv::find_kernels(*name);
    for (int64_t size : {16, 32, 64, 128}) {
      goose(k, size, true);
      goose(k, size, false);
      for (int moving = 0; moving < 2; moving++)
        for (int gated = 0; gated < 2; gated++) finch(k, size, moving, gated);
    }
    dove(k, 1);
    dove(k, 60);
  }
  return test::report("recurrence");
}
