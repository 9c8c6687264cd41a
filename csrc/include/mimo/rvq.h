// Residual vector quantization: parameters and launch prototypes (MiMo-Audio report, section 2.1).
#pragma once
#include <cstdint>

#include "common/cpu_dispatch.h"
#include "mimo/dtype.h"

namespace mimo {

inline constexpr int kMaxCodebooks = 64;
inline constexpr int kMaxEntries = 1 << 21;  // of a codebook, and columns: kernels count all entries in 32 bits

// R codebooks of one width. Passed by value, so that a CUDA launch carries it in its arguments.
struct Codebooks {
  const void* entries[kMaxCodebooks];  // layer r: [sizes[r], dim], contiguous
  int32_t sizes[kMaxCodebooks];
  int32_t layers;
  int32_t dim;
};

struct RvqDecodeParams {
  Codebooks codebooks;
  const int64_t* codes;  // [codebooks.layers, count]
  void* out;             // [count, dim]
  int64_t count;
  DType dtype;  // f32 or f64
};

// What the CUDA search knows of the codebooks beforehand (made once per version of them; the CPU search needs none).
// All three parts of the tables of R codebooks begin with those of the first R - 1.
struct RvqTables {
  void* entries;    // all entries as bfloat16 high and low parts, packed as cuda/rvq_dots.h wants them
  float* norms;     // [sum of sizes, 2]: |e|^2 rounded, and no less than |e|
  float* products;  // layer after layer [offset[r], sizes[r]]: inner products with the entries of all layers before
};
struct RvqLayout {
  int32_t offset[kMaxCodebooks + 1];    // of a layer's first entry among all
  int64_t products[kMaxCodebooks + 1];  // of a layer's table among all
};
inline RvqLayout rvq_layout(const Codebooks& codebooks) {
  RvqLayout layout{};
  for (int r = 0; r < codebooks.layers; ++r) {
    layout.offset[r + 1] = layout.offset[r] + codebooks.sizes[r];
    layout.products[r + 1] = layout.products[r] + int64_t(layout.offset[r]) * codebooks.sizes[r];
  }
  return layout;
}
inline constexpr int kRvqBlockEntries = 128;  // rows are packed by so many
// Packed size in elements, two for a number: whole blocks of rows, steps of 16 columns in pairs.
inline int rvq_steps(int dim) { return (dim + 31) / 32 * 2; }
inline int64_t rvq_packed_size(int64_t rows, int dim) {
  return (rows + kRvqBlockEntries - 1) / kRvqBlockEntries * kRvqBlockEntries * rvq_steps(dim) * 16 * 2;
}

struct RvqTablesParams {
  Codebooks codebooks;  // float32
  RvqTables tables;     // out
};

// Greedy residual search. Codes are exact: see "What exact means" below.
struct RvqSearchParams {
  Codebooks codebooks;
  const void* x;   // [count, dim]
  int64_t* codes;  // out: [layers, count]
  int64_t count;
  DType dtype;  // f32 or f64
  // Of the CPU kernels:
  double* row_squares;    // out: [layers + 1, count], |residual|^2 before layer 0, 1, .. and after the last
  double* entry_squares;  // out: [sum of sizes], |entry|^2 or near it, layers back to back: finite if the entry is
  // Of the CUDA kernels, scratch memory for a pass of rvq_rows_per_pass(count) rows (float64: residual only):
  RvqTables tables;
  void* residual;  // [rows, dim]
  float* dots;     // [rows, sum of sizes]
  void* packed;    // rvq_packed_size(rows, dim) bfloat16, if there are more than kRvqFewRows
};
inline constexpr int64_t kRvqFewRows = 64;
inline int64_t rvq_rows_per_pass(int64_t count) { return count < 8192 ? count : 8192; }

// What EMA codebook updates and the commitment loss need, from x and its codes.
struct RvqStatisticsParams {
  Codebooks codebooks;
  const void* x;
  const int64_t* codes;
  double* row_squares;  // [layers + 1, count]; CPU: of the search; CUDA: scratch memory, row 0 unused
  void* commitment;     // out: [layers]
  void* counts;         // out: [sum of sizes]
  void* sums;           // out: [sum of sizes, dim]
  int64_t count;
  DType dtype;
  // Scratch memory of the CUDA kernels:
  void* residual;  // [count, dim]
  int32_t* order;  // rvq_order_size(layers, count, sum of sizes)
};
// Rows are sorted by code in pieces of kRvqSortRows.
inline constexpr int64_t kRvqSortRows = 256;
inline int64_t rvq_sort_pieces(int64_t count) { return (count + kRvqSortRows - 1) / kRvqSortRows; }
inline int64_t rvq_order_size(int64_t layers, int64_t count, int64_t total) {
  return 2 * layers * count + (rvq_sort_pieces(count) + 1) * total;
}

struct RvqBackwardParams {
  Codebooks codebooks;
  const void* grad_quantized;   // [count, dim]
  const void* grad_commitment;  // [layers]
  const void* x;
  const int64_t* codes;
  void* grad_x;  // out: [count, dim]
  int64_t count;
  DType dtype;
};

// What exact means. Layer r chooses the smallest k that minimises, in float64,
//     score(k) = |e_k|^2 - 2 r.e_k
// where r is the float32 residual left by the layers before it (one subtraction per layer), and both sums run in one
// fixed order: lane l of 32 adds the products at d = l, l + 32, .. in turn, then the lanes are folded 16, 8, 4, 2, 1.
// A product of two float32 numbers is exact in float64, so a fused multiply-add changes nothing: every thread count,
// batch size, instruction set and device computes the same score(k) and so the same code.
//
// Kernels need not compute score(k) for every k. They screen with a cheaper r^.e^_k and re-score in float64 only the
// candidates: all k whose screened score is within the sum of the error bounds of the best. The bound, u = 2^-24:
//   - any order of D multiplications and additions in float32, fused or not:
//         |fl(r^.e^) - r^.e^| <= g |r^| |e^|,   g = D u / (1 - D u)   (Higham, Accuracy and Stability, section 3.1);
//   - r^ and e^ may be r and e rounded to bfloat16: |r^.e^ - r.e| <= |r^| |e^ - e| + |r^ - r| |e|, with the norms of
//     the actual rounding errors, which are about half of what the worst case 2^-9 |r| would give;
//   - |e|^2 summed in float32 in any order: g |e|^2;
//   - the operations that form score and bound: at most 3 u |e|^2 + 4 u |r| |e|, with the float64 error of score(k)
//     itself (below 2^-40 of the same norms) in the slack of the constants.
// Together, with every norm rounded up,
//     |screened(k) - score(k)| <= E(k) = |e| (A |r| + 2 |r^ - r| + B |e|) + 2 |r^| |e^ - e| + tiny
// with A = 2.02 g + 8 u (|r^| |e^| exceeds |r| |e| by 0.8 % at most), B = 1.01 g + 4 u, and tiny = D 2^-123 for
// products and sums below the normal range. A non-finite intermediate makes the comparison false and so makes its k a
// candidate: overflow costs time, never correctness.
struct RvqBound {
  float row, entry, tiny;  // A, B, tiny
};
inline RvqBound rvq_bound(int dim) {
  const double unit = 1.0 / (1 << 24), sum = dim * unit;
  const double gamma = sum < 0.5 ? sum / (1 - sum) : double(__builtin_huge_val());
  return {float(2.02 * gamma + 8 * unit), float(1.01 * gamma + 4 * unit), float(dim) * 0x1p-123f};
}
inline constexpr float kRvqRoundUp = 1.0f + 0x1p-21f;  // times a norm rounded to float32 is no less than the norm

namespace cpu {
MIMO_CPU_KERNEL(void, rvq_decode, const RvqDecodeParams&)
MIMO_CPU_KERNEL(void, rvq_search, const RvqSearchParams&)
MIMO_CPU_KERNEL(void, rvq_statistics, const RvqStatisticsParams&)
MIMO_CPU_KERNEL(void, rvq_quantize_backward, const RvqBackwardParams&)
}  // namespace cpu
namespace cuda {
LaunchError rvq_tables(const RvqTablesParams&, void* stream);
LaunchError rvq_decode(const RvqDecodeParams&, void* stream);
LaunchError rvq_search(const RvqSearchParams&, void* stream);
LaunchError rvq_statistics(const RvqStatisticsParams&, void* stream);
LaunchError rvq_quantize_backward(const RvqBackwardParams&, void* stream);
}  // namespace cuda

}  // namespace mimo
