#include "gated_ffn.h"

namespace rwkv {

GatedFfn::GatedFfn(const rwkv_config &config, const std::vector<Layer> &layers) {
  const int64_t c = config.width;
  std::vector<Matrix> readers;
  for (const Layer &p : layers) readers.insert(readers.end(), {p.key, p.receptance});
  xk_ = Inputs(kMaxRows, c, readers);
  xr_ = Inputs(kMaxRows, c, readers);
  normed_ = Buffer<float>(kMaxRows * c);
  gate_ = Buffer<float>(kMaxRows * c);
  hidden_ = Buffer<float>(kMaxRows * config.ffn);
  value_ = Value(config.ffn);
}

GatedFfn::Layer GatedFfn::load(const rwkv_config &config, const Tensors &tensors, int64_t layer,
                               const char *mix) {
  const int64_t c = config.width;
  const std::string prefix = std::string("ffn.") + mix;
  Layer p;
  p.ln2 = tensors.vector(layer_name(layer, "ln2.weight"), c);
  p.ln2_bias = tensors.vector(layer_name(layer, "ln2.bias"), c);
  p.mix_k = tensors.vector(layer_name(layer, (prefix + "_k").c_str()), c);
  p.mix_r = tensors.vector(layer_name(layer, (prefix + "_r").c_str()), c);
  p.key = tensors.rows(layer_name(layer, "ffn.key.weight"), config.ffn, c);
  p.receptance = tensors.rows(layer_name(layer, "ffn.receptance.weight"), c, c);
  p.value = tensors.panels(layer_name(layer, "ffn.value.weight"), c, config.ffn);
  return p;
}

void GatedFfn::apply(Model &model, const Layer &p, int state_array, int64_t index, Pass &pass, Team &team,
                     bool mix_is_previous) {
  const int64_t c = model.config.width;
  shifted(model, pass, team, p.ln2, p.ln2_bias, normed_.data(), state_array, index,
          [&](int64_t m, const float *x, const float *previous) {
            const float *from = mix_is_previous ? x : previous, *to = mix_is_previous ? previous : x;
            model.k.lerp(from, to, p.mix_k, xk_.row(m), c);
            model.k.lerp(from, to, p.mix_r, xr_.row(m), c);
            for (const Inputs *inputs : {&xk_, &xr_}) inputs->seal(model.k, m, pass.rows);
          });
  if (team.index() == 0) keep_shift(model, pass, normed_.data(), state_array, index);
  const Product products[] = {
      Product::dot(p.key, xk_, hidden_.data(), Activate::kSquaredRelu),
      Product::dot(p.receptance, xr_, gate_.data(), Activate::kSigmoid),
  };
  multiply(model, products, pass.rows, team);
  value_.add(model, p.value, hidden_.data(), gate_.data(), pass.rows, team);
}

}  // namespace rwkv
