// The element types that kernels know, and error results they return. Knows no framework.
#pragma once
#include <cstdint>

namespace mimo {

enum class DType : uint8_t { f32, f64, f16, bf16 };

// What a CUDA launcher returns: nullptr, or the text of the CUDA error.
using LaunchError = const char*;

}  // namespace mimo
