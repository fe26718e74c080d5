// Checks a packed World vocabulary, and encodes with it; world.h describes the block.
#include "world.h"

#include <algorithm>

#include "fail.h"

namespace rwkv {
namespace world {
namespace {

// Where things lie in a block whose sizes are known to fit.
struct View {
  Header header;
  const uint8_t *cells, *starts, *text;
};

// The cheap part of the check, which every use repeats: nothing lies outside the block.
bool open_view(const void *table, int64_t bytes, View *view) {
  if (!table || bytes < static_cast<int64_t>(sizeof(Header))) return false;
  Header &h = view->header;
  memcpy(&h, table, sizeof h);
  if (memcmp(h.magic, kMagic, sizeof kMagic) != 0 || h.layout != kLayout) return false;
  if (h.byte_order != kByteOrder || h.bytes != static_cast<uint64_t>(bytes)) return false;
  if (h.ids > kMaxIds || h.cells > kMaxCells || h.cells % kBlock || h.text > kMaxText) return false;
  if (total_bytes(h) != h.bytes) return false;
  view->cells = static_cast<const uint8_t *>(table) + sizeof(Header);
  view->starts = view->cells + size_t{h.cells} * 8;
  view->text = view->starts + (size_t{h.ids} + 1) * 4;
  return true;
}

// Whether ids' bytes follow each other, as many of them and as long as the header says.
bool starts_make_sense(const View &view) {
  uint32_t end = 0, longest = 0, silent = 0;
  if (load<uint32_t>(view.starts, 0) != 0) return false;
  for (uint32_t id = 0; id < view.header.ids; id++) {
    uint32_t next = load<uint32_t>(view.starts, id + 1);
    if (next < end || next > view.header.text) return false;
    longest = std::max(longest, next - end);
    silent += next == end;
    end = next;
  }
  const Header &h = view.header;
  return end == h.text && longest == h.longest && silent == h.silent;
}

bool cells_make_sense(const View &view) {
  const Header &h = view.header;
  if (h.root == 0 || h.root >= h.cells) return false;
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint64_t cell = load<uint64_t>(view.cells, h.root ^ byte);
    if (mark_of(cell) != byte + 1 || id_of(cell) == 0) return false;
  }
  bool sound = true;
  for (uint32_t i = 0; i < h.cells; i++) {
    uint64_t cell = load<uint64_t>(view.cells, i);
    sound &= id_of(cell) < h.ids;
    sound &= base_of(cell) < h.cells;
  }
  return sound;
}

// The id of the longest token at `text`, of which `left` bytes may be read; 0 when there is none.
// Follows no index that it has not compared with the number of cells.
inline uint32_t longest_match(const View &view, const uint8_t *text, uint64_t left, uint64_t *size) {
  const uint64_t limit = std::min<uint64_t>(left, view.header.longest);
  uint32_t base = view.header.root, found = 0;
  for (uint64_t i = 0; i < limit && base;) {
    const uint32_t byte = text[i++], index = base ^ byte;
    if (index >= view.header.cells) break;
    const uint64_t cell = load<uint64_t>(view.cells, index);
    if (mark_of(cell) != byte + 1) break;
    if (id_of(cell)) {
      found = id_of(cell);
      *size = i;
    }
    base = base_of(cell);
  }
  return found;
}

}  // namespace
}  // namespace world
}  // namespace rwkv

using rwkv::fail;
namespace world = rwkv::world;

extern "C" int rwkv_world_check(const void *table, int64_t bytes) {
  world::View view;
  if (!world::open_view(table, bytes, &view)) {
    return fail(RWKV_INVALID, "no packed vocabulary of this version, or only a part of one");
  }
  const uint8_t *summed = static_cast<const uint8_t *>(table) + world::kSummed;
  if (world::checksum(summed, view.header.bytes - world::kSummed) != view.header.checksum) {
    return fail(RWKV_INVALID, "the packed vocabulary is damaged: its checksum differs");
  }
  if (!world::starts_make_sense(view) || !world::cells_make_sense(view)) {
    return fail(RWKV_INVALID, "the packed vocabulary contradicts itself");
  }
  return RWKV_OK;
}

extern "C" int64_t rwkv_world_encode(const void *table, int64_t bytes, const uint8_t *text,
                                     int64_t text_bytes, int64_t *position, int32_t *tokens,
                                     int64_t capacity) {
  world::View view;
  if (!world::open_view(table, bytes, &view)) {
    return fail(RWKV_INVALID, "no packed vocabulary of this version, or only a part of one");
  }
  if (!position || *position < 0 || *position > text_bytes || (text_bytes && !text) ||
      capacity < 0 || (capacity && !tokens)) {
    return fail(RWKV_INVALID, "a pointer is missing or a size is wrong");
  }
  int64_t count = 0;
  uint64_t at = static_cast<uint64_t>(*position), end = static_cast<uint64_t>(text_bytes);
  while (at < end && count < capacity) {
    uint64_t size = 0;
    const uint32_t id = world::longest_match(view, text + at, end - at, &size);
    if (id == 0 || id >= view.header.ids) {
      return fail(RWKV_INVALID, "the packed vocabulary is damaged: it has no token for a byte");
    }
    tokens[count++] = static_cast<int32_t>(id);
    at += size;
  }
  *position = static_cast<int64_t>(at);
  return count;
}
