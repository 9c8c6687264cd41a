// sample on the CPU: a thread takes whole rows, each widened to float32 in scratch (cpu/sampling.h has the rest).
#include "mimo/sampling.h"

#include "cpu/rows.h"
#include "cpu/sampling.h"
#include "mimo/philox.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

template <class T>
void sample_rows(const SampleParams& p) {
  constexpr int64_t kEntriesPerTask = 16384;
  const RowSampling& how = p.sampling;
  parallel_for(p.rows, 1 + kEntriesPerTask / p.vocabulary, [&](int64_t begin, int64_t end) {
    const RowScratch row(p.vocabulary);
    for (int64_t b = begin; b < end; ++b) {
      widen_row(static_cast<const T*>(p.logits) + b * p.vocabulary, p.vocabulary, row.scores.get());
      p.tokens[b] = sample_row(row, p.vocabulary, how.temperature[b], how.top_k[b], how.top_p[b],
                               philox_uniform(uint64_t(how.seeds[b]), uint64_t(how.offsets[b]), p.stream));
    }
  });
  for (int64_t b = p.rows; b-- > 0;) {
    if (p.tokens[b] < 0) *how.invalid_row = b;
  }
}

}  // namespace

void sample(const SampleParams& p) { MIMO_FLOAT_OR_HALF(p.dtype, sample_rows<T>(p)); }

}  // namespace mimo::cpu::MIMO_ISA
