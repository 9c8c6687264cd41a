// Chooses a CPU kernel's copy for this machine: MIMO_CPU_KERNEL declares the copies (in include/mimo/X.h),
// cpu_kernel() picks one (in ops/X.cpp). MIMO_CPU_ISA=baseline|avx2|avx512 in the environment lowers the choice.
#pragma once

#if defined(__x86_64__)
#define MIMO_CPU_KERNEL(result, name, ...) \
  namespace baseline {                     \
  result name(__VA_ARGS__);                \
  }                                        \
  namespace avx2 {                         \
  result name(__VA_ARGS__);                \
  }                                        \
  namespace avx512 {                       \
  result name(__VA_ARGS__);                \
  }
#define MIMO_CPU_SELECT(name) \
  ::mimo::cpu_select(&::mimo::cpu::baseline::name, &::mimo::cpu::avx2::name, &::mimo::cpu::avx512::name)
#else
#define MIMO_CPU_KERNEL(result, name, ...) \
  namespace baseline {                     \
  result name(__VA_ARGS__);                \
  }
#define MIMO_CPU_SELECT(name) (&::mimo::cpu::baseline::name)
#endif

namespace mimo {

enum class CpuIsa { baseline, avx2, avx512 };

CpuIsa cpu_isa();  // decided once, at the first call
const char* cpu_isa_name();
bool cpu_has_vnni();  // AVX512_VNNI, usable inside the avx512 copies
bool cpu_has_bf16();  // AVX512_BF16, usable inside the avx512 copies
bool cpu_has_amx();   // bfloat16 tiles, usable inside the avx512 copies; false when MIMO_CPU_ISA is set

template <class F>
F* cpu_select(F* baseline, F* avx2, F* avx512) {
  switch (cpu_isa()) {
    case CpuIsa::avx512:
      return avx512;
    case CpuIsa::avx2:
      return avx2;
    default:
      return baseline;
  }
}

}  // namespace mimo
