// Drawing a token, and the random numbers that it is drawn by (tests/native/test_cuda_sample.py).
#pragma once

#include "../../cuda/sample.cuh"

struct PhiloxArguments {
  const u64 *places;  // [count][3]: seed, stream, position
  u64 *numbers;       // [count]
  int count;
};
KERNEL(philox_numbers, PhiloxArguments, 32) {
  for (int i = lane(); i < args.count; i += kWarp) {
    const u64 *place = args.places + 3 * i;
    args.numbers[i] = philox(place[0], place[1], place[2]);
  }
}
