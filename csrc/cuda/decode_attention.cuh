// Attention of one new query per row and head over its row's cache ("flash decoding"), for any cache length:
//
//   attention  a block per row, key-value head, up to kHeads of the query heads that share it, and piece of the
//              positions; keys and values of a tile of positions come to shared memory together, all copies in flight
//              at once, and meet all the heads there
//   combine    a block per row and query head adds its pieces up, in order
//
// A tile is met three times:
//   scores   a thread per position and share of its columns (16 bytes each): q . key
//   weights  a warp per head: maximum so far, e^(score - maximum), their total
//   values   a thread per column and group of positions: the weighted sum
// Rows of a tile lie 16 bytes further apart than they are wide, so that lanes that read neighbouring rows do not meet
// in a bank. Pieces and groups count from a row's own first position, and sums run in a fixed order: no result depends
// on the batch or on padding.
#pragma once
#include "cuda/decode_state.cuh"
#include "cuda/mma.h"

namespace mimo::cuda {

inline constexpr int kTile = 64;        // positions: pieces are whole tiles of so many
inline constexpr int kMostPieces = 32;  // of a row; combine_kernel gives each to a lane
inline constexpr int kMostGroups = 16;  // of positions that threads add up apart
inline constexpr int kAttention = 128;  // threads of a block, unless the launch says otherwise

// What the pieces of rows come to: sums of values weighted by e^(score - maximum), and the weights' totals.
struct AttentionPieces {
  float *maximum = nullptr, *total = nullptr;  // [batch, heads, most]
  float* out = nullptr;  // [batch, heads, most, W]; null: every row is one piece, which goes to `attended` at once
  int most = 1;          // pieces of a row

  // Positions of a piece of a row that sees `seen`: a tile, or as many as leave no more than kMostPieces.
  __host__ __device__ int length(int seen) const {
    const int pieces = out ? kMostPieces : 1;
    return kTile * ((seen + kTile * pieces - 1) / (kTile * pieces));
  }
};

inline AttentionPieces take_attention_pieces(Buffers& buffers, const DecodeState& s) {
  AttentionPieces pieces{};
  pieces.most = min(kMostPieces, s.position / kTile + 1);
  if (pieces.most == 1) return pieces;
  const int64_t count = int64_t(s.batch) * s.shape.heads * pieces.most;
  pieces.maximum = buffers.take<float>(count);
  pieces.total = buffers.take<float>(count);
  pieces.out = buffers.take<float>(count * s.shape.head_dim);
  return pieces;
}

// How a block lays out keys and values of dtype C and head width W, and splits them among its threads.
struct AttentionTile {
  int columns;    // 16 bytes each, of a key or value; the last is filled up with zeros
  int positions;  // at a time: kTile, or a smaller power of two that needs no more than 34 KB
  bool copies;    // whole columns, on 16-byte boundaries

  template <class C>
  static AttentionTile of(const DecodeState& s, int threads) {
    const int columns = (s.shape.head_dim + kColumnsOf<C> - 1) / kColumnsOf<C>;
    int positions = min(kTile, threads / 2);
    while (positions * (columns + 1) > kTile * 17) positions /= 2;
    return {columns, positions, reads_whole_vectors<C>(s.cache.data, s.shape.head_dim)};
  }

  // Threads that share a position's values by columns; the threads left over have none.
  __host__ __device__ int lines(int threads) const { return threads / columns; }
  __host__ __device__ int groups(int threads) const { return min(lines(threads), kMostGroups); }
};

// A block's dynamic shared memory, in floats; keys and values make room for the groups' sums in the end.
template <class C, int kHeads, int kThreads>
struct AttentionShared {
  int padded, stride;                // elements of a query; of a tile's row
  int scores, weights, tiles, size;  // where they begin; queries come first

  __host__ __device__ explicit AttentionShared(const AttentionTile& tile) {
    padded = tile.columns * kColumnsOf<C>;
    stride = padded + kColumnsOf<C>;
    scores = kHeads * padded;              // [kHeads, kThreads]
    weights = scores + kHeads * kThreads;  // [positions, kHeads]
    tiles = weights + kHeads * tile.positions;
    size = tiles + max(2 * tile.positions * (tile.columns + 1) * 4, tile.groups(kThreads) * kHeads * padded);
  }
};

// Three blocks of 128 threads per multiprocessor leave 168 registers; for four, sm_100 moves some to memory.
template <class C, int kHeads, int kThreads>
__global__ void __launch_bounds__(kThreads, 384 / kThreads)
    attention_kernel(DecodeState s, AttentionPieces pieces, AttentionTile tile, int layer) {
  constexpr int kColumns = kColumnsOf<C>, kWarps = kThreads / 32;
  static_assert(kHeads <= kWarps, "a warp per head");
  MIMO_DYNAMIC_SHARED(float, shared);
  __shared__ float fades[kHeads], totals[kHeads];
  const AttentionShared<C, kHeads, kThreads> at(tile);
  float* const queries = shared;
  float* const scores = shared + at.scores;
  float* const weights = shared + at.weights;
  C* const keys = reinterpret_cast<C*>(shared + at.tiles);
  C* const values = keys + tile.positions * at.stride;
  float* const sums = shared + at.tiles;

  const BlockShape& shape = s.shape;
  const int width = shape.head_dim, sharing = shape.heads / shape.kv_heads;
  const int chunks = (sharing + kHeads - 1) / kHeads, chunk = int(blockIdx.x) % chunks;
  const int kv_head = int(blockIdx.x) / chunks, piece = int(blockIdx.y), b = int(blockIdx.z);
  const int heads = min(kHeads, sharing - chunk * kHeads);
  const int64_t first_head = int64_t(b) * shape.heads + kv_head * sharing + chunk * kHeads;
  const int last = s.last(b), first = s.first(b), length = pieces.length(last + 1 - first);
  const int begin = first + piece * length, end = min(begin + length, last + 1);
  if (begin > last) return wait_for_previous_kernel();

  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int column = thread % tile.columns, line = thread / tile.columns, lines = tile.lines(kThreads);
  const int groups = tile.groups(kThreads), position = thread % tile.positions, part = thread / tile.positions;
  const int parts = kThreads / tile.positions;

  // Brings keys and values of positions first .. end - 1 to a tile that begins at position `origin`.
  const C* const all_keys = s.cached<C>(layer, false);
  const C* const all_values = s.cached<C>(layer, true);
  const auto bring = [&](int first, int end, int origin) {
    if (line >= lines) return;
    const int d = column * kColumns;
    if (tile.copies) {
#pragma unroll 4
      for (int p = first + line; p < end; p += lines) {
        const int64_t from = max(s.place(b, kv_head, p), int64_t(0)) + d;  // a bad page: anything that can be read
        const int to = (p - origin) * at.stride + d;
        cp_async_16(keys + to, all_keys + from);
        cp_async_16(values + to, all_values + from);
      }
      return;
    }
#pragma unroll 1
    for (int p = first + line; p < end; p += lines) {
      const int64_t from = max(s.place(b, kv_head, p), int64_t(0));
#pragma unroll 1
      for (int i = d; i < d + kColumns; ++i) {
        keys[(p - origin) * at.stride + i] = i < width ? all_keys[from + i] : C(0.0f);
        values[(p - origin) * at.stride + i] = i < width ? all_values[from + i] : C(0.0f);
      }
    }
  };

  float maximum = -INFINITY, total = 0.0f;  // of head `warp`, in all its lanes
  float out[kHeads][kColumns] = {};         // of the thread's column and group
  for (int origin = begin; origin < end; origin += tile.positions) {
    const int count = min(tile.positions, end - origin);
    // The new positions and the queries come from the kernel before.
    const int settled = origin > begin ? origin + count : s.settled() ? min(origin + count, last) : origin;
    bring(origin, settled, origin);
    if (origin == begin) {
      wait_for_previous_kernel();
      let_next_kernel_start();
      const float scale = 1.0f / sqrtf(float(width));
      for (int d = thread; d < at.padded; d += kThreads) {
        float query[kHeads];
#pragma unroll
        for (int h = 0; h < kHeads; ++h) query[h] = h < heads && d < width ? s.q[(first_head + h) * width + d] : 0.0f;
#pragma unroll
        for (int h = 0; h < kHeads; ++h) queries[h * at.padded + d] = query[h] * scale;
      }
    }
    bring(settled, origin + count, origin);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    if (position < count) {
      float sum[kHeads] = {};
#pragma unroll 2
      for (int c = part; c < tile.columns; c += parts) {
        const Columns<C> key = read_columns(keys + position * at.stride + c * kColumns);
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
#pragma unroll
          for (int i = 0; i < kColumns; i += 4) {
            const Columns<float> q = read_columns(queries + h * at.padded + c * kColumns + i);
#pragma unroll
            for (int j = 0; j < 4; ++j) sum[h] = __fmaf_rn(q.value[j], widen(key.value[i + j]), sum[h]);
          }
        }
      }
#pragma unroll
      for (int h = 0; h < kHeads; ++h) scores[h * kThreads + thread] = sum[h];
    }
    __syncthreads();

    if (warp < kHeads) {
      constexpr int kRounds = kThreads / 2 <= 32 ? 1 : 2;  // positions of a lane
      float score[kRounds], now = maximum;
#pragma unroll
      for (int i = 0; i < kRounds; ++i) {
        const int p = lane + 32 * i;
        score[i] = p < count ? 0.0f : -INFINITY;
        for (int j = 0; p < count && j < parts; ++j) score[i] += scores[warp * kThreads + j * tile.positions + p];
        now = max(now, score[i]);
      }
      for (int bits = 16; bits; bits /= 2) now = max(now, __shfl_xor_sync(~0u, now, bits));
      const float fade = std::exp(maximum - now);
      float added = 0.0f;
#pragma unroll
      for (int i = 0; i < kRounds; ++i) {
        const int p = lane + 32 * i;
        const float weight = std::exp(score[i] - now);
        added += weight;
        if (p < count) weights[p * kHeads + warp] = weight;
      }
      total = __fmaf_rn(total, fade, fold_warp(added));
      maximum = now;
      if (lane == 0) {
        fades[warp] = fade;
        totals[warp] = total;
      }
    }
    __syncthreads();

    if (line < groups) {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float fade = fades[h];
#pragma unroll
        for (int i = 0; i < kColumns; ++i) out[h][i] *= fade;
      }
#pragma unroll 2
      for (int p = line; p < count; p += groups) {
        const Columns<C> value = read_columns(values + p * at.stride + column * kColumns);
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          const float weight = weights[p * kHeads + h];
#pragma unroll
          for (int i = 0; i < kColumns; ++i) out[h][i] = __fmaf_rn(weight, widen(value.value[i]), out[h][i]);
        }
      }
    }
    __syncthreads();
  }

  if (line < groups) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) sums[(line * kHeads + h) * at.padded + column * kColumns + i] = out[h][i];
    }
  }
  __syncthreads();
  for (int d = thread; d < width; d += kThreads) {
    float sum[kHeads] = {};
#pragma unroll 4
    for (int g = 0; g < groups; ++g) {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) sum[h] += sums[(g * kHeads + h) * at.padded + d];
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int64_t head = first_head + h;
      if (h >= heads) continue;
      if (pieces.out) {
        pieces.out[(head * pieces.most + piece) * width + d] = sum[h];
      } else {
        s.attended[head * width + d] = sum[h] / totals[h];
      }
    }
  }
  if (pieces.out && warp < heads && lane == 0) {
    const int64_t to = (first_head + warp) * pieces.most + piece;
    pieces.maximum[to] = maximum;
    pieces.total[to] = total;
  }
}

static __global__ void __launch_bounds__(kAttention) combine_kernel(DecodeState s, AttentionPieces pieces) {
  const int64_t head = blockIdx.x, first = head * pieces.most;
  const int b = int(head / s.shape.heads), lane = int(threadIdx.x) % 32, width = s.shape.head_dim;
  const int seen = s.last(b) + 1 - s.first(b), length = pieces.length(seen), count = (seen + length - 1) / length;
  wait_for_previous_kernel();
  let_next_kernel_start();
  const float own = lane < count ? pieces.maximum[first + lane] : -INFINITY;
  float maximum = own;
  for (int bits = 16; bits; bits /= 2) maximum = max(maximum, __shfl_xor_sync(~0u, maximum, bits));
  const float share = std::exp(own - maximum);
  const float total = fold_warp(lane < count ? share * pieces.total[first + lane] : 0.0f);
  for (int from = 0; from < width; from += kAttention) {
    const int d = from + int(threadIdx.x);
    float sum = 0.0f;
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      const float factor = __shfl_sync(~0u, share, i);
      if (d < width) sum = __fmaf_rn(factor, pieces.out[(first + i) * width + d], sum);
    }
    if (d < width) s.attended[head * width + d] = sum / total;
  }
}

template <class C, int kHeads, int kThreads>
void launch_attention_of(const DecodeState& s, const AttentionPieces& pieces, int layer, cudaStream_t stream) {
  const AttentionTile tile = AttentionTile::of<C>(s, kThreads);
  const AttentionShared<C, kHeads, kThreads> shared(tile);
  const int chunks = (s.shape.heads / s.shape.kv_heads + kHeads - 1) / kHeads;
  MIMO_LAUNCH_EARLY(dim3(unsigned(s.shape.kv_heads * chunks), unsigned(pieces.most), unsigned(s.batch)), kThreads,
                    size_t(shared.size) * sizeof(float), stream, attention_kernel<C, kHeads, kThreads>)
  (s, pieces, tile, layer);
}

// From q and the cache (of dtype C) to attended.
template <class C>
void launch_attention(const DecodeState& s, const AttentionPieces& pieces, int layer, cudaStream_t stream) {
  const auto launch =
      s.shape.heads == s.shape.kv_heads ? launch_attention_of<C, 1, kAttention> : launch_attention_of<C, 4, kAttention>;
  launch(s, pieces, layer, stream);
  if (!pieces.out) return;
  MIMO_LAUNCH_EARLY(unsigned(s.batch * s.shape.heads), kAttention, 0, stream, combine_kernel)(s, pieces);
}

// The same for a cache of few positions: a warp per row and head, where heads are narrow enough.
template <class C>
void launch_short_attention(const DecodeState& s, int layer, cudaStream_t stream) {
  const bool narrow = s.shape.head_dim <= 8 * kColumnsOf<C>;
  (narrow ? launch_attention_of<C, 1, 32> : launch_attention_of<C, 1, kAttention>)(s, AttentionPieces{}, layer, stream);
}

}  // namespace mimo::cuda
