#define RWKV_ISA avx512
#include "kernels.inl"
