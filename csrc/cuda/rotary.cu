// Rotary positions on CUDA: q and k in one launch, every element read and written once.
//
// A thread turns kPack neighbouring elements of the first half of a head with their partners of the second half, in
// reads and writes of 16 bytes where the layout allows, else one element at a time. The heads of a row, of q and then
// of k, lie side by side in a block, which takes as many rows as fill it: the factors of a row's position come from
// memory once and from the L1 cache for the other heads.
//
// Compiled without contraction of products and sums: results equal the definition's bit for bit, whatever kPack is.
#include <algorithm>

#include "cuda/half.h"
#include "cuda/launch.h"
#include "mimo/rotary.h"

namespace mimo::cuda {
namespace {

constexpr int kThreads = 256;

// kCount neighbouring elements, moved in 16-byte pieces where they are as many.
template <class S, int kCount>
struct alignas(kCount * sizeof(S) < 16 ? kCount * sizeof(S) : 16) Pack {
  S x[kCount];
};

template <class S, class C, int kPack>
__global__ void __launch_bounds__(kThreads) rotary_kernel(RotaryParams p, int rows_per_block) {
  using Elements = Pack<S, kPack>;
  using Factors = Pack<float, kPack>;
  const int chunks = p.half / kPack, heads = p.q.heads + p.k.heads, per_row = heads * chunks;
  const int first_row = int(blockIdx.x) * rows_per_block;
  const int items = min(rows_per_block, p.batch * p.length - first_row) * per_row;
  const C direction = p.inverse ? C(-1) : C(1);
  for (int i = int(threadIdx.x); i < items; i += int(blockDim.x)) {
    const int row = first_row + i / per_row, place = i % per_row, b = row / p.length, t = row % p.length;
    const int d = place % chunks * kPack;
    const bool is_q = place / chunks < p.q.heads;
    const int head = place / chunks - (is_q ? 0 : p.q.heads);
    const RotaryHeads from = is_q ? p.q : p.k;
    const S* x =
        static_cast<const S*>(from.data) + b * from.batch_stride + t * from.row_stride + head * from.head_stride + d;
    const Elements first = *reinterpret_cast<const Elements*>(x);
    const Elements second = *reinterpret_cast<const Elements*>(x + p.half);
    const int64_t table = int64_t(p.table_per_batch ? row : t) * p.half + d;
    const Factors cos = *reinterpret_cast<const Factors*>(p.cos + table);
    const Factors sin = *reinterpret_cast<const Factors*>(p.sin + table);
    Elements turned_first, turned_second;
#pragma unroll
    for (int e = 0; e < kPack; ++e) {
      const C a = widen(first.x[e]), c = widen(second.x[e]), s = direction * C(sin.x[e]);
      narrow(a * C(cos.x[e]) - c * s, turned_first.x + e);
      narrow(c * C(cos.x[e]) + a * s, turned_second.x + e);
    }
    S* to = static_cast<S*>(from.out) + (int64_t(row) * from.heads + head) * 2 * p.half + d;
    *reinterpret_cast<Elements*>(to) = turned_first;
    *reinterpret_cast<Elements*>(to + p.half) = turned_second;
  }
}

template <class S, class C, int kPack>
LaunchError launch(const RotaryParams& p, cudaStream_t stream) {
  const int per_row = (p.q.heads + p.k.heads) * (p.half / kPack), rows = p.batch * p.length;
  const int rows_per_block = std::max(1, kThreads / per_row), items = rows_per_block * per_row;
  const int threads = std::min(kThreads, (items + 31) / 32 * 32);
  const unsigned blocks = unsigned((int64_t(rows) + rows_per_block - 1) / rows_per_block);
  MIMO_LAUNCH(blocks, threads, 0, stream, rotary_kernel<S, C, kPack>)(p, rows_per_block);
  return MIMO_LAUNCH_ERROR();
}

template <class S, class C>
LaunchError for_layout(const RotaryParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  return p.vectors ? launch<S, C, 16 / int(sizeof(S))>(p, s) : launch<S, C, 1>(p, s);
}

}  // namespace

LaunchError rotary(const RotaryParams& p, void* stream) {
  if (p.dtype == DType::f64) return for_layout<double, double>(p, stream);
  return MIMO_FLOAT_OR_HALF(p.dtype, for_layout<T, float>(p, stream));
}

}  // namespace mimo::cuda
