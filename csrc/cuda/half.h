// Elements of any dtype in memory, float (double for float64) in registers.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/launch.h"
#include "mimo/float_or_half.h"

//   return MIMO_FLOAT_OR_HALF(p.dtype, run<T>(p, stream));
#define MIMO_FLOAT_OR_HALF(dtype, ...) MIMO_FLOAT_OR_HALF_OF(__half, __nv_bfloat16, dtype, __VA_ARGS__)

namespace mimo::cuda {

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void narrow(float x, float* to) { *to = x; }
__device__ __forceinline__ void narrow(double x, double* to) { *to = x; }
__device__ __forceinline__ void narrow(float x, __half* to) { *to = __float2half_rn(x); }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16* to) { *to = __float2bfloat16_rn(x); }

}  // namespace mimo::cuda
