// RWKV-6 "Finch" (Peng et al. 2024, arXiv:2404.05892); the formulas as in arch/v6.py.
#include "gated_ffn.h"
#include "matrix_state.h"
#include "steps.h"

namespace rwkv {
namespace {

enum { kAttShift, kWkv, kFfnShift, kStateArrays };
enum { kW, kK, kV, kR, kG, kMixes };  // in the order of time_maa_w1 and w2

struct Layer {
  const float *ln1, *ln1_bias, *maa_x, *maa[kMixes], *decay, *ln_x, *ln_x_bias;
  Buffer<float> u;
  Matrix maa_w1, maa_w2, decay_w1, decay_w2;
  Matrix receptance, key, value, gate, output;
  GatedFfn::Layer ffn;
};

class Finch : public Version {
 public:
  Finch(const rwkv_config &config, const Tensors &tensors);
  int state_arrays() const override { return kStateArrays; }
  void layer(Model &model, int64_t index, Pass &pass, Team &team) override;

 private:
  void mix_inputs(Model &model, const Layer &p, int64_t index, Pass &pass, Team &team);

  std::vector<Layer> layers_;
  Inputs inputs_[kMixes], y_;
  Buffer<float> normed_, before_, xx_, low_mix_, mix_[kMixes], low_w_, r_, k_, v_, g_, w_;
  GatedFfn ffn_;
};

Finch::Finch(const rwkv_config &config, const Tensors &tensors) {
  const int64_t c = config.width, a = config.attention;
  std::vector<Matrix> readers, outputs;
  std::vector<GatedFfn::Layer> ffns;
  int64_t rank = 0;
  for (int64_t i = 0; i < config.layers; i++) {
    auto vector = [&](const char *name, int64_t n) { return tensors.vector(layer_name(i, name), n); };
    auto rows = [&](const char *name) {
      readers.push_back(tensors.rows(layer_name(i, name), a, c));
      return readers.back();
    };
    Layer p;
    p.ln1 = vector("ln1.weight", c), p.ln1_bias = vector("ln1.bias", c);
    p.maa_x = vector("att.time_maa_x", c);
    p.maa[kW] = vector("att.time_maa_w", c), p.maa[kK] = vector("att.time_maa_k", c);
    p.maa[kV] = vector("att.time_maa_v", c), p.maa[kR] = vector("att.time_maa_r", c);
    p.maa[kG] = vector("att.time_maa_g", c), p.decay = vector("att.time_decay", a);
    p.ln_x = vector("att.ln_x.weight", a), p.ln_x_bias = vector("att.ln_x.bias", a);
    p.maa_w1 = tensors.panels(layer_name(i, "att.time_maa_w1"), 0, c);
    p.maa_w2 = tensors.panels(layer_name(i, "att.time_maa_w2"), c, p.maa_w1.rows);
    if (p.maa_w1.rows % kMixes)
      throw Failure{RWKV_INVALID, "att.time_maa_w1 does not have five times as many columns as one rank"};
    p.decay_w1 = tensors.panels(layer_name(i, "att.time_decay_w1"), 0, c);
    p.decay_w2 = tensors.panels(layer_name(i, "att.time_decay_w2"), a, p.decay_w1.rows);
    rank = std::max({rank, p.maa_w1.rows, p.decay_w1.rows});
    p.receptance = rows("att.receptance.weight"), p.key = rows("att.key.weight");
    p.value = rows("att.value.weight"), p.gate = rows("att.gate.weight");
    p.output = tensors.rows(layer_name(i, "att.output.weight"), c, a);
    outputs.push_back(p.output);
    p.u = load_bonus(config, tensors, i, true);
    p.ffn = GatedFfn::load(config, tensors, i, "time_maa");
    ffns.push_back(p.ffn);
    layers_.push_back(std::move(p));
  }
  for (Inputs &inputs : inputs_) inputs = Inputs(kMaxRows, c, readers);
  y_ = Inputs(kMaxRows, a, outputs);
  for (auto *wide : {&normed_, &before_, &xx_}) *wide = Buffer<float>(kMaxRows * c);
  for (Buffer<float> &mix : mix_) mix = Buffer<float>(kMaxRows * c);
  for (auto *wide : {&r_, &k_, &v_, &g_, &w_}) *wide = Buffer<float>(kMaxRows * a);
  for (auto *low : {&low_mix_, &low_w_}) *low = Buffer<float>(kMaxRows * round_up(rank, kGroup));
  ffn_ = GatedFfn(config, ffns);
}

// The inputs of all matrices, mixed by an amount that depends on the tokens (eq. 14 and 15).
void Finch::mix_inputs(Model &model, const Layer &p, int64_t index, Pass &pass, Team &team) {
  const int64_t c = model.config.width;
  shifted(model, pass, team, p.ln1, p.ln1_bias, normed_.data(), kAttShift, index,
          [&](int64_t m, const float *x, const float *previous) {
            std::copy(previous, previous + c, before_.row(m, c));
            model.k.lerp(x, previous, p.maa_x, xx_.row(m, c), c);
          });
  if (team.index() == 0) keep_shift(model, pass, normed_.data(), kAttShift, index);
  const Product down[] = {Product::panel(p.maa_w1, xx_.data(), c, low_mix_.data(), Activate::kTanh)};
  multiply(model, down, pass.rows, team);
  const int64_t rank = p.maa_w1.rows / kMixes;
  auto up = [&](int mix) {
    Product product = Product::panel(p.maa_w2, low_mix_.data(), down[0].stride, mix_[mix].data());
    product.first = mix * rank, product.last = product.first + rank;
    return product;
  };
  const Product ups[] = {up(kW), up(kK), up(kV), up(kR), up(kG)};
  multiply(model, ups, pass.rows, team, [&](size_t mix, int64_t m, int64_t begin, int64_t end) {
    model.k.lerp_more(normed_.row(m, c) + begin, before_.row(m, c) + begin, p.maa[mix] + begin,
                      mix_[mix].row(m, c) + begin, inputs_[mix].row(m) + begin, end - begin);
    inputs_[mix].seal(model.k, m, pass.rows, begin, end);
  });
}

void Finch::layer(Model &model, int64_t index, Pass &pass, Team &team) {
  const Layer &p = layers_[index];
  const int64_t c = model.config.width, rows = pass.rows;
  mix_inputs(model, p, index, pass, team);
  const Product products[] = {
      Product::panel(p.decay_w1, inputs_[kW].row(0), c, low_w_.data(), Activate::kTanh),
      Product::dot(p.receptance, inputs_[kR], r_.data()),
      Product::dot(p.key, inputs_[kK], k_.data()),
      Product::dot(p.value, inputs_[kV], v_.data()),
      Product::dot(p.gate, inputs_[kG], g_.data(), Activate::kSilu),
  };
  multiply(model, products, rows, team);
  const Product decay[] = {Product::panel(p.decay_w2, low_w_.data(), products[0].stride, w_.data())};
  multiply(model, decay, rows, team);
  Wkv6 args{};
  args.r = r_.data(), args.k = k_.data(), args.v = v_.data(), args.g = g_.data();
  args.w = w_.data(), args.w0 = p.decay, args.u = p.u.data();  // eq. 16
  args.ln_weight = p.ln_x, args.ln_bias = p.ln_x_bias;
  matrix_state_heads(model, args, y_, kWkv, index, pass, team);  // eq. 17 to 19
  add_product(model, p.output, y_, rows, team);
  ffn_.apply(model, p.ffn, kFfnShift, index, pass, team, /*mix_is_previous=*/true);
}

}  // namespace

std::unique_ptr<Version> make_v6(const rwkv_config &config, const Tensors &tensors) {
  return std::make_unique<Finch>(config, tensors);
}

}  // namespace rwkv
