// Rows of any dtype and any count, widened to float and back.
#pragma once
#include "cpu/half.h"

namespace mimo::cpu::MIMO_ISA {

template <class T>
inline void widen_row(const T* from, int64_t count, float* to) {
  const int whole = int(count / 8 * 8), rest = int(count - whole);
  widen(from, whole, to);
  if (rest == 0) return;
  T tail[8] = {};
  float wide[8];
  std::memcpy(tail, from + whole, size_t(rest) * sizeof(T));
  widen(tail, 8, wide);
  std::memcpy(to + whole, wide, size_t(rest) * sizeof(float));
}

template <class T>
inline void narrow_row(const float* from, int64_t count, T* to) {
  const int whole = int(count / 8 * 8), rest = int(count - whole);
  narrow(from, whole, to);
  if (rest == 0) return;
  float tail[8] = {};
  T slim[8];
  std::memcpy(tail, from + whole, size_t(rest) * sizeof(float));
  narrow(tail, 8, slim);
  std::memcpy(to + whole, slim, size_t(rest) * sizeof(T));
}

}  // namespace mimo::cpu::MIMO_ISA
