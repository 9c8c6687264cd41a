// The rows of sliding-window attention on CUDA: which sequence a block works on, rows on their way between memory,
// shared memory and the threads that own them (window_attention.cu says who owns what). For that file alone.
#pragma once
#include <cmath>

#include "cuda/half.h"
#include "cuda/launch.h"
#include "mimo/window_attention.h"

namespace mimo::cuda {
namespace {

constexpr int kThreads = 128, kChunk = 8;

// One way to split the work: S is the type in memory, C the type of the arithmetic.
template <class S, class C, int kWide_, int kLanes_>
struct Split {
  using Stored = S;
  using Value = C;
  static constexpr int kWide = kWide_, kLanes = kLanes_;
  static constexpr int kRows = kThreads / kLanes, kWidth = kWide * kLanes;
  static constexpr int kTile = sizeof(C) == 8 ? 16 : (kWidth > 64 ? 32 : 64);
  // Two tiles, or the block's results on their way out, whichever is larger; then lse and delta of a tile's rows.
  static constexpr int kTileElements = 2 * kTile * kWidth > kRows* kWidth ? 2 * kTile * kWidth : kRows * kWidth;
  static constexpr int kSharedBytes = (kTileElements + 2 * kTile) * int(sizeof(C));
};

// Rotated rows are rounded to the type of the tensor, as in the definition: tensor cores need it, and the backward pass
// must see the scores of the forward pass.
template <class S, class C>
__device__ __forceinline__ C rounded(C x) {
  S stored;
  narrow(x, &stored);
  return widen(stored);
}

// --- where a block works ---------------------------------------------------------------------------------------------

// A block of rows of one sequence: the sequence begins at row `begin` of the pack; `first` counts within it.
struct Place {
  int begin, length, first;
};

template <int kRows>
__device__ Place find_place(const WindowAttentionParams& p) {
  const int block = int(blockIdx.x);
  if (!p.cu_seqlens) return {0, p.rows, block * kRows};
  if (blockIdx.x == 0 && blockIdx.y == 0) {
    for (int s = threadIdx.x; s < p.sequences; s += kThreads) {
      MIMO_DEVICE_CHECK(p.cu_seqlens[s] <= p.cu_seqlens[s + 1]);
    }
    MIMO_DEVICE_CHECK(p.cu_seqlens[0] == 0 && p.cu_seqlens[p.sequences] == p.rows);
  }
  int low = 0, high = p.sequences - 1;
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (p.cu_seqlens[middle] / kRows + middle <= block) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const int begin = p.cu_seqlens[low], end = p.cu_seqlens[low + 1];
  MIMO_DEVICE_CHECK(begin >= 0 && begin <= end && end <= p.rows);
  MIMO_DEVICE_CHECK(!p.cos || end - begin <= p.positions);
  return {begin, end - begin, (block - (begin / kRows + low)) * kRows};
}

// --- rows ------------------------------------------------------------------------------------------------------------

// One head of one sequence in memory.
template <class S, class C>
struct HeadRows {
  const S* base;
  int64_t stride;

  __device__ HeadRows(const PackedHeads& x, int begin)
      : base(static_cast<const S*>(x.data) + begin * x.row_stride + blockIdx.y * x.head_stride), stride(x.row_stride) {}
  __device__ C operator()(int position, int d) const { return widen(base[position * stride + d]); }
};

// Rotate-half of the pair (d, d + dim / 2) by the angle of a position; direction -1 rotates back.
template <class C>
__device__ __forceinline__ void rotate(const WindowAttentionParams& p, int position, int d, C direction, C& first,
                                       C& second) {
  if (!p.cos) return;
  const int64_t at = int64_t(position) * (p.dim / 2) + d;
  const C c = p.cos[at], s = direction * C(p.sin[at]), old = first;
  first = old * c - second * s;
  second = second * c + old * s;
}

// Rows first .. first + kTile - 1 (zero from `end` on) into shared memory [kTile, kWidth], by the whole block.
template <class Split, bool kTurn>
__device__ void stage(const WindowAttentionParams& p, const PackedHeads& x, const Place& place, int first, int end,
                      typename Split::Value scale, typename Split::Value* tile) {
  using C = typename Split::Value;
  constexpr int kPairs = Split::kWidth / 2;
  const HeadRows<typename Split::Stored, C> rows(x, place.begin);
  const int half = p.dim / 2;
  for (int i = threadIdx.x; i < Split::kTile * kPairs; i += kThreads) {
    const int r = i / kPairs, d = i % kPairs, position = first + r;
    C a = 0, b = 0;
    if (d < half && position < end) {
      a = rows(position, d);
      b = rows(position, d + half);
      if (kTurn) rotate<C>(p, position, d, 1, a, b);
      a = rounded<typename Split::Stored>(a);
      b = rounded<typename Split::Stored>(b);
    }
    // Pairs beyond dim fill the columns beyond dim.
    C* row = tile + r * Split::kWidth;
    row[d < half ? d : 2 * d] = a * scale;
    row[d < half ? d + half : 2 * d + 1] = b * scale;
  }
}

// What a lane holds of a row: kWide elements, in packs of 16 bytes that alternate between the lanes of the row.
template <class Split>
struct Slice {
  using C = typename Split::Value;
  static constexpr int kPack = 16 / int(sizeof(C)), kPacks = Split::kWide / kPack;
  struct alignas(16) Pack {
    C x[kPack];
  };
  C x[Split::kWide];

  __device__ static int column(int pack, int lane) { return (pack * Split::kLanes + lane) * kPack; }

  __device__ void load(const C* row, int lane) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const Pack pack = *reinterpret_cast<const Pack*>(row + column(i, lane));
#pragma unroll
      for (int e = 0; e < kPack; ++e) x[i * kPack + e] = pack.x[e];
    }
  }
  __device__ void store(C* row, int lane) const {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      Pack pack;
#pragma unroll
      for (int e = 0; e < kPack; ++e) pack.x[e] = x[i * kPack + e];
      *reinterpret_cast<Pack*>(row + column(i, lane)) = pack;
    }
  }
  __device__ void fill(C value) {
#pragma unroll
    for (int i = 0; i < Split::kWide; ++i) x[i] = value;
  }
  __device__ void scale(C factor) {
#pragma unroll
    for (int i = 0; i < Split::kWide; ++i) x[i] *= factor;
  }
  __device__ void add(C factor, const Slice& other) {
#pragma unroll
    for (int i = 0; i < Split::kWide; ++i) x[i] += factor * other.x[i];
  }
  // Sum over the whole row: all lanes of it get the same.
  __device__ C dot(const Slice& other) const {
    C sum = 0;
#pragma unroll
    for (int i = 0; i < Split::kWide; ++i) sum += x[i] * other.x[i];
#pragma unroll
    for (int bit = 1; bit < Split::kLanes; bit *= 2) sum += __shfl_xor_sync(~0u, sum, bit);
    return sum;
  }
};

// The thread's row, and which columns it and its warp see.
template <class Split>
struct Row {
  int row, lane, position;
  int low, high;            // columns that the row sees: low .. high - 1
  int warp_low, warp_high;  // that any row of the warp sees
  bool live;

  __device__ Row(const Place& place, int before, int after) {
    constexpr int kWarpRows = 32 / Split::kLanes;
    row = int(threadIdx.x) / Split::kLanes;
    lane = int(threadIdx.x) % Split::kLanes;
    position = place.first + row;
    live = position < place.length;
    low = live ? max(position - before, 0) : 0;
    high = live ? min(position + after + 1, place.length) : 0;
    const int warp_first = place.first + row / kWarpRows * kWarpRows;
    warp_low = max(warp_first - before, 0);
    warp_high = warp_first < place.length ? min(warp_first + kWarpRows + after, place.length) : 0;
  }

  __device__ bool sees(int column) const { return column >= low && column < high; }
  __device__ bool warp_sees(int first, int count) const { return first < warp_high && first + count > warp_low; }
};

// Rows of a tensor [T, H, D], rotated and scaled, to the threads that own them, by way of shared memory.
template <class Split, bool kTurn>
__device__ void own_rows(const WindowAttentionParams& p, const PackedHeads& x, const Place& place,
                         const Row<Split>& row, typename Split::Value scale, typename Split::Value* tile,
                         Slice<Split>& out) {
  for (int r = 0; r < Split::kRows; r += Split::kTile) {
    __syncthreads();
    stage<Split, kTurn>(p, x, place, place.first + r, place.length, scale, tile);
    __syncthreads();
    if (row.row >= r && row.row < r + Split::kTile) out.load(tile + (row.row - r) * Split::kWidth, row.lane);
  }
}

// The threads' rows to memory, contiguous [T, H, D], by way of shared memory.
template <class Split, bool kTurnBack>
__device__ void write_rows(const WindowAttentionParams& p, const Place& place, const Row<Split>& row,
                           const Slice<Split>& from, typename Split::Value* tile, void* to) {
  using C = typename Split::Value;
  constexpr int kPairs = Split::kWidth / 2;
  __syncthreads();
  from.store(tile + row.row * Split::kWidth, row.lane);
  __syncthreads();
  const int half = p.dim / 2;
  for (int i = threadIdx.x; i < Split::kRows * kPairs; i += kThreads) {
    const int r = i / kPairs, d = i % kPairs, position = place.first + r;
    if (d >= half || position >= place.length) continue;
    C a = tile[r * Split::kWidth + d], b = tile[r * Split::kWidth + d + half];
    if (kTurnBack) rotate<C>(p, position, d, -1, a, b);
    auto* out =
        static_cast<typename Split::Stored*>(to) + (int64_t(place.begin + position) * p.heads + blockIdx.y) * p.dim;
    narrow(a, out + d);
    narrow(b, out + d + half);
  }
}

// Columns that the block's rows see.
template <class Split>
__device__ __forceinline__ void seen_columns(const Place& place, int before, int after, int& low, int& high) {
  low = max(place.first - before, 0);
  high = min(place.first + Split::kRows + after, place.length);
}

template <class C>
__device__ __forceinline__ C* row_values(void* values, const WindowAttentionParams& p, const Place& place) {
  return static_cast<C*>(values) + int64_t(blockIdx.y) * p.rows + place.begin;
}

}  // namespace
}  // namespace mimo::cuda
