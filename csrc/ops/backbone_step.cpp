// torch.ops.mimo.backbone_step: schema, checks, allocation, dispatch. Definition:
// mimo_audio_native/reference/backbone_step.py.
#include "mimo/backbone_step.h"

#include <optional>

#include "common/decode_step.h"

namespace mimo {
namespace {

constexpr const char* kOp = "backbone_step";

Tensor backbone_step(const Tensor& hidden, const std::vector<Tensor>& layers, const Tensor& norm, const Tensor& cache,
                     int64_t length, const std::optional<Tensor>& padding, const Tensor& cos, const Tensor& sin,
                     int64_t attention_heads, double eps, const std::optional<Tensor>& lengths,
                     const std::optional<Tensor>& pages, const std::optional<Tensor>& ends) {
  std::vector<Tensor> hold;
  const DecodeArguments arguments{kOp, hidden, hold};
  arguments.check_hidden();
  const int64_t batch = hidden.size(0), dim = hidden.size(1);
  hold.push_back(torch::stable::contiguous(hidden));
  BackboneStepParams p{};
  p.hidden = hold[0].const_data_ptr();
  const std::vector<BlockWeights> blocks = arguments.blocks(layers, attention_heads, eps, p.shape);
  p.blocks = blocks.data();
  p.layers = int32_t(blocks.size());
  p.norm = arguments.weight([] { return "norm"; }, "[D]", norm, dim, 0);

  check_dim(kOp, "cache", cache, 6, "[L, 2, B, N, P, W]");
  check_same_dtype(kOp, "cache", cache, "hidden", hidden);
  check_same_device(kOp, "cache", cache, "hidden", hidden);
  const int64_t count = pages ? cache.size(2) : batch, size = cache.size(4);
  const int64_t wanted[] = {p.layers, 2, count, p.shape.kv_heads, size, p.shape.head_dim};
  for (int i = 0; i < 6; ++i) {
    MIMO_CHECK(cache.size(i) == wanted[i], kOp, ": cache must be [L, 2, B, N, P, W] = [", p.layers, ", 2, ", count,
               ", ", p.shape.kv_heads, ", P, ", p.shape.head_dim, "], got ", describe(cache));
  }
  MIMO_CHECK(cache.is_contiguous(), kOp, ": cache must be contiguous, as it is written in place, got strides for ",
             describe(cache));
  p.cache.data = cache.mutable_data_ptr();
  p.cache.per_row = 1;
  if (pages) {
    check_dim(kOp, "pages", *pages, 2, "[B, M]");
    check_dtype(kOp, "pages", *pages, {ScalarType::Int});
    check_same_device(kOp, "pages", *pages, "hidden", hidden);
    MIMO_CHECK(pages->size(0) == batch && pages->size(1) <= INT32_MAX, kOp,
               ": pages must have a row per row of hidden (", batch, "), got ", describe(*pages));
    hold.push_back(torch::stable::contiguous(*pages));
    p.cache.table = hold.back().const_data_ptr<int32_t>();
    p.cache.per_row = int32_t(pages->size(1));
  }
  MIMO_CHECK(count <= INT32_MAX && size <= INT32_MAX / (p.cache.per_row > 1 ? p.cache.per_row : 1), kOp,
             ": cache must have room for at most ", INT32_MAX, " positions, got ", describe(cache));
  const int64_t capacity = size * p.cache.per_row;
  MIMO_CHECK(length >= 0 && length < capacity, kOp,
             ": length must be 0 to P - 1, so that the cache has room for one more, got ", length,
             " for P = ", capacity);
  p.cache.count = int32_t(count);
  p.cache.size = int32_t(size);
  const auto count_per_row = [&](const char* name, const std::optional<Tensor>& counts) -> const int64_t* {
    if (!counts) return nullptr;
    check_dim(kOp, name, *counts, 1, "[B]");
    check_dtype(kOp, name, *counts, {ScalarType::Long});
    check_same_device(kOp, name, *counts, "hidden", hidden);
    MIMO_CHECK(counts->size(0) == batch, kOp, ": ", name, " must have an entry per row of hidden (", batch, "), got ",
               describe(*counts));
    hold.push_back(torch::stable::contiguous(*counts));
    return hold.back().const_data_ptr<int64_t>();
  };
  p.lengths = count_per_row("lengths", lengths);
  p.padding = count_per_row("padding", padding);
  p.ends = count_per_row("ends", ends);
  for (int64_t b = 0; !runs_cuda_kernels(hidden) && b < batch; ++b) {
    const int64_t own = p.lengths ? p.lengths[b] : length, unseen = p.padding ? p.padding[b] : 0;
    MIMO_CHECK(own >= 0 && own <= length, kOp, ": lengths[", b, "] must be 0 to length (", length, "), got ", own);
    MIMO_CHECK(unseen >= 0 && unseen <= own, kOp, ": padding[", b, "] must be 0 to ", p.lengths ? "the row's " : "",
               "length (", own, "), got ", unseen);
    const int64_t end = p.ends ? p.ends[b] : own;
    MIMO_CHECK(end >= own && end <= length, kOp, ": ends[", b, "] must be the row's length (", own, ") to length (",
               length, "), got ", end);
    for (int64_t i = unseen / size; pages && i <= end / size; ++i) {
      const int32_t page = p.cache.table[b * p.cache.per_row + i];
      MIMO_CHECK(page >= 0 && page < count, kOp, ": pages[", b, ", ", i, "] must be 0 to ", count - 1, ", got ", page);
    }
  }
  const RotaryTables tables =
      rotary_tables(kOp, cos, sin, "hidden", hidden, p.shape.head_dim, "position", length + 1, hold);
  p.cos = tables.cos;
  p.sin = tables.sin;
  p.batch = int32_t(batch);
  p.length = int32_t(length);
  p.dtype = dtype_of(kOp, "hidden", hidden);

  Tensor out = torch::stable::new_empty(hidden, {batch, dim});
  p.out = out.mutable_data_ptr();
  if (batch == 0) return out;
  MIMO_RUN_WITH_WORKSPACE(kOp, hidden, backbone_step, p);
  return out;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(
    m.def("backbone_step(Tensor hidden, Tensor[] layers, Tensor norm, Tensor(a!) cache, int length, Tensor? padding, "
          "Tensor cos, Tensor sin, int attention_heads, float eps, Tensor? lengths=None, Tensor? pages=None, "
          "Tensor? ends=None) "
          "-> Tensor");)
MIMO_IMPL(m.impl("backbone_step", TORCH_BOX(&mimo::backbone_step));)
