// Inner products of RVQ on tensor cores, close to float32: rows with entries, and entries with entries.
//
// A float32 number v is two bfloat16 numbers and a rest, v = high + low + d, |d| <= 2^-18 |v|, and a product is
// high high' + high low' + low high' and a rest: three times the work of a bfloat16 product. cuda/rvq_choose.h bounds
// the errors.
//
// Layout. Matrices are packed in the order in which mma.m16n8k16 wants them: tiles of 16 rows, steps of 16 columns, of
// each the high and the low half, of each the 16 bytes that lane 0, 1, .. 31 holds as left operand: rows g and g + 8,
// columns 2 q + {0, 1, 8, 9} of the step, g = lane / 4, q = lane % 4. As right operands the same registers are two
// tiles of 8 rows: (a0, a2) and (a1, a3). So one packing serves both sides, copies to shared memory are contiguous,
// and a fragment is one 16-byte load per lane without bank conflicts, with neither padding nor swizzling.
//
// products_kernel  many rows: 128 entries x 128 rows per block, 64 x 32 per warp; three buffers of 32 columns (96 KB),
//                  filled by cp.async two buffers ahead. Per 16 columns a warp does 48 mma for 12 loads of 512 bytes.
// few_dots_kernel  up to 64 rows: bound by reading the packed entries once. 32 or 16 entries per block; the columns are
// dealt
//                  to its 8 warps, which read entries straight into registers and split the rows as they read them.
// Tensor-core sums run over 16 columns only and are then added in float32: the bound of an error grows with the length
// of a sum, and tensor cores round worse. The low products come first, while the sum is small.
#pragma once
#include <cstring>

#include "cuda/launch.h"
#include "cuda/mma.h"
#include "cuda/rvq_exact.h"
#include "mimo/rvq.h"

namespace mimo::cuda {
namespace {

constexpr int kStepWords = 64;  // uint4 per tile and step: 32 lanes, high and low

// Row n of x, or of all codebooks back to back.
struct RowsOf {
  const float* x;
  int64_t count;
  int dim;
  __device__ const float* operator()(int64_t n) const { return n < count ? x + n * dim : nullptr; }
};
struct EntriesOf {
  Codebooks books;
  RvqLayout layout;
  __device__ const float* operator()(int64_t n) const {
    if (n >= layout.offset[books.layers]) return nullptr;
    int r = 0;
    while (n >= layout.offset[r + 1]) ++r;
    return static_cast<const float*>(books.entries[r]) + (n - layout.offset[r]) * books.dim;
  }
};

__device__ __forceinline__ float at(const float* row, int d, int dim) { return row && d < dim ? row[d] : 0.0f; }

// One warp per tile and step.
template <class Rows>
__global__ void pack_kernel(Rows rows, int dim, int steps, int64_t tiles, uint4* out) {
  const int64_t job = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (job >= tiles * steps) return;
  const int lane = int(threadIdx.x) % 32, d = int(job % steps) * 16 + lane % 4 * 2;
  const int64_t n = job / steps * 16 + lane / 4;
  const float *top = rows(n), *bottom = rows(n + 8);
  uint4 high, low;
  split_pair(at(top, d, dim), at(top, d + 1, dim), high.x, low.x);
  split_pair(at(bottom, d, dim), at(bottom, d + 1, dim), high.y, low.y);
  split_pair(at(top, d + 8, dim), at(top, d + 9, dim), high.z, low.z);
  split_pair(at(bottom, d + 8, dim), at(bottom, d + 9, dim), high.w, low.w);
  out[job * kStepWords + lane] = high;
  out[job * kStepWords + 32 + lane] = low;
}

// --- products of tiles ----------------------------------------------------------------------------------------------

// sum[i][j] += entries i . rows j over one step, tiles of 16 entries and 8 rows; `words` of a tile are kStepWords.
struct LeftTile {
  uint32_t high[4], low[4];
  __device__ __forceinline__ void load(const uint4* words, int lane) {
    unpack(words[lane], high);
    unpack(words[32 + lane], low);
  }
  __device__ static __forceinline__ void unpack(const uint4& v, uint32_t (&out)[4]) {
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
  }
};

struct RightTile {  // 8 rows
  uint32_t high[2], low[2];
};

template <int kRight>
__device__ __forceinline__ void add_step(float (*sum)[4], const LeftTile& left, const RightTile (&right)[kRight]) {
  float step[kRight][4] = {};
#pragma unroll
  for (int j = 0; j < kRight; ++j) mma_bf16(step[j], left.low, right[j].high[0], right[j].high[1]);
#pragma unroll
  for (int j = 0; j < kRight; ++j) mma_bf16(step[j], left.high, right[j].low[0], right[j].low[1]);
#pragma unroll
  for (int j = 0; j < kRight; ++j) mma_bf16(step[j], left.high, right[j].high[0], right[j].high[1]);
#pragma unroll
  for (int j = 0; j < kRight; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[j][e] += step[j][e];
  }
}

// Where products go. dots[n, k]:
struct ToDots {
  float* dots;
  int64_t rows;
  int total;
  __device__ bool wants(int64_t, int) const { return true; }
  __device__ void operator()(int64_t n, int k, float value) const {
    if (n < rows && k < total) dots[n * total + k] = value;
  }
};
// Inner products of entries k with the entries n of the layers before, see RvqLayout:
struct ToTables {
  RvqLayout layout;
  float* products;
  int layers;
  __device__ int layer_of(int k) const {
    int r = 0;
    while (r < layers && k >= layout.offset[r + 1]) ++r;
    return r;
  }
  __device__ bool wants(int64_t n, int last_k) const {
    const int r = layer_of(last_k);
    return n < layout.offset[r < layers ? r : layers - 1];
  }
  __device__ void operator()(int64_t n, int k, float value) const {
    const int r = layer_of(k);
    if (r == layers || n >= layout.offset[r]) return;
    const int first = layout.offset[r];
    products[layout.products[r] + n * (layout.offset[r + 1] - first) + k - first] = value;
  }
};

constexpr int kBlockTiles = kRvqBlockEntries / 16;  // of entries and of rows
constexpr int kProductThreads = 256, kBuffers = 3, kBufferSteps = 2;
constexpr int kTileWords = kBufferSteps * kStepWords, kBufferWords = 2 * kBlockTiles * kTileWords;
constexpr int kProductShared = kBuffers * kBufferWords * 16;

// Entries left, rows right; blockIdx.x counts blocks of entries, blockIdx.y of rows. Both are packed to whole blocks.
template <class Out>
__global__ void __launch_bounds__(kProductThreads, 1)
    products_kernel(const uint4* entries, const uint4* rows, int steps, Out out) {
  MIMO_DYNAMIC_SHARED(uint4, buffers);
  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int left0 = warp % 2 * 4, right0 = warp / 2 * 2;  // the warp's tiles
  const int64_t tile_stride = int64_t(steps) * kStepWords;
  const int entry0 = int(blockIdx.x) * kRvqBlockEntries;
  const int64_t row0 = int64_t(blockIdx.y) * kRvqBlockEntries;
  if (!out.wants(row0, entry0 + kRvqBlockEntries - 1)) return;
  entries += blockIdx.x * kBlockTiles * tile_stride;
  rows += blockIdx.y * kBlockTiles * tile_stride;

  const int rounds = steps / kBufferSteps;
  const auto fill = [&](int round) {
    if (round < rounds) {
      uint4* buffer = buffers + round % kBuffers * kBufferWords;
#pragma unroll
      for (int i = thread; i < kBufferWords; i += kProductThreads) {
        const int tile = i / kTileWords, word = i % kTileWords;
        const uint4* from =
            (tile < kBlockTiles ? entries + tile * tile_stride : rows + (tile - kBlockTiles) * tile_stride);
        cp_async_16(buffer + i, from + int64_t(round) * kTileWords + word);
      }
    }
    cp_async_commit();  // also when empty: the wait below counts groups
  };
  for (int i = 0; i < kBuffers - 1; ++i) fill(i);

  float sum[4][4][4] = {};
  for (int round = 0; round < rounds; ++round) {
    cp_async_wait<kBuffers - 2>();
    __syncthreads();  // this round's buffer is there, and all have read the one that is filled next
    fill(round + kBuffers - 1);
    const uint4* buffer = buffers + round % kBuffers * kBufferWords;
#pragma unroll
    for (int step = 0; step < kBufferSteps; ++step) {
      RightTile right[4];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        LeftTile pair;
        pair.load(buffer + (kBlockTiles + right0 + j) * kTileWords + step * kStepWords, lane);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          right[2 * j + h] = {{pair.high[h], pair.high[h + 2]}, {pair.low[h], pair.low[h + 2]}};
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        LeftTile left;
        left.load(buffer + (left0 + i) * kTileWords + step * kStepWords, lane);
        add_step(sum[i], left, right);
      }
    }
  }
  cp_async_wait<0>();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        out(row0 + right0 * 16 + 8 * j + lane % 4 * 2 + e % 2, entry0 + (left0 + i) * 16 + lane / 4 + e / 2 * 8,
            sum[i][j][e]);
      }
    }
  }
}

template <class Out>
void products(const void* entries, int64_t entry_count, const void* rows, int64_t row_count, int steps, const Out& out,
              cudaStream_t stream) {
  MIMO_ALLOW_SHARED(products_kernel<Out>);
  const dim3 grid(blocks_of(entry_count, kRvqBlockEntries), blocks_of(row_count, kRvqBlockEntries));
  MIMO_LAUNCH(grid, kProductThreads, kProductShared, stream, products_kernel<Out>)
  (static_cast<const uint4*>(entries), static_cast<const uint4*>(rows), steps, out);
}

// --- few rows -------------------------------------------------------------------------------------------------------

constexpr int kFewWarps = 8;
constexpr int few_tiles(int right) { return right < 8 ? 2 : 1; }  // of entries per block: what registers hold

template <int kRight>
__global__ void __launch_bounds__(32 * kFewWarps, 2)  // so that all blocks of the full size run at once
    few_dots_kernel(const uint4* entries, const float* x, int rows, int dim, int steps, float* dots, int total) {
  MIMO_DYNAMIC_SHARED(float, parts);  // [kFewWarps][kFewTiles][kRight][4][32]
  constexpr int kFewTiles = few_tiles(kRight), kPart = kFewTiles * kRight * 4 * 32, kGroup = kRight < 2 ? 1 : 2;
  constexpr int kUnroll = kRight < 4 ? 2 : 1;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int64_t tile_stride = int64_t(steps) * kStepWords;
  entries += blockIdx.x * kFewTiles * tile_stride;
  float sum[kFewTiles][kRight][4] = {};
#pragma unroll kUnroll
  for (int step = warp; step < steps; step += kFewWarps) {
    LeftTile left[kFewTiles];
#pragma unroll
    for (int i = 0; i < kFewTiles; ++i) left[i].load(entries + i * tile_stride + step * kStepWords, lane);
#pragma unroll
    for (int first = 0; first < kRight; first += kGroup) {  // a group at a time: registers
      RightTile right[kGroup];
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        const int n = 8 * (first + j) + lane / 4, d = step * 16 + lane % 4 * 2;
        const float* row = n < rows ? x + int64_t(n) * dim : nullptr;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          split_pair(at(row, d + 8 * h, dim), at(row, d + 8 * h + 1, dim), right[j].high[h], right[j].low[h]);
        }
      }
#pragma unroll
      for (int i = 0; i < kFewTiles; ++i) add_step(sum[i] + first, left[i], right);
    }
  }
#pragma unroll
  for (int i = 0; i < kFewTiles; ++i) {
#pragma unroll
    for (int j = 0; j < kRight; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) parts[warp * kPart + ((i * kRight + j) * 4 + e) * 32 + lane] = sum[i][j][e];
    }
  }
  __syncthreads();
  for (int at = int(threadIdx.x); at < kPart; at += 32 * kFewWarps) {
    float value = 0;
    for (int w = 0; w < kFewWarps; ++w) value += parts[w * kPart + at];
    const int e = at / 32 % 4, j = at / 128 % kRight, i = at / 128 / kRight;
    const int n = 8 * j + lane % 4 * 2 + e % 2, k = (int(blockIdx.x) * kFewTiles + i) * 16 + lane / 4 + e / 2 * 8;
    if (n < rows && k < total) dots[int64_t(n) * total + k] = value;
  }
}

template <int kRight>
void few_dots(const void* entries, const float* x, int rows, int dim, int steps, float* dots, int total,
              cudaStream_t stream) {
  constexpr int kFewTiles = few_tiles(kRight), kShared = kFewWarps * kFewTiles * kRight * 4 * 32 * int(sizeof(float));
  MIMO_ALLOW_SHARED(few_dots_kernel<kRight>);
  MIMO_LAUNCH(blocks_of(total, 16 * kFewTiles), 32 * kFewWarps, kShared, stream, few_dots_kernel<kRight>)
  (static_cast<const uint4*>(entries), x, rows, dim, steps, dots, total);
}

}  // namespace
}  // namespace mimo::cuda
