// RVQ on the CPU.
//
// rvq_decode: row n of the output is the sum of R entries, each dim * 4 bytes at a random place: bound by memory
// latency, so rows are split over threads and the entries of a row are added one vector column at a time while the
// sum stays in a register.
//
// rvq_search: cpu/rvq_search.h; in float64 every entry is scored as the definition says, for gradcheck and tests.
//
// rvq_statistics: the sum of the residuals that chose an entry runs in row order, so that it never depends on threads:
// a thread takes a slice of columns through all rows, with the residual in registers and its slice of all the sums
// (64 columns of 4352 entries: 1.1 MB) in the L2 cache. Recomputing the residuals from x and the codes is cheaper than
// storing [R, N, D] during the search.
//
// rvq_quantize_backward: rows are split over threads; one pass over a row's columns for all layers.
#include "mimo/rvq.h"

#include "cpu/isa.h"
#include "cpu/rvq_search.h"
#if defined(__AVX512F__)
#include "cpu/rvq_amx.h"
#endif

namespace mimo::cpu::MIMO_ISA {
namespace {

template <class T>
void decode(const RvqDecodeParams& p) {
  const int dim = p.codebooks.dim, layers = p.codebooks.layers;
  T* out = static_cast<T*>(p.out);
  parallel_for(p.count, 64, [&](int64_t begin, int64_t end) {
    const T* entry[kMaxCodebooks];
    for (int64_t n = begin; n < end; ++n) {
      for (int r = 0; r < layers; ++r) {
        entry[r] = static_cast<const T*>(p.codebooks.entries[r]) + p.codes[r * p.count + n] * dim;
      }
      T* row = out + n * dim;
      int d = 0;
      for (; d + kLanes<T> <= dim; d += kLanes<T>) {
        Vec<T> sum{};
        for (int r = 0; r < layers; ++r) sum += load(entry[r] + d);
        store(row + d, sum);
      }
      for (; d < dim; ++d) {
        T sum = 0;
        for (int r = 0; r < layers; ++r) sum += entry[r][d];
        row[d] = sum;
      }
    }
  });
}

void search_double(const RvqSearchParams& p) {
  const Codebooks& books = p.codebooks;
  const int dim = books.dim;
  const auto* x = static_cast<const double*>(p.x);
  double* squares = p.entry_squares;
  for (int r = 0; r < books.layers; ++r) {
    for (int k = 0; k < books.sizes[r]; ++k) {
      *squares++ = square_of(static_cast<const double*>(books.entries[r]) + int64_t(k) * dim, dim);
    }
  }
  parallel_for(p.count, 1, [&](int64_t begin, int64_t end) {
    const Scratch<double> residual(int64_t(chunks_of(dim)) * kChunk);
    const Row<double> row{residual.get(), kChunk};
    for (int64_t n = begin; n < end; ++n) {
      load_row(row, x + n * dim, dim);
      p.row_squares[n] = square_of(row, dim);
      const double* square = p.entry_squares;
      for (int r = 0; r < books.layers; square += books.sizes[r++]) {
        const auto* entries = static_cast<const double*>(books.entries[r]);
        const auto score = [&](int64_t k) { return square[k] - 2 * exact_dot(row, entries + k * dim, dim); };
        int64_t best = 0;
        double best_score = score(0);
        for (int64_t k = 1; k < books.sizes[r]; ++k) {
          const double candidate = score(k);
          if (candidate < best_score) best = k, best_score = candidate;
        }
        p.codes[r * p.count + n] = best;
        subtract_entry(row, entries + best * dim, dim);
        p.row_squares[(r + 1) * p.count + n] = square_of(row, dim);
      }
    }
  });
}

// Few rows where packing all codebooks would cost more than it gains.
constexpr int64_t kFewRows = 48;

void search_float(const RvqSearchParams& p) {
  const bool few = p.count < kFewRows;
  const ScreenedCodebooks books(p, !few);
  if (few) return search_rows(p, books);
#if defined(__AVX512F__)
  if (cpu_has_amx()) return search_blocks<AmxScreen>(p, books);
#endif
  search_blocks<FloatScreen>(p, books);
}

// Lane l of 32 adds values l, l + 32, ..: the order of the CUDA kernel.
double ordered_sum(const double* values, int64_t count) {
  LaneSums sums;
  double lanes[kSumLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i % kSumLanes] += values[i];
  std::memcpy(sums.lanes, lanes, sizeof lanes);
  return sums.total();
}

template <class T>
void statistics(const RvqStatisticsParams& p) {
  constexpr int kColumns = 64, kVectors = kColumns / kLanes<T>;
  const Codebooks& books = p.codebooks;
  const int dim = books.dim;
  const auto* x = static_cast<const T*>(p.x);
  auto* counts = static_cast<T*>(p.counts);
  auto* sums = static_cast<T*>(p.sums);
  int64_t total = 0;
  for (int r = 0; r < books.layers; total += books.sizes[r++]) {
    for (int k = 0; k < books.sizes[r]; ++k) counts[total + k] = 0;
    for (int64_t n = 0; n < p.count; ++n) counts[total + p.codes[r * p.count + n]] += 1;
    const double squares = ordered_sum(p.row_squares + (r + 1) * p.count, p.count);
    static_cast<T*>(p.commitment)[r] = T(squares / (double(p.count) * dim));
  }
  parallel_for((dim + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slice = begin; slice < end; ++slice) {
      const int64_t first = slice * kColumns;
      const int64_t width = dim - first < kColumns ? dim - first : kColumns;
      for (int64_t k = 0; k < total; ++k) std::memset(sums + k * dim + first, 0, size_t(width) * sizeof(T));
      for (int64_t n = 0; n < p.count; ++n) {
        T* sum = sums + first;
        if (width == kColumns) {
          Vec<T> residual[kVectors];
          for (int i = 0; i < kVectors; ++i) residual[i] = load(x + n * dim + first + i * kLanes<T>);
          for (int r = 0; r < books.layers; sum += int64_t(books.sizes[r++]) * dim) {
            const int64_t at = p.codes[r * p.count + n] * dim;
            const T* entry = static_cast<const T*>(books.entries[r]) + at + first;
            for (int i = 0; i < kVectors; ++i) {
              T* to = sum + at + i * kLanes<T>;
              store(to, load(to) + residual[i]);
              residual[i] -= load(entry + i * kLanes<T>);
            }
          }
        } else {
          T residual[kColumns];
          std::memcpy(residual, x + n * dim + first, size_t(width) * sizeof(T));
          for (int r = 0; r < books.layers; sum += int64_t(books.sizes[r++]) * dim) {
            const int64_t at = p.codes[r * p.count + n] * dim;
            const T* entry = static_cast<const T*>(books.entries[r]) + at + first;
            for (int i = 0; i < width; ++i) {
              sum[at + i] += residual[i];
              residual[i] -= entry[i];
            }
          }
        }
      }
    }
  });
}

template <class T>
void quantize_backward(const RvqBackwardParams& p) {
  const Codebooks& books = p.codebooks;
  const int64_t dim = books.dim;
  T factor[kMaxCodebooks];
  for (int r = 0; r < books.layers; ++r) {
    factor[r] = static_cast<const T*>(p.grad_commitment)[r] * T(2 / (double(p.count) * double(dim)));
  }
  parallel_for(p.count, 16, [&](int64_t begin, int64_t end) {
    const T* entry[kMaxCodebooks];
    for (int64_t n = begin; n < end; ++n) {
      for (int r = 0; r < books.layers; ++r) {
        entry[r] = static_cast<const T*>(books.entries[r]) + p.codes[r * p.count + n] * dim;
      }
      const T* x = static_cast<const T*>(p.x) + n * dim;
      const T* grad = static_cast<const T*>(p.grad_quantized) + n * dim;
      T* out = static_cast<T*>(p.grad_x) + n * dim;
      int64_t d = 0;
      for (; d + kLanes<T> <= dim; d += kLanes<T>) {
        Vec<T> residual = load(x + d), sum = load(grad + d);
        for (int r = 0; r < books.layers; ++r) {
          residual -= load(entry[r] + d);
          sum += factor[r] * residual;
        }
        store(out + d, sum);
      }
      for (; d < dim; ++d) {
        T residual = x[d], sum = grad[d];
        for (int r = 0; r < books.layers; ++r) {
          residual -= entry[r][d];
          sum += factor[r] * residual;
        }
        out[d] = sum;
      }
    }
  });
}

}  // namespace

void rvq_search(const RvqSearchParams& p) { p.dtype == DType::f64 ? search_double(p) : search_float(p); }

void rvq_statistics(const RvqStatisticsParams& p) {
  p.dtype == DType::f64 ? statistics<double>(p) : statistics<float>(p);
}

void rvq_quantize_backward(const RvqBackwardParams& p) {
  p.dtype == DType::f64 ? quantize_backward<double>(p) : quantize_backward<float>(p);
}

void rvq_decode(const RvqDecodeParams& p) { p.dtype == DType::f64 ? decode<double>(p) : decode<float>(p); }

}  // namespace mimo::cpu::MIMO_ISA
