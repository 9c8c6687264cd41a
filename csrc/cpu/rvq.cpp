// RVQ on the CPU.
//
// rvq_decode: row n of the output is the sum of R entries, each dim * 4 bytes at a random place: bound by memory
// latency, so rows are split over threads and the entries of a row are added one vector column at a time while the
// sum stays in a register.
#include "mimo/rvq.h"

#include "cpu/isa.h"

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

}  // namespace

void rvq_decode(const RvqDecodeParams& p) { p.dtype == DType::f64 ? decode<double>(p) : decode<float>(p); }

}  // namespace mimo::cpu::MIMO_ISA
