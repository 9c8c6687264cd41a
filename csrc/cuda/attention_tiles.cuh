// Tiles of half-precision rows in shared memory, as the tensor-core kernels of the attention ops read them, and pairs
// of elements in their fragments.
//
// A row of a tile holds kHeads neighbouring heads, 128 bytes (256 for heads wider than 64); 16-byte pieces change
// places within groups of eight by the row's number, so that eight rows of one piece, which ldmatrix reads, and the
// pieces of one row, which a warp writes, lie in different banks. Heads narrower than kWidth are filled up with zeros.
#pragma once
#include <type_traits>

#include "cuda/half.h"
#include "cuda/mma.h"

namespace mimo::cuda {

template <class S_, int kWidth_>
struct Tiles {
  using S = S_;
  static constexpr int kWidth = kWidth_, kHeads = kWidth < 64 ? 64 / kWidth : 1;
  static constexpr int kRow = kHeads * kWidth, kPieces = kRow / 8;  // elements and 16-byte pieces of a row
  static constexpr int kHeadPieces = kWidth / 8;

  template <class Tile>
  __device__ static Tile* at(Tile* tile, int row, int column) {
    return tile + row * kRow + (column ^ (row & 7) * 8);
  }
};

// kCount neighbouring elements as pairs, moved at once.
template <int kCount>
struct alignas(2 * kCount) Pairs {
  uint32_t words[kCount / 2];
};

// The elements of a pair.
template <class S>
__device__ __forceinline__ void widen_pair(uint32_t word, float (&x)[2]) {
  if constexpr (std::is_same_v<S, __nv_bfloat16>) {
    x[0] = __uint_as_float(word << 16);
    x[1] = __uint_as_float(word & 0xffff0000u);
  } else {
    x[0] = __half2float(__half_raw{uint16_t(word)});
    x[1] = __half2float(__half_raw{uint16_t(word >> 16)});
  }
}

// Rotate-half of pairs of elements by angles; direction -1 turns back.
template <class S>
__device__ __forceinline__ void rotate_pairs(const float* cos, const float* sin, float direction, uint32_t& first,
                                             uint32_t& second) {
  float x[2], y[2], s[2] = {direction * sin[0], direction * sin[1]};
  widen_pair<S>(first, x);
  widen_pair<S>(second, y);
  first = pair_of<S>(x[0] * cos[0] - y[0] * s[0], x[1] * cos[1] - y[1] * s[1]);
  second = pair_of<S>(y[0] * cos[0] + x[0] * s[0], y[1] * cos[1] + x[1] * s[1]);
}

// Fragments of the left operand: rows 0 .. 15 of a tile, 16 columns from `column`.
template <class T>
__device__ __forceinline__ void left_operand(typename T::S* tile, int column, int lane, uint32_t (&fragment)[4]) {
  ldmatrix_x4(fragment, T::at(tile, lane % 16, column + lane / 16 * 8));
}

// Of the right operand whose columns are rows 0 .. 15 of a tile: two products of 8 columns, {0, 1} and {2, 3}.
template <class T>
__device__ __forceinline__ void right_operand(typename T::S* tile, int column, int lane, uint32_t (&fragment)[4]) {
  ldmatrix_x4(fragment, T::at(tile, lane / 16 * 8 + lane % 8, column + lane / 8 % 2 * 8));
}

// Of the right operand whose rows are rows 0 .. 15 of a tile.
template <class T>
__device__ __forceinline__ void right_operand_transposed(typename T::S* tile, int column, int lane,
                                                         uint32_t (&fragment)[4]) {
  ldmatrix_x4_transposed(fragment, T::at(tile, lane % 16, column + lane / 16 * 8));
}

}  // namespace mimo::cuda
