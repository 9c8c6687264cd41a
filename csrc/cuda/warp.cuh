// What kernels share whose warps own rows: 16-byte reads, sums over the lanes.
#pragma once
#include "cuda/half.h"
#include "cuda/launch.h"

namespace mimo::cuda {

// Columns that a lane reads at once.
template <class T>
inline constexpr int kColumnsOf = 16 / int(sizeof(T));

template <class T>
struct alignas(16) Columns {
  T value[kColumnsOf<T>];
};

template <class T>
__device__ __forceinline__ Columns<T> read_columns(const T* from) {
  return *reinterpret_cast<const Columns<T>*>(from);
}

// Whether every row of a matrix [.., width] can be read so.
template <class T>
bool reads_whole_vectors(const void* matrix, int width) {
  return width % kColumnsOf<T> == 0 && reinterpret_cast<uintptr_t>(matrix) % 16 == 0;
}

// The sum over a warp, in every lane.
template <class T>
__device__ __forceinline__ T fold_warp(T sum) {
  for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(~0u, sum, bits);
  return sum;
}

}  // namespace mimo::cuda
