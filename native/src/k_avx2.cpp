#define RWKV_ISA avx2
#include "kernels.inl"
