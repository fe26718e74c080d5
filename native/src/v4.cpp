// RWKV-4 "Dove" (Peng et al. 2023, arXiv:2305.13048); the formulas as in arch/v4.py.
#include <cmath>

#include "gated_ffn.h"
#include "steps.h"

namespace rwkv {
namespace {

enum { kAttShift, kNumerator, kDenominator, kExponent, kFfnShift, kStateArrays };

constexpr int64_t kChannels = 64;  // of a piece of the recurrence

struct Layer {
  const float *ln1, *ln1_bias, *mix_k, *mix_v, *mix_r, *first;
  Buffer<float> log_w;  // -exp(time_decay)
  Matrix receptance, key, value, output;
  GatedFfn::Layer ffn;
};

class Dove : public Version {
 public:
  Dove(const rwkv_config &config, const Tensors &tensors);
  int state_arrays() const override { return kStateArrays; }
  void layer(Model &model, int64_t index, Pass &pass, Team &team) override;

 private:
  std::vector<Layer> layers_;
  Inputs xr_, xk_, xv_, y_;
  Buffer<float> normed_, r_, k_, v_;
  GatedFfn ffn_;
};

Dove::Dove(const rwkv_config &config, const Tensors &tensors) {
  const int64_t c = config.width, a = config.attention;
  std::vector<Matrix> readers, outputs;
  std::vector<GatedFfn::Layer> ffns;
  for (int64_t i = 0; i < config.layers; i++) {
    auto vector = [&](const char *name, int64_t n) { return tensors.vector(layer_name(i, name), n); };
    Layer p;
    p.ln1 = vector("ln1.weight", c), p.ln1_bias = vector("ln1.bias", c);
    p.mix_k = vector("att.time_mix_k", c), p.mix_v = vector("att.time_mix_v", c);
    p.mix_r = vector("att.time_mix_r", c), p.first = vector("att.time_first", a);
    p.log_w = Buffer<float>(a);
    const float *decay = vector("att.time_decay", a);
    for (int64_t j = 0; j < a; j++) p.log_w.data()[j] = -std::exp(decay[j]);
    p.receptance = tensors.rows(layer_name(i, "att.receptance.weight"), a, c);
    p.key = tensors.rows(layer_name(i, "att.key.weight"), a, c);
    p.value = tensors.rows(layer_name(i, "att.value.weight"), a, c);
    p.output = tensors.rows(layer_name(i, "att.output.weight"), c, a);
    p.ffn = GatedFfn::load(config, tensors, i, "time_mix");
    readers.insert(readers.end(), {p.receptance, p.key, p.value});
    outputs.push_back(p.output);
    ffns.push_back(p.ffn);
    layers_.push_back(std::move(p));
  }
  for (Inputs *inputs : {&xr_, &xk_, &xv_}) *inputs = Inputs(kMaxRows, c, readers);
  y_ = Inputs(kMaxRows, a, outputs);
  normed_ = Buffer<float>(kMaxRows * c);
  for (auto *wide : {&r_, &k_, &v_}) *wide = Buffer<float>(kMaxRows * a);
  ffn_ = GatedFfn(config, ffns);
}

void Dove::layer(Model &model, int64_t index, Pass &pass, Team &team) {
  const Layer &p = layers_[index];
  const int64_t c = model.config.width, a = model.config.attention, rows = pass.rows;
  shifted(model, pass, team, p.ln1, p.ln1_bias, normed_.data(), kAttShift, index,
          [&](int64_t m, const float *x, const float *previous) {
            model.k.lerp(previous, x, p.mix_r, xr_.row(m), c);
            model.k.lerp(previous, x, p.mix_k, xk_.row(m), c);
            model.k.lerp(previous, x, p.mix_v, xv_.row(m), c);
            for (const Inputs *inputs : {&xr_, &xk_, &xv_}) inputs->seal(model.k, m, rows);
          });
  if (team.index() == 0) keep_shift(model, pass, normed_.data(), kAttShift, index);
  const Product products[] = {
      Product::dot(p.receptance, xr_, r_.data(), Activate::kSigmoid),  // eq. 11
      Product::dot(p.key, xk_, k_.data()),                             // eq. 12
      Product::dot(p.value, xv_, v_.data()),                           // eq. 13
  };
  multiply(model, products, rows, team);
  const int64_t stretches = pieces(a, kChannels);
  team.share(stretches * static_cast<int64_t>(pass.spans.size()), [&](int64_t piece) {  // eq. 16
    const Span &span = pass.spans[piece / stretches];
    const int64_t begin = piece % stretches * kChannels, end = std::min(a, begin + kChannels);
    const int64_t at = span.begin * a;
    Wkv4 args;
    args.tokens = span.count, args.stride = a, args.begin = begin, args.end = end;
    args.r = r_.data() + at, args.k = k_.data() + at, args.v = v_.data() + at;
    args.log_w = p.log_w.data(), args.u = p.first;
    args.numerator = Pass::state(span, kNumerator, index, a);
    args.denominator = Pass::state(span, kDenominator, index, a);
    args.exponent = Pass::state(span, kExponent, index, a);
    args.y = y_.row(span.begin);
    model.k.wkv4(args);
    for (int64_t m = span.begin; m < span.begin + span.count; m++) y_.seal(model.k, m, rows, begin, end);
  });
  add_product(model, p.output, y_, rows, team);  // eq. 17
  ffn_.apply(model, p.ffn, kFfnShift, index, pass, team);
}

}  // namespace

std::unique_ptr<Version> make_v4(const rwkv_config &config, const Tensors &tensors) {
  return std::make_unique<Dove>(config, tensors);
}

}  // namespace rwkv
