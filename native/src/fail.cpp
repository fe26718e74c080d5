#include "fail.h"

#include <cstdarg>
#include <cstdio>

namespace rwkv {
namespace {
thread_local char g_sentence[512] = "";
}

int fail(int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(g_sentence, sizeof g_sentence, format, arguments);
  va_end(arguments);
  return code;
}

}  // namespace rwkv

extern "C" const char *rwkv_last_error(void) { return rwkv::g_sentence; }
extern "C" int rwkv_abi_version(void) { return RWKV_NATIVE_ABI; }
