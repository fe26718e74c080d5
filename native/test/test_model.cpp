// The laws of a model, for every version, type and instruction set: prefill equals decode, a batch
// equals its rows, and threads change nothing, bit for bit; instruction sets agree within rounding.
#include <cstdlib>

#include "tiny_model.h"

namespace {

using test::State;
using test::TinyModel;

struct Outcome {
  std::vector<float> logits;
  std::vector<std::vector<float>> state;
  bool operator==(const Outcome &other) const {
    return logits == other.logits && state == other.state;
  }
};

class Runner {
 public:
  Runner(const TinyModel &tiny, int32_t threads, const std::string &set) : tiny_(tiny) {
    CHECK(rwkv_choose_instruction_set(set.c_str()) == RWKV_OK);
    CHECK(rwkv_pool_new(threads, &pool_) == RWKV_OK);
    const int code =
        rwkv_model_new(&tiny.config, tiny.tensors.data(), tiny.tensors.size(), pool_, &model_);
    if (!CHECK(code == RWKV_OK)) {
      std::fprintf(stderr, "%s\n", rwkv_last_error());
      std::exit(1);
    }
    CHECK(set == rwkv_model_instruction_set(model_));
  }
  ~Runner() {
    rwkv_model_free(model_);
    rwkv_pool_free(pool_);
  }
  Runner(const Runner &) = delete;
  Runner &operator=(const Runner &) = delete;

  // Feeds tokens to a fresh state in parts that end where told.
  Outcome feed(const std::vector<int32_t> &tokens, const std::vector<int32_t> &parts) {
    State state(tiny_);
    Outcome outcome;
    outcome.logits.resize(static_cast<size_t>(tiny_.config.vocab));
    const int32_t *at = tokens.data();
    float *const logits[] = {outcome.logits.data()};
    for (int32_t length : parts) {
      CHECK(rwkv_forward(model_, at, &length, 1, state.arrays.data(), logits) == RWKV_OK);
      at += length;
    }
    outcome.state = state.memory;
    return outcome;
  }

  // Feeds several sequences in one call; the scores of those that are not wanted stay zero.
  std::vector<Outcome> feed_together(const std::vector<std::vector<int32_t>> &sequences,
                                     const std::vector<bool> &wanted) {
    std::deque<State> states;
    std::vector<float *> arrays;
    std::vector<int32_t> tokens, lengths;
    for (const auto &sequence : sequences) {
      states.emplace_back(tiny_);
      arrays.insert(arrays.end(), states.back().arrays.begin(), states.back().arrays.end());
      tokens.insert(tokens.end(), sequence.begin(), sequence.end());
      lengths.push_back(static_cast<int32_t>(sequence.size()));
    }
    const auto vocab = static_cast<size_t>(tiny_.config.vocab);
    std::vector<Outcome> outcomes(sequences.size());
    std::vector<float *> logits;
    for (size_t s = 0; s < sequences.size(); s++) {
      outcomes[s].logits.resize(vocab);
      logits.push_back(wanted[s] ? outcomes[s].logits.data() : nullptr);
    }
    CHECK(rwkv_forward(model_, tokens.data(), lengths.data(), static_cast<int32_t>(lengths.size()),
                       arrays.data(), logits.data()) == RWKV_OK);
    for (size_t s = 0; s < sequences.size(); s++) outcomes[s].state = states[s].memory;
    return outcomes;
  }

 private:
  const TinyModel &tiny_;
  rwkv_pool *pool_ = nullptr;
  rwkv_model *model_ = nullptr;
};

std::vector<std::string> instruction_sets() {
  char buffer[256];
  CHECK(rwkv_instruction_sets(buffer, sizeof buffer) == RWKV_OK);
  std::vector<std::string> sets;
  for (const char *at = std::strtok(buffer, " "); at; at = std::strtok(nullptr, " "))
    sets.push_back(at);
  return sets;
}

std::vector<int32_t> some_tokens(int count, uint32_t seed) {
  test::Random random(seed);
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; i++) tokens.push_back(static_cast<int32_t>(random.below(50)));
  return tokens;
}

bool is_finite(const Outcome &outcome) {
  for (float x : outcome.logits)
    if (!std::isfinite(x)) return false;
  return true;
}

void laws(const TinyModel &tiny, const std::string &set, bool is_short, Outcome *reference) {
  Runner one(tiny, 1, set), two(tiny, 2, set);
  const int long_one = is_short ? 131 : 300;  // more than a pass has rows
  const std::vector<int32_t> tokens = some_tokens(long_one, 1);
  const std::vector<int32_t> steps(tokens.size(), 1);
  const Outcome whole = one.feed(tokens, {long_one});
  CHECK(is_finite(whole));
  CHECK(one.feed(tokens, steps) == whole);
  CHECK(two.feed(tokens, {long_one}) == whole);
  CHECK(two.feed(tokens, {1, 2, 7, 64, long_one - 74}) == whole);

  std::vector<std::vector<int32_t>> sequences;
  for (uint32_t s = 0; s < (is_short ? 9 : 21); s++)
    sequences.push_back(some_tokens(s % 5 ? 1 : 1 + static_cast<int>(s) * 4, s));
  sequences.push_back(tokens);
  std::vector<bool> all(sequences.size(), true), some(sequences.size());
  for (size_t s = 0; s < some.size(); s++) some[s] = s % 3 != 1;
  const std::vector<Outcome> together = two.feed_together(sequences, all);
  const std::vector<Outcome> partly = two.feed_together(sequences, some);
  const std::vector<float> unwanted(static_cast<size_t>(tiny.config.vocab));
  for (size_t s = 0; s < sequences.size(); s++) {
    CHECK(together[s] == one.feed(sequences[s], {static_cast<int32_t>(sequences[s].size())}));
    CHECK(partly[s].state == together[s].state);
    CHECK(partly[s].logits == (some[s] ? together[s].logits : unwanted));
  }

  if (reference->logits.empty()) *reference = whole;
  // Weights in eight bits meet inputs rounded to eight bits, where a last bit can tip a code.
  const double bound =
      tiny.tensors.back().type <= RWKV_F16 && tiny.tensors[5].type <= RWKV_F16 ? 1e-5 : 2e-2;
  WITHIN(test::distance(whole.logits.data(), reference->logits.data(), tiny.config.vocab), bound,
         "version " + std::to_string(tiny.config.version) + " on " + set);
}

}  // namespace

int main(int count, char **) {
  for (int32_t version : {40, 50, 51, 52, 60, 70}) {
    for (int32_t type : {RWKV_F32, RWKV_BF16, RWKV_F16, RWKV_Q8, RWKV_Q4}) {
      const TinyModel tiny(version, type);
      Outcome reference;
      for (const std::string &set : instruction_sets()) laws(tiny, set, count > 1, &reference);
    }
  }
  return test::report("model");
}
