#include "matrix_state.h"

#include <cmath>

namespace rwkv {

Buffer<float> load_bonus(const rwkv_config &config, const Tensors &tensors, int64_t layer, bool per_channel) {
  const std::string own = layer_name(layer, "att.time_faaaa"), logarithm = layer_name(layer, "att.time_first");
  const bool is_own = tensors.has(own);
  const float *stored =
      tensors.vector(is_own ? own : logarithm, per_channel ? config.attention : config.heads);
  Buffer<float> bonus(config.attention);
  for (int64_t j = 0; j < config.attention; j++) {
    const float value = stored[per_channel ? j : j / config.head_size];
    bonus.data()[j] = is_own ? value : std::exp(value);
  }
  return bonus;
}

void matrix_state_heads(Model &model, const Wkv6 &all, const Inputs &y, int state_array, int64_t layer,
                        Pass &pass, Team &team) {
  const int64_t a = model.config.attention, size = model.config.head_size;
  const int64_t together = std::max<int64_t>(1, kGroup / size);  // y is sealed in groups of 32
  const int64_t groups = pieces(model.config.heads, together);
  team.share(groups * static_cast<int64_t>(pass.spans.size()), [&](int64_t piece) {
    const Span &span = pass.spans[piece / groups];
    const int64_t begin = piece % groups * together;
    const int64_t end = std::min<int64_t>(model.config.heads, begin + together);
    for (int64_t h = begin; h < end; h++) {
      const int64_t j = h * size, at = span.begin * a + j;
      Wkv6 args = all;
      args.tokens = span.count, args.stride = a, args.size = size;
      args.r += at, args.k += at, args.v += at;
      if (args.g) args.g += at;
      args.w += args.w0 ? at : j;
      if (args.w0) args.w0 += j;
      args.u += j, args.ln_weight += j, args.ln_bias += j;
      args.state = Pass::state(span, state_array, layer, a * size) + j * size;
      args.y = y.row(span.begin) + j;
      model.k.wkv6(args);
    }
    for (int64_t m = span.begin; m < span.begin + span.count; m++)
      y.seal(model.k, m, pass.rows, begin * size, end * size);
  });
}

}  // namespace rwkv
