// Which weight the largest ones have to reach a sum or a count, without sorting them all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace rwkv {

class Cutoff {
 public:
  // Makes room for as many weights as will be given at most.
  void fit(size_t count);

  // The weight at which the sum of the largest weights first exceeds a target; the smallest weight
  // of all if it never does. Weights are positive. With `by_count`, 1 is summed for each instead.
  float find(const float *weights, int64_t count, double target, bool by_count);

 private:
  std::vector<float> inside_;  // the weights of one bucket
  std::vector<double> sums_;   // of each bucket, in several parts
};

}  // namespace rwkv
