// All kernels for the instruction set that the including file is compiled for; it defines RWKV_ISA.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "half.h"
#include "kernels.h"

#define RWKV_TABLE_(isa) kernels_##isa
#define RWKV_TABLE(isa) RWKV_TABLE_(isa)
#define RWKV_TEXT_(isa) #isa
#define RWKV_TEXT(isa) RWKV_TEXT_(isa)

namespace rwkv {
namespace {
#include "simd.h"
#include "mixing.inl"
#include "dot.inl"
#include "panel.inl"
#include "recurrence.inl"
}  // namespace

extern const Kernels RWKV_TABLE(RWKV_ISA);
const Kernels RWKV_TABLE(RWKV_ISA) = {
    RWKV_TEXT(RWKV_ISA), layer_norm, lerp, lerp_more, add,     multiply, activate, quantize,
    widen,               dot,        panel, panel_sparse, collect, wkv4,     wkv6,     wkv7,
};

}  // namespace rwkv
