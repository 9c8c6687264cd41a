// Rows of sliding-window attention on their way between memory and tiles in shared memory, for the tensor-core kernels.
#pragma once
#include "cuda/attention_tiles.cuh"
#include "cuda/window_attention_rows.cuh"

namespace mimo::cuda {
namespace {

// Rows of a tensor [T, H, D] of one sequence and a group of heads.
struct GroupRows {
  const PackedHeads& x;
  int begin, head, low, high;  // the sequence's first row; the group's first head; positions low .. high - 1 are read

  template <class S>
  __device__ const S* at(int position, int h, int d) const {
    return static_cast<const S*>(x.data) + (begin + position) * x.row_stride + (head + h) * x.head_stride + d;
  }
  __device__ bool has(int position) const { return position >= low && position < high; }
};

// Rows first .. first + kRows - 1 into a tile, rotated and rounded, by threads 0 .. kStride - 1; zeros where there are
// none. kCount elements of either half of a row at a time.
template <class T, class S, int kRows, int kStride, int kCount>
__device__ __forceinline__ void stage_rotated(const WindowAttentionParams& p, const GroupRows& rows, int first,
                                              int thread, S* tile) {
  using Some = Pairs<kCount>;
  constexpr int kHeadItems = T::kWidth / 2 / kCount, kRowItems = T::kHeads * kHeadItems, kStep = kStride / kRowItems;
  const int half = p.dim / 2, slot = thread % kRowItems, h = slot / kHeadItems, d = slot % kHeadItems * kCount;
  const bool live = rows.head + h < p.heads && d < half;
  // Halves beyond dim fill the columns beyond dim.
  const int column = h * T::kWidth + (d < half ? d : 2 * d), other = column + (d < half ? half : kCount);
  int r = thread / kRowItems, position = first + r;
  const S* from = rows.template at<S>(position, h, d);
  const float *cos = p.cos + int64_t(position) * half + d, *sin = p.sin + int64_t(position) * half + d;
#pragma unroll 2
  for (int i = 0; i < kRows / kStep; ++i) {
    Some a{}, b{};
    if (live && rows.has(position)) {
      a = *reinterpret_cast<const Some*>(from);
      b = *reinterpret_cast<const Some*>(from + half);
      if (p.cos) {
        float c[kCount], s[kCount];
#pragma unroll
        for (int e = 0; e < kCount; e += 4) {
          *reinterpret_cast<float4*>(c + e) = *reinterpret_cast<const float4*>(cos + e);
          *reinterpret_cast<float4*>(s + e) = *reinterpret_cast<const float4*>(sin + e);
        }
#pragma unroll
        for (int e = 0; e < kCount / 2; ++e) rotate_pairs<S>(c + 2 * e, s + 2 * e, 1, a.words[e], b.words[e]);
      }
    }
    *reinterpret_cast<Some*>(T::at(tile, r, column)) = a;
    *reinterpret_cast<Some*>(T::at(tile, r, other)) = b;
    r += kStep;
    position += kStep;
    from += kStep * rows.x.row_stride;
    cos += kStep * half;
    sin += kStep * half;
  }
}

template <class T, class S, int kRows, int kStride>
__device__ __forceinline__ void stage_rotated(const WindowAttentionParams& p, const GroupRows& rows, int first,
                                              int thread, S* tile) {
  if (p.dim % 16 == 0) {
    stage_rotated<T, S, kRows, kStride, 8>(p, rows, first, thread, tile);
  } else {  // a half is a multiple of 4
    stage_rotated<T, S, kRows, kStride, 4>(p, rows, first, thread, tile);
  }
}

// The same without rotation, in the background: cp_async_commit and cp_async_wait are the caller's.
template <class T, class S, int kRows, int kStride>
__device__ __forceinline__ void stage_plain(const WindowAttentionParams& p, const GroupRows& rows, int first,
                                            int thread, S* tile) {
  constexpr int kStep = kStride / T::kPieces;
  const int piece = thread % T::kPieces, h = piece / T::kHeadPieces, d = piece % T::kHeadPieces * 8;
  const bool live = rows.head + h < p.heads && d < p.dim;
  int r = thread / T::kPieces, position = first + r;
  const S* from = rows.template at<S>(position, h, d);
#pragma unroll 4
  for (int i = 0; i < kRows / kStep; ++i) {
    const bool there = live && rows.has(position);
    cp_async_16(T::at(tile, r, piece * 8), there ? from : rows.x.data, there);
    r += kStep;
    position += kStep;
    from += kStep * rows.x.row_stride;
  }
}

// A warp's 16 rows of a tile to memory, contiguous [T, H, D].
template <class T, class S>
__device__ __forceinline__ void write_tile(const WindowAttentionParams& p, const Place& place, int position, int head,
                                           int lane, S* tile, void* to) {
  constexpr int kStep = 32 / T::kPieces;
  const int first = lane / T::kPieces, piece = lane % T::kPieces;
  const int h = head + piece / T::kHeadPieces, d = piece % T::kHeadPieces * 8;
  if (h >= p.heads || d >= p.dim) return;
  const int64_t stride = int64_t(p.heads) * p.dim, step = kStep * stride;
  S* row = static_cast<S*>(to) + (place.begin + position + first) * stride + h * p.dim + d;
#pragma unroll
  for (int i = 0; i < 16 / kStep; ++i, row += step) {
    const int r = first + i * kStep;
    if (position + r >= place.length) break;
    *reinterpret_cast<Pairs<8>*>(row) = *reinterpret_cast<const Pairs<8>*>(T::at(tile, r, piece * 8));
  }
}

}  // namespace
}  // namespace mimo::cuda
