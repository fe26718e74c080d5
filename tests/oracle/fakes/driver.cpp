// A CUDA driver without a card, as far as rwkv_cli/native/cuda/driver.py uses one. The environment says how
// it behaves: FAKE_CUDA_VERSION, FAKE_CUDA_CARDS, FAKE_CUDA_SM, FAKE_CUDA_FAIL=function:status. What was
// loaded and launched is written to the file FAKE_CUDA_LOG.
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

int number(const char *name, int otherwise) {
  const char *value = std::getenv(name);
  return value && *value ? std::atoi(value) : otherwise;
}

// The status that a function is to give.
int status(const char *function) {
  const char *plan = std::getenv("FAKE_CUDA_FAIL");
  const size_t length = std::strlen(function);
  const bool meant = plan && !std::strncmp(plan, function, length) && plan[length] == ':';
  return meant ? std::atoi(plan + length + 1) : 0;
}

int context;  // its address is the handle of everything that nobody looks into

struct Function {
  char name[64];
};

void note(const char *what, const Function *function, const unsigned *numbers, void **arguments) {
  FILE *log = std::fopen(std::getenv("FAKE_CUDA_LOG"), "a");
  std::fprintf(log, "%s %s", what, function->name);
  for (int i = 0; i < 7; i++) std::fprintf(log, " %u", numbers[i]);
  std::fprintf(log, " %llx\n", *static_cast<unsigned long long *>(arguments[0]));
  std::fclose(log);
}

void note(const char *what, const char *more, int value) {
  FILE *log = std::fopen(std::getenv("FAKE_CUDA_LOG"), "a");
  std::fprintf(log, "%s %s %d\n", what, more, value);
  std::fclose(log);
}

struct Attribute {
  int id;
  char pad[4];
  int value;
  char rest[60];
};
struct Config {
  unsigned numbers[7];
  void *stream;
  Attribute *attributes;
  unsigned count;
};

}  // namespace

// What the environment wants of this function comes first.
#define PLANNED \
  if (const int failed = status(__func__)) return failed

extern "C" {

int cuInit(unsigned) {
  PLANNED;
  return 0;
}
int cuDriverGetVersion(int *out) {
  PLANNED;
  *out = number("FAKE_CUDA_VERSION", 13000);
  return 0;
}
int cuDeviceGetCount(int *out) {
  PLANNED;
  *out = number("FAKE_CUDA_CARDS", 1);
  return 0;
}
int cuDeviceGet(int *out, int ordinal) {
  *out = ordinal;
  return ordinal < number("FAKE_CUDA_CARDS", 1) ? 0 : 101;
}
int cuDeviceGetName(char *out, int size, int) {
  std::snprintf(out, size, "Fake 9000");
  return 0;
}
int cuDeviceGetAttribute(int *out, int which, int) {
  const int sm = number("FAKE_CUDA_SM", 90);
  *out = which == 16 ? 132 : which == 75 ? sm / 10 : which == 76 ? sm % 10 : which == 97 ? 232448 : -1;
  return 0;
}
int cuDeviceTotalMem_v2(size_t *out, int) {
  *out = size_t{80} << 30;
  return 0;
}
int cuCtxGetCurrent(void **out) {
  *out = number("FAKE_CUDA_CONTEXT", 1) ? &context : nullptr;
  return 0;
}
int cuCtxGetDevice(int *out) {
  *out = number("FAKE_CUDA_CURRENT", 0);
  return 0;
}
int cuCtxSetCurrent(void *wanted) { return wanted == &context ? 0 : 201; }
int cuModuleLoadData(void **out, const char *image) {
  PLANNED;
  note("load", image, 0);
  *out = &context;
  return 0;
}
int cuModuleGetFunction(void **out, void *, const char *name) {
  if (!std::strcmp(name, "missing")) return 500;
  static Function functions[16];
  static int count = 0;
  Function *function = &functions[count++ % 16];
  std::snprintf(function->name, sizeof function->name, "%s", name);
  *out = function;
  return 0;
}
int cuFuncSetAttribute(Function *function, int which, int value) {
  if (which != 9) note(which == 8 ? "shared" : "unknown", function->name, value);  // 9: the carveout
  return 0;
}
int cuFuncGetAttribute(int *out, int which, void *) {
  *out = 100 + which;
  return 0;
}
int cuLaunchKernel(Function *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x,
                   unsigned y, unsigned z, unsigned shared, void *, void **arguments, void **extra) {
  PLANNED;
  const unsigned numbers[] = {grid_x, grid_y, grid_z, x, y, z, shared};
  if (extra) return 1;
  note("launch", function, numbers, arguments);
  return 0;
}
int cuLaunchKernelEx(const Config *config, Function *function, void **arguments, void **extra) {
  PLANNED;
  const Attribute &first = *config->attributes;
  if (config->count != 1 || first.id != 6 || first.value != 1 || extra) return 1;
  note("early", function, config->numbers, arguments);
  return 0;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *out, void *, int threads, size_t) {
  *out = 2048 / threads;
  return 0;
}
int cuGetErrorName(int code, const char **out) {
  *out = code == 209 ? "CUDA_ERROR_NO_BINARY_FOR_GPU" : code == 100 ? "CUDA_ERROR_NO_DEVICE" : nullptr;
  return *out ? 0 : 1;
}
int cuGetErrorString(int, const char **out) {
  *out = "no kernel image fits";
  return 0;
}

}
