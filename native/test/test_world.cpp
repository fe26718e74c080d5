// The packed vocabulary: encoding against a plain search, and tables that strangers have damaged.
#include <climits>
#include <map>

#include "check.h"

namespace {

// A random vocabulary over few letters, so that tokens are prefixes of each other.
struct Vocabulary {
  std::vector<uint8_t> text;
  std::vector<uint32_t> lengths{0};
  std::map<std::string, int32_t> ids;
  std::vector<uint8_t> table;

  explicit Vocabulary(int tokens) {
    test::Random random(11);
    for (int byte = 0; byte < 256; byte++) add(std::string(1, static_cast<char>(byte)));
    while (static_cast<int>(ids.size()) < tokens) {
      std::string token;
      const uint32_t size = 2 + random.below(9);
      for (uint32_t i = 0; i < size; i++)
        token += static_cast<char>(random.below(8) ? 'a' + random.below(4) : random.below(256));
      add(token);
    }
    int64_t bytes = 0;
    CHECK(pack(nullptr, 0, &bytes) == RWKV_FULL);
    table.resize(static_cast<size_t>(bytes));
    CHECK(pack(table.data(), bytes, &bytes) == RWKV_OK);
  }

  int pack(void *target, int64_t capacity, int64_t *bytes) const {
    const uint8_t label[RWKV_WORLD_LABEL] = {1, 2, 3};
    return rwkv_world_pack(text.data(), static_cast<int64_t>(text.size()), lengths.data(),
                           static_cast<int64_t>(lengths.size()), label, target, capacity, bytes);
  }
  void add(const std::string &token) {
    if (!ids.emplace(token, static_cast<int32_t>(lengths.size())).second) return;
    text.insert(text.end(), token.begin(), token.end());
    lengths.push_back(static_cast<uint32_t>(token.size()));
  }
  std::vector<int32_t> expected(const std::string &input) const {
    std::vector<int32_t> tokens;
    for (size_t at = 0, size; at < input.size(); at += size) {
      for (size = std::min<size_t>(12, input.size() - at); !ids.count(input.substr(at, size));)
        size--;
      tokens.push_back(ids.at(input.substr(at, size)));
    }
    return tokens;
  }
};

std::string some_text(test::Random &random, uint32_t size) {
  std::string input;
  for (uint32_t i = 0; i < size; i++)
    input += static_cast<char>(random.below(10) ? 'a' + random.below(4) : random.below(256));
  return input;
}

int64_t encode(const std::vector<uint8_t> &table, const std::string &input,
               std::vector<int32_t> *tokens, int64_t *position) {
  return rwkv_world_encode(table.data(), static_cast<int64_t>(table.size()),
                           reinterpret_cast<const uint8_t *>(input.data()),
                           static_cast<int64_t>(input.size()), position, tokens->data(),
                           static_cast<int64_t>(tokens->size()));
}

void encoding(const Vocabulary &vocabulary) {
  test::Random random(12);
  for (uint32_t size : {0u, 1u, 2u, 3u, 17u, 100u, 5000u}) {
    const std::string input = some_text(random, size);
    std::vector<int32_t> tokens(input.size());
    int64_t position = 0;
    const int64_t count = encode(vocabulary.table, input, &tokens, &position);
    if (!CHECK(count >= 0)) continue;
    CHECK(position == static_cast<int64_t>(input.size()));
    tokens.resize(static_cast<size_t>(count));
    CHECK(tokens == vocabulary.expected(input));
    // In parts: a full buffer stops where the next call goes on.
    std::vector<int32_t> parts, few(3);
    for (position = 0; position < static_cast<int64_t>(input.size());) {
      const int64_t some = encode(vocabulary.table, input, &few, &position);
      if (!CHECK(some > 0)) break;
      parts.insert(parts.end(), few.begin(), few.begin() + some);
    }
    CHECK(parts == tokens);
  }
}

void refusals(const Vocabulary &v) {
  int64_t bytes = 0, position = 0;
  const uint8_t label[RWKV_WORLD_LABEL] = {};
  std::vector<uint8_t> target(v.table.size());
  const auto size = static_cast<int64_t>(v.text.size()),
             ids = static_cast<int64_t>(v.lengths.size()),
             room = static_cast<int64_t>(target.size());
  REFUSED(rwkv_world_pack(nullptr, size, v.lengths.data(), ids, label, target.data(), room, &bytes),
          RWKV_INVALID);
  REFUSED(rwkv_world_pack(v.text.data(), size, nullptr, ids, label, target.data(), room, &bytes),
          RWKV_INVALID);
  REFUSED(rwkv_world_pack(v.text.data(), size, v.lengths.data(), ids, nullptr, target.data(), room,
                          &bytes),
          RWKV_INVALID);
  REFUSED(rwkv_world_pack(v.text.data(), size, v.lengths.data(), ids, label, nullptr, room, &bytes),
          RWKV_INVALID);
  REFUSED(rwkv_world_pack(v.text.data(), size, v.lengths.data(), ids, label, target.data(), room,
                          nullptr),
          RWKV_INVALID);
  REFUSED(
      rwkv_world_pack(v.text.data(), size, v.lengths.data(), ids, label, target.data(), -1, &bytes),
      RWKV_INVALID);
  for (int64_t bad : {int64_t{-1}, int64_t{0}, INT64_MIN, INT64_MAX}) {
    REFUSED(rwkv_world_pack(v.text.data(), bad, v.lengths.data(), ids, label, target.data(), room,
                            &bytes),
            RWKV_INVALID);
    REFUSED(rwkv_world_pack(v.text.data(), size, v.lengths.data(), bad, label, target.data(), room,
                            &bytes),
            RWKV_INVALID);
    REFUSED(rwkv_world_check(v.table.data(), bad), RWKV_INVALID);
  }
  REFUSED(rwkv_world_pack(v.text.data(), size - 1, v.lengths.data(), ids, label, target.data(),
                          room, &bytes),
          RWKV_INVALID);
  REFUSED(rwkv_world_pack(v.text.data(), size, v.lengths.data(), ids - 1, label, target.data(),
                          room, &bytes),
          RWKV_INVALID);
  REFUSED(rwkv_world_pack(v.text.data(), size, v.lengths.data(), ids, label, target.data(),
                          room - 1, &bytes),
          RWKV_FULL);
  REFUSED(rwkv_world_check(nullptr, 100), RWKV_INVALID);
  int32_t token;
  const uint8_t letter = 'a';
  const auto all = static_cast<int64_t>(v.table.size());
  REFUSED(rwkv_world_encode(nullptr, all, &letter, 1, &position, &token, 1), RWKV_INVALID);
  REFUSED(rwkv_world_encode(v.table.data(), all, nullptr, 1, &position, &token, 1), RWKV_INVALID);
  REFUSED(rwkv_world_encode(v.table.data(), all, &letter, 1, nullptr, &token, 1), RWKV_INVALID);
  REFUSED(rwkv_world_encode(v.table.data(), all, &letter, 1, &position, nullptr, 1), RWKV_INVALID);
  REFUSED(rwkv_world_encode(v.table.data(), all, &letter, -1, &position, &token, 1), RWKV_INVALID);
  REFUSED(rwkv_world_encode(v.table.data(), all, &letter, 1, &position, &token, -1), RWKV_INVALID);
  for (int64_t bad : {int64_t{-1}, int64_t{2}, INT64_MIN, INT64_MAX}) {
    position = bad;
    REFUSED(rwkv_world_encode(v.table.data(), all, &letter, 1, &position, &token, 1), RWKV_INVALID);
  }
}

// A table with any byte changed is refused; one that is used without the check reads nothing
// outside.
void damage(const Vocabulary &vocabulary, int rounds) {
  test::Random random(13);
  const auto whole = static_cast<int64_t>(vocabulary.table.size());
  CHECK(rwkv_world_check(vocabulary.table.data(), whole) == RWKV_OK);
  std::vector<int32_t> tokens(200);
  for (int round = 0; round < rounds; round++) {
    std::vector<uint8_t> table = vocabulary.table;
    const uint32_t changes = 1 + random.below(6);
    for (uint32_t i = 0; i < changes; i++) {
      const uint32_t at = random.below(round % 2 ? 160 : static_cast<uint32_t>(whole));
      table[at] = static_cast<uint8_t>(table[at] + 1 + random.below(255));
    }
    if (table == vocabulary.table) continue;
    if (round % 5 == 0) table.resize(1 + random.below(static_cast<uint32_t>(whole)));
    CHECK(rwkv_world_check(table.data(), static_cast<int64_t>(table.size())) < 0);
    const std::string input = some_text(random, 200);
    int64_t position = 0;
    const int64_t count = encode(table, input, &tokens, &position);
    CHECK(count <= 200 && position >= 0 && position <= 200);
  }
}

}  // namespace

int main(int count, char **) {
  const Vocabulary vocabulary(3000);
  encoding(vocabulary);
  refusals(vocabulary);
  damage(vocabulary, count > 1 ? 500 : 5000);
  return test::report("world");
}
