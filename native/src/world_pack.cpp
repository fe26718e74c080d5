// Packs a World vocabulary; world.h describes the block.
#include "world.h"

#include <algorithm>
#include <new>
#include <vector>

#include "fail.h"

namespace rwkv {
namespace world {
namespace {

// Finds places for the children of nodes.
class Cells {
 public:
  // Gives a base whose cells for all `labels` are free, and takes them; 0 when there is no more room.
  uint32_t place(const std::vector<uint8_t> &labels) {
    for (size_t i = 0; i < open_.size();) {
      const uint32_t block = open_[i];
      const uint32_t base = room_[block] < labels.size() ? 0 : base_within(block, labels);
      if (base) take(base, labels);
      // What keeps failing is as good as full: looking at it again and again would take seconds.
      if (!base && labels.size() <= kFew) failures_[block]++;
      if (room_[block] == 0 || failures_[block] > kPatience) {
        open_.erase(open_.begin() + static_cast<ptrdiff_t>(i));
      } else {
        i++;
      }
      if (base) return base;
    }
    return words.size() + kBlock > kMaxCells ? 0 : place_in_new_block(labels);
  }

  std::vector<uint64_t> words;

 private:
  static constexpr int kPatience = 8;
  static constexpr size_t kFew = 4;

  uint32_t place_in_new_block(const std::vector<uint8_t> &labels) {
    const uint32_t block = static_cast<uint32_t>(words.size() / kBlock);
    open_.push_back(block);
    words.resize(words.size() + kBlock, 0);
    used_.resize(words.size(), false);
    room_.push_back(kBlock);
    failures_.push_back(0);
    const uint32_t base = base_within(block, labels);
    take(base, labels);
    return base;
  }

  uint32_t base_within(uint32_t block, const std::vector<uint8_t> &labels) const {
    uint32_t first = block * kBlock;
    for (uint32_t base = std::max(first, uint32_t{1}); base < first + kBlock; base++) {
      auto is_free = [&](uint8_t label) { return words[base ^ label] == 0; };
      if (!used_[base] && std::all_of(labels.begin(), labels.end(), is_free)) return base;
    }
    return 0;
  }

  void take(uint32_t base, const std::vector<uint8_t> &labels) {
    used_[base] = true;
    for (uint8_t label : labels) words[base ^ label] = cell_of(label + 1u, 0, 0);
    room_[base / kBlock] -= static_cast<uint32_t>(labels.size());
  }

  std::vector<bool> used_;           // bases that have a node
  std::vector<uint32_t> room_;       // free cells of each block
  std::vector<int> failures_;        // of each block
  std::vector<uint32_t> open_;       // blocks worth looking at
};

struct Token {
  const uint8_t *bytes;
  uint32_t size, id;
};

int compare(const Token &a, const Token &b) {
  int order = memcmp(a.bytes, b.bytes, std::min(a.size, b.size));
  return order ? order : static_cast<int>(a.size) - static_cast<int>(b.size);
}

// Tokens that share their first `depth` bytes, all longer than that; `parent` is the node's own cell.
struct Node {
  size_t first, last;
  uint32_t depth;
  int64_t parent;  // -1: the root
};

// Builds the trie over sorted tokens, level by level, so that the busiest cells lie together.
int build(const std::vector<Token> &tokens, Cells *cells, uint32_t *root) {
  std::vector<Node> nodes{{0, tokens.size(), 0, -1}};
  std::vector<uint8_t> labels;
  for (size_t n = 0; n < nodes.size(); n++) {
    const Node node = nodes[n];
    labels.clear();
    for (size_t i = node.first; i < node.last; i++) {
      uint8_t byte = tokens[i].bytes[node.depth];
      if (labels.empty() || labels.back() != byte) labels.push_back(byte);
    }
    const uint32_t base = cells->place(labels);
    if (!base) return fail(RWKV_UNSUPPORTED, "a vocabulary of this size cannot be packed");
    if (node.parent < 0) {
      *root = base;
    } else {
      cells->words[static_cast<size_t>(node.parent)] |= cell_of(0, base, 0);
    }
    for (size_t i = node.first, end; i < node.last; i = end) {
      const uint8_t byte = tokens[i].bytes[node.depth];
      for (end = i; end < node.last && tokens[end].bytes[node.depth] == byte;) end++;
      const uint32_t cell = base ^ byte;
      if (tokens[i].size == node.depth + 1) cells->words[cell] |= tokens[i++].id;
      if (i < end) nodes.push_back({i, end, node.depth + 1, cell});
    }
  }
  return RWKV_OK;
}

int sorted_tokens(const uint8_t *text, const uint32_t *lengths, uint32_t ids, int64_t bytes,
                  std::vector<Token> *tokens) {
  uint64_t at = 0;
  for (uint32_t id = 0; id < ids; at += lengths[id++]) {
    if (at + lengths[id] > static_cast<uint64_t>(bytes)) {
      return fail(RWKV_INVALID, "the tokens have more bytes than were given");
    }
    if (lengths[id]) tokens->push_back({text + at, lengths[id], id});
  }
  if (at != static_cast<uint64_t>(bytes) || lengths[0]) {
    return fail(RWKV_INVALID, "id 0 has bytes, or the tokens have fewer bytes than were given");
  }
  std::sort(tokens->begin(), tokens->end(),
            [](const Token &a, const Token &b) { return compare(a, b) < 0; });
  uint32_t singles = 0;
  for (size_t i = 0; i < tokens->size(); i++) {
    singles += (*tokens)[i].size == 1;
    if (i && compare((*tokens)[i - 1], (*tokens)[i]) == 0) {
      return fail(RWKV_INVALID, "ids %u and %u have the same bytes", (*tokens)[i - 1].id,
                  (*tokens)[i].id);
    }
  }
  if (singles != 256) return fail(RWKV_INVALID, "not every single byte has a token");
  return RWKV_OK;
}

// Writes the block; everything is known to fit.
void write_block(const Header &header, const Cells &cells, const uint32_t *lengths,
                 const uint8_t *text, uint8_t *target) {
  uint8_t *to = target + sizeof header;
  memcpy(to, cells.words.data(), cells.words.size() * 8);
  to += cells.words.size() * 8;
  uint32_t start = 0;
  for (uint32_t id = 0; id <= header.ids; id++, to += 4) {
    memcpy(to, &start, 4);
    if (id < header.ids) start += lengths[id];
  }
  memcpy(to, text, header.text);
  memcpy(target, &header, sizeof header);
  const uint64_t sum = checksum(target + kSummed, header.bytes - kSummed);
  memcpy(target + offsetof(Header, checksum), &sum, sizeof sum);
}

int pack(const uint8_t *text, int64_t text_bytes, const uint32_t *lengths, uint32_t ids,
         const uint8_t *label, uint8_t *target, int64_t capacity, int64_t *bytes) {
  std::vector<Token> tokens;
  if (int code = sorted_tokens(text, lengths, ids, text_bytes, &tokens)) return code;
  Cells cells;
  Header header{};
  if (int code = build(tokens, &cells, &header.root)) return code;
  memcpy(header.magic, kMagic, sizeof kMagic);
  memcpy(header.label, label, sizeof header.label);
  header.layout = kLayout;
  header.byte_order = kByteOrder;
  header.ids = ids;
  header.longest = *std::max_element(lengths, lengths + ids);
  header.silent = ids - static_cast<uint32_t>(tokens.size());
  header.cells = static_cast<uint32_t>(cells.words.size());
  header.text = static_cast<uint64_t>(text_bytes);
  header.bytes = total_bytes(header);
  *bytes = static_cast<int64_t>(header.bytes);
  if (capacity < *bytes) {
    return fail(RWKV_FULL, "the table needs %lld bytes", static_cast<long long>(*bytes));
  }
  write_block(header, cells, lengths, text, target);
  return RWKV_OK;
}

}  // namespace
}  // namespace world
}  // namespace rwkv

using rwkv::fail;

extern "C" int rwkv_world_pack(const uint8_t *text, int64_t text_bytes, const uint32_t *lengths,
                               int64_t ids, const uint8_t *label, void *target, int64_t capacity,
                               int64_t *bytes) {
  if (!text || !lengths || !label || !bytes || capacity < 0 || (capacity && !target)) {
    return fail(RWKV_INVALID, "a pointer is missing or the capacity is negative");
  }
  if (ids < 257 || ids > rwkv::world::kMaxIds || text_bytes < 256 || text_bytes > rwkv::world::kMaxText) {
    return fail(RWKV_INVALID, "no vocabulary has %lld ids and %lld bytes",
                static_cast<long long>(ids), static_cast<long long>(text_bytes));
  }
  try {
    return rwkv::world::pack(text, text_bytes, lengths, static_cast<uint32_t>(ids), label,
                      static_cast<uint8_t *>(target), capacity, bytes);
  } catch (const std::bad_alloc &) {
    return fail(RWKV_NO_MEMORY, "not enough memory to pack the vocabulary");
  }
}
