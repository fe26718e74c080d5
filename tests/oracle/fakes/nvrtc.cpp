// A compiler of kernels that only looks at what it is given, as far as rwkv_cli/native/cuda/nvrtc.py uses one.
// The environment says how it behaves: FAKE_NVRTC_VERSION (major), FAKE_NVRTC_LOG (the complaint of a failure).
// Each compilation adds a line to the file FAKE_NVRTC_CALLS: the options, and the names of the headers.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct Program {
  std::string headers, log, image;
};

const char *setting(const char *name) {
  const char *value = std::getenv(name);
  return value && *value ? value : nullptr;
}

}  // namespace

extern "C" {

int nvrtcVersion(int *major, int *minor) {
  *major = setting("FAKE_NVRTC_VERSION") ? std::atoi(setting("FAKE_NVRTC_VERSION")) : 13;
  *minor = 7;
  return 0;
}
int nvrtcGetNumSupportedArchs(int *count) {
  *count = 3;
  return 0;
}
int nvrtcGetSupportedArchs(int *known) {
  known[0] = 75;
  known[1] = 90;
  known[2] = 120;
  return 0;
}
int nvrtcCreateProgram(Program **out, const char *, const char *, int count, const char *const *,
                       const char *const *names) {
  *out = new Program;
  for (int i = 0; i < count; i++) (*out)->headers += std::string(" ") + names[i];
  return 0;
}
int nvrtcDestroyProgram(Program **program) {
  delete *program;
  return 0;
}
int nvrtcCompileProgram(Program *program, int count, const char *const *options) {
  FILE *calls = std::fopen(setting("FAKE_NVRTC_CALLS"), "a");
  for (int i = 0; i < count; i++) std::fprintf(calls, "%s ", options[i]);
  std::fprintf(calls, "|%s\n", program->headers.c_str());
  std::fclose(calls);
  program->image = std::string("made with ") + options[0];
  if (!setting("FAKE_NVRTC_LOG")) return 0;
  program->log = setting("FAKE_NVRTC_LOG");
  return 6;
}
int nvrtcGetCUBINSize(const Program *program, size_t *out) {
  *out = program->image.size();
  return 0;
}
int nvrtcGetPTXSize(const Program *program, size_t *out) {
  *out = program->image.size() + 1;
  return 0;
}
int nvrtcGetProgramLogSize(const Program *program, size_t *out) {
  *out = program->log.size() + 1;
  return 0;
}
int nvrtcGetCUBIN(const Program *program, char *out) {
  std::memcpy(out, program->image.data(), program->image.size());
  return 0;
}
int nvrtcGetPTX(const Program *program, char *out) {
  std::strcpy(out, program->image.c_str());
  return 0;
}
int nvrtcGetProgramLog(const Program *program, char *out) {
  std::strcpy(out, program->log.c_str());
  return 0;
}

}
