// torch.ops.mimo.patch_decode: schema, checks, allocation, dispatch. Definition:
// mimo_audio_native/reference/patch_decode.py.
#include "mimo/patch_decode.h"

#include <algorithm>
#include <optional>

#include "common/decode_step.h"
#include "common/sampling.h"

namespace mimo {
namespace {

constexpr const char* kOp = "patch_decode";

Tensor patch_decode(const Tensor& hidden, const std::vector<Tensor>& layers, const Tensor& norm,
                    const std::vector<Tensor>& heads, const std::vector<Tensor>& embeddings,
                    const std::optional<Tensor>& projection, const Tensor& cos, const Tensor& sin,
                    int64_t attention_heads, double eps, const std::vector<int64_t>& empty_ids,
                    const std::vector<int64_t>& delays, int64_t group_size, const Tensor& temperature,
                    const Tensor& top_k, const Tensor& top_p, const Tensor& seeds, const Tensor& offsets) {
  std::vector<Tensor> hold;
  const DecodeArguments arguments{kOp, hidden, hold};
  arguments.check_hidden();
  const int64_t batch = hidden.size(0), dim = hidden.size(1);
  MIMO_CHECK(group_size >= 1 && group_size <= kMaxDecodeSteps, kOp, ": group_size must be 1 to ", kMaxDecodeSteps,
             ", got ", group_size);

  hold.push_back(torch::stable::contiguous(hidden));
  PatchDecodeParams p{};
  p.hidden = hold[0].const_data_ptr();
  const std::vector<BlockWeights> blocks = arguments.blocks(layers, attention_heads, eps, p.shape);
  p.blocks = blocks.data();
  p.layers = int32_t(blocks.size());
  p.norm = arguments.weight([] { return "norm"; }, "[D]", norm, dim, 0);
  DelayedSamplingParams& s = p.sampling;
  set_codebooks(kOp, "hidden", hidden, heads, embeddings, empty_ids, delays, s, hold);
  if (projection) {
    p.projection = arguments.weight([] { return "projection"; }, "[D, E]", *projection, dim, s.embed_dim);
  } else {
    MIMO_CHECK(s.embed_dim == dim, kOp, ": projection must be given where embeddings are not as wide as hidden (", dim,
               "), got None for embeddings[0] ", describe(embeddings[0]));
  }
  const int64_t steps = group_size + *std::max_element(delays.begin(), delays.end());
  MIMO_CHECK(steps <= kMaxDecodeSteps, kOp, ": group_size + the largest of delays must be at most ", kMaxDecodeSteps,
             ", got ", steps);
  p.steps = int32_t(steps);
  const RotaryTables tables = rotary_tables(kOp, cos, sin, "hidden", hidden, p.shape.head_dim, "step", steps, hold);
  p.cos = tables.cos;
  p.sin = tables.sin;
  int64_t invalid_row = -1;
  s.sampling = row_sampling_of(kOp, {temperature, top_k, top_p, seeds, offsets}, batch, "hidden", hidden, hold);
  s.sampling.invalid_row = &invalid_row;
  s.sampling.op = BadData::patch_decode;
  s.batch = int32_t(batch);
  s.group_size = int32_t(group_size);
  s.dtype = dtype_of(kOp, "hidden", hidden);

  Tensor tokens = torch::stable::new_empty(hidden, {batch, group_size, s.channels}, ScalarType::Long);
  s.tokens = tokens.mutable_data_ptr<int64_t>();
  if (batch == 0) return tokens;
  MIMO_RUN_WITH_WORKSPACE(kOp, hidden, patch_decode, p);
  check_sampled(kOp, invalid_row);
  return tokens;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(
    m.def("patch_decode(Tensor hidden, Tensor[] layers, Tensor norm, Tensor[] heads, Tensor[] embeddings, "
          "Tensor? projection, Tensor cos, Tensor sin, int attention_heads, float eps, int[] empty_ids, "
          "int[] delays, int group_size, Tensor temperature, Tensor top_k, Tensor top_p, Tensor seeds, "
          "Tensor offsets) -> Tensor");)
MIMO_IMPL(m.impl("patch_decode", TORCH_BOX(&mimo::patch_decode));)
