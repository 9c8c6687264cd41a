// torch.ops.mimo.delayed_sampling: schema, checks, allocation, dispatch. Definition:
// mimo_audio_native/reference/delayed_sampling.py.
#include "mimo/delayed_sampling.h"

#include "common/sampling.h"

namespace mimo {
namespace {

Tensor delayed_sampling(const Tensor& hidden, const std::vector<Tensor>& heads, const std::vector<Tensor>& embeddings,
                        const std::vector<int64_t>& empty_ids, const std::vector<int64_t>& delays, int64_t step,
                        const Tensor& tokens, const Tensor& temperature, const Tensor& top_k, const Tensor& top_p,
                        const Tensor& seeds, const Tensor& offsets) {
  const char* op = "delayed_sampling";
  constexpr int64_t kMaxFrames = INT32_MAX / kMaxChannels;  // numbers of draws fit 32 bits
  check_dim(op, "hidden", hidden, 2, "[B, D]");
  check_dtype(op, "hidden", hidden, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
  const int64_t batch = hidden.size(0);
  MIMO_CHECK(batch <= INT32_MAX && hidden.size(1) >= 1 && hidden.size(1) <= kMaxSampledWidth, op,
             ": hidden must have at most ", INT32_MAX, " rows and 1 to ", kMaxSampledWidth, " columns, got ",
             describe(hidden));
  std::vector<Tensor> hold{torch::stable::contiguous(hidden)};
  DelayedSamplingParams p{};
  p.hidden = hold[0].const_data_ptr();
  set_codebooks(op, "hidden", hidden, heads, embeddings, empty_ids, delays, p, hold);
  MIMO_CHECK(step >= 0 && step <= kMaxSampledStep, op, ": step must be in 0 .. ", kMaxSampledStep, ", got ", step);
  check_dim(op, "tokens", tokens, 3, "[B, G, C]");
  check_dtype(op, "tokens", tokens, {ScalarType::Long});
  check_same_device(op, "tokens", tokens, "hidden", hidden);
  MIMO_CHECK(tokens.size(0) == batch && tokens.size(2) == p.channels, op, ": tokens must be [B, G, C] = [", batch,
             ", G, ", p.channels, "], got ", describe(tokens));
  MIMO_CHECK(tokens.size(1) <= kMaxFrames, op, ": tokens must have at most ", kMaxFrames, " frames, got ",
             describe(tokens));
  for (int i = 0; i < 3; ++i) {
    MIMO_CHECK(tokens.size(i) < 2 || tokens.stride(i) > 0, op,
               ": tokens must have a place in memory for every entry, got one expanded along dimension ", i);
  }
  Tensor dense = torch::stable::contiguous(tokens);
  int64_t invalid_row = -1;
  p.tokens = dense.mutable_data_ptr<int64_t>();
  p.sampling = row_sampling_of(op, {temperature, top_k, top_p, seeds, offsets}, batch, "hidden", hidden, hold);
  p.sampling.invalid_row = &invalid_row;
  p.sampling.op = BadData::delayed_sampling;
  p.batch = int32_t(batch);
  p.group_size = int32_t(tokens.size(1));
  p.step = int32_t(step);
  p.dtype = dtype_of(op, "hidden", hidden);
  Tensor next = torch::stable::new_empty(hidden, {batch, p.embed_dim});
  p.next = next.mutable_data_ptr();
  if (batch == 0) return next;
  MIMO_RUN_WITH_WORKSPACE(op, hidden, delayed_sampling, p);
  check_sampled(op, invalid_row);
  if (dense.data_ptr() != tokens.data_ptr()) {
    Tensor written = tokens;
    torch::stable::copy_(written, dense);
  }
  return next;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(
    m.def("delayed_sampling(Tensor hidden, Tensor[] heads, Tensor[] embeddings, int[] empty_ids, int[] delays, "
          "int step, Tensor(a!) tokens, Tensor temperature, Tensor top_k, Tensor top_p, Tensor seeds, "
          "Tensor offsets) -> Tensor");)
MIMO_IMPL(m.impl("delayed_sampling", TORCH_BOX(&mimo::delayed_sampling));)
