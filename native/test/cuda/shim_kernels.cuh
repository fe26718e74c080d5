// Little kernels that try the shim itself (tests/native/test_cuda_shim.py), some of them wrong on purpose.
#pragma once

#include "../../cuda/device.cuh"

struct ShimArguments {
  const void *in;
  void *out;
  int count;
  int choice;
};

// out[block] = the sum of the block's `count` floats.
KERNEL(shim_sum, ShimArguments, 1024) {
  Carve carve;
  float *scratch = carve.take<float>(warps());
  const float *in = static_cast<const float *>(args.in) + static_cast<i64>(blockIdx.x) * args.count;
  float sum[1] = {0};
  for (int i = static_cast<int>(threadIdx.x); i < args.count; i += static_cast<int>(blockDim.x)) sum[0] += in[i];
  sum_block(sum, scratch);
  if (threadIdx.x == 0) static_cast<float *>(args.out)[blockIdx.x] = sum[0];
}

// out[block][thread] = the number of the thread beside it, as it was before that one replaced it. Choice 1
// leaves out the barrier before the reading, choice 2 the one after it.
KERNEL(shim_neighbours, ShimArguments, 256) {
  int *numbers = reinterpret_cast<int *>(rwkv_shared);
  const int t = static_cast<int>(threadIdx.x), count = static_cast<int>(blockDim.x);
  numbers[t] = t;
  if (args.choice != 1) __syncthreads();
  const int beside = numbers[(t + 1) % count];
  if (args.choice != 2) __syncthreads();
  numbers[t] = -1;
  static_cast<int *>(args.out)[static_cast<int>(blockIdx.x) * count + t] = beside;
}

// out[7][thread]: what each exchange of a warp gives for in[thread].
KERNEL(shim_lanes, ShimArguments, 256) {
  const int t = static_cast<int>(threadIdx.x), count = static_cast<int>(blockDim.x);
  const int x = static_cast<const int *>(args.in)[t];
  int *out = static_cast<int *>(args.out) + t;
  out[0 * count] = __shfl_xor_sync(kAllLanes, x, 5);
  out[1 * count] = __shfl_sync(kAllLanes, x, 3, 8);
  out[2 * count] = __shfl_up_sync(kAllLanes, x, 2, 16);
  out[3 * count] = __shfl_down_sync(kAllLanes, x, 2, 16);
  out[4 * count] = static_cast<int>(__ballot_sync(kAllLanes, x % 3 == 0));
  out[5 * count] = __any_sync(kAllLanes, x == 40);
  const u32 group = 0xffffu << (lane() / 16 * 16);
  __syncwarp(group);
  out[6 * count] = static_cast<int>(__shfl_xor_sync(group, static_cast<i64>(x) << 32, 1) >> 32);
}

// Every thread of every block takes a ticket; the last block to end tells how many there were.
KERNEL(shim_tickets, ShimArguments, 256) {
  u32 *counters = static_cast<u32 *>(args.out);
  const u32 ticket = atomicAdd(&counters[0], 1u);
  counters[3 + ticket] = ticket;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0 && atomicAdd(&counters[1], 1u) == gridDim.x - 1) counters[2] = counters[0];
}

// out[i] of in[i][3]: 0 __byte_perm, 1 dot4, 2 dot4_unsigned, 3 the higher half of __umul64hi of the first
// two (each twice over), 4 __clz, 5 __ffs, 6 __popc, 7 float16 of a float32, 8 float32 of a float16.
DEVICE u32 shim_number(int choice, u32 x, u32 y, u32 z) {
  switch (choice) {
    case 0: return __byte_perm(x, y, z);
    case 1: return static_cast<u32>(dot4(x, y, static_cast<int>(z)));
    case 2: return static_cast<u32>(dot4_unsigned(x, y, static_cast<int>(z)));
    case 3: return static_cast<u32>(__umul64hi(x * 0x100000001ull, y * 0x100000001ull) >> 32);
    case 4: return static_cast<u32>(__clz(static_cast<int>(x)));
    case 5: return static_cast<u32>(__ffs(static_cast<int>(x)));
    case 6: return static_cast<u32>(__popc(x));
    case 7: return to_f16(as_float(x));
    default: return as_bits(from_f16(static_cast<u16>(x)));
  }
}
KERNEL(shim_numbers, ShimArguments, 32) {
  const u32 *in = static_cast<const u32 *>(args.in);
  for (int i = lane(); i < args.count; i += kWarp)
    static_cast<u32 *>(args.out)[i] = shim_number(args.choice, in[3 * i], in[3 * i + 1], in[3 * i + 2]);
}

// What a kernel must not do.
KERNEL(shim_faults, ShimArguments, 256) {
  const int t = static_cast<int>(threadIdx.x);
  int *out = static_cast<int *>(args.out);
  switch (args.choice) {
    case 0:  // a barrier without a thread that has ended
      if (t == 3) return;
      __syncthreads();
      break;
    case 1:  // two barriers
      if (t < 32) __syncthreads();
      if (t >= 32) __syncthreads();
      break;
    case 2:  // a shuffle without a lane
      if (lane() != 5) t == 0 ? *out = __shfl_xor_sync(kAllLanes, t, 1) : __shfl_xor_sync(kAllLanes, t, 1);
      break;
    case 3:  // a barrier where others of the warp vote
      if (lane() < 8) __syncthreads();
      if (lane() >= 8) __any_sync(kAllLanes, 1);
      break;
    case 4:  // a mask without the lane
      __syncwarp(~1u);
      break;
    case 5: *out = static_cast<int>(stream16(static_cast<const u8 *>(args.in) + 8).x); break;
    case 6: rwkv_shared[args.count] = 1; break;
    case 7: out[args.count] = 1; break;
    case 8: *out = static_cast<const int *>(args.in)[args.count]; break;
    case 9: *out = *reinterpret_cast<const int *>(static_cast<const u8 *>(args.in) + 1); break;
    default: break;
  }
}
