// Moves memory that is mapped from a file onto large pages, where it lies and while it is read.
#include <cstring>

#include "fail.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

extern "C" int rwkv_promote(void *address, int64_t bytes) {
  if (!address || bytes < 1) return rwkv::fail(RWKV_INVALID, "there is no memory to move");
#if defined(__linux__)
  constexpr uintptr_t kLarge = 2 << 20;
  const uintptr_t start = reinterpret_cast<uintptr_t>(address);
  const uintptr_t first = (start + kLarge - 1) / kLarge * kLarge, end = (start + bytes) / kLarge * kLarge;
  for (uintptr_t page = first; page < end; page += kLarge) {
    void *room = mmap(nullptr, 2 * kLarge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return rwkv::fail(RWKV_NO_MEMORY, "there is no room for a large page");
    const uintptr_t begin = reinterpret_cast<uintptr_t>(room);
    const uintptr_t copy = (begin + kLarge - 1) / kLarge * kLarge;
    madvise(reinterpret_cast<void *>(copy), kLarge, MADV_HUGEPAGE);
    std::memcpy(reinterpret_cast<void *>(copy), reinterpret_cast<void *>(page), kLarge);
    // The copy takes the place of the file's pages at once: who reads meanwhile sees the same bytes.
    void *moved = mremap(reinterpret_cast<void *>(copy), kLarge, kLarge, MREMAP_MAYMOVE | MREMAP_FIXED,
                         reinterpret_cast<void *>(page));
    if (copy > begin) munmap(room, copy - begin);
    const uintptr_t behind = copy + kLarge, stop = begin + 2 * kLarge;
    if (stop > behind) munmap(reinterpret_cast<void *>(behind), stop - behind);
    if (moved == MAP_FAILED) {
      munmap(reinterpret_cast<void *>(copy), kLarge);
      return rwkv::fail(RWKV_UNSUPPORTED, "this system does not move pages");
    }
  }
  return RWKV_OK;
#else
  return rwkv::fail(RWKV_UNSUPPORTED, "this system has no such large pages");
#endif
}
