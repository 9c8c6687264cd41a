// Factors and twiddles of the real FFTs on the CPU (cpu/fft.h), made once per size and kept.
#pragma once
#include <cstdint>

namespace mimo::cpu {

inline constexpr int kMaxStages = 12;

// A real transform of n_fft samples is a complex one of n_fft / 2 points, a product of radices, and a split.
template <class T>
struct FftPlan {
  int32_t n_fft;
  int32_t stages;
  int32_t radix[kMaxStages];  // each 2, 3, 4, 5 or 8
  const T*
      twiddles[kMaxStages];  // stage i: for p < points left / radix, for k = 1 .. radix - 1: e^(-2 pi i p k / left)
  const T* split;            // e^(-2 pi i k / n_fft) for k = 0 .. n_fft / 4
};

// Computed in float64 and rounded; safe to call from several threads; the plan lives as long as the program.
const FftPlan<float>& fft_plan(int n_fft, float);
const FftPlan<double>& fft_plan(int n_fft, double);

}  // namespace mimo::cpu
