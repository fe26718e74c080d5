// How a function says why it failed: a code for the caller, a sentence for people.
#pragma once

#include "rwkv_native.h"

namespace rwkv {

// Keeps a sentence for rwkv_last_error of this thread, and gives the code back.
int fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace rwkv
