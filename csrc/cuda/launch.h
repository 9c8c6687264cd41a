// The one header of every .cu file: launches, dynamic shared memory and device checks in a form that nvcc compiles for
// the GPU and g++ compiles over the emulator (csrc/emulator), so that tests run the same source without a GPU.
//
//   MIMO_LAUNCH(grid, block, shared_bytes, stream, kernel<T>)(arguments...);
//   return MIMO_LAUNCH_ERROR();
//
// and the choice of a kernel by dtype, for ops of float32 and float64:
//
//   return MIMO_FLOAT_OR_DOUBLE(p.dtype, run<T>(p, stream));
#pragma once
#include <cstdint>

#include "mimo/dtype.h"

// The value of an expression in which T names the element type of `dtype`, f32 or f64.
#define MIMO_FLOAT_OR_DOUBLE(dtype, ...) \
  [&] {                                  \
    if ((dtype) == ::mimo::DType::f64) { \
      using T = double;                  \
      return __VA_ARGS__;                \
    }                                    \
    using T = float;                     \
    return __VA_ARGS__;                  \
  }()

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define MIMO_LAUNCH(grid, block, shared_bytes, stream, ...) __VA_ARGS__<<<(grid), (block), (shared_bytes), (stream)>>>

// Inside a kernel: `type* name` points to the launch's dynamic shared memory, 16-byte aligned.
#define MIMO_DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(16) unsigned char mimo_dynamic_shared_[]; \
  type* name = reinterpret_cast<type*>(mimo_dynamic_shared_)

// More than 48 KB of dynamic shared memory per block has to be asked for, once per kernel and device.
#define MIMO_ALLOW_SHARED(bytes, ...) \
  cudaFuncSetAttribute(__VA_ARGS__, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes))

#define MIMO_DEVICE_CHECK(condition) \
  do {                               \
    if (!(condition)) __trap();      \
  } while (0)

namespace mimo::cuda {
inline LaunchError launch_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// 1 / sqrt(x) with a relative error below 2^-22; denormals count as 0.
__device__ __forceinline__ float reciprocal_root(float x) {
  float root;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
}
}  // namespace mimo::cuda
#define MIMO_LAUNCH_ERROR() ::mimo::cuda::launch_error()

#else

#include "emulator/emulator.h"

#define MIMO_LAUNCH(grid, block, shared_bytes, stream, ...)                                                          \
  [grid_ = dim3(grid), block_ = dim3(block), bytes_ = size_t(shared_bytes), stream_ = (stream)](auto... arguments) { \
    (void)stream_;                                                                                                   \
    ::mimo::emulator::launch(grid_, block_, bytes_, [=] { __VA_ARGS__(arguments...); });                             \
  }
#define MIMO_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(::mimo::emulator::dynamic_shared())
#define MIMO_ALLOW_SHARED(bytes, ...) (void)(bytes)
#define MIMO_DEVICE_CHECK(condition)                                              \
  do {                                                                            \
    if (!(condition)) ::mimo::emulator::fail("device check failed: " #condition); \
  } while (0)
#define MIMO_LAUNCH_ERROR() (::mimo::LaunchError)::mimo::emulator::launch_error()

namespace mimo::cuda {
inline float reciprocal_root(float x) { return 1.0f / std::sqrt(x); }
}  // namespace mimo::cuda

#endif
