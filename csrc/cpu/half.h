// Rows of float16 and bfloat16 in memory, float in registers: widen and narrow take rows whose counts are multiples of
// 8, load_wide and store_narrow one vector.
#pragma once
#include "cpu/isa.h"
#include "mimo/float_or_half.h"

//   MIMO_FLOAT_OR_HALF(p.dtype, run<T>(p));
#define MIMO_FLOAT_OR_HALF(dtype, ...) MIMO_FLOAT_OR_HALF_OF(Float16, BFloat16, dtype, __VA_ARGS__)

namespace mimo::cpu::MIMO_ISA {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

inline void widen(const float* from, int count, float* to) { std::memcpy(to, from, size_t(count) * sizeof(float)); }
inline void widen(const double* from, int count, double* to) { std::memcpy(to, from, size_t(count) * sizeof(double)); }
inline void narrow(const float* from, int count, float* to) { std::memcpy(to, from, size_t(count) * sizeof(float)); }
inline void narrow(const double* from, int count, double* to) { std::memcpy(to, from, size_t(count) * sizeof(double)); }

inline void widen(const BFloat16* from, int count, float* to) {
  for (int i = 0; i < count; ++i) {
    const uint32_t raw = uint32_t(from[i].bits) << 16;
    std::memcpy(to + i, &raw, sizeof raw);
  }
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline void narrow(const float* from, int count, BFloat16* to) {
  for (int i = 0; i < count; ++i) {
    uint32_t raw;
    std::memcpy(&raw, from + i, sizeof raw);
    const uint32_t rounded = (raw + 0x7fffu + ((raw >> 16) & 1u)) >> 16;
    to[i].bits = uint16_t((raw & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
  }
}

#if !defined(__F16C__)
// Without conversion instructions: the exponent moves by 112 (as a product, which also makes subnormals right).
inline float widen_one(Float16 x) {
  const uint32_t magnitude = (x.bits & 0x7fffu) << 13, sign = (x.bits & 0x8000u) << 16;
  float value;
  std::memcpy(&value, &magnitude, sizeof value);
  value *= 0x1p112f;
  uint32_t raw;
  std::memcpy(&raw, &value, sizeof raw);
  raw = (magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : raw) | sign;
  std::memcpy(&value, &raw, sizeof value);
  return value;
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline Float16 narrow_one(float x) {
  uint32_t raw;
  std::memcpy(&raw, &x, sizeof raw);
  const uint32_t sign = (raw >> 16) & 0x8000u, magnitude = raw & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and more
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // normal in float16
    half = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  } else {  // 0.5 has the spacing of float16's subnormals
    float small;
    std::memcpy(&small, &magnitude, sizeof small);
    small += 0.5f;
    std::memcpy(&half, &small, sizeof half);
    half -= 0x3f000000u;
  }
  return {uint16_t(half | sign)};
}
#endif

inline void widen(const Float16* from, int count, float* to) {
#if defined(__F16C__)
  for (int i = 0; i < count; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  }
#else
  for (int i = 0; i < count; ++i) to[i] = widen_one(from[i]);
#endif
}

inline void narrow(const float* from, int count, Float16* to) {
#if defined(__F16C__)
  for (int i = 0; i < count; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
  }
#else
  for (int i = 0; i < count; ++i) to[i] = narrow_one(from[i]);
#endif
}

typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));

inline __attribute__((always_inline)) Vec<float> load_wide(const float* p) { return load(p); }
inline __attribute__((always_inline)) Vec<double> load_wide(const double* p) { return load(p); }
inline __attribute__((always_inline)) void store_narrow(float* p, Vec<float> v) { store(p, v); }
inline __attribute__((always_inline)) void store_narrow(double* p, Vec<double> v) { store(p, v); }

inline __attribute__((always_inline)) Vec<float> load_wide(const BFloat16* p) {
#if defined(__AVX512F__)  // GCC converts vectors by halves
  const auto wide = (Vec<uint32_t>)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  const auto wide = (Vec<uint32_t>)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  HalfBits half;
  std::memcpy(&half, p, sizeof half);
  const Vec<uint32_t> wide = __builtin_convertvector(half, Vec<uint32_t>);
#endif
  return (Vec<float>)(wide << 16);
}

inline __attribute__((always_inline)) void store_narrow(BFloat16* p, Vec<float> v) {
  Vec<uint32_t> raw;
  std::memcpy(&raw, &v, sizeof raw);
  const Vec<uint32_t> rounded = (raw + 0x7fffu + ((raw >> 16) & 1u)) >> 16;
  const auto number = (raw & 0x7fffffffu) <= 0x7f800000u;
  const HalfBits half = __builtin_convertvector(number ? rounded : broadcast(0x7fc0u), HalfBits);
  std::memcpy(p, &half, sizeof half);
}

inline __attribute__((always_inline)) Vec<float> load_wide(const Float16* p) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#else
  Vec<float> v;
  widen(p, kLanes<float>, reinterpret_cast<float*>(&v));
  return v;
#endif
}

inline __attribute__((always_inline)) void store_narrow(Float16* p, Vec<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph((__m512)v, 0));
#else
  narrow(reinterpret_cast<const float*>(&v), kLanes<float>, p);
#endif
}

}  // namespace mimo::cpu::MIMO_ISA
