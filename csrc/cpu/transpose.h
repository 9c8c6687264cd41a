// Transposition of a square of kLanes x kLanes elements in registers: log2(kLanes) rounds, each of which exchanges the
// off-diagonal blocks of width 1, 2, 4, .. between pairs of rows.
#pragma once
#include <utility>

#include "cpu/isa.h"

namespace mimo::cpu::MIMO_ISA {

template <class T, int kStep, int... kLane>
inline __attribute__((always_inline)) void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, kLane...>) {
  const Vec<T> low = __builtin_shufflevector(a, b, (kLane & kStep ? kLanes<T> + kLane - kStep : kLane)...);
  b = __builtin_shufflevector(a, b, (kLane & kStep ? kLanes<T> + kLane : kLane + kStep)...);
  a = low;
}

template <class T, int kStep = 1>
inline __attribute__((always_inline)) void transpose_square(Vec<T> (&rows)[kLanes<T>]) {
  if constexpr (kStep < kLanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if (!(i & kStep)) exchange<T, kStep>(rows[i], rows[i + kStep], std::make_integer_sequence<int, kLanes<T>>{});
    }
    transpose_square<T, 2 * kStep>(rows);
  }
}

}  // namespace mimo::cpu::MIMO_ISA
