#include "model.h"

#include <algorithm>
#include <cstring>

#include "steps.h"

namespace rwkv {

std::string layer_name(int64_t layer, const char *name) {
  return "blocks." + std::to_string(layer) + "." + name;
}

Tensors::Tensors(const rwkv_tensor *tensors, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const rwkv_tensor &t = tensors[i];
    if (!t.name || !t.data) throw Failure{RWKV_INVALID, "a tensor has no name or no data"};
    const int64_t bytes = rwkv_packed_bytes(t.type, t.layout, t.rows, t.cols);
    if (bytes < 0 || bytes != t.bytes)
      throw Failure{RWKV_INVALID, std::string(t.name) + " has a size that does not fit its type and shape"};
    if (!by_name_.emplace(t.name, t).second)
      throw Failure{RWKV_INVALID, std::string(t.name) + " is given twice"};
  }
}

const rwkv_tensor &Tensors::find(const std::string &name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) throw Failure{RWKV_INVALID, "tensor " + name + " is missing"};
  return found->second;
}

const float *Tensors::vector(const std::string &name, int64_t count) const {
  const rwkv_tensor &t = find(name);
  if (t.type != RWKV_F32 || t.rows * t.cols != count || reinterpret_cast<uintptr_t>(t.data) % sizeof(float))
    throw Failure{RWKV_INVALID, "tensor " + name + " is not a vector of " + std::to_string(count) + " float32"};
  return static_cast<const float *>(t.data);
}

Matrix Tensors::matrix(const std::string &name, int32_t layout, int64_t rows, int64_t cols) const {
  const rwkv_tensor &t = find(name);
  if (t.layout != layout || (rows && t.rows != rows) || (cols && t.cols != cols) || t.type == RWKV_F64)
    throw Failure{RWKV_INVALID, "tensor " + name + " has another shape, type or layout than the model needs"};
  if (t.type >= RWKV_Q8 && reinterpret_cast<uintptr_t>(t.data) % 64)
    throw Failure{RWKV_INVALID, "tensor " + name + " does not start at a multiple of 64 bytes"};
  return {t.type, t.layout, t.rows, t.cols, static_cast<const uint8_t *>(t.data)};
}

Matrix Tensors::rows(const std::string &name, int64_t rows, int64_t cols) const {
  return matrix(name, RWKV_ROWS, rows, cols);
}

Matrix Tensors::panels(const std::string &name, int64_t rows, int64_t cols) const {
  return matrix(name, RWKV_PANELS, rows, cols);
}

Inputs::Inputs(int64_t rows, int64_t cols, const std::vector<Matrix> &readers) {
  view_.cols = cols;
  view_.code_stride = round_up(cols, kBlockCols);
  view_.groups = view_.code_stride / kGroup;
  x_ = Buffer<float>(rows * cols);
  view_.x = x_.data();
  if (std::none_of(readers.begin(), readers.end(), [](const Matrix &m) { return m.is_quantized(); })) return;
  codes_ = Buffer<int16_t>(rows * view_.code_stride);
  scales_ = Buffer<float>(rows * view_.groups);
  offsets_ = Buffer<int32_t>(rows * view_.groups);
  view_.codes = codes_.data(), view_.scales = scales_.data(), view_.offsets = offsets_.data();
}

void Inputs::seal(const Kernels &kernels, int64_t m, int64_t rows, int64_t begin, int64_t end) const {
  if (!view_.codes) return;
  const Tile tile = tile_of(m, rows);
  const int64_t row = m - tile.begin;
  const int64_t group = tile.begin * view_.groups + begin / kGroup * tile.width + row;
  kernels.quantize(view_.row(m) + begin, end - begin, tile.width,
                   view_.codes + tile.begin * view_.code_stride + begin * tile.width + 4 * row,
                   view_.scales + group, view_.offsets + group);
}

namespace {

std::unique_ptr<Version> make_version(const rwkv_config &config, const Tensors &tensors) {
  switch (config.version) {
    case 40: return make_v4(config, tensors);
    case 50:
    case 51:
    case 52: return make_v5(config, tensors);
    case 60: return make_v6(config, tensors);
    default: return make_v7(config, tensors);
  }
}

}  // namespace

Model::Model(const rwkv_config &sizes, const Tensors &tensors, Pool &threads, const Kernels &kernels)
    : config(sizes), pool(threads), k(kernels) {
  const int64_t c = config.width;
  emb_ = tensors.rows("emb.weight", config.vocab, c);
  if (emb_.is_quantized()) throw Failure{RWKV_INVALID, "emb.weight must be of a float type"};
  head_ = tensors.rows("head.weight", config.vocab, c);
  ln0_ = tensors.vector("blocks.0.ln0.weight", c), ln0_bias_ = tensors.vector("blocks.0.ln0.bias", c);
  ln_out_ = tensors.vector("ln_out.weight", c), ln_out_bias_ = tensors.vector("ln_out.bias", c);
  version_ = make_version(config, tensors);
  ends_ = Inputs(kMaxRows, c, {head_});
  scores_ = Buffer<float>(pool.threads() * kMaxRows * piece_rows(head_));
  x = Buffer<float>(kMaxRows * c);
  product = Buffer<float>(kMaxRows * round_up(c, kGroup));
  before = Buffer<float>(pool.threads() * c);
}

void Model::forward(const int32_t *tokens, const int32_t *lengths, int32_t sequences, float *const *states,
                    float *const *logits) {
  std::lock_guard<std::mutex> one(mutex_);  // the scratch serves one call at a time
  Pass pass;
  for (int32_t s = 0; s < sequences; s++) {
    for (int32_t left = lengths[s]; left > 0;) {
      const int64_t count = std::min<int64_t>(left, kMaxRows - pass.rows);
      std::copy(tokens, tokens + count, pass.tokens + pass.rows);
      std::fill_n(pass.span_of + pass.rows, count, static_cast<int32_t>(pass.spans.size()));
      left -= static_cast<int32_t>(count);
      pass.spans.push_back({pass.rows, count, states + s * state_arrays(), left || !logits ? nullptr : logits[s]});
      pass.rows += count;
      tokens += count;
      if (pass.rows == kMaxRows) {
        run(pass);
        pass.spans.clear();
        pass.rows = 0;
      }
    }
  }
  if (pass.rows) run(pass);
}

void Model::run(Pass &pass) {
  const int64_t c = config.width;
  std::vector<const Span *> ends;
  for (const Span &span : pass.spans)
    if (span.logits) ends.push_back(&span);
  pool.run([&](Team &team) {
    team.share(pass.rows, [&](int64_t m) {
      float *row = x.row(m, c);
      const int64_t bytes = c * element_bytes(emb_.type);
      k.widen(emb_.type, emb_.data + pass.tokens[m] * bytes, row, c);
      k.layer_norm(row, ln0_, ln0_bias_, row, c);
    });
    for (int64_t layer = 0; layer < config.layers; layer++) version_->layer(*this, layer, pass, team);
    if (!ends.empty()) score(ends, team);
  });
}

// The head, for the last rows of some spans. A piece is computed side by side, then copied to where the
// caller wants each row.
void Model::score(const std::vector<const Span *> &ends, Team &team) {
  const int64_t c = config.width, count = static_cast<int64_t>(ends.size()), size = piece_rows(head_);
  team.share(count, [&](int64_t i) {
    k.layer_norm(x.row(ends[i]->begin + ends[i]->count - 1, c), ln_out_, ln_out_bias_, ends_.row(i), c);
    ends_.seal(k, i, count);
  });
  float *scores = scores_.row(team.index(), kMaxRows * size);
  team.share(pieces(config.vocab, size), [&](int64_t piece) {
    const int64_t begin = piece * size, outputs = std::min(config.vocab - begin, size);
    const uint8_t *data = head_.data + (begin ? matrix_bytes(head_.type, RWKV_ROWS, begin, c) : 0);
    k.dot({head_.type, RWKV_ROWS, outputs, c, data}, ends_.view(), 0, outputs, count, scores, size);
    for (int64_t i = 0; i < count; i++)
      std::copy(scores + i * size, scores + i * size + outputs, ends[i]->logits + begin);
  });
}

}  // namespace rwkv
