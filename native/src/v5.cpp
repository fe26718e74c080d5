// RWKV-5 "Eagle" (Peng et al. 2024, arXiv:2404.05892) and its forerunners; the formulas as in arch/v5.py.
#include <cmath>

#include "gated_ffn.h"
#include "matrix_state.h"
#include "steps.h"

namespace rwkv {
namespace {

enum { kAttShift, kWkv, kFfnShift, kStateArrays };

struct Layer {
  const float *ln1, *ln1_bias, *mix_k, *mix_v, *mix_r, *mix_g = nullptr, *ln_x, *ln_x_bias;
  Buffer<float> w, u;  // decay and bonus of each channel
  Matrix receptance, key, value, gate, output;
  GatedFfn::Layer ffn;
};

class Eagle : public Version {
 public:
  Eagle(const rwkv_config &config, const Tensors &tensors);
  int state_arrays() const override { return kStateArrays; }
  void layer(Model &model, int64_t index, Pass &pass, Team &team) override;

 private:
  std::vector<Layer> layers_;
  Inputs xr_, xk_, xv_, xg_, y_;
  Buffer<float> normed_, r_, k_, v_, g_;
  GatedFfn ffn_;
};

Eagle::Eagle(const rwkv_config &config, const Tensors &tensors) {
  const int64_t c = config.width, a = config.attention;
  const bool per_channel = config.version == 52, gated = config.version != 50;
  std::vector<Matrix> readers, outputs;
  std::vector<GatedFfn::Layer> ffns;
  for (int64_t i = 0; i < config.layers; i++) {
    auto vector = [&](const char *name, int64_t n) { return tensors.vector(layer_name(i, name), n); };
    auto rows = [&](const char *name) {
      readers.push_back(tensors.rows(layer_name(i, name), a, c));
      return readers.back();
    };
    Layer p;
    p.ln1 = vector("ln1.weight", c), p.ln1_bias = vector("ln1.bias", c);
    p.mix_k = vector("att.time_mix_k", c), p.mix_v = vector("att.time_mix_v", c);
    p.mix_r = vector("att.time_mix_r", c);
    p.ln_x = vector("att.ln_x.weight", a), p.ln_x_bias = vector("att.ln_x.bias", a);
    p.receptance = rows("att.receptance.weight"), p.key = rows("att.key.weight");
    p.value = rows("att.value.weight");
    if (gated) p.mix_g = vector("att.time_mix_g", c), p.gate = rows("att.gate.weight");
    p.output = tensors.rows(layer_name(i, "att.output.weight"), c, a);
    outputs.push_back(p.output);
    const float *decay = vector("att.time_decay", per_channel ? a : config.heads);
    p.w = Buffer<float>(a);
    for (int64_t j = 0; j < a; j++)
      p.w.data()[j] = std::exp(-std::exp(decay[per_channel ? j : j / config.head_size]));
    p.u = load_bonus(config, tensors, i, per_channel);
    p.ffn = GatedFfn::load(config, tensors, i, "time_mix");
    ffns.push_back(p.ffn);
    layers_.push_back(std::move(p));
  }
  for (Inputs *inputs : {&xr_, &xk_, &xv_, &xg_}) *inputs = Inputs(kMaxRows, c, readers);
  y_ = Inputs(kMaxRows, a, outputs);
  normed_ = Buffer<float>(kMaxRows * c);
  for (auto *wide : {&r_, &k_, &v_, &g_}) *wide = Buffer<float>(kMaxRows * a);
  ffn_ = GatedFfn(config, ffns);
}

void Eagle::layer(Model &model, int64_t index, Pass &pass, Team &team) {
  const Layer &p = layers_[index];
  const int64_t c = model.config.width, rows = pass.rows;
  shifted(model, pass, team, p.ln1, p.ln1_bias, normed_.data(), kAttShift, index,
          [&](int64_t m, const float *x, const float *previous) {
            model.k.lerp(previous, x, p.mix_r, xr_.row(m), c);
            model.k.lerp(previous, x, p.mix_k, xk_.row(m), c);
            model.k.lerp(previous, x, p.mix_v, xv_.row(m), c);
            if (p.gate) model.k.lerp(previous, x, p.mix_g, xg_.row(m), c);
            for (const Inputs *inputs : {&xr_, &xk_, &xv_, &xg_}) inputs->seal(model.k, m, rows);
          });
  if (team.index() == 0) keep_shift(model, pass, normed_.data(), kAttShift, index);
  const Product products[] = {
      Product::dot(p.receptance, xr_, r_.data()),  // eq. 4
      Product::dot(p.key, xk_, k_.data()),
      Product::dot(p.value, xv_, v_.data()),
      Product::dot(p.gate, xg_, g_.data(), Activate::kSilu),
  };
  multiply(model, products, rows, team);
  Wkv6 args{};
  args.r = r_.data(), args.k = k_.data(), args.v = v_.data(), args.g = p.gate ? g_.data() : nullptr;
  args.w = p.w.data(), args.u = p.u.data(), args.ln_weight = p.ln_x, args.ln_bias = p.ln_x_bias;
  matrix_state_heads(model, args, y_, kWkv, index, pass, team);  // eq. 5 to 9
  add_product(model, p.output, y_, rows, team);
  ffn_.apply(model, p.ffn, kFfnShift, index, pass, team);
}

}  // namespace

std::unique_ptr<Version> make_v5(const rwkv_config &config, const Tensors &tensors) {
  return std::make_unique<Eagle>(config, tensors);
}

}  // namespace rwkv
