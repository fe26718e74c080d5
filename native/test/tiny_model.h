// Random models of every version and type, small enough to run thousands of times.
#pragma once

#include <cstdlib>
#include <deque>

#include "check.h"

namespace test {

// Bytes that start at a cache line.
class Aligned {
 public:
  explicit Aligned(int64_t size) : memory_(static_cast<size_t>(size) + 64) {}
  uint8_t *data() {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    return memory_.data() + (64 - address % 64) % 64;
  }

 private:
  std::vector<uint8_t> memory_;
};

class TinyModel {
 public:
  // `type` is that of the matrices; embeddings are bfloat16 where it is none of the float types.
  explicit TinyModel(int32_t version, int32_t type = RWKV_F32)
      : random_(static_cast<uint32_t>(version)), type_(type) {
    config = {version,
              2,
              kWidth,
              kWidth,
              version == 40 ? 0 : kHeads,
              version == 40 ? 0 : kWidth / kHeads,
              kFfn,
              kVocab};
    if (rwkv_pool_new(1, &pool_) != RWKV_OK) std::abort();
    add("emb.weight", kVocab, kWidth, type <= RWKV_F16 ? type : RWKV_BF16, RWKV_ROWS);
    norm("blocks.0.ln0");
    norm("ln_out");
    rows("head.weight", kVocab, kWidth);
    for (int layer = 0; layer < config.layers; layer++)
      add_layer("blocks." + std::to_string(layer) + ".", layer);
  }
  ~TinyModel() { rwkv_pool_free(pool_); }
  TinyModel(const TinyModel &) = delete;
  TinyModel &operator=(const TinyModel &) = delete;

  int state_arrays() const { return config.version == 40 ? 5 : 3; }

  rwkv_config config;
  std::vector<rwkv_tensor> tensors;

 private:
  static constexpr int32_t kWidth = 64, kHeads = 4, kFfn = 224, kVocab = 50, kRank = 8;

  void add(const std::string &name, int64_t outputs, int64_t inputs, int32_t type, int32_t layout) {
    const std::vector<float> source =
        random_.normals(outputs * inputs, 1 / std::sqrt(static_cast<float>(inputs)));
    const int64_t bytes = rwkv_packed_bytes(type, layout, outputs, inputs);
    data_.emplace_back(bytes);
    names_.push_back(name);
    if (rwkv_pack(pool_, source.data(), RWKV_F32, 0, type, layout, outputs, inputs,
                  data_.back().data(), bytes, nullptr) != RWKV_OK)
      std::abort();
    tensors.push_back(
        {names_.back().c_str(), type, layout, outputs, inputs, data_.back().data(), bytes});
  }
  void rows(const std::string &name, int64_t outputs, int64_t inputs) {
    add(name, outputs, inputs, type_, RWKV_ROWS);
  }
  void panels(const std::string &name, int64_t outputs, int64_t inputs) {
    add(name, outputs, inputs, type_, RWKV_PANELS);
  }

  void vector(const std::string &name, int64_t count, float scale = 0.3f, float mean = 0) {
    const std::vector<float> numbers = random_.normals(count, scale, mean);
    data_.emplace_back(count * 4);
    names_.push_back(name);
    std::memcpy(data_.back().data(), numbers.data(), static_cast<size_t>(count) * 4);
    tensors.push_back(
        {names_.back().c_str(), RWKV_F32, RWKV_ROWS, count, 1, data_.back().data(), count * 4});
  }
  void norm(const std::string &name) {
    vector(name + ".weight", kWidth, 0.1f, 1);
    vector(name + ".bias", kWidth, 0.1f);
  }

  void add_layer(const std::string &at, int layer) {
    norm(at + "ln1");
    norm(at + "ln2");
    for (const char *name : {"receptance", "key", "value", "output"})
      rows(at + "att." + name + ".weight", kWidth, kWidth);
    rows(at + "ffn.key.weight", kFfn, kWidth);
    panels(at + "ffn.value.weight", kWidth, kFfn);
    if (config.version != 40) norm(at + "att.ln_x");
    if (config.version == 70) return add_goose(at, layer);
    rows(at + "ffn.receptance.weight", kWidth, kWidth);
    if (config.version == 60) return add_finch(at);
    for (const char *name :
         {"att.time_mix_k", "att.time_mix_v", "att.time_mix_r", "ffn.time_mix_k", "ffn.time_mix_r"})
      vector(at + name, kWidth, 0.2f, 0.5f);
    const int64_t each = config.version == 50 || config.version == 51 ? kHeads : kWidth;
    vector(at + "att.time_decay", each, 1);
    vector(at + "att.time_first", each);
    if (config.version < 51) return;
    vector(at + "att.time_mix_g", kWidth, 0.2f, 0.5f);
    rows(at + "att.gate.weight", kWidth, kWidth);
  }
  void add_finch(const std::string &at) {
    for (const char *name :
         {"att.time_maa_x", "att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r",
          "att.time_maa_g", "ffn.time_maa_k", "ffn.time_maa_r"})
      vector(at + name, kWidth, 0.2f, 0.5f);
    panels(at + "att.time_maa_w1", 5 * kRank, kWidth);
    panels(at + "att.time_maa_w2", kWidth, 5 * kRank);
    panels(at + "att.time_decay_w1", kRank, kWidth);
    panels(at + "att.time_decay_w2", kWidth, kRank);
    vector(at + "att.time_decay", kWidth, 1, -2);
    vector(at + "att.time_faaaa", kWidth);
    rows(at + "att.gate.weight", kWidth, kWidth);
  }
  void add_goose(const std::string &at, int layer) {
    for (const char *name :
         {"att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g", "ffn.x_k"})
      vector(at + name, kWidth, 0.2f, 0.5f);
    for (const char *name : {"att.w0", "att.a0", "att.k_k", "att.k_a", "att.r_k"})
      vector(at + name, kWidth);
    for (const char *name : {"att.w", "att.a", "att.g", "att.v"}) {
      if (layer == 0 && name[4] == 'v') continue;
      panels(at + name + "1", kRank, kWidth);
      panels(at + name + "2", kWidth, kRank);
    }
    if (layer > 0) vector(at + "att.v0", kWidth);
  }

  Random random_;
  int32_t type_;
  rwkv_pool *pool_ = nullptr;
  std::deque<Aligned> data_;
  std::deque<std::string> names_;
};

// A state before any token.
class State {
 public:
  explicit State(const TinyModel &model) {
    const rwkv_config &c = model.config;
    const int64_t shift = int64_t{c.layers} * c.width, attention = int64_t{c.layers} * c.attention;
    if (c.version == 40) {
      for (int64_t size : {shift, attention, attention, attention, shift})
        memory.emplace_back(static_cast<size_t>(size));
      memory[3].assign(memory[3].size(), -1e30f);
    } else {
      for (int64_t size : {shift, attention * c.head_size, shift})
        memory.emplace_back(static_cast<size_t>(size));
    }
    point();
  }
  State(const State &other) : memory(other.memory) { point(); }
  State &operator=(const State &) = delete;

  std::vector<std::vector<float>> memory;
  std::vector<float *> arrays;

 private:
  void point() {
    for (auto &array : memory) arrays.push_back(array.data());
  }
};

}  // namespace test
