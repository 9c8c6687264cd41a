// The one header of every .cu file: launches, dynamic shared memory and device checks in a form that nvcc compiles for
// the GPU and g++ compiles over the emulator (csrc/emulator), so that tests run the same source without a GPU.
//
//   MIMO_LAUNCH(grid, block, shared_bytes, stream, kernel<T>)(arguments...);
//   return MIMO_LAUNCH_ERROR();
//
// or, for a kernel of a sequence, with a head start (programmatic dependent launch, sm_90 and later):
//
//   MIMO_LAUNCH_EARLY(grid, block, shared_bytes, stream, kernel<T>)(arguments...);
//
// Such a kernel may start while the one before it in the stream runs. It reads what that one does not write (weights)
// at will; every thread calls wait_for_previous_kernel() before anything else, and before it returns. After that
// wait it may call let_next_kernel_start(). So what kernels further back wrote can be read at will as well, as long as
// the first kernel of a sequence reads nothing before its wait: the second then starts after all that was in the
// stream.
//
// The choice of a kernel by dtype, for ops of float32 and float64:
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

#include <atomic>

#define MIMO_LAUNCH(grid, block, shared_bytes, stream, ...) __VA_ARGS__<<<(grid), (block), (shared_bytes), (stream)>>>

// Inside a kernel: `type* name` points to the launch's dynamic shared memory, 16-byte aligned.
#define MIMO_DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(16) unsigned char mimo_dynamic_shared_[]; \
  type* name = reinterpret_cast<type*>(mimo_dynamic_shared_)

// Before a launch whose dynamic shared memory may exceed 48 KB per block, or should hold many blocks of a
// multiprocessor: allows the kernel all that a block may have. Once per kernel and device: the limit is the kernel's,
// not the launch's, and another thread may be about to launch it with more.
#define MIMO_ALLOW_SHARED(...)                 \
  do {                                         \
    static ::mimo::cuda::SharedAllowance mine; \
    mine.allow(__VA_ARGS__);                   \
  } while (0)

#define MIMO_DEVICE_CHECK(condition) \
  do {                               \
    if (!(condition)) __trap();      \
  } while (0)

#define MIMO_LAUNCH_EARLY(grid, block, shared_bytes, stream, ...) \
  ::mimo::cuda::early_launch((grid), (block), (shared_bytes), (stream), __VA_ARGS__)

namespace mimo::cuda {
// Of one kernel: the devices that have been told.
class SharedAllowance {
 public:
  template <class Kernel>
  void allow(Kernel* kernel) {
    int device = 0, most = 0;
    cudaGetDevice(&device);
    const uint64_t bit = device < 64 ? uint64_t(1) << device : 0;
    if (told_.load(std::memory_order_acquire) & bit) return;
    cudaFuncAttributes own{};
    if (cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess ||
        cudaFuncGetAttributes(&own, kernel) != cudaSuccess ||
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most - int(own.sharedSizeBytes)) !=
            cudaSuccess ||
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared) !=
            cudaSuccess) {
      return;  // the launch says what is wrong
    }
    told_.fetch_or(bit, std::memory_order_release);
  }

 private:
  std::atomic<uint64_t> told_{0};
};

// Whether the code that runs on the current device holds the wait. Its image says so, not the device: one for older
// GPUs may be what a newer one runs. All kernels come from one build, so one is asked, once per device.
inline bool has_early_launch(const void* kernel) {
  static std::atomic<uint64_t> asked{0}, has{0};
  int device = 0;
  cudaGetDevice(&device);
  const uint64_t bit = device < 64 ? uint64_t(1) << device : 0;
  if (!(asked.load(std::memory_order_acquire) & bit)) {
    cudaFuncAttributes own{};
    if (cudaFuncGetAttributes(&own, kernel) == cudaSuccess && own.ptxVersion >= 90) has.fetch_or(bit);
    asked.fetch_or(bit, std::memory_order_release);
  }
  return has.load(std::memory_order_relaxed) & bit;
}

// A function of the kernel's arguments that launches it; errors are those of cudaGetLastError.
template <class... Parameters>
auto early_launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, void (*kernel)(Parameters...)) {
  return [=](Parameters... arguments) {
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = has_early_launch(reinterpret_cast<const void*>(kernel)) ? 1 : 0;
    (void)cudaLaunchKernelEx(&config, kernel, arguments...);
  };
}

__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Starts to bring the 128 bytes around an address to the L2 cache.
__device__ __forceinline__ void prefetch(const void* global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }

// 16 bytes that nobody writes while the kernel runs. read_once: nor reads again, so they take no place in the L1 cache.
__device__ __forceinline__ uint4 read_constant(const void* global) {
  uint4 v;
  asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(global));
  return v;
}
__device__ __forceinline__ uint4 read_once(const void* global) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global));
  return v;
}

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

// 2^x with a relative error of about 2^-22; results below the normal range are 0.
__device__ __forceinline__ float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
}  // namespace mimo::cuda
#define MIMO_LAUNCH_ERROR() ::mimo::cuda::launch_error()

#else

#include "emulator/emulator.h"

#define MIMO_EMULATE_(early, grid, block, shared_bytes, stream, ...)                                                 \
  [grid_ = dim3(grid), block_ = dim3(block), bytes_ = size_t(shared_bytes), stream_ = (stream)](auto... arguments) { \
    (void)stream_;                                                                                                   \
    ::mimo::emulator::launch(                                                                                        \
        grid_, block_, bytes_, [=] { __VA_ARGS__(arguments...); }, reinterpret_cast<const void*>(&__VA_ARGS__),      \
        early);                                                                                                      \
  }
#define MIMO_LAUNCH(...) MIMO_EMULATE_(false, __VA_ARGS__)
#define MIMO_LAUNCH_EARLY(...) MIMO_EMULATE_(true, __VA_ARGS__)
#define MIMO_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(::mimo::emulator::dynamic_shared())
#define MIMO_ALLOW_SHARED(...) ::mimo::emulator::allow_shared(reinterpret_cast<const void*>(&__VA_ARGS__))
#define MIMO_DEVICE_CHECK(condition)                                              \
  do {                                                                            \
    if (!(condition)) ::mimo::emulator::fail("device check failed: " #condition); \
  } while (0)
#define MIMO_LAUNCH_ERROR() (::mimo::LaunchError)::mimo::emulator::launch_error()

namespace mimo::cuda {
inline float reciprocal_root(float x) { return 1.0f / std::sqrt(x); }
inline float power_of_two(float x) { return std::exp2(x); }
inline void wait_for_previous_kernel() { emulator::wait_for_previous_kernel(); }
inline void let_next_kernel_start() { emulator::let_next_kernel_start(); }
inline void prefetch(const void*) {}
inline uint4 read_constant(const void* global) { return *static_cast<const uint4*>(global); }
inline uint4 read_once(const void* global) { return read_constant(global); }
}  // namespace mimo::cuda

#endif
