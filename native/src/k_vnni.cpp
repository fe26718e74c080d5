#define RWKV_ISA vnni
#include "kernels.inl"
