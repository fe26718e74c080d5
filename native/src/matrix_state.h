// What RWKV-5 and 6 share: the bonus of the current token, and their recurrence over all heads.
#pragma once

#include "steps.h"

namespace rwkv {

// The bonus of each channel; stored as time_first it is a logarithm, as time_faaaa it is itself.
Buffer<float> load_bonus(const rwkv_config &config, const Tensors &tensors, int64_t layer, bool per_channel);

// Runs wkv6 on every head of every sequence; the pointers of `args` are those of the first row and head.
void matrix_state_heads(Model &model, const Wkv6 &args, const Inputs &y, int state_array, int64_t layer,
                        Pass &pass, Team &team);

}  // namespace rwkv
