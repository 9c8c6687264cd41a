// RVQ on CUDA: the entry points, decoding, and the gradient. The search is one matrix product (cuda/rvq_dots.h) and one
// kernel that chooses the codes of all layers (cuda/rvq_choose.h), both from tables made once per version of the
// codebooks; training's sums are in cuda/rvq_statistics.h.
//
// Launches of a search: of up to kRvqFewRows rows two, dot products and choice; of more rows three per pass, which
// also pack the rows. A pass of 8192 rows bounds the scratch memory (230 MB at full size) and is 16 waves of blocks on
// the largest GPUs. Nothing depends on values, so a CUDA graph can hold any of it. One launch for few rows, with the
// last block to arrive choosing, would need a counter that is zero beforehand, which calls on two streams could not
// share, and would draw the tables of all rows through one multiprocessor.
//
// rvq_decode: one thread per 16 bytes of the result; neighbours read an entry coalesced. The sum runs over layers in
// order, as in the reference: results are equal bit by bit.
//
// rvq_quantize_backward: a warp per row, one thread per column, all layers.
#include "cuda/bad_data.cuh"
#include "cuda/launch.h"
#include "cuda/rvq_choose.h"
#include "cuda/rvq_dots.h"
#include "cuda/rvq_exact.h"
#include "cuda/rvq_statistics.h"
#include "mimo/rvq.h"

namespace mimo::cuda {
namespace {

// --- tables and search ----------------------------------------------------------------------------------------------

__global__ void norms_kernel(EntriesOf entries, float* norms, int total) {
  const int k = int(blockIdx.x) * kWarps + int(threadIdx.x) / 32;
  if (k >= total) return;
  const double square = exact_square(entries(k), entries.books.dim);
  if (threadIdx.x % 32 == 0) norms[2 * k] = float(square), norms[2 * k + 1] = norm_above(square);
}

template <class Rows>
void pack(const Rows& rows, int64_t count, int dim, void* out, cudaStream_t stream) {
  const int steps = rvq_steps(dim);
  const int64_t tiles = int64_t(blocks_of(count, kRvqBlockEntries)) * kBlockTiles;
  MIMO_LAUNCH(blocks_of(tiles * steps, kWarps), 32 * kWarps, 0, stream, pack_kernel<Rows>)
  (rows, dim, steps, tiles, static_cast<uint4*>(out));
}

void few_dots(const RvqSearchParams& p, const float* x, int rows, int total, cudaStream_t stream) {
  const int dim = p.codebooks.dim, steps = rvq_steps(dim);
  const auto launch = rows <= 8 ? few_dots<1> : rows <= 16 ? few_dots<2> : rows <= 32 ? few_dots<4> : few_dots<8>;
  launch(p.tables.entries, x, rows, dim, steps, p.dots, total, stream);
}

LaunchError search(const RvqSearchParams& p, cudaStream_t stream) {
  const int dim = p.codebooks.dim;
  const RvqLayout layout = rvq_layout(p.codebooks);
  const int total = layout.offset[p.codebooks.layers];
  const TableBound bound = table_bound(dim, p.codebooks.layers);
  const int64_t per_pass = rvq_rows_per_pass(p.count);
  for (int64_t first = 0; first < p.count; first += per_pass) {
    const int64_t rows = p.count - first < per_pass ? p.count - first : per_pass;
    if (p.dtype == DType::f64) {
      MIMO_LAUNCH(blocks_of(rows, kWarps), 32 * kWarps, 0, stream, choose_exactly_kernel)(p, first, rows);
      continue;
    }
    const float* x = static_cast<const float*>(p.x) + first * dim;
    if (rows <= kRvqFewRows) {
      few_dots(p, x, int(rows), total, stream);
      MIMO_LAUNCH(unsigned(rows), kChooseThreads, 0, stream, choose_kernel<kChooseThreads>)
      (p, layout, bound, first, rows);
    } else {
      pack(RowsOf{x, rows, dim}, rows, dim, p.packed, stream);
      products(p.tables.entries, total, p.packed, rows, rvq_steps(dim), ToDots{p.dots, rows, total}, stream);
      MIMO_LAUNCH(blocks_of(rows, kChooseThreads / 32), kChooseThreads, 0, stream, choose_kernel<32>)
      (p, layout, bound, first, rows);
    }
  }
  return MIMO_LAUNCH_ERROR();
}

LaunchError tables(const RvqTablesParams& p, cudaStream_t stream) {
  const Codebooks& books = p.codebooks;
  const RvqLayout layout = rvq_layout(books);
  const int total = layout.offset[books.layers];
  const EntriesOf entries{books, layout};
  MIMO_LAUNCH(blocks_of(total, kWarps), 32 * kWarps, 0, stream, norms_kernel)(entries, p.tables.norms, total);
  pack(entries, total, books.dim, p.tables.entries, stream);
  if (books.layers > 1) {
    products(p.tables.entries, total, p.tables.entries, layout.offset[books.layers - 1], rvq_steps(books.dim),
             ToTables{layout, p.tables.products, books.layers}, stream);
  }
  return MIMO_LAUNCH_ERROR();
}

// --- decoding and gradient ------------------------------------------------------------------------------------------

// The code of row n in layer r; the first entry's where it is out of range, which is reported.
__device__ __forceinline__ int64_t code_of(const Codebooks& books, const int64_t* codes, int64_t count, int r,
                                           int64_t n, const BadDataReport& report) {
  const int64_t code = codes[r * count + n];
  if (code >= 0 && code < books.sizes[r]) return code;
  report(n, uint8_t(r));
  return 0;
}

template <class T, int kWide>
struct alignas(sizeof(T) * kWide) Wide {
  T v[kWide];
};

template <class T, int kWide>
__global__ void decode_kernel(RvqDecodeParams p, BadDataReport report) {
  const int per_row = p.codebooks.dim / kWide;
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, n = i / per_row, column = i % per_row;
  if (n >= p.count) return;
  Wide<T, kWide> sum{};
#pragma unroll 4
  for (int r = 0; r < p.codebooks.layers; ++r) {
    const int64_t code = code_of(p.codebooks, p.codes, p.count, r, n, report);
    const auto entry = static_cast<const Wide<T, kWide>*>(p.codebooks.entries[r])[code * per_row + column];
#pragma unroll
    for (int j = 0; j < kWide; ++j) sum.v[j] += entry.v[j];
  }
  static_cast<Wide<T, kWide>*>(p.out)[i] = sum;
}

template <class T>
LaunchError decode(const RvqDecodeParams& p, cudaStream_t stream) {
  constexpr int kThreads = 128, kWide = 16 / int(sizeof(T));
  if (p.count == 0) return nullptr;
  bool wide = p.codebooks.dim % kWide == 0 && reinterpret_cast<uintptr_t>(p.out) % 16 == 0;
  for (int r = 0; r < p.codebooks.layers; ++r) {
    wide = wide && reinterpret_cast<uintptr_t>(p.codebooks.entries[r]) % 16 == 0;
  }
  const int64_t threads = p.count * (p.codebooks.dim / (wide ? kWide : 1));
  const BadDataReport report(BadData::rvq_decode);
  if (wide) {
    MIMO_LAUNCH(blocks_of(threads, kThreads), kThreads, 0, stream, decode_kernel<T, kWide>)(p, report);
  } else {
    MIMO_LAUNCH(blocks_of(threads, kThreads), kThreads, 0, stream, decode_kernel<T, 1>)(p, report);
  }
  return MIMO_LAUNCH_ERROR();
}

template <class T>
__global__ void quantize_backward_kernel(RvqBackwardParams p, BadDataReport report) {
  const int64_t n = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (n >= p.count) return;
  const int dim = p.codebooks.dim;
  const T scale = T(2 / (double(p.count) * double(dim)));
  for (int d = int(threadIdx.x) % 32; d < dim; d += 32) {
    T residual = static_cast<const T*>(p.x)[n * dim + d], sum = static_cast<const T*>(p.grad_quantized)[n * dim + d];
#pragma unroll 4
    for (int r = 0; r < p.codebooks.layers; ++r) {
      const int64_t code = code_of(p.codebooks, p.codes, p.count, r, n, report);
      residual -= static_cast<const T*>(p.codebooks.entries[r])[code * dim + d];
      sum += static_cast<const T*>(p.grad_commitment)[r] * scale * residual;
    }
    static_cast<T*>(p.grad_x)[n * dim + d] = sum;
  }
}

template <class T>
LaunchError quantize_backward(const RvqBackwardParams& p, cudaStream_t stream) {
  if (p.count == 0) return nullptr;
  MIMO_LAUNCH(blocks_of(p.count, kWarps), 32 * kWarps, 0, stream, quantize_backward_kernel<T>)
  (p, BadDataReport(BadData::rvq_backward));
  return MIMO_LAUNCH_ERROR();
}

}  // namespace

LaunchError rvq_tables(const RvqTablesParams& p, void* stream) { return tables(p, static_cast<cudaStream_t>(stream)); }

LaunchError rvq_search(const RvqSearchParams& p, void* stream) { return search(p, static_cast<cudaStream_t>(stream)); }

LaunchError rvq_decode(const RvqDecodeParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  return p.dtype == DType::f64 ? decode<double>(p, s) : decode<float>(p, s);
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
