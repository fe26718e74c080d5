#define RWKV_ISA generic
#include "kernels.inl"
