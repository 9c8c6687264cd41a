// torch.ops.mimo.sample: schema, checks, allocation, dispatch. Definition: mimo_audio_native/reference/sampling.py.
#include "mimo/sampling.h"

#include "common/sampling.h"

namespace mimo {
namespace {

Tensor sample(const Tensor& logits, const Tensor& temperature, const Tensor& top_k, const Tensor& top_p,
              const Tensor& seeds, const Tensor& offsets, int64_t stream) {
  const char* op = "sample";
  check_dim(op, "logits", logits, 2, "[B, V]");
  check_dtype(op, "logits", logits, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
  const int64_t rows = logits.size(0), vocabulary = logits.size(1);
  MIMO_CHECK(rows <= INT32_MAX && vocabulary >= 1 && vocabulary <= kMaxVocabulary, op, ": logits must have at most ",
             INT32_MAX, " rows and 1 to ", kMaxVocabulary, " columns, got ", describe(logits));
  MIMO_CHECK(stream >= 0 && stream <= UINT32_MAX, op, ": stream must be in 0 .. ", UINT32_MAX, ", got ", stream);
  std::vector<Tensor> hold{torch::stable::contiguous(logits)};
  int64_t invalid_row = -1;
  SampleParams p{};
  p.logits = hold[0].const_data_ptr();
  p.sampling = row_sampling_of(op, {temperature, top_k, top_p, seeds, offsets}, rows, "logits", logits, hold);
  p.sampling.invalid_row = &invalid_row;
  p.sampling.op = BadData::sample;
  p.rows = int32_t(rows);
  p.vocabulary = int32_t(vocabulary);
  p.stream = uint32_t(stream);
  p.dtype = dtype_of(op, "logits", logits);
  Tensor tokens = torch::stable::new_empty(logits, {rows}, ScalarType::Long);
  p.tokens = tokens.mutable_data_ptr<int64_t>();
  if (rows == 0) return tokens;
  MIMO_RUN(op, logits, sample, p);
  check_sampled(op, invalid_row);
  return tokens;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(
    m.def("sample(Tensor logits, Tensor temperature, Tensor top_k, Tensor top_p, Tensor seeds, Tensor offsets, "
          "int stream=0) -> Tensor");)
MIMO_IMPL(m.impl("sample", TORCH_BOX(&mimo::sample));)
