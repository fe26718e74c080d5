// RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456); the formulas as in arch/v7.py.
#include "steps.h"

namespace rwkv {
namespace {

enum { kAttShift, kWkv, kFfnShift, kStateArrays };

struct LowRank {
  Matrix down, up;
};

struct Layer {
  const float *ln1, *ln1_bias, *ln2, *ln2_bias;
  const float *x_r, *x_w, *x_k, *x_v, *x_a, *x_g, *ffn_x_k;
  const float *w0, *a0, *v0 = nullptr, *k_k, *k_a, *r_k, *ln_x, *ln_x_bias;
  LowRank w, a, v, g;
  Matrix receptance, key, value, output, ffn_key, ffn_value;
};

class Goose : public Version {
 public:
  Goose(const rwkv_config &config, const Tensors &tensors);
  int state_arrays() const override { return kStateArrays; }
  void layer(Model &model, int64_t index, Pass &pass, Team &team) override;

 private:
  void time_mix(Model &model, const Layer &p, int64_t index, Pass &pass, Team &team);
  void heads(Model &model, const Layer &p, int64_t index, Pass &pass, Team &team);
  void channel_mix(Model &model, const Layer &p, int64_t index, Pass &pass, Team &team);

  std::vector<Layer> layers_;
  Inputs xr_, xk_, xv_, y_, ffn_xk_;
  Buffer<float> normed_, xw_, xa_, xg_;
  Buffer<float> low_w_, low_a_, low_v_, low_g_;
  Buffer<float> r_, k_, v_, first_, w_, a_, share_, g_, hidden_;
  Value ffn_value_;
};

Goose::Goose(const rwkv_config &config, const Tensors &tensors) {
  const int64_t c = config.width;
  std::vector<Matrix> square, keys;
  int64_t rank = 0;
  for (int64_t i = 0; i < config.layers; i++) {
    auto vector = [&](const char *name) { return tensors.vector(layer_name(i, name), c); };
    auto rows = [&](const char *name) {
      square.push_back(tensors.rows(layer_name(i, name), c, c));
      return square.back();
    };
    auto low_rank = [&](const char *down, const char *up) {
      LowRank both;
      both.down = tensors.panels(layer_name(i, down), 0, c);
      both.up = tensors.panels(layer_name(i, up), c, both.down.rows);
      rank = std::max(rank, round_up(both.down.rows, kGroup));
      return both;
    };
    Layer p;
    p.ln1 = vector("ln1.weight"), p.ln1_bias = vector("ln1.bias");
    p.ln2 = vector("ln2.weight"), p.ln2_bias = vector("ln2.bias");
    p.x_r = vector("att.x_r"), p.x_w = vector("att.x_w"), p.x_k = vector("att.x_k");
    p.x_v = vector("att.x_v"), p.x_a = vector("att.x_a"), p.x_g = vector("att.x_g");
    p.w0 = vector("att.w0"), p.a0 = vector("att.a0");
    p.k_k = vector("att.k_k"), p.k_a = vector("att.k_a"), p.r_k = vector("att.r_k");
    p.ln_x = vector("att.ln_x.weight"), p.ln_x_bias = vector("att.ln_x.bias");
    p.w = low_rank("att.w1", "att.w2"), p.a = low_rank("att.a1", "att.a2");
    p.g = low_rank("att.g1", "att.g2");
    if (i > 0) {
      p.v0 = vector("att.v0");
      p.v = low_rank("att.v1", "att.v2");
    }
    p.receptance = rows("att.receptance.weight"), p.key = rows("att.key.weight");
    p.value = rows("att.value.weight"), p.output = rows("att.output.weight");
    p.ffn_x_k = vector("ffn.x_k");
    p.ffn_key = tensors.rows(layer_name(i, "ffn.key.weight"), config.ffn, c);
    p.ffn_value = tensors.panels(layer_name(i, "ffn.value.weight"), c, config.ffn);
    keys.push_back(p.ffn_key);
    layers_.push_back(p);
  }
  for (Inputs *inputs : {&xr_, &xk_, &xv_, &y_}) *inputs = Inputs(kMaxRows, c, square);
  ffn_xk_ = Inputs(kMaxRows, c, keys);
  for (auto *wide : {&normed_, &xw_, &xa_, &xg_, &r_, &k_, &v_, &first_, &w_, &a_, &share_, &g_})
    *wide = Buffer<float>(kMaxRows * c);
  for (auto *low : {&low_w_, &low_a_, &low_v_, &low_g_}) *low = Buffer<float>(kMaxRows * rank);
  hidden_ = Buffer<float>(kMaxRows * config.ffn);
  ffn_value_ = Value(config.ffn);
}

void Goose::layer(Model &model, int64_t index, Pass &pass, Team &team) {
  time_mix(model, layers_[index], index, pass, team);
  channel_mix(model, layers_[index], index, pass, team);
}

void Goose::time_mix(Model &model, const Layer &p, int64_t index, Pass &pass, Team &team) {
  const int64_t c = model.config.width, rows = pass.rows;
  shifted(model, pass, team, p.ln1, p.ln1_bias, normed_.data(), kAttShift, index,
          [&](int64_t m, const float *x, const float *previous) {  // eq. 3
            model.k.lerp(x, previous, p.x_r, xr_.row(m), c);
            model.k.lerp(x, previous, p.x_k, xk_.row(m), c);
            model.k.lerp(x, previous, p.x_v, xv_.row(m), c);
            model.k.lerp(x, previous, p.x_w, xw_.row(m, c), c);
            model.k.lerp(x, previous, p.x_a, xa_.row(m, c), c);
            model.k.lerp(x, previous, p.x_g, xg_.row(m, c), c);
            for (const Inputs *inputs : {&xr_, &xk_, &xv_}) inputs->seal(model.k, m, rows);
          });
  if (team.index() == 0) keep_shift(model, pass, normed_.data(), kAttShift, index);
  const Product down[] = {
      Product::panel(p.g.down, xg_.data(), c, low_g_.data(), Activate::kSigmoid),
      Product::panel(p.w.down, xw_.data(), c, low_w_.data(), Activate::kTanh),
      Product::panel(p.a.down, xa_.data(), c, low_a_.data()),
      Product::panel(p.v.down, xv_.row(0), c, low_v_.data()),
      Product::dot(p.receptance, xr_, r_.data()),
      Product::dot(p.key, xk_, k_.data()),
      Product::dot(p.value, xv_, v_.data()),
  };
  multiply(model, down, rows, team);
  const Product up[] = {
      Product::panel(p.g.up, low_g_.data(), down[0].stride, g_.data()),
      Product::panel(p.w.up, low_w_.data(), down[1].stride, w_.data()),
      Product::panel(p.a.up, low_a_.data(), down[2].stride, a_.data()),
      Product::panel(p.v.up, low_v_.data(), down[3].stride, share_.data()),
  };
  multiply(model, up, rows, team);
  heads(model, p, index, pass, team);
  add_product(model, p.output, y_, rows, team);
}

void Goose::heads(Model &model, const Layer &p, int64_t index, Pass &pass, Team &team) {
  const int64_t c = model.config.width, size = model.config.head_size;
  const int64_t together = std::max<int64_t>(1, kGroup / size);  // y is sealed in groups of 32
  const int64_t groups = pieces(model.config.heads, together);
  team.share(groups * static_cast<int64_t>(pass.spans.size()), [&](int64_t piece) {
    const Span &span = pass.spans[piece / groups];
    const int64_t begin = piece % groups * together;
    const int64_t end = std::min<int64_t>(model.config.heads, begin + together);
    for (int64_t h = begin; h < end; h++) {
      const int64_t j = h * size, at = span.begin * c + j;
      Wkv7 args;
      args.tokens = span.count, args.stride = c, args.size = size;
      args.r = r_.data() + at, args.k = k_.data() + at, args.v = v_.data() + at;
      args.w = w_.data() + at, args.a = a_.data() + at, args.g = g_.data() + at;
      args.share = p.v0 ? share_.data() + at : nullptr;
      args.w0 = p.w0 + j, args.a0 = p.a0 + j, args.v0 = p.v0 ? p.v0 + j : nullptr;
      args.k_k = p.k_k + j, args.k_a = p.k_a + j, args.r_k = p.r_k + j;
      args.ln_weight = p.ln_x + j, args.ln_bias = p.ln_x_bias + j;
      args.first = first_.data() + at;
      args.state = Pass::state(span, kWkv, index, c * size) + j * size;
      args.y = y_.row(span.begin) + j;
      model.k.wkv7(args);
    }
    for (int64_t m = span.begin; m < span.begin + span.count; m++)
      y_.seal(model.k, m, pass.rows, begin * size, end * size);
  });
}

void Goose::channel_mix(Model &model, const Layer &p, int64_t index, Pass &pass, Team &team) {
  const int64_t c = model.config.width;
  shifted(model, pass, team, p.ln2, p.ln2_bias, normed_.data(), kFfnShift, index,
          [&](int64_t m, const float *x, const float *previous) {
            model.k.lerp(x, previous, p.ffn_x_k, ffn_xk_.row(m), c);
            ffn_xk_.seal(model.k, m, pass.rows);
          });
  if (team.index() == 0) keep_shift(model, pass, normed_.data(), kFfnShift, index);
  const Product key[] = {Product::dot(p.ffn_key, ffn_xk_, hidden_.data(), Activate::kSquaredRelu)};
  multiply(model, key, pass.rows, team);
  ffn_value_.add(model, p.ffn_value, hidden_.data(), nullptr, pass.rows, team);  // eq. 22
}

}  // namespace

std::unique_ptr<Version> make_v7(const rwkv_config &config, const Tensors &tensors) {
  return std::make_unique<Goose>(config, tensors);
}

}  // namespace rwkv
