/* The C interface of the CPU engine: fixed-width types, no torch, no Python.
 *
 * Every function that can fail returns RWKV_OK or a negative code and leaves a sentence for
 * rwkv_last_error() of the same thread. Nothing here throws, and no argument crashes it: sizes are
 * checked against each other before a byte is read. Pointers to weights stay the caller's and must
 * outlive the model; everything else is copied.
 */
#ifndef RWKV_NATIVE_H
#define RWKV_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define RWKV_API __declspec(dllexport)
#else
#define RWKV_API __attribute__((visibility("default")))
#endif

/* Raised with every change of this file or of a packed layout. */
#define RWKV_NATIVE_ABI 2

enum rwkv_status {
  RWKV_OK = 0,
  RWKV_INVALID = -1,     /* an argument makes no sense */
  RWKV_NO_MEMORY = -2,
  RWKV_UNSUPPORTED = -3, /* a size or a machine this library does not run */
  RWKV_FULL = -4         /* the caller's buffer is too small */
};

enum rwkv_type { RWKV_F32 = 0, RWKV_BF16 = 1, RWKV_F16 = 2, RWKV_Q8 = 3, RWKV_Q4 = 4, RWKV_F64 = 5 };

/* How a matrix of `rows` outputs and `cols` inputs lies in memory; formats.h describes both. */
enum rwkv_layout {
  RWKV_ROWS = 0,  /* an output's weights lie together: dot products */
  RWKV_PANELS = 1 /* an input's weights lie together: rows of zero inputs are skipped */
};

typedef struct rwkv_pool rwkv_pool;
typedef struct rwkv_model rwkv_model;

typedef struct {
  const char *name; /* as in BlinkDL's checkpoints: blocks.0.att.key.weight */
  int32_t type;     /* rwkv_type */
  int32_t layout;   /* rwkv_layout */
  int64_t rows, cols;
  const void *data;
  int64_t bytes;
} rwkv_tensor;

typedef struct {
  int32_t version; /* 40, 50, 51, 52, 60, 70 */
  int32_t layers, width, attention, heads, head_size, ffn, vocab;
} rwkv_config;

RWKV_API int rwkv_abi_version(void);
RWKV_API const char *rwkv_last_error(void);

/* Writes the instruction sets that run on this machine, the best one last: "generic avx2 vnni". */
RWKV_API int rwkv_instruction_sets(char *buffer, size_t size);

/* Chooses the kernels of everything created after it; NULL takes the best. */
RWKV_API int rwkv_choose_instruction_set(const char *name);

/* Threads that wait for work together with the one that calls. */
RWKV_API int rwkv_pool_new(int32_t threads, rwkv_pool **pool);
RWKV_API void rwkv_pool_free(rwkv_pool *pool);

/* Bytes of a matrix in a type and a layout; negative on sizes that make no sense. */
RWKV_API int64_t rwkv_packed_bytes(int32_t type, int32_t layout, int64_t rows, int64_t cols);

/* Converts a row-major float matrix (F32, BF16, F16 or F64 at any address) into a type and a layout.
 * `transposed`: the source has inputs as rows. `error`, where not NULL, receives the relative error
 * ||packed - source|| / ||source||. */
RWKV_API int rwkv_pack(rwkv_pool *pool, const void *source, int32_t source_type, int32_t transposed,
                       int32_t type, int32_t layout, int64_t rows, int64_t cols, void *target,
                       int64_t target_bytes, double *error);

/* The opposite: row-major float32, rows x cols. */
RWKV_API int rwkv_unpack(const void *source, int32_t type, int32_t layout, int64_t rows, int64_t cols,
                         int64_t source_bytes, float *target);

RWKV_API int rwkv_model_new(const rwkv_config *config, const rwkv_tensor *tensors, size_t count,
                            rwkv_pool *pool, rwkv_model **model);
RWKV_API void rwkv_model_free(rwkv_model *model);

/* Name of the kernels that a model runs on. */
RWKV_API const char *rwkv_model_instruction_set(const rwkv_model *model);

/* Arrays of a state in the order of the version's table in rwkv_cli/arch: att_shift, wkv, ffn_shift,
 * or for RWKV-4 att_shift, numerator, denominator, exponent, ffn_shift; each (layers, ...). */
RWKV_API int32_t rwkv_state_arrays(const rwkv_model *model);

/* Feeds lengths[s] tokens to each of `sequences` states, in place.
 * tokens: all of them, one sequence after the other. states: sequences x rwkv_state_arrays pointers.
 * logits: for each sequence where its `vocab` scores after its last token go, or NULL: then they are
 * not wanted, and neither the last norm nor the head is computed for it. May itself be NULL. */
RWKV_API int rwkv_forward(rwkv_model *model, const int32_t *tokens, const int32_t *lengths,
                          int32_t sequences, float *const *states, float *const *logits);

/* Copies memory that is mapped privately from a file onto large pages, piece by piece, at the same
 * addresses; others may read it meanwhile, nobody may write. Reading large pages is up to a third
 * faster. RWKV_UNSUPPORTED where the system cannot; what was not moved stays as it is. */
RWKV_API int rwkv_promote(void *address, int64_t bytes);

/* What the machine can do at best, for the shares that `rwkv bench` states. */
enum rwkv_arithmetic { RWKV_FP32_FMA = 0, RWKV_BF16_DOT = 1, RWKV_INT8_DOT = 2 };

/* Reads a buffer of `bytes` with all threads again and again, for some seconds; the fastest pass
 * counts. Choose a buffer several times larger than the caches. */
RWKV_API int rwkv_measure_read(rwkv_pool *pool, int64_t bytes, double seconds,
                               double *bytes_per_second);

/* Operations of all threads in registers, a multiplication and its addition counted as two.
 * RWKV_UNSUPPORTED where the processor has no such instruction. */
RWKV_API int rwkv_measure_arithmetic(rwkv_pool *pool, int32_t kind, double *ops_per_second);

/* A World vocabulary as one block without pointers, which may be mapped from a file: the bytes of
 * every id, a trie for the longest match, a checksum, and at RWKV_WORLD_LABEL_AT some bytes of the
 * caller's. It is of one byte order and one ABI. src/world.h describes it; rwkv_cli/native/world.py
 * reads its sizes and the ids' bytes from there. */
#define RWKV_WORLD_LABEL 64
#define RWKV_WORLD_LABEL_AT 56

/* Packs the bytes of ids 0 .. ids-1, lengths[id] each, one after the other; id 0 has none, every
 * single byte is a token, no two ids agree. `bytes` receives the size, also with RWKV_FULL. */
RWKV_API int rwkv_world_pack(const uint8_t *text, int64_t text_bytes, const uint32_t *lengths,
                             int64_t ids, const uint8_t *label, void *target, int64_t capacity,
                             int64_t *bytes);

/* Whether a block is whole and makes sense; to be asked once, before anything else. */
RWKV_API int rwkv_world_check(const void *table, int64_t bytes);

/* Writes the tokens of text from *position on, and moves it: to the end of the text, or to where
 * `capacity` tokens were written. Gives their number or a negative code. Reads nothing outside of
 * the block, whatever it contains. */
RWKV_API int64_t rwkv_world_encode(const void *table, int64_t bytes, const uint8_t *text,
                                   int64_t text_bytes, int64_t *position, int32_t *tokens,
                                   int64_t capacity);

/* How a token is drawn; rwkv_cli/sampling.py says what the words mean. */
typedef struct {
  double top_p;
  int64_t top_k;             /* 0 keeps all */
  float temperature, min_p;
  int32_t temperature_first; /* before the filters instead of after them */
} rwkv_sampling;

/* Draws a token by `uniform` in [0, 1). *token is -1 when there is none to draw: every logit is
 * -inf, or one is NaN or +inf. */
RWKV_API int rwkv_sample(const float *logits, int64_t vocab, const rwkv_sampling *sampling,
                         double uniform, int32_t *token);

/* What a token is drawn from and how. Scores are logits (which stay as they are), -inf for those that
 * are never drawn, less presence + count * frequency for each that is penalized. */
typedef struct {
  const float *logits;
  const int64_t *never;      /* ids */
  const uint32_t *penalized; /* ids, each once */
  const float *counts;       /* how often each of those was generated */
  int64_t never_count, penalized_count;
  rwkv_sampling sampling;
  double uniform;
  float presence, frequency;
} rwkv_choice;

/* Draws `count` tokens with all threads of a pool, each as rwkv_sample draws it. */
RWKV_API int rwkv_choose(rwkv_pool *pool, const rwkv_choice *choices, int32_t count, int64_t vocab,
                         int32_t *tokens);

#ifdef __cplusplus
}
#endif
#endif
