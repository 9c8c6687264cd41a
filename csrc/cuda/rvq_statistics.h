// What training wants of RVQ besides codes: counts and sums per entry, and the commitment.
//
// The sum of an entry runs over the rows that chose it in row order, as on the CPU: no atomics, the same bits. To read
// each row once, the rows are sorted by code, stably, all layers in three launches: within pieces of kRvqSortRows rows
// every row counts the equal codes before it (rank_kernel); per layer the pieces' counts become positions
// (starts_kernel); every row goes to its place (scatter_kernel). Then layer by layer, with the residuals in global
// memory: a block owns one entry and 128 columns and adds its rows (sums_kernel), and a warp per row subtracts the
// entry and takes the norm for the commitment (subtract_kernel). That reads and writes 12 bytes per number and layer;
// recomputing residuals from x and codes instead would read R / 2 entries for each.
#pragma once
#include "cuda/launch.h"
#include "cuda/rvq_exact.h"
#include "mimo/rvq.h"

namespace mimo::cuda {
namespace {

// The parts of RvqStatisticsParams::order.
struct SortedRows {
  int32_t *rows, *ranks;  // [layers, count]: row numbers by code; how many rows of a piece come before with the same
  int32_t* starts;        // [total]: position of an entry's first row among its layer's
  int32_t* before;        // [pieces, total]: of these rows, how many lie in the pieces before
};

SortedRows sorted_rows(const RvqStatisticsParams& p, int64_t total) {
  const int64_t codes = p.codebooks.layers * p.count;
  return {p.order, p.order + codes, p.order + 2 * codes, p.order + 2 * codes + total};
}

// blockIdx: piece, layer.
__global__ void rank_kernel(RvqStatisticsParams p, RvqLayout layout, SortedRows sorted) {
  constexpr int kRows = int(kRvqSortRows);
  __shared__ int codes[kRows];
  const int i = int(threadIdx.x), r = int(blockIdx.y);
  const int64_t n = int64_t(blockIdx.x) * kRows + i;
  int32_t* before = sorted.before + int64_t(blockIdx.x) * layout.offset[p.codebooks.layers] + layout.offset[r];
  for (int k = i; k < p.codebooks.sizes[r]; k += kRows) before[k] = 0;
  const int code = n < p.count ? int(p.codes[r * p.count + n]) : -1;
  codes[i] = code;
  __syncthreads();
  if (code < 0) return;
  int rank = 0, after = 0;
  for (int j = 0; j < kRows; ++j) {
    const bool same = codes[j] == code;
    rank += same && j < i;
    after += same && j > i;
  }
  sorted.ranks[r * p.count + n] = rank;
  if (after == 0) before[code] = rank + 1;
}

// One block per layer; writes the counts, too.
constexpr int kScanThreads = 1024;

template <class T>
__global__ void starts_kernel(RvqStatisticsParams p, RvqLayout layout, SortedRows sorted, int pieces) {
  __shared__ int warp_sums[kScanThreads / 32];
  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int offset = layout.offset[blockIdx.x], size = p.codebooks.sizes[blockIdx.x];
  const int64_t total = layout.offset[p.codebooks.layers];
  int done = 0;
  for (int base = 0; base < size; base += kScanThreads) {
    const int k = base + thread;
    int count = 0;
    if (k < size) {
#pragma unroll 4
      for (int piece = 0; piece < pieces; ++piece) {
        int32_t& before = sorted.before[piece * total + offset + k];
        const int here = before;
        before = count;
        count += here;
      }
      static_cast<T*>(p.counts)[offset + k] = T(count);
    }
    int sum = count;  // inclusive over the threads
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(kAll, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    int all = 0;
    for (int w = 0; w < kScanThreads / 32; ++w) {
      if (w < warp) sum += warp_sums[w];
      all += warp_sums[w];
    }
    if (k < size) sorted.starts[offset + k] = done + sum - count;
    done += all;
    __syncthreads();
  }
}

__global__ void scatter_kernel(RvqStatisticsParams p, RvqLayout layout, SortedRows sorted) {
  const int64_t n = int64_t(blockIdx.x) * kRvqSortRows + threadIdx.x, row = blockIdx.y * p.count;
  if (n >= p.count) return;
  const int64_t at = layout.offset[blockIdx.y] + p.codes[row + n];
  const int64_t piece = int64_t(blockIdx.x) * layout.offset[p.codebooks.layers];
  sorted.rows[row + sorted.starts[at] + sorted.before[piece + at] + sorted.ranks[row + n]] = int32_t(n);
}

constexpr int kColumns = 128;

// blockIdx: entry of layer r, group of columns.
template <class T>
__global__ void sums_kernel(RvqStatisticsParams p, SortedRows sorted, const T* residual, int r, int offset) {
  const int k = int(blockIdx.x), dim = p.codebooks.dim, d = int(blockIdx.y) * kColumns + int(threadIdx.x);
  if (d >= dim) return;
  const int begin = sorted.starts[offset + k];
  const int end = k + 1 < p.codebooks.sizes[r] ? sorted.starts[offset + k + 1] : int(p.count);
  const int32_t* rows = sorted.rows + r * p.count;
  T sum = 0;
#pragma unroll 8
  for (int i = begin; i < end; ++i) sum += residual[int64_t(rows[i]) * dim + d];
  static_cast<T*>(p.sums)[int64_t(offset + k) * dim + d] = sum;
}

// Residuals before layer r -> after it, with their squared norms.
template <class T>
__global__ void subtract_kernel(RvqStatisticsParams p, const T* before, int r) {
  const int64_t n = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (n >= p.count) return;
  const int dim = p.codebooks.dim;
  const T* entry = static_cast<const T*>(p.codebooks.entries[r]) + p.codes[r * p.count + n] * dim;
  T* after = static_cast<T*>(p.residual) + n * dim;
  double sum = 0;
#pragma unroll 4
  for (int d = int(threadIdx.x) % 32; d < dim; d += 32) {
    const T left = before[n * dim + d] - entry[d];
    after[d] = left;
    sum += double(left) * double(left);
  }
  sum = fold_lanes(sum);
  if (threadIdx.x % 32 == 0) p.row_squares[(r + 1) * p.count + n] = sum;
}

// One warp per layer.
template <class T>
__global__ void commitment_kernel(RvqStatisticsParams p) {
  const double* squares = p.row_squares + (blockIdx.x + 1) * p.count;
  double sum = 0;
#pragma unroll 8
  for (int64_t n = threadIdx.x; n < p.count; n += 32) sum += squares[n];
  sum = fold_lanes(sum);
  if (threadIdx.x == 0) static_cast<T*>(p.commitment)[blockIdx.x] = T(sum / (double(p.count) * p.codebooks.dim));
}

template <class T>
LaunchError statistics(const RvqStatisticsParams& p, cudaStream_t stream) {
  const Codebooks& books = p.codebooks;
  const RvqLayout layout = rvq_layout(books);
  const SortedRows sorted = sorted_rows(p, layout.offset[books.layers]);
  const dim3 pieces(unsigned(rvq_sort_pieces(p.count)), unsigned(books.layers));
  if (p.count > 0) MIMO_LAUNCH(pieces, int(kRvqSortRows), 0, stream, rank_kernel)(p, layout, sorted);
  MIMO_LAUNCH(unsigned(books.layers), kScanThreads, 0, stream, starts_kernel<T>)(p, layout, sorted, int(pieces.x));
  if (p.count > 0) MIMO_LAUNCH(pieces, int(kRvqSortRows), 0, stream, scatter_kernel)(p, layout, sorted);
  const T* residual = static_cast<const T*>(p.x);
  for (int r = 0; r < books.layers; ++r) {
    const dim3 grid(unsigned(books.sizes[r]), blocks_of(books.dim, kColumns));
    MIMO_LAUNCH(grid, kColumns, 0, stream, sums_kernel<T>)(p, sorted, residual, r, layout.offset[r]);
    if (p.count > 0) {
      MIMO_LAUNCH(blocks_of(p.count, kWarps), 32 * kWarps, 0, stream, subtract_kernel<T>)(p, residual, r);
    }
    residual = static_cast<const T*>(p.residual);
  }
  MIMO_LAUNCH(unsigned(books.layers), 32, 0, stream, commitment_kernel<T>)(p);
  return MIMO_LAUNCH_ERROR();
}

}  // namespace
}  // namespace mimo::cuda
