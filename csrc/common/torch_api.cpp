// Argument checks and launch helpers behind torch_api.h.
#include "common/torch_api.h"

#include <stdexcept>

#if defined(MIMO_WITH_CUDA)
// Lives in libtorch_cuda.so; weak, so that the same file also loads under a CPU-only torch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
#endif

namespace mimo {
namespace {

std::string dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Bool:
      return "bool";
    default:
      return std::string(torch::headeronly::toString(type));
  }
}

std::string device_name(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  if (t.is_cuda()) return "cuda:" + std::to_string(t.get_device_index());
  return "another device";
}

}  // namespace

void raise(const std::string& message) { throw std::runtime_error(message); }

std::string shape_text(const Tensor& t) {
  std::string text = "[";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + "]";
}

std::string describe(const Tensor& t) {
  if (!t.defined()) return "None";
  return dtype_name(t.scalar_type()) + " " + shape_text(t) + " on " + device_name(t);
}

void check_dim(const char* op, const char* name, const Tensor& t, int64_t dim, const char* meaning) {
  MIMO_CHECK(t.dim() == dim, op, ": ", name, " must be ", dim, "-D ", meaning, ", got ", describe(t));
}

void check_dtype(const char* op, const char* name, const Tensor& t, std::initializer_list<ScalarType> allowed) {
  std::string names;
  for (ScalarType type : allowed) {
    if (t.scalar_type() == type) return;
    names += (names.empty() ? "" : " or ") + dtype_name(type);
  }
  MIMO_CHECK(false, op, ": ", name, " must be ", names, ", got ", describe(t));
}

void check_same_device(const char* op, const char* name, const Tensor& t, const char* first_name, const Tensor& first) {
  const bool same = t.is_cpu() == first.is_cpu() && t.is_cuda() == first.is_cuda() &&
                    (t.is_cpu() || t.get_device_index() == first.get_device_index());
  MIMO_CHECK(same, op, ": ", name, " must be on the device of ", first_name, " (", device_name(first), "), got ",
             describe(t));
}

void check_same_dtype(const char* op, const char* name, const Tensor& t, const char* first_name, const Tensor& first) {
  MIMO_CHECK(t.defined() && t.scalar_type() == first.scalar_type(), op, ": ", name, " must have the dtype of ",
             first_name, " (", dtype_name(first.scalar_type()), "), got ", describe(t));
}

DType dtype_of(const char* op, const char* name, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return DType::f32;
    case ScalarType::Double:
      return DType::f64;
    case ScalarType::Half:
      return DType::f16;
    case ScalarType::BFloat16:
      return DType::bf16;
    default:
      MIMO_CHECK(false, op, ": ", name, " must be float32, float64, float16 or bfloat16, got ", describe(t));
  }
  return DType::f32;
}

void check_launch(const char* op, LaunchError error) {
  MIMO_CHECK(error == nullptr, op, ": the CUDA kernel did not start, or an earlier one failed: ", error);
}

void* current_cuda_stream([[maybe_unused]] const Tensor& t) {
  void* stream = nullptr;
#if defined(MIMO_WITH_CUDA)
  MIMO_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "mimo: this torch was built without CUDA");
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
#endif
  return stream;
}

}  // namespace mimo
