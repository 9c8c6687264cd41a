// RVQ on CUDA.
//
// rvq_decode: one block per 8 rows, one warp per row; a lane owns every 32nd column, so the reads of an entry and the
// write of the row coalesce. The sum runs over layers in order, as in the reference: results are equal bit by bit.
//
// rvq_search: two launches per layer, no host decision between them, so a CUDA graph can hold them all.
//   dots_kernel    residuals times entries in float32, tiles of 64 x 64 in shared memory, 4 x 4 sums per thread, into
//                  `dots`. The only heavy part, and the only one a tensor-core version replaces: a screen in lower
//                  precision adds the norms of its rounding errors to the bound (include/mimo/rvq.h).
//   choose_kernel  one warp per row: the candidates within the bound, their float64 scores in the order of the CPU
//                  (lane l of the warp is lane l of the sum), the code, the new residual and its norm.
// Rows go in passes of kRvqRowsPerPass, which bounds `dots`. float64 input is not screened: every entry is a candidate.
//
// rvq_statistics: layer by layer with the residuals in global memory; a block owns one entry and 128 columns and adds
// the rows that chose it in row order: no atomics, and the same sums bit by bit as on the CPU.
//
// rvq_quantize_backward: one thread per column, all layers.
#include "cuda/launch.h"
#include "mimo/rvq.h"

namespace mimo::cuda {
namespace {

template <class T>
__global__ void decode_kernel(RvqDecodeParams p) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (n >= p.count) return;
  const int dim = p.codebooks.dim;
  for (int d = threadIdx.x; d < dim; d += 32) {
    T sum = 0;
    for (int r = 0; r < p.codebooks.layers; ++r) {
      const int64_t code = p.codes[r * p.count + n];
      // An index out of range traps, as torch's own indexing does on CUDA: checking on the host would synchronise.
      MIMO_DEVICE_CHECK(code >= 0 && code < p.codebooks.sizes[r]);
      sum += static_cast<const T*>(p.codebooks.entries[r])[code * dim + d];
    }
    static_cast<T*>(p.out)[n * dim + d] = sum;
  }
}

template <class T>
LaunchError decode(const RvqDecodeParams& p, cudaStream_t stream) {
  constexpr int kRows = 8;
  if (p.count == 0) return nullptr;
  MIMO_LAUNCH(unsigned((p.count + kRows - 1) / kRows), dim3(32, kRows), 0, stream, decode_kernel<T>)(p);
  return MIMO_LAUNCH_ERROR();
}

constexpr int kWarps = 8;  // warps per block, where a warp owns a row or an entry
constexpr unsigned kAll = ~0u;

unsigned blocks_of(int64_t count, int64_t per_block) { return unsigned((count + per_block - 1) / per_block); }

// Folds the 32 lanes of a sum in the order of include/mimo/rvq.h; every lane gets the total.
__device__ double fold_lanes(double sum) {
  for (int width = 16; width; width /= 2) sum += __shfl_xor_sync(kAll, sum, width);
  return sum;
}

template <class T>
__device__ double exact_dot(const T* a, const T* b, int dim) {
  double sum = 0;
  for (int d = threadIdx.x; d < dim; d += 32) sum += double(a[d]) * double(b[d]);
  return fold_lanes(sum);
}

__device__ float norm_above(double square) { return float(sqrt(square)) * kRvqRoundUp; }

template <class T>
__global__ void measure_kernel(RvqSearchParams p, int total) {
  const int at = int(blockIdx.x) * kWarps + int(threadIdx.y);
  if (at >= total) return;
  int r = 0, k = at;
  while (k >= p.codebooks.sizes[r]) k -= p.codebooks.sizes[r++];
  const int dim = p.codebooks.dim;
  const T* entry = static_cast<const T*>(p.codebooks.entries[r]) + int64_t(k) * dim;
  const double square = exact_dot(entry, entry, dim);
  if (threadIdx.x != 0) return;
  p.entry_squares[at] = square;
  if (sizeof(T) == sizeof(float)) {
    p.screen[2 * at] = float(square);
    p.screen[2 * at + 1] = norm_above(square);
  }
}

// Copies the rows and, where asked for, takes their squared norms.
template <class T>
__global__ void start_kernel(const void* x, void* residual, double* squares, int64_t count, int dim) {
  const int64_t n = int64_t(blockIdx.x) * kWarps + threadIdx.y;
  if (n >= count) return;
  const T* from = static_cast<const T*>(x) + n * dim;
  T* to = static_cast<T*>(residual) + n * dim;
  for (int d = threadIdx.x; d < dim; d += 32) to[d] = from[d];
  if (!squares) return;
  const double square = exact_dot(from, from, dim);
  if (threadIdx.x == 0) squares[n] = square;
}

// dots[n, k] = residual[first + n] . entries[k].
constexpr int kTile = 64, kDepth = 16, kPerThread = 4, kDotThreads = kTile / kPerThread;

__global__ void __launch_bounds__(kDotThreads* kDotThreads)
    dots_kernel(const float* residual, const float* entries, float* dots, int64_t rows, int size, int dim) {
  __shared__ float a[kDepth][kTile + 4], b[kDepth][kTile + 4];
  const int64_t row0 = int64_t(blockIdx.x) * kTile;
  const int entry0 = int(blockIdx.y) * kTile;
  const int tx = threadIdx.x, ty = threadIdx.y, thread = ty * kDotThreads + tx;
  float sum[kPerThread][kPerThread] = {};
  for (int d0 = 0; d0 < dim; d0 += kDepth) {
    for (int i = thread; i < kTile * kDepth; i += kDotThreads * kDotThreads) {
      const int d = i % kDepth, j = i / kDepth;
      const bool inside = d0 + d < dim;
      a[d][j] = inside && row0 + j < rows ? residual[(row0 + j) * dim + d0 + d] : 0.0f;
      b[d][j] = inside && entry0 + j < size ? entries[int64_t(entry0 + j) * dim + d0 + d] : 0.0f;
    }
    __syncthreads();
    for (int d = 0; d < kDepth; ++d) {
      float left[kPerThread], right[kPerThread];
      for (int i = 0; i < kPerThread; ++i) left[i] = a[d][ty * kPerThread + i];
      for (int j = 0; j < kPerThread; ++j) right[j] = b[d][tx * kPerThread + j];
      for (int i = 0; i < kPerThread; ++i) {
        for (int j = 0; j < kPerThread; ++j) sum[i][j] += left[i] * right[j];
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < kPerThread; ++i) {
    for (int j = 0; j < kPerThread; ++j) {
      const int64_t n = row0 + ty * kPerThread + i;
      const int k = entry0 + tx * kPerThread + j;
      if (n < rows && k < size) dots[n * size + k] = sum[i][j];
    }
  }
}

// Chooses the codes of rows [first, first + rows) in codebook r, whose first entry is number `offset` of all.
template <class T>
__global__ void choose_kernel(RvqSearchParams p, RvqBound bound, int r, int offset, int64_t first, int64_t rows) {
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.y;
  if (i >= rows) return;
  const int lane = threadIdx.x, dim = p.codebooks.dim, size = p.codebooks.sizes[r];
  const int64_t n = first + i;
  const T* entries = static_cast<const T*>(p.codebooks.entries[r]);
  T* residual = static_cast<T*>(p.residual) + n * dim;

  constexpr bool kScreens = sizeof(T) == sizeof(float);
  const float* dots = p.dots + i * size;
  const float* screen = p.screen + 2 * int64_t(offset);
  const float row_factor = bound.row * norm_above(p.row_squares[r * p.count + n]);
  const auto score = [&](int k) { return screen[2 * k] - 2 * dots[k]; };
  const auto error = [&](int k) {
    const float norm = screen[2 * k + 1];
    return norm * (row_factor + bound.entry * norm) + bound.tiny;
  };
  float limit = __int_as_float(0x7f800000);
  if (kScreens) {
    for (int k = lane; k < size; k += 32) {
      const float high = score(k) + error(k);
      limit = high < limit ? high : limit;
    }
    for (int width = 16; width; width /= 2) {
      const float other = __shfl_xor_sync(kAll, limit, width);
      limit = other < limit ? other : limit;
    }
  }

  int best = -1;
  double best_score = 0;
  bool scored = false;
  const auto exact_score = [&](int k) {
    return p.entry_squares[offset + k] - 2 * exact_dot(residual, entries + int64_t(k) * dim, dim);
  };
  for (int base = 0; base < size; base += 32) {
    const int k = base + lane;
    bool candidate = k < size;
    if (kScreens && candidate) candidate = !(score(k) - error(k) > limit);  // NaN stays a candidate
    for (unsigned left = __ballot_sync(kAll, candidate); left; left &= left - 1) {
      const int next = base + __ffs(int(left)) - 1;
      if (best < 0) {
        best = next;
        continue;
      }
      if (!scored) best_score = exact_score(best), scored = true;
      const double next_score = exact_score(next);
      if (next_score < best_score) best = next, best_score = next_score;
    }
  }

  const T* entry = entries + int64_t(best) * dim;
  double sum = 0;
  for (int d = lane; d < dim; d += 32) {
    const T left = residual[d] - entry[d];
    residual[d] = left;
    sum += double(left) * double(left);
  }
  const double square = fold_lanes(sum);
  if (lane == 0) {
    p.codes[r * p.count + n] = best;
    p.row_squares[(r + 1) * p.count + n] = square;
  }
}

template <class T>
LaunchError search(const RvqSearchParams& p, cudaStream_t stream) {
  const Codebooks& books = p.codebooks;
  const dim3 warps(32, kWarps);
  int total = 0;
  for (int r = 0; r < books.layers; ++r) total += books.sizes[r];
  MIMO_LAUNCH(blocks_of(total, kWarps), warps, 0, stream, measure_kernel<T>)(p, total);
  MIMO_LAUNCH(blocks_of(p.count, kWarps), warps, 0, stream, start_kernel<T>)
  (p.x, p.residual, p.row_squares, p.count, books.dim);
  const RvqBound bound = rvq_bound(books.dim);
  for (int64_t first = 0; first < p.count; first += kRvqRowsPerPass) {
    const int64_t rows = p.count - first < kRvqRowsPerPass ? p.count - first : kRvqRowsPerPass;
    int offset = 0;
    for (int r = 0; r < books.layers; offset += books.sizes[r++]) {
      if (sizeof(T) == sizeof(float)) {
        const dim3 grid(blocks_of(rows, kTile), blocks_of(books.sizes[r], kTile));
        MIMO_LAUNCH(grid, dim3(kDotThreads, kDotThreads), 0, stream, dots_kernel)
        (static_cast<const float*>(p.residual) + first * books.dim, static_cast<const float*>(books.entries[r]), p.dots,
         rows, books.sizes[r], books.dim);
      }
      MIMO_LAUNCH(blocks_of(rows, kWarps), warps, 0, stream, choose_kernel<T>)(p, bound, r, offset, first, rows);
    }
  }
  return MIMO_LAUNCH_ERROR();
}

// --- statistics -----------------------------------------------------------------------------------------------------

constexpr int kColumns = 128;

template <class T>
__global__ void sums_kernel(RvqStatisticsParams p, int r, int offset) {
  const int k = int(blockIdx.x), lane = int(threadIdx.x) % 32, dim = p.codebooks.dim;
  const int d = int(blockIdx.y) * kColumns + int(threadIdx.x);
  const int64_t* codes = p.codes + r * p.count;
  const T* residual = static_cast<const T*>(p.residual);
  T sum = 0;
  int64_t chosen = 0;
  for (int64_t n0 = 0; n0 < p.count; n0 += 32) {
    const bool mine = n0 + lane < p.count && codes[n0 + lane] == k;
    const unsigned rows = __ballot_sync(kAll, mine);
    chosen += __popc(rows);
    if (d >= dim) continue;
    for (unsigned left = rows; left; left &= left - 1) sum += residual[(n0 + __ffs(int(left)) - 1) * dim + d];
  }
  if (d < dim) static_cast<T*>(p.sums)[int64_t(offset + k) * dim + d] = sum;
  if (d == 0) static_cast<T*>(p.counts)[offset + k] = T(chosen);
}

template <class T>
__global__ void subtract_kernel(RvqStatisticsParams p, int r) {
  const int64_t n = int64_t(blockIdx.x) * kWarps + threadIdx.y;
  if (n >= p.count) return;
  const int dim = p.codebooks.dim;
  const T* entry = static_cast<const T*>(p.codebooks.entries[r]) + p.codes[r * p.count + n] * dim;
  T* residual = static_cast<T*>(p.residual) + n * dim;
  for (int d = threadIdx.x; d < dim; d += 32) residual[d] -= entry[d];
}

// One warp per layer.
template <class T>
__global__ void commitment_kernel(RvqStatisticsParams p) {
  const int r = int(blockIdx.x);
  const double* squares = p.row_squares + (r + 1) * p.count;
  double sum = 0;
  for (int64_t n = threadIdx.x; n < p.count; n += 32) sum += squares[n];
  sum = fold_lanes(sum);
  if (threadIdx.x == 0) static_cast<T*>(p.commitment)[r] = T(sum / (double(p.count) * p.codebooks.dim));
}

template <class T>
LaunchError statistics(const RvqStatisticsParams& p, cudaStream_t stream) {
  const Codebooks& books = p.codebooks;
  const dim3 warps(32, kWarps);
  MIMO_LAUNCH(unsigned(books.layers), 32, 0, stream, commitment_kernel<T>)(p);
  if (p.count > 0) {
    MIMO_LAUNCH(blocks_of(p.count, kWarps), warps, 0, stream, start_kernel<T>)
    (p.x, p.residual, static_cast<double*>(nullptr), p.count, books.dim);
  }
  int offset = 0;
  for (int r = 0; r < books.layers; offset += books.sizes[r++]) {
    const dim3 grid(unsigned(books.sizes[r]), blocks_of(books.dim, kColumns));
    MIMO_LAUNCH(grid, kColumns, 0, stream, sums_kernel<T>)(p, r, offset);
    if (p.count > 0 && r + 1 < books.layers) {
      MIMO_LAUNCH(blocks_of(p.count, kWarps), warps, 0, stream, subtract_kernel<T>)(p, r);
    }
  }
  return MIMO_LAUNCH_ERROR();
}

template <class T>
__global__ void quantize_backward_kernel(RvqBackwardParams p) {
  const int64_t n = int64_t(blockIdx.x) * kWarps + threadIdx.y;
  if (n >= p.count) return;
  const int dim = p.codebooks.dim;
  const T scale = T(2 / (double(p.count) * double(dim)));
  for (int d = threadIdx.x; d < dim; d += 32) {
    T residual = static_cast<const T*>(p.x)[n * dim + d], sum = static_cast<const T*>(p.grad_quantized)[n * dim + d];
    for (int r = 0; r < p.codebooks.layers; ++r) {
      const int64_t code = p.codes[r * p.count + n];
      MIMO_DEVICE_CHECK(code >= 0 && code < p.codebooks.sizes[r]);
      residual -= static_cast<const T*>(p.codebooks.entries[r])[code * dim + d];
      sum += static_cast<const T*>(p.grad_commitment)[r] * scale * residual;
    }
    static_cast<T*>(p.grad_x)[n * dim + d] = sum;
  }
}

template <class T>
LaunchError quantize_backward(const RvqBackwardParams& p, cudaStream_t stream) {
  if (p.count == 0) return nullptr;
  MIMO_LAUNCH(blocks_of(p.count, kWarps), dim3(32, kWarps), 0, stream, quantize_backward_kernel<T>)(p);
  return MIMO_LAUNCH_ERROR();
}

}  // namespace

LaunchError rvq_decode(const RvqDecodeParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  return p.dtype == DType::f64 ? decode<double>(p, s) : decode<float>(p, s);
}

LaunchError rvq_search(const RvqSearchParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  return p.dtype == DType::f64 ? search<double>(p, s) : search<float>(p, s);
}

LaunchError rvq_statistics(const RvqStatisticsParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  return p.dtype == DType::f64 ? statistics<double>(p, s) : statistics<float>(p, s);
}

LaunchError rvq_quantize_backward(const RvqBackwardParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  return p.dtype == DType::f64 ? quantize_backward<double>(p, s) : quantize_backward<float>(p, s);
}

}  // namespace mimo::cuda
