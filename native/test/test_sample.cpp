// Drawing a token: what can be drawn, how often, and what is refused.
#include <algorithm>
#include <climits>

#include "check.h"

namespace {

constexpr rwkv_sampling kPlain = {1.0, 0, 1.0f, 0.0f, 0};

int32_t draw(const std::vector<float> &logits, const rwkv_sampling &sampling, double u) {
  int32_t token = -7;
  CHECK(rwkv_sample(logits.data(), static_cast<int64_t>(logits.size()), &sampling, u, &token) ==
        RWKV_OK);
  return token;
}

void refusals() {
  const float logits[] = {1, 2, 3};
  int32_t token;
  REFUSED(rwkv_sample(nullptr, 3, &kPlain, 0.5, &token), RWKV_INVALID);
  REFUSED(rwkv_sample(logits, 3, nullptr, 0.5, &token), RWKV_INVALID);
  REFUSED(rwkv_sample(logits, 3, &kPlain, 0.5, nullptr), RWKV_INVALID);
  for (int64_t vocab : {int64_t{0}, int64_t{-1}, INT64_MIN, INT64_MAX})
    REFUSED(rwkv_sample(logits, vocab, &kPlain, 0.5, &token), RWKV_INVALID);
  for (double u : {-0.1, 1.0, 2.0, static_cast<double>(NAN), static_cast<double>(INFINITY)})
    REFUSED(rwkv_sample(logits, 3, &kPlain, u, &token), RWKV_INVALID);
  for (double top_p : {-0.1, 1.1, static_cast<double>(NAN)}) {
    rwkv_sampling s = kPlain;
    s.top_p = top_p;
    REFUSED(rwkv_sample(logits, 3, &s, 0.5, &token), RWKV_INVALID);
  }
  for (float bad : {-1.0f, NAN, INFINITY}) {
    rwkv_sampling s = kPlain;
    s.temperature = bad;
    REFUSED(rwkv_sample(logits, 3, &s, 0.5, &token), RWKV_INVALID);
    s = kPlain;
    s.min_p = bad;
    REFUSED(rwkv_sample(logits, 3, &s, 0.5, &token), RWKV_INVALID);
  }
  rwkv_sampling s = kPlain;
  s.top_k = -1;
  REFUSED(rwkv_sample(logits, 3, &s, 0.5, &token), RWKV_INVALID);
}

void nothing_to_draw() {
  CHECK(draw({-INFINITY, -INFINITY}, kPlain, 0.5) == -1);
  CHECK(draw({1, NAN, 2}, kPlain, 0.5) == -1);
  CHECK(draw({1, INFINITY, 2}, kPlain, 0.5) == -1);
  CHECK(draw({-INFINITY, 3, -INFINITY}, kPlain, 0.999999) == 1);
  CHECK(draw({5}, kPlain, 0.0) == 0);
}

// The share of draws of each token is its probability.
void shares(const rwkv_sampling &sampling, const std::vector<double> &probabilities) {
  const std::vector<float> logits = {1, 2, 3, 4, 5};
  const int draws = 20000;
  std::vector<double> found(logits.size());
  for (int i = 0; i < draws; i++) {
    const int32_t token = draw(logits, sampling, (i + 0.5) / draws);
    if (CHECK(token >= 0 && token < 5)) found[static_cast<size_t>(token)] += 1.0 / draws;
  }
  for (size_t i = 0; i < found.size(); i++) CHECK(std::fabs(found[i] - probabilities[i]) < 2e-4);
}

std::vector<double> softmax(const std::vector<double> &logits) {
  std::vector<double> all;
  double sum = 0;
  for (double x : logits) sum += std::exp(x);
  for (double x : logits) all.push_back(std::exp(x) / sum);
  return all;
}

void filters() {
  const double none = -INFINITY;
  shares(kPlain, softmax({1, 2, 3, 4, 5}));
  rwkv_sampling s = kPlain;
  s.top_k = 2;
  shares(s, softmax({none, none, none, 4, 5}));
  s = kPlain;
  s.top_p = 0.7;  // 0.636 and 0.234: the second one completes it
  shares(s, softmax({none, none, none, 4, 5}));
  s = kPlain;
  s.min_p = 0.1f;  // e^-2 = 0.135 stays, e^-3 = 0.050 goes
  shares(s, softmax({none, none, 3, 4, 5}));
  s = kPlain;
  s.temperature = 2;
  shares(s, softmax({0.5, 1, 1.5, 2, 2.5}));
  s.temperature = 0;
  shares(s, {0, 0, 0, 0, 1});
}

// Any logits and any settings: a token that exists and is not banned.
void anything(int rounds) {
  test::Random random(9);
  for (int i = 0; i < rounds; i++) {
    const int64_t vocab = 1 + random.below(i % 10 ? 300 : 70000);
    std::vector<float> logits =
        random.normals(vocab, std::ldexp(1.0f, static_cast<int>(random.below(12)) - 4));
    for (float &x : logits)
      if (random.below(8) == 0) x = random.below(2) ? -INFINITY : 0.0f;
    logits[random.below(static_cast<uint32_t>(vocab))] = 1;
    rwkv_sampling s = {
        random.below(3) ? static_cast<double>(random.uniform()) : random.below(2) * 1.0,
        random.below(3) ? random.below(100) : 0, random.below(4) ? random.uniform() * 3 : 0.0f,
        random.below(2) ? random.uniform() : 0.0f, static_cast<int32_t>(random.below(2))};
    const int32_t token = draw(logits, s, static_cast<double>(random.uniform()));
    if (CHECK(token >= 0 && token < vocab))
      CHECK(std::isfinite(logits[static_cast<size_t>(token)]));
    if (s.temperature < 1e-6f)
      CHECK(logits[static_cast<size_t>(token)] == *std::max_element(logits.begin(), logits.end()));
  }
}

}  // namespace

int main(int count, char **) {
  refusals();
  nothing_to_draw();
  filters();
  anything(count > 1 ? 300 : 3000);
  return test::report("sample");
}
