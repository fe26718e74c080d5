// The channel-mixing of RWKV-4 to 6: sigmoid(receptance) * (value * relu(key)^2), arXiv:2305.13048,
// eq. 14, 15 and 18.
#pragma once

#include "steps.h"

namespace rwkv {

class GatedFfn {
 public:
  struct Layer {
    const float *ln2, *ln2_bias, *mix_k, *mix_r;
    Matrix key, receptance, value;
  };

  GatedFfn() = default;
  GatedFfn(const rwkv_config &config, const std::vector<Layer> &layers);

  // `mix` is what the version calls its mixing vectors: time_mix or time_maa. Those of time_maa weigh
  // the previous token, those of time_mix the present one.
  static Layer load(const rwkv_config &config, const Tensors &tensors, int64_t layer, const char *mix);

  void apply(Model &model, const Layer &p, int state_array, int64_t index, Pass &pass, Team &team,
             bool mix_is_previous = false);

 private:
  Inputs xk_, xr_;
  Buffer<float> normed_, gate_, hidden_;
  Value value_;
};

}  // namespace rwkv
