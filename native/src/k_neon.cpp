#define RWKV_ISA neon
#include "kernels.inl"
