// The recurrences over time, token by token: a prefill repeats the steps of decoding, whose cost beside
// the matrices is small. state[i][j]: i the value channel, j the key channel.

constexpr float kGroupNormEps = 64e-5f;        // 1e-5 * 8^2, of every released model
constexpr float kDecayScale = -0.60653065971f;  // -exp(-0.5), RWKV-7 eq. 5

// RWKV-7 (arXiv:2503.14456): equations 4 to 8, 17 and 20, in the order of arch/v7.py.
template <int N>
static void wkv7_head(const Wkv7 &p) {
  constexpr int V = N / kLanes;
  for (int64_t t = 0; t < p.tokens; t++) {
    const int64_t at = t * p.stride;
    vf r[V], w[V], k[V], b[V], removal[V], length{}, bonus{};
    float v[N], y[N];
    RWKV_UNROLL
    for (int c = 0; c < V; c++) {
      const int64_t j = c * kLanes;
      r[c] = load(p.r + at + j);
      w[c] = exp(set(kDecayScale) * sigmoid(load(p.w0 + j) + load(p.w + at + j)));
      const vf a = sigmoid(load(p.a0 + j) + load(p.a + at + j));
      const vf key = load(p.k + at + j);
      removal[c] = key * load(p.k_k + j);
      length = fma(removal[c], removal[c], length);
      k[c] = key * fma(a - set(1.0f), load(p.k_a + j), set(1.0f));
      b[c] = a;
      bonus = fma(r[c] * k[c], load(p.r_k + j), bonus);
      vf value = load(p.v + at + j);
      if (p.share) {
        const vf share = sigmoid(load(p.v0 + j) + load(p.share + at + j));
        value = fma(load(p.first + at + j) - value, share, value);
      } else {
        store(p.first + at + j, value);
      }
      store(v + j, value);
    }
    const vf norm = set(-1.0f / std::max(std::sqrt(sum(length)), 1e-12f));
    RWKV_UNROLL
    for (int c = 0; c < V; c++) {
      removal[c] *= norm;
      b[c] = -removal[c] * b[c];
    }
    for (int i = 0; i < N; i += kLanes) {
      float *rows = p.state + i * N;
      vf parts[kLanes];
      float removed[kLanes];
      RWKV_UNROLL
      for (int l = 0; l < kLanes; l++) {
        vf part = load(rows + l * N) * removal[0];
        RWKV_UNROLL
        for (int c = 1; c < V; c++) part = fma(load(rows + l * N + c * kLanes), removal[c], part);
        parts[l] = part;
      }
      for (int line = 0; line < kLanes * N; line += 16) __builtin_prefetch(rows + N * N + line, 1, 3);
      store(removed, sum_each(parts));
      RWKV_UNROLL
      for (int l = 0; l < kLanes; l++) {
        const vf out = set(removed[l]), in = set(v[i + l]);
        vf part{};
        RWKV_UNROLL
        for (int c = 0; c < V; c++) {
          float *s = rows + l * N + c * kLanes;
          const vf next = fma(load(s), w[c], fma(out, b[c], in * k[c]));
          store(s, next);
          part = fma(next, r[c], part);
        }
        parts[l] = part;
      }
      store(y + i, sum_each(parts));
    }
    normalize(y, p.ln_weight, p.ln_bias, y, N, kGroupNormEps);
    const vf share = set(sum(bonus));
    for (int j = 0; j < N; j += kLanes)
      store(p.y + at + j, fma(share, load(v + j), load(y + j)) * load(p.g + at + j));
  }
}

// RWKV-5 and 6 (arXiv:2404.05892): equations 5 to 9, and 16 to 19.
template <int N>
static void wkv6_head(const Wkv6 &p) {
  constexpr int V = N / kLanes;
  for (int64_t t = 0; t < p.tokens; t++) {
    const int64_t at = t * p.stride;
    vf r[V], w[V], k[V], bonus{};
    float y[N];
    RWKV_UNROLL
    for (int c = 0; c < V; c++) {
      const int64_t j = c * kLanes;
      r[c] = load(p.r + at + j);
      k[c] = load(p.k + at + j);
      w[c] = p.w0 ? exp(-exp(load(p.w0 + j) + load(p.w + at + j))) : load(p.w + j);
      bonus = fma(r[c] * k[c], load(p.u + j), bonus);
    }
    const float share = sum(bonus);
    for (int i = 0; i < N; i += kLanes) {
      float *rows = p.state + i * N;
      vf parts[kLanes];
      RWKV_UNROLL
      for (int l = 0; l < kLanes; l++) {
        const vf in = set(p.v[at + i + l]);
        vf part{};
        RWKV_UNROLL
        for (int c = 0; c < V; c++) {
          float *s = rows + l * N + c * kLanes;
          const vf now = load(s);
          part = fma(now, r[c], part);
          store(s, fma(now, w[c], in * k[c]));
        }
        parts[l] = part;
      }
      store(y + i, fma(set(share), load(p.v + at + i), sum_each(parts)));
    }
    normalize(y, p.ln_weight, p.ln_bias, y, N, kGroupNormEps);
    for (int j = 0; j < N; j += kLanes) {
      const vf out = load(y + j);
      store(p.y + at + j, p.g ? out * load(p.g + at + j) : out);
    }
  }
}

template <typename Args, typename Head>
static void by_size(const Args &args, Head head) {
  switch (args.size) {
    case 16: return head(std::integral_constant<int, 16>{});
    case 32: return head(std::integral_constant<int, 32>{});
    case 64: return head(std::integral_constant<int, 64>{});
    default: return head(std::integral_constant<int, 128>{});
  }
}

static void wkv7(const Wkv7 &args) {
  by_size(args, [&](auto size) { wkv7_head<decltype(size)::value>(args); });
}

static void wkv6(const Wkv6 &args) {
  by_size(args, [&](auto size) { wkv6_head<decltype(size)::value>(args); });
}

// RWKV-4 (arXiv:2305.13048): equation 16 in the form of its appendix D. Both sums are kept divided by
// e^exponent, so that no key overflows.
static void wkv4(const Wkv4 &p) {
  for (int64_t c = p.begin; c < p.end; c += kLanes) {
    const vf log_w = load(p.log_w + c), u = load(p.u + c);
    vf numerator = load(p.numerator + c), denominator = load(p.denominator + c);
    vf exponent = load(p.exponent + c);
    for (int64_t t = 0; t < p.tokens; t++) {
      const int64_t at = t * p.stride + c;
      const vf key = load(p.k + at), value = load(p.v + at);
      vf top = max(exponent, u + key);
      vf past = exp(exponent - top), now = exp(u + key - top);
      const vf mean = fma(now, value, past * numerator) / fma(past, denominator, now);
      store(p.y + at, mean * load(p.r + at));
      top = max(exponent + log_w, key);
      past = exp(exponent + log_w - top);
      now = exp(key - top);
      numerator = fma(now, value, past * numerator);
      denominator = fma(past, denominator, now);
      exponent = top;
    }
    store(p.numerator + c, numerator);
    store(p.denominator + c, denominator);
    store(p.exponent + c, exponent);
  }
}
