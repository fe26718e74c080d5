// The border: checks what comes in, turns failures into codes.
#include <cstring>
#include <new>

#include "fail.h"
#include "model.h"

using rwkv::fail;

struct rwkv_model {
  rwkv::Model model;
};

namespace {

constexpr int64_t kMost = int64_t{1} << 30;  // no size of a model comes near it
constexpr int32_t kMostThreads = 1024;

std::atomic<const rwkv::Kernels *> g_kernels{nullptr};

const rwkv::Kernels &chosen_kernels() {
  if (const rwkv::Kernels *kernels = g_kernels) return *kernels;
  const char *const *names = rwkv::runnable_kernels();
  while (names[1]) names++;
  return *rwkv::find_kernels(*names);
}

// Runs something that may throw, and turns what it throws into a code.
template <typename Work>
int guarded(Work work) {
  try {
    return work();
  } catch (const rwkv::Failure &failure) {
    return fail(failure.code, "%s", failure.sentence.c_str());
  } catch (const std::bad_alloc &) {
    return fail(RWKV_NO_MEMORY, "not enough memory");
  } catch (const std::exception &error) {
    return fail(RWKV_UNSUPPORTED, "%s", error.what());
  }
}

int check_config(const rwkv_config &c) {
  bool known = false;
  for (int32_t version : {40, 50, 51, 52, 60, 70}) known |= version == c.version;
  if (!known) return fail(RWKV_UNSUPPORTED, "version %d is not known", c.version);
  for (int64_t size : {c.layers, c.width, c.attention, c.ffn, c.vocab})
    if (size < 1 || size > kMost) return fail(RWKV_INVALID, "a size of the model is %lld", static_cast<long long>(size));
  if (c.width % 32 || c.attention % 32)
    return fail(RWKV_UNSUPPORTED, "a width of %d is no multiple of 32", c.width % 32 ? c.width : c.attention);
  if (c.version == 40) return RWKV_OK;
  if (c.version == 70 && c.attention != c.width)
    return fail(RWKV_INVALID, "the time-mixing of RWKV-7 is as wide as the model, not %d", c.attention);
  if (c.head_size != 16 && c.head_size != 32 && c.head_size != 64 && c.head_size != 128)
    return fail(RWKV_UNSUPPORTED, "heads of %d channels are not supported", c.head_size);
  if (c.heads < 1 || int64_t{c.heads} * c.head_size != c.attention)
    return fail(RWKV_INVALID, "%d heads of %d channels do not make %d", c.heads, c.head_size, c.attention);
  return RWKV_OK;
}

}  // namespace

extern "C" {

int rwkv_instruction_sets(char *buffer, size_t size) {
  if (!buffer || size == 0) return fail(RWKV_INVALID, "there is no buffer");
  std::string names;
  for (const char *const *name = rwkv::runnable_kernels(); *name; name++) {
    if (!names.empty()) names += ' ';
    names += *name;
  }
  if (names.size() >= size) return fail(RWKV_FULL, "%zu bytes are too few", size);
  std::memcpy(buffer, names.c_str(), names.size() + 1);
  return RWKV_OK;
}

int rwkv_choose_instruction_set(const char *name) {
  const rwkv::Kernels *kernels = nullptr;
  if (name && !(kernels = rwkv::find_kernels(name)))
    return fail(RWKV_UNSUPPORTED, "the instruction set %.40s does not run on this machine", name);
  g_kernels = kernels;
  return RWKV_OK;
}

int rwkv_pool_new(int32_t threads, rwkv_pool **pool) {
  if (!pool) return fail(RWKV_INVALID, "there is no place for the pool");
  *pool = nullptr;
  if (threads < 1 || threads > kMostThreads)
    return fail(RWKV_INVALID, "threads is %d; it must lie between 1 and %d", threads, kMostThreads);
  return guarded([&] {
    *pool = new rwkv_pool{rwkv::Pool(threads)};
    return RWKV_OK;
  });
}

void rwkv_pool_free(rwkv_pool *pool) { delete pool; }

int rwkv_model_new(const rwkv_config *config, const rwkv_tensor *tensors, size_t count, rwkv_pool *pool,
                   rwkv_model **model) {
  if (!model) return fail(RWKV_INVALID, "there is no place for the model");
  *model = nullptr;
  if (!config || !tensors || !pool) return fail(RWKV_INVALID, "config, tensors or pool is missing");
  if (const int code = check_config(*config)) return code;
  return guarded([&] {
    *model = new rwkv_model{{*config, rwkv::Tensors(tensors, count), pool->pool, chosen_kernels()}};
    return RWKV_OK;
  });
}

void rwkv_model_free(rwkv_model *model) { delete model; }

const char *rwkv_model_instruction_set(const rwkv_model *model) { return model ? model->model.k.name : ""; }

int32_t rwkv_state_arrays(const rwkv_model *model) {
  if (!model) return fail(RWKV_INVALID, "there is no model");
  return model->model.state_arrays();
}

int rwkv_forward(rwkv_model *model, const int32_t *tokens, const int32_t *lengths, int32_t sequences,
                 float *const *states, float *const *logits) {
  if (!model || !tokens || !lengths || !states)
    return fail(RWKV_INVALID, "model, tokens, lengths or states is missing");
  if (sequences < 1) return fail(RWKV_INVALID, "%d sequences cannot be computed", sequences);
  const int32_t arrays = model->model.state_arrays(), vocab = model->model.config.vocab;
  const int32_t *token = tokens;
  for (int32_t s = 0; s < sequences; s++) {
    if (lengths[s] < 1) return fail(RWKV_INVALID, "sequence %d has %d tokens", s, lengths[s]);
    for (int32_t a = 0; a < arrays; a++)
      if (!states[s * arrays + a]) return fail(RWKV_INVALID, "the state of sequence %d is missing", s);
    for (int32_t i = 0; i < lengths[s]; i++, token++)
      if (*token < 0 || *token >= vocab)
        return fail(RWKV_INVALID, "token %d is outside the vocabulary of %d", *token, vocab);
  }
  return guarded([&] {
    model->model.forward(tokens, lengths, sequences, states, logits);
    return RWKV_OK;
  });
}

}  // extern "C"
