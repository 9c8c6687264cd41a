// Which instruction set the CPU kernels use on this machine (see cpu_dispatch.h).
#include "common/cpu_dispatch.h"

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mimo {
namespace {

#if defined(__x86_64__)
// The avx2 and avx512 copies convert float16 with it; __builtin_cpu_supports knows its name in newer compilers only.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

CpuIsa detect() {
#if defined(__x86_64__)
  const char* wish = std::getenv("MIMO_CPU_ISA");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const auto at_most = [&](const char* name) { return !wish || !std::strcmp(wish, name); };
  if (avx512 && at_most("avx512")) return CpuIsa::avx512;
  if (avx2 && (at_most("avx2") || !std::strcmp(wish, "avx512"))) return CpuIsa::avx2;
#endif
  return CpuIsa::baseline;
}

bool detect_amx() {
#if defined(__x86_64__) && defined(__linux__)
  unsigned a, b, c, d;
  if (std::getenv("MIMO_CPU_ISA") || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = (d >> 24 & 1) && (d >> 22 & 1);                             // AMX-TILE, AMX-BF16
  const bool convert = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);  // AVX512_BF16
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl: the kernel saves tiles only on request
  return tiles && convert && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

bool cpu_has_vnni() {
#if defined(__x86_64__)
  static const bool vnni =
      cpu_isa() == CpuIsa::avx512 && !std::getenv("MIMO_CPU_NO_VNNI") && __builtin_cpu_supports("avx512vnni");
  return vnni;
#else
  return false;
#endif
}

bool cpu_has_bf16() {
#if defined(__x86_64__)
  static const bool bf16 =
      cpu_isa() == CpuIsa::avx512 && !std::getenv("MIMO_CPU_NO_BF16") && __builtin_cpu_supports("avx512bf16");
  return bf16;
#else
  return false;
#endif
}

bool cpu_has_amx() {
  static const bool amx = detect_amx();
  return amx;
}

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
