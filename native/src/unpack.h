// What can be asked for a packed matrix.
#pragma once

#include <cstdint>

namespace rwkv {

// Whether a matrix of these sizes can be of this type and layout: RWKV_OK, or a code with its sentence.
int check_kind(int32_t type, int32_t layout, int64_t rows, int64_t cols);

}  // namespace rwkv
