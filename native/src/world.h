// A World vocabulary as one block of memory that can be mapped from a file.
//
// The block: a header, a double-array trie, where each id's bytes begin, all the bytes. A trie node is
// known by its base: its child for byte b is the cell base ^ b, if that cell carries the mark b + 1.
// No two nodes share a base, so the mark alone proves whose child a cell is, and a step of a match is
// one load of eight bytes. Base 0 belongs to no node: it says that there are no children.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "rwkv_native.h"

namespace rwkv {
namespace world {

constexpr char kMagic[8] = {'R', 'W', 'K', 'V', 'V', 'O', 'C', '\n'};
constexpr uint32_t kLayout = 1;
constexpr uint32_t kByteOrder = 0x01020304;
constexpr uint32_t kBlock = 256;                   // base ^ byte stays within an aligned block of cells
constexpr uint32_t kMaxCells = uint32_t{1} << 23;  // what a cell has bits for
constexpr uint32_t kMaxIds = uint32_t{1} << 21;
constexpr int64_t kMaxText = int64_t{1} << 30;

struct Header {
  char magic[8];
  uint32_t layout, byte_order;
  uint64_t bytes;     // of the whole block
  uint64_t checksum;  // of everything behind this field
  uint64_t text;      // bytes of all tokens
  uint32_t ids, longest, cells, root;
  uint8_t label[RWKV_WORLD_LABEL];
  uint32_t silent;  // ids without bytes, 0 among them
  uint32_t unused;
};
static_assert(sizeof(Header) == 128, "a header has no holes");
static_assert(offsetof(Header, label) == RWKV_WORLD_LABEL_AT, "callers read their label there");
constexpr size_t kSummed = offsetof(Header, checksum) + sizeof(uint64_t);

// A cell: the id that ends here or 0 in bits 0..31, the base in 32..54, the mark in 55..63.
inline uint64_t cell_of(uint32_t mark, uint32_t base, uint32_t id) {
  return uint64_t{mark} << 55 | uint64_t{base} << 32 | id;
}
inline uint32_t mark_of(uint64_t cell) { return static_cast<uint32_t>(cell >> 55); }
inline uint32_t base_of(uint64_t cell) { return static_cast<uint32_t>(cell >> 32) & (kMaxCells - 1); }
inline uint32_t id_of(uint64_t cell) { return static_cast<uint32_t>(cell); }

// Loads from any address: a caller's memory need not be aligned.
template <typename T>
inline T load(const uint8_t *from, size_t index) {
  T value;
  memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

inline uint64_t total_bytes(const Header &h) {
  return sizeof(Header) + uint64_t{h.cells} * 8 + (uint64_t{h.ids} + 1) * 4 + h.text;
}

// Tells damage from health, quickly; no proof against malice. Four sums side by side, since one would
// wait for its own multiplication.
inline uint64_t checksum(const uint8_t *data, size_t size) {
  uint64_t lanes[4] = {1, 2, 3, 4};
  auto mix = [](uint64_t &lane, uint64_t word) {
    lane = (lane ^ word) * 0x9E3779B97F4A7C15u;
    lane ^= lane >> 29;
  };
  size_t at = 0;
  for (; at + 32 <= size; at += 32) {
    for (size_t i = 0; i < 4; i++) mix(lanes[i], load<uint64_t>(data + at, i));
  }
  uint8_t rest[32] = {};
  if (at < size) memcpy(rest, data + at, size - at);
  for (size_t i = 0; i < 4; i++) mix(lanes[i], load<uint64_t>(rest, i));
  uint64_t sum = size;
  for (uint64_t lane : lanes) mix(sum, lane);
  return sum;
}

}  // namespace world
}  // namespace rwkv
