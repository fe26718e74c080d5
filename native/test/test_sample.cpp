// Drawing a token: what can be drawn, how often, and what is refused.
#include <algorithm>
#include <climits>

#include "check.h"
#include "draws.h"

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

// Every instruction set weighs and keeps the same bits.
void sets() {
  std::vector<const rwkv::Draws *> all = {&rwkv::draws_generic};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) all.push_back(&rwkv::draws_avx2);
  if (__builtin_cpu_supports("avx512f")) all.push_back(&rwkv::draws_avx512);
#endif
  test::Random random(5);
  for (int64_t count : {1, 3, 15, 16, 17, 64, 255, 256, 257, 1000, 5003}) {
    std::vector<float> x = random.normals(count, 30);
    x[static_cast<size_t>(count / 2)] = -INFINITY;
    for (float temperature : {1.0f, 0.7f}) {
      std::vector<std::vector<float>> weights;
      std::vector<double> sums;
      for (const rwkv::Draws *set : all) {
        const float top = set->largest(x.data(), count);
        CHECK(top == *std::max_element(x.begin(), x.end()));
        std::vector<float> w(static_cast<size_t>(count));
        std::vector<uint32_t> ids(w.size());
        if (!std::isfinite(top)) continue;
        sums.push_back(set->weigh(x.data(), count, top, temperature, w.data()));
        const int64_t left = set->keep(w.data(), count, 1e-9f, false, ids.data());
        const int64_t fewer = set->keep(w.data(), left, 1e-4f, true, ids.data());
        w.resize(static_cast<size_t>(fewer));
        w.insert(w.end(), ids.begin(), ids.begin() + fewer);
        weights.push_back(w);
      }
      for (size_t i = 1; i < weights.size(); i++) CHECK(weights[i] == weights[0] && sums[i] == sums[0]);
    }
  }
}

// Rows drawn by a pool: each as it is alone after its bans and penalties, its logits untouched.
void rows(rwkv_pool *pool, int rounds) {
  test::Random random(3);
  for (int i = 0; i < rounds; i++) {
    const auto vocab = static_cast<int64_t>(1 + random.below(i % 5 ? 300 : 5000));
    const int32_t count = 1 + static_cast<int32_t>(random.below(9));
    std::vector<std::vector<float>> logits;
    std::vector<rwkv_choice> choices;
    const std::vector<float> counts = random.normals(1, 2, 3);
    const uint32_t penalized = random.below(static_cast<uint32_t>(vocab));
    const int64_t never = random.below(static_cast<uint32_t>(vocab));
    for (int32_t row = 0; row < count; row++) {
      logits.push_back(random.normals(vocab, 3));
      rwkv_choice c = {};
      c.never = &never, c.never_count = random.below(2);
      c.penalized = &penalized, c.counts = counts.data(), c.penalized_count = random.below(2);
      c.sampling = {static_cast<double>(random.uniform()), random.below(3) * 20, random.uniform() * 2, 0.0f,
                    static_cast<int32_t>(random.below(2))};
      c.uniform = static_cast<double>(random.uniform());
      c.presence = random.uniform(), c.frequency = random.uniform() * 3;
      choices.push_back(c);
    }
    for (size_t row = 0; row < logits.size(); row++) choices[row].logits = logits[row].data();
    const std::vector<std::vector<float>> before = logits;
    std::vector<int32_t> tokens(logits.size(), -7);
    CHECK(rwkv_choose(pool, choices.data(), count, vocab, tokens.data()) == RWKV_OK);
    CHECK(logits == before);
    for (size_t row = 0; row < logits.size(); row++) {
      const rwkv_choice &c = choices[row];
      std::vector<float> scores = logits[row];
      if (c.never_count) scores[static_cast<size_t>(never)] = -INFINITY;
      if (c.penalized_count) scores[penalized] -= c.presence + counts[0] * c.frequency;
      CHECK(tokens[row] == draw(scores, c.sampling, c.uniform));
    }
  }
}

void refused_rows(rwkv_pool *pool) {
  const float logits[] = {1, 2, 3}, counts[] = {1};
  const int64_t outside[] = {3, -1};
  const uint32_t beyond[] = {3};
  int32_t token = -7;
  rwkv_choice good = {};
  good.logits = logits, good.sampling = kPlain, good.uniform = 0.5;
  CHECK(rwkv_choose(pool, &good, 1, 3, &token) == RWKV_OK);
  REFUSED(rwkv_choose(nullptr, &good, 1, 3, &token), RWKV_INVALID);
  REFUSED(rwkv_choose(pool, nullptr, 1, 3, &token), RWKV_INVALID);
  REFUSED(rwkv_choose(pool, &good, 1, 3, nullptr), RWKV_INVALID);
  for (int32_t count : {0, -1, INT32_MIN}) REFUSED(rwkv_choose(pool, &good, count, 3, &token), RWKV_INVALID);
  for (int64_t vocab : {int64_t{0}, INT64_MIN, INT64_MAX})
    REFUSED(rwkv_choose(pool, &good, 1, vocab, &token), RWKV_INVALID);
  auto refused = [&](auto change) {
    rwkv_choice bad = good;
    change(bad);
    REFUSED(rwkv_choose(pool, &bad, 1, 3, &token), RWKV_INVALID);
  };
  refused([](rwkv_choice &c) { c.logits = nullptr; });
  refused([](rwkv_choice &c) { c.never_count = 1; });
  refused([](rwkv_choice &c) { c.never_count = -1; });
  refused([](rwkv_choice &c) { c.penalized_count = 1; });
  refused([&](rwkv_choice &c) { c.never = outside, c.never_count = 1; });
  refused([&](rwkv_choice &c) { c.never = outside + 1, c.never_count = 1; });
  refused([&](rwkv_choice &c) { c.penalized = beyond, c.counts = counts, c.penalized_count = 1; });
  refused([](rwkv_choice &c) { c.uniform = 1; });
  refused([](rwkv_choice &c) { c.sampling.top_p = 2; });
  refused([](rwkv_choice &c) { c.presence = NAN; });
  refused([](rwkv_choice &c) { c.frequency = INFINITY; });
}

}  // namespace

int main(int count, char **) {
  refusals();
  nothing_to_draw();
  filters();
  anything(count > 1 ? 300 : 3000);
  sets();
  rwkv_pool *pool = nullptr;
  if (!CHECK(rwkv_pool_new(2, &pool) == RWKV_OK)) return test::report("sample");
  rows(pool, count > 1 ? 100 : 1000);
  refused_rows(pool);
  rwkv_pool_free(pool);
  return test::report("sample");
}
