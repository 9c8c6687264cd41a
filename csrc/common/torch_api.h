// The only door to torch: the stable ABI (one binary for torch >= 2.11, CPU and CUDA builds), argument checks, and the
// step from an op to its CPU or CUDA kernel. Used by ops/*.cpp only.
//
// Compiled with MIMO_EMULATOR, the same ops/*.cpp registers the CUDA kernels, run by csrc/emulator on the CPU, as
// torch.ops.mimo_emu.*.
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <sstream>
#include <string>
#include <vector>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"

namespace mimo {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Raises RuntimeError with a message that names op, argument, expectation and what came. (STD_TORCH_CHECK would put the
// path of our source file before it.)
#define MIMO_CHECK(condition, ...)                              \
  do {                                                          \
    if (!(condition)) ::mimo::raise(::mimo::text(__VA_ARGS__)); \
  } while (0)

[[noreturn]] void raise(const std::string& message);

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

std::string describe(const Tensor& t);  // "float32 [3, 1280] on cpu"
std::string shape_text(const Tensor& t);

// `name` must have exactly this many dimensions; `meaning` spells them, e.g. "[N, D]".
void check_dim(const char* op, const char* name, const Tensor& t, int64_t dim, const char* meaning);
void check_dtype(const char* op, const char* name, const Tensor& t, std::initializer_list<ScalarType> allowed);
// The other argument's device, so that one op never reads from two devices.
void check_same_device(const char* op, const char* name, const Tensor& t, const char* first_name, const Tensor& first);
void check_same_dtype(const char* op, const char* name, const Tensor& t, const char* first_name, const Tensor& first);

DType dtype_of(const char* op, const char* name, const Tensor& t);  // f32, f64, f16, bf16 or an error

// Whether CUDA kernels compute with t. Then an op looks at no values, which would synchronise (mimo/bad_data.h).
inline bool runs_cuda_kernels([[maybe_unused]] const Tensor& t) {
#if defined(MIMO_EMULATOR)
  return true;
#else
  return t.is_cuda();
#endif
}

// Runs the CPU kernel of the best instruction set, or the CUDA kernel on the tensor's device and current stream.
//   MIMO_RUN("rvq_decode", x, rvq_decode, params)
// MIMO_RUN_ON_DEVICE is for kernels that the CPU does without, once it is known that MIMO_RUN would run CUDA's.
#if defined(MIMO_EMULATOR)
#define MIMO_NAMESPACE mimo_emu
#define MIMO_ON_DEVICE(tensor) true
#define MIMO_DEVICE_GUARD(tensor)
#define MIMO_RUN_ON_DEVICE(op, tensor, kernel, params) ::mimo::check_launch(op, ::mimo::cuda::kernel(params, nullptr))
#define MIMO_RUN(op, tensor, kernel, params) MIMO_RUN_ON_DEVICE(op, tensor, kernel, params)
#define MIMO_IMPL(...) \
  STABLE_TORCH_LIBRARY_IMPL(mimo_emu, CPU, m) { __VA_ARGS__ }
#elif defined(MIMO_WITH_CUDA)
#define MIMO_NAMESPACE mimo
#define MIMO_ON_DEVICE(tensor) (tensor).is_cuda()
#define MIMO_DEVICE_GUARD(tensor) ::torch::stable::accelerator::DeviceGuard guard((tensor).get_device_index())
#define MIMO_RUN_ON_DEVICE(op, tensor, kernel, params)                                           \
  do {                                                                                           \
    MIMO_DEVICE_GUARD(tensor);                                                                   \
    ::mimo::check_launch(op, ::mimo::cuda::kernel(params, ::mimo::current_cuda_stream(tensor))); \
  } while (0)
#define MIMO_RUN(op, tensor, kernel, params)          \
  do {                                                \
    if (MIMO_ON_DEVICE(tensor)) {                     \
      MIMO_RUN_ON_DEVICE(op, tensor, kernel, params); \
    } else {                                          \
      MIMO_CPU_SELECT(kernel)(params);                \
    }                                                 \
  } while (0)
#define MIMO_IMPL(...) \
  STABLE_TORCH_LIBRARY_IMPL(mimo, CPU, m){__VA_ARGS__} STABLE_TORCH_LIBRARY_IMPL(mimo, CUDA, m) { __VA_ARGS__ }
#else
#define MIMO_NAMESPACE mimo
#define MIMO_RUN_ON_DEVICE(op, tensor, kernel, params) (void)(params)
#define MIMO_RUN(op, tensor, kernel, params) MIMO_CPU_SELECT(kernel)(params)
#define MIMO_IMPL(...) \
  STABLE_TORCH_LIBRARY_IMPL(mimo, CPU, m) { __VA_ARGS__ }
#endif

// MIMO_IMPL for ops without CUDA kernels (and without an emulator).
#define MIMO_IMPL_CPU(...) \
  STABLE_TORCH_LIBRARY_IMPL(mimo, CPU, m) { __VA_ARGS__ }

// MIMO_RUN for a kernel whose CUDA form wants device memory beside its arguments: cuda::kernel_workspace(params) says
// how many bytes, params.workspace gets them. CPU kernels take their own (Scratch).
#if defined(MIMO_EMULATOR) || defined(MIMO_WITH_CUDA)
#define MIMO_RUN_WITH_WORKSPACE(op, tensor, kernel, params)                                                          \
  do {                                                                                                               \
    std::vector<::mimo::Tensor> hold_;                                                                               \
    if (MIMO_ON_DEVICE(tensor)) {                                                                                    \
      MIMO_DEVICE_GUARD(tensor);                                                                                     \
      hold_.push_back(                                                                                               \
          ::torch::stable::new_empty(tensor, {::mimo::cuda::kernel##_workspace(params)}, ::mimo::ScalarType::Byte)); \
      (params).workspace = hold_.back().mutable_data_ptr();                                                          \
    }                                                                                                                \
    MIMO_RUN(op, tensor, kernel, params);                                                                            \
  } while (0)
#else
#define MIMO_RUN_WITH_WORKSPACE(op, tensor, kernel, params) MIMO_RUN(op, tensor, kernel, params)
#endif

// MIMO_DEF(m.def("name(Tensor x) -> Tensor"); ...) declares schemas, MIMO_IMPL(m.impl("name", TORCH_BOX(&name));)
// kernels.
#define MIMO_DEF_(space, ...) \
  STABLE_TORCH_LIBRARY_FRAGMENT(space, m) { __VA_ARGS__ }
#define MIMO_DEF_EXPAND_(space, ...) MIMO_DEF_(space, __VA_ARGS__)
#define MIMO_DEF(...) MIMO_DEF_EXPAND_(MIMO_NAMESPACE, __VA_ARGS__)

void check_launch(const char* op, LaunchError error);
void* current_cuda_stream(const Tensor& t);

}  // namespace mimo
