// A model: its tensors by name, the stack of layers that all versions share, and room for one pass.
// A version is a file vN.cpp with one class; the names and the order of its lines follow arch/vN.py.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels.h"
#include "pool.h"

namespace rwkv {

// Rows (tokens, of one or several sequences) that one pass computes together: enough to use each weight
// often, few enough for their inputs to stay in a cache; whole tiles of 12 (kernels.h).
constexpr int64_t kMaxRows = 144;

// A reason why a model cannot be made; never leaves the library.
struct Failure {
  int code;
  std::string sentence;
};

// Memory that starts at a cache line, zero at first.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t count) : memory_(count * sizeof(T) + 64) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    data_ = reinterpret_cast<T *>((address + 63) / 64 * 64);
  }
  T *data() const { return data_; }
  T *row(int64_t i, int64_t stride) const { return data_ + i * stride; }

 private:
  std::vector<unsigned char> memory_;
  T *data_ = nullptr;
};

// The tensors that a caller gave, checked against the sizes that a version expects.
class Tensors {
 public:
  Tensors(const rwkv_tensor *tensors, size_t count);

  bool has(const std::string &name) const { return by_name_.count(name) > 0; }
  // float32 numbers, exactly `count` of them.
  const float *vector(const std::string &name, int64_t count) const;
  // Inputs and outputs as given; `cols` may be 0 for any.
  Matrix rows(const std::string &name, int64_t rows, int64_t cols) const;
  Matrix panels(const std::string &name, int64_t rows, int64_t cols) const;

 private:
  const rwkv_tensor &find(const std::string &name) const;
  Matrix matrix(const std::string &name, int32_t layout, int64_t rows, int64_t cols) const;

  std::map<std::string, rwkv_tensor> by_name_;
};

// Inputs of dot products with the memory behind them.
class Inputs {
 public:
  Inputs() = default;
  // `rows` rows for the given matrices; in 16 bits as well if one of them is quantized.
  Inputs(int64_t rows, int64_t cols, const std::vector<Matrix> &readers);

  const Activation &view() const { return view_; }
  float *row(int64_t m) const { return view_.row(m); }
  // Brings columns begin .. end (multiples of 32) of row m of `rows`, just written, into 16 bits.
  void seal(const Kernels &kernels, int64_t m, int64_t rows, int64_t begin, int64_t end) const;
  void seal(const Kernels &kernels, int64_t m, int64_t rows) const { seal(kernels, m, rows, 0, view_.cols); }

 private:
  Activation view_;
  Buffer<float> x_, scales_;
  Buffer<int16_t> codes_;
  Buffer<int32_t> offsets_;
};

// Consecutive rows of a pass that belong to one sequence.
struct Span {
  int64_t begin, count;
  float *const *state;  // the sequence's arrays
  float *logits;        // where its scores go; null where it does not end here or nobody wants them
};

struct Pass {
  std::vector<Span> spans;
  int64_t rows = 0;
  int32_t tokens[kMaxRows];
  int32_t span_of[kMaxRows];  // index of each row's span

  // Floats of state array `index` of a layer, which has `size` of them.
  static float *state(const Span &span, int index, int64_t layer, int64_t size) {
    return span.state[index] + layer * size;
  }
};

class Model;

// What a version adds: its layers. One object for all layers, so that its scratch is shared.
class Version {
 public:
  virtual ~Version() = default;
  virtual int state_arrays() const = 0;
  // Replaces x by the layer's output; runs on every thread of the team.
  virtual void layer(Model &model, int64_t index, Pass &pass, Team &team) = 0;
};

class Model {
 public:
  Model(const rwkv_config &config, const Tensors &tensors, Pool &pool, const Kernels &kernels);

  const rwkv_config config;
  Pool &pool;
  const Kernels &k;
  Buffer<float> x;        // [rows][width] the residual stream
  Buffer<float> product;  // [rows][widest] outputs of a matrix before they are added to x
  Buffer<float> before;   // [threads][width] the norm of another thread's row

  void forward(const int32_t *tokens, const int32_t *lengths, int32_t sequences, float *const *states,
               float *const *logits);
  int state_arrays() const { return version_->state_arrays(); }

 private:
  void run(Pass &pass);
  void score(const std::vector<const Span *> &ends, Team &team);

  Matrix emb_, head_;
  const float *ln0_, *ln0_bias_, *ln_out_, *ln_out_bias_;
  std::unique_ptr<Version> version_;
  Inputs ends_;           // inputs of the head
  Buffer<float> scores_;  // [threads][kMaxRows][outputs of a piece of the head]
  std::mutex mutex_;
};

std::unique_ptr<Version> make_v4(const rwkv_config &, const Tensors &);
std::unique_ptr<Version> make_v5(const rwkv_config &, const Tensors &);
std::unique_ptr<Version> make_v6(const rwkv_config &, const Tensors &);
std::unique_ptr<Version> make_v7(const rwkv_config &, const Tensors &);

// Name of a layer's parameter.
std::string layer_name(int64_t layer, const char *name);

}  // namespace rwkv
