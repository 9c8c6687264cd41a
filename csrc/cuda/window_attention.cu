// Sliding-window attention on CUDA, blockwise ("flash"): nothing but the results is written to memory.
//
// A block of kThreads threads owns one head and kRows rows of one sequence; kLanes neighbouring threads share a row,
// each holding kWide of its elements in registers (16 for the vocoder's heads, so that a row is one thread and scores
// need no shuffles; 8 lanes x 16 for float64, which is there for exactness). The block walks over the columns its rows
// see (keys for queries; queries for keys in the second half of the backward pass) in tiles of kTile rows, widened and
// rotated once into shared memory, from where all threads of a warp read the same row at the same time (a broadcast). A
// warp skips the chunks of a tile that none of its rows see.
//
// Which sequence a block works on is read on the device: block b belongs to the last sequence s with
// cu_seqlens[s] / kRows + s <= b, which leaves each sequence enough blocks and at most one idle; nothing synchronises
// and the grid depends on shapes only. Offsets that do not rise from 0 to T, or rotary tables shorter than a sequence,
// trap.
//
// Forward: online soft-max, one rescaling per chunk; bfloat16 on tensor cores (below). Backward: grad_q and delta with
// rows as queries, then grad_k and grad_v with rows as keys; each recomputes the scores, so there are no atomics and
// results do not vary between runs.
#include <cmath>
#include <cstring>
#include <type_traits>

#include "cuda/half.h"
#include "cuda/launch.h"
#include "cuda/mma.h"
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

// --- kernels ---------------------------------------------------------------------------------------------------------

template <class Split>
__global__ void __launch_bounds__(kThreads) forward_kernel(WindowAttentionParams p) {
  using C = typename Split::Value;
  MIMO_DYNAMIC_SHARED(C, tile);
  C* values = tile + Split::kTile * Split::kWidth;
  const Place place = find_place<Split::kRows>(p);
  if (place.first >= place.length) return;
  const Row<Split> row(place, p.left, p.right);
  Slice<Split> q, out, other;
  own_rows<Split, true>(p, p.q, place, row, C(p.scale), tile, q);
  out.fill(0);
  const C hidden = -C(INFINITY);
  C maximum = hidden, sum = 0;
  int low, high;
  seen_columns<Split>(place, p.left, p.right, low, high);
  for (int first = low; first < high; first += Split::kTile) {
    __syncthreads();
    stage<Split, true>(p, p.k, place, first, high, 1, tile);
    stage<Split, false>(p, p.v, place, first, high, 1, values);
    __syncthreads();
    for (int j = 0; j < Split::kTile; j += kChunk) {
      if (!row.warp_sees(first + j, kChunk)) continue;
      C score[kChunk], now = maximum;
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        other.load(tile + (j + i) * Split::kWidth, row.lane);
        score[i] = q.dot(other);
        if (!row.sees(first + j + i)) score[i] = hidden;
        now = max(now, score[i]);
      }
      const C base = now == hidden ? C(0) : now;  // a row that has seen nothing yet
      const C fade = std::exp(maximum - base);
      out.scale(fade);
      sum *= fade;
      maximum = now;
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        const C weight = std::exp(score[i] - base);
        sum += weight;
        other.load(values + (j + i) * Split::kWidth, row.lane);
        out.add(weight, other);
      }
    }
  }
  out.scale(C(1) / sum);
  write_rows<Split, false>(p, place, row, out, tile, p.out);
  if (row.live && row.lane == 0) row_values<C>(p.lse, p, place)[row.position] = maximum + std::log(sum);
}

// Rows are queries: delta and grad_q.
template <class Split>
__global__ void __launch_bounds__(kThreads) backward_queries_kernel(WindowAttentionBackwardParams b) {
  using C = typename Split::Value;
  MIMO_DYNAMIC_SHARED(C, tile);
  C* values = tile + Split::kTile * Split::kWidth;
  const WindowAttentionParams& p = b.forward;
  const Place place = find_place<Split::kRows>(p);
  if (place.first >= place.length) return;
  const Row<Split> row(place, p.left, p.right);
  Slice<Split> q, grad, grad_q, other;
  own_rows<Split, false>(p, b.out, place, row, 1, tile, other);
  own_rows<Split, false>(p, b.grad_out, place, row, 1, tile, grad);
  own_rows<Split, true>(p, p.q, place, row, C(p.scale), tile, q);
  grad_q.fill(0);
  const C delta = grad.dot(other), lse = row.live ? row_values<C>(p.lse, p, place)[row.position] : C(0);
  if (row.live && row.lane == 0) row_values<C>(b.delta, p, place)[row.position] = delta;
  int low, high;
  seen_columns<Split>(place, p.left, p.right, low, high);
  for (int first = low; first < high; first += Split::kTile) {
    __syncthreads();
    stage<Split, true>(p, p.k, place, first, high, 1, tile);
    stage<Split, false>(p, p.v, place, first, high, 1, values);
    __syncthreads();
    for (int j = 0; j < Split::kTile; ++j) {
      if (!row.warp_sees(first + j, 1)) continue;
      other.load(values + j * Split::kWidth, row.lane);
      const C grad_weight = grad.dot(other);
      other.load(tile + j * Split::kWidth, row.lane);
      const C score = q.dot(other), weight = row.sees(first + j) ? std::exp(score - lse) : C(0);
      grad_q.add(weight * (grad_weight - delta), other);
    }
  }
  grad_q.scale(C(p.scale));
  write_rows<Split, true>(p, place, row, grad_q, tile, b.grad_q);
}

// Rows are keys: grad_k and grad_v. Key j is seen by queries j - right .. j + left.
template <class Split>
__global__ void __launch_bounds__(kThreads) backward_keys_kernel(WindowAttentionBackwardParams b) {
  using C = typename Split::Value;
  MIMO_DYNAMIC_SHARED(C, tile);
  C *grads = tile + Split::kTile * Split::kWidth, *lse = tile + Split::kTileElements, *delta = lse + Split::kTile;
  const WindowAttentionParams& p = b.forward;
  const Place place = find_place<Split::kRows>(p);
  if (place.first >= place.length) return;
  const Row<Split> row(place, p.right, p.left);
  Slice<Split> k, v, grad_k, grad_v, other;
  own_rows<Split, true>(p, p.k, place, row, 1, tile, k);
  own_rows<Split, false>(p, p.v, place, row, 1, tile, v);
  grad_k.fill(0);
  grad_v.fill(0);
  int low, high;
  seen_columns<Split>(place, p.right, p.left, low, high);
  for (int first = low; first < high; first += Split::kTile) {
    __syncthreads();
    stage<Split, true>(p, p.q, place, first, high, C(p.scale), tile);
    stage<Split, false>(p, b.grad_out, place, first, high, 1, grads);
    for (int j = threadIdx.x; j < Split::kTile && first + j < high; j += kThreads) {
      lse[j] = row_values<C>(p.lse, p, place)[first + j];
      delta[j] = row_values<C>(b.delta, p, place)[first + j];
    }
    __syncthreads();
    for (int j = 0; j < Split::kTile; ++j) {
      if (!row.warp_sees(first + j, 1)) continue;
      other.load(grads + j * Split::kWidth, row.lane);
      const C grad_weight = v.dot(other);
      Slice<Split> query;
      query.load(tile + j * Split::kWidth, row.lane);
      const C score = k.dot(query), weight = row.sees(first + j) ? std::exp(score - lse[j]) : C(0);
      grad_v.add(weight, other);
      grad_k.add(weight * (grad_weight - delta[j]), query);
    }
  }
  write_rows<Split, true>(p, place, row, grad_k, tile, b.grad_k);
  write_rows<Split, false>(p, place, row, grad_v, tile, b.grad_v);
}

// --- forward on tensor cores (bfloat16) ------------------------------------------------------------------------------
//
// A warp owns 16 rows, a block four warps. Scores [16, 32] of a step are four m16n8 products; their fragments, as
// weights rounded to bfloat16, are the left operand of the second product. Keys lie row by row in shared memory, values
// transposed, so that both right operands are pairs of neighbours; 8 more elements per row keep the banks apart.

template <int kWidth>
struct TensorSplit {
  static constexpr int kRows = 64, kTile = 64, kStep = 32;
  static constexpr int kKeyStride = kWidth + 8, kValueStride = kTile + 8;
  static constexpr int kSharedBytes = (kTile * kKeyStride + kWidth * kValueStride) * 2;
};

// Rows first .. first + kTile - 1 (zero from `end` on) as [kTile, kWidth], or transposed.
template <int kWidth, bool kTurn, bool kTranspose>
__device__ void stage_bf16(const WindowAttentionParams& p, const PackedHeads& x, const Place& place, int first, int end,
                           __nv_bfloat16* tile) {
  using T = TensorSplit<kWidth>;
  constexpr int kPairs = kWidth / 2;
  const HeadRows<__nv_bfloat16, float> rows(x, place.begin);
  const int half = p.dim / 2;
  for (int i = threadIdx.x; i < T::kTile * kPairs; i += kThreads) {
    const int r = i / kPairs, d = i % kPairs, position = first + r;
    float a = 0, b = 0;
    if (d < half && position < end) {
      a = rows(position, d);
      b = rows(position, d + half);
      if (kTurn) rotate<float>(p, position, d, 1, a, b);
    }
    const int column_a = d < half ? d : 2 * d, column_b = d < half ? d + half : 2 * d + 1;
    narrow(a, tile + (kTranspose ? column_a * T::kValueStride + r : r * T::kKeyStride + column_a));
    narrow(b, tile + (kTranspose ? column_b * T::kValueStride + r : r * T::kKeyStride + column_b));
  }
}

__device__ __forceinline__ uint32_t pair_at(const __nv_bfloat16* p) { return *reinterpret_cast<const uint32_t*>(p); }
__device__ __forceinline__ uint32_t pair_of(float a, float b) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  uint32_t bits;
  std::memcpy(&bits, &pair, sizeof bits);
  return bits;
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads) forward_tensor_kernel(WindowAttentionParams p) {
  using T = TensorSplit<kWidth>;
  MIMO_DYNAMIC_SHARED(__nv_bfloat16, keys);
  __nv_bfloat16* values = keys + T::kTile * T::kKeyStride;
  const Place place = find_place<T::kRows>(p);
  if (place.first >= place.length) return;
  const int lane = int(threadIdx.x) % 32, group = lane / 4, pair = lane % 4 * 2;
  const int warp_row = int(threadIdx.x) / 32 * 16, warp_first = place.first + warp_row;

  stage_bf16<kWidth, true, false>(p, p.q, place, place.first, place.length, keys);
  __syncthreads();
  uint32_t q[kWidth / 16][4];
#pragma unroll
  for (int s = 0; s < kWidth / 16; ++s) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      q[s][i] = pair_at(keys + (warp_row + group + i % 2 * 8) * T::kKeyStride + 16 * s + pair + i / 2 * 8);
    }
  }

  // Of the lane's two rows, warp_first + group and 8 further: what they see, running maximum, the lane's part of the
  // sum.
  int seen_low[2], seen_high[2];
  float maximum[2], sum[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int position = warp_first + group + 8 * h;
    seen_low[h] = position - p.left;
    seen_high[h] = position < place.length ? min(position + p.right + 1, place.length) : 0;
    maximum[h] = -INFINITY;
  }
  float out[kWidth / 8][4] = {};
  const float scale = float(p.scale);
  const int low = max(place.first - p.left, 0), high = min(place.first + T::kRows + p.right, place.length);
  for (int first = low; first < high; first += T::kTile) {
    __syncthreads();
    stage_bf16<kWidth, true, false>(p, p.k, place, first, high, keys);
    stage_bf16<kWidth, false, true>(p, p.v, place, first, high, values);
    __syncthreads();
    for (int j = 0; j < T::kTile; j += T::kStep) {
      if (first + j > warp_first + 15 + p.right || first + j + T::kStep <= warp_first - p.left) continue;
      float score[4][4] = {};
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const __nv_bfloat16* key = keys + (j + 8 * n + group) * T::kKeyStride + pair;
#pragma unroll
        for (int s = 0; s < kWidth / 16; ++s) {
          mma_bf16(score[n], q[s], pair_at(key + 16 * s), pair_at(key + 16 * s + 8));
        }
      }
      float now[2] = {maximum[0], maximum[1]}, base[2];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = first + j + 8 * n + pair + e % 2;
          const bool seen = column >= seen_low[e / 2] && column < seen_high[e / 2];
          score[n][e] = seen ? score[n][e] * scale : -INFINITY;
          now[e / 2] = max(now[e / 2], score[n][e]);
        }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        now[h] = max(now[h], __shfl_xor_sync(~0u, now[h], 1));
        now[h] = max(now[h], __shfl_xor_sync(~0u, now[h], 2));
        base[h] = now[h] == -INFINITY ? 0.0f : now[h];  // a row that has seen nothing yet
        const float fade = std::exp(maximum[h] - base[h]);
        sum[h] *= fade;
        maximum[h] = now[h];
#pragma unroll
        for (int n = 0; n < kWidth / 8; ++n) {
          out[n][2 * h] *= fade;
          out[n][2 * h + 1] *= fade;
        }
      }
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          score[n][e] = std::exp(score[n][e] - base[e / 2]);
          sum[e / 2] += score[n][e];
        }
      }
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const float (&left)[4] = score[2 * s], (&right)[4] = score[2 * s + 1];
        const uint32_t weights[4] = {pair_of(left[0], left[1]), pair_of(left[2], left[3]), pair_of(right[0], right[1]),
                                     pair_of(right[2], right[3])};
        const __nv_bfloat16* value = values + group * T::kValueStride + j + 16 * s + pair;
#pragma unroll
        for (int n = 0; n < kWidth / 8; ++n) {
          mma_bf16(out[n], weights, pair_at(value + 8 * n * T::kValueStride),
                   pair_at(value + 8 * n * T::kValueStride + 8));
        }
      }
    }
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
    sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
    const int position = warp_first + group + 8 * h;
    if (position >= place.length) continue;
    auto* row = static_cast<__nv_bfloat16*>(p.out) + (int64_t(place.begin + position) * p.heads + blockIdx.y) * p.dim;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      const uint32_t two = pair_of(out[n][2 * h] / sum[h], out[n][2 * h + 1] / sum[h]);
      if (8 * n < p.dim) *reinterpret_cast<uint32_t*>(row + 8 * n + pair) = two;
    }
    if (pair == 0) row_values<float>(p.lse, p, place)[position] = maximum[h] + std::log(sum[h]);
  }
}

// --- launches --------------------------------------------------------------------------------------------------------

template <class Split>
dim3 grid_of(const WindowAttentionParams& p) {
  const int sequences = p.cu_seqlens ? p.sequences : 1;
  return dim3(unsigned(p.rows / Split::kRows + sequences), unsigned(p.heads));
}

template <class Split>
LaunchError launch(const WindowAttentionParams& p, cudaStream_t stream) {
  MIMO_LAUNCH(grid_of<Split>(p), kThreads, Split::kSharedBytes, stream, forward_kernel<Split>)(p);
  return MIMO_LAUNCH_ERROR();
}

template <int kWidth>
LaunchError launch_tensor(const WindowAttentionParams& p, cudaStream_t stream) {
  using T = TensorSplit<kWidth>;
  MIMO_LAUNCH(grid_of<T>(p), kThreads, T::kSharedBytes, stream, forward_tensor_kernel<kWidth>)(p);
  return MIMO_LAUNCH_ERROR();
}

template <class Split>
LaunchError launch(const WindowAttentionBackwardParams& b, cudaStream_t stream) {
  const dim3 grid = grid_of<Split>(b.forward);
  MIMO_LAUNCH(grid, kThreads, Split::kSharedBytes, stream, backward_queries_kernel<Split>)(b);
  if (const LaunchError error = MIMO_LAUNCH_ERROR()) return error;
  MIMO_LAUNCH(grid, kThreads, Split::kSharedBytes, stream, backward_keys_kernel<Split>)(b);
  return MIMO_LAUNCH_ERROR();
}

template <class S, class Params>
LaunchError for_dim(const Params& params, int dim, cudaStream_t stream) {
  if (dim <= 16) return launch<Split<S, float, 16, 1>>(params, stream);
  if (dim <= 32) return launch<Split<S, float, 32, 1>>(params, stream);
  if (dim <= 64) return launch<Split<S, float, 32, 2>>(params, stream);
  return launch<Split<S, float, 32, 4>>(params, stream);
}

template <class Params>
LaunchError for_dtype(const Params& params, const WindowAttentionParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  switch (p.dtype) {
    case DType::f64:
      return launch<Split<double, double, 16, 8>>(params, s);
    case DType::f16:
      return for_dim<__half>(params, p.dim, s);
    case DType::bf16:
      if constexpr (std::is_same_v<Params, WindowAttentionBackwardParams>) {
        return for_dim<__nv_bfloat16>(params, p.dim, s);
      } else {
        if (p.dim <= 16) return launch_tensor<16>(p, s);
        if (p.dim <= 32) return launch_tensor<32>(p, s);
        if (p.dim <= 64) return launch_tensor<64>(p, s);
        return launch_tensor<128>(p, s);
      }
    default:
      return for_dim<float>(params, p.dim, s);
  }
}

}  // namespace

LaunchError window_attention(const WindowAttentionParams& p, void* stream) { return for_dtype(p, p, stream); }

LaunchError window_attention_backward(const WindowAttentionBackwardParams& b, void* stream) {
  return for_dtype(b, b.forward, stream);
}

}  // namespace mimo::cuda
