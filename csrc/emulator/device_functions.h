// CUDA's built-in device functions, as far as our kernels use them, on top of emulator.h.
#pragma once

inline void __syncthreads() { mimo::emulator::sync_threads(); }
inline void __syncwarp(unsigned mask = ~0u) { mimo::emulator::sync_warp(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

// --- shuffles: `width` splits the warp into segments, and a source outside the segment leaves the value as it is
// -------
namespace mimo::emulator {
template <class T, class Source>
T shuffle(unsigned mask, T value, int width, Source source) {
  const int lane = here().lane;
  const LaneTable table = exchange(mask, value);
  const int base = lane & ~(width - 1), from = source(lane & (width - 1));
  return from_lane<T>(table, from < 0 || from >= width ? lane : base + from);
}
}  // namespace mimo::emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  return mimo::emulator::shuffle(mask, value, width, [=](int) { return lane & (width - 1); });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  return mimo::emulator::shuffle(mask, value, width, [=](int lane) { return lane ^ bits; });
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return mimo::emulator::shuffle(mask, value, width, [=](int lane) { return lane + int(delta); });
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return mimo::emulator::shuffle(mask, value, width, [=](int lane) { return lane - int(delta); });
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const auto table = mimo::emulator::exchange(mask, predicate);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) votes |= unsigned(mimo::emulator::from_lane<int>(table, lane) != 0) << lane;
  }
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// --- atomics: one thread runs at a time
// ----------------------------------------------------------------------------------
template <class T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <class T>
T atomicMax(T* address, T value) {
  const T old = *address;
  *address = old < value ? value : old;
  return old;
}
template <class T>
T atomicMin(T* address, T value) {
  const T old = *address;
  *address = value < old ? value : old;
  return old;
}
template <class T>
T atomicExch(T* address, T value) {
  const T old = *address;
  *address = value;
  return old;
}
template <class T>
T atomicCAS(T* address, T expected, T value) {
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}

// --- arithmetic
// ------------------------------------------------------------------------------------------------------------
template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
using std::max;
using std::min;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline void __sincosf(float x, float* s, float* c) {
  *s = std::sin(x);
  *c = std::cos(x);
}
inline void sincospif(float x, float* s, float* c) {
  *s = float(std::sin(M_PI * double(x)));
  *c = float(std::cos(M_PI * double(x)));
}
inline void sincospi(double x, double* s, double* c) {
  *s = std::sin(M_PI * x);
  *c = std::cos(M_PI * x);
}
inline int __dp4a(int a, int b, int sum) {  // of signed bytes
  for (int shift = 0; shift < 32; shift += 8) sum += int8_t(a >> shift) * int8_t(b >> shift);
  return sum;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline unsigned __float_as_uint(float x) { return unsigned(__float_as_int(x)); }
inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline float __uint_as_float(unsigned bits) { return __int_as_float(int(bits)); }
