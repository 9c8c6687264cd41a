// Sum and maximum of a vector's lanes in log2(kLanes) steps, each of which combines the vector with itself, lanes
// swapped at a distance of half the rest.
#pragma once
#include <utility>

#include "cpu/isa.h"

namespace mimo::cpu::MIMO_ISA {

template <class T, int kStep, int... kLane>
inline __attribute__((always_inline)) Vec<T> swap_lanes(Vec<T> v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, (kLane ^ kStep)...);
}

template <class T, int kStep = kLanes<T> / 2, class Combine>
inline __attribute__((always_inline)) T reduce_lanes(Vec<T> v, Combine combine) {
  if constexpr (kStep == 0) {
    return v[0];
  } else {
    const Vec<T> swapped = swap_lanes<T, kStep>(v, std::make_integer_sequence<int, kLanes<T>>{});
    return reduce_lanes<T, kStep / 2>(combine(v, swapped), combine);
  }
}

template <class T>
inline __attribute__((always_inline)) T sum_lanes(Vec<T> v) {
  return reduce_lanes<T>(v, [](Vec<T> a, Vec<T> b) { return a + b; });
}

template <class T>
inline __attribute__((always_inline)) Vec<T> larger(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

template <class T>
inline __attribute__((always_inline)) T max_lane(Vec<T> v) {
  return reduce_lanes<T>(v, larger<T>);
}

}  // namespace mimo::cpu::MIMO_ISA
