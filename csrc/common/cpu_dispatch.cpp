// Which instruction set the CPU kernels use on this machine (see cpu_dispatch.h).
#include "common/cpu_dispatch.h"

#include <cstdlib>
#include <cstring>

namespace mimo {
namespace {

CpuIsa detect() {
#if defined(__x86_64__)
  const char* wish = std::getenv("MIMO_CPU_ISA");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const auto at_most = [&](const char* name) { return !wish || !std::strcmp(wish, name); };
  if (avx512 && at_most("avx512")) return CpuIsa::avx512;
  if (avx2 && (at_most("avx2") || !std::strcmp(wish, "avx512"))) return CpuIsa::avx2;
#endif
  return CpuIsa::baseline;
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa isa = detect();
  return isa;
}

const char* cpu_isa_name() {
  switch (cpu_isa()) {
    case CpuIsa::avx512:
      return "avx512";
    case CpuIsa::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace mimo
