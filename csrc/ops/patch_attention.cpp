// torch.ops.mimo.patch_attention*: schemas, checks, allocation, dispatch. Definition:
// mimo_audio_native/reference/patch_attention.py.
#include "mimo/patch_attention.h"

#include <tuple>

#include "common/attention.h"

namespace mimo {
namespace {

PatchHeads patch_heads(const Tensor& t, Hold& hold) {
  const Tensor& x = with_aligned_rows(t, hold);
  return {x.const_data_ptr(), x.stride(0), x.stride(1), x.stride(2)};
}

void check_like(const char* op, const char* name, const Tensor& t, const Tensor& q) {
  check_dim(op, name, t, 4, "[P, G, H, D]");
  check_same_device(op, name, t, "q", q);
  check_same_dtype(op, name, t, "q", q);
  bool same_shape = true;
  for (int i = 0; i < 4; ++i) same_shape = same_shape && t.size(i) == q.size(i);
  MIMO_CHECK(same_shape, op, ": ", name, " must have the shape of q ", shape_text(q), ", got ", describe(t));
}

PatchAttentionParams check(const char* op, const Tensor& q, const Tensor& k, const Tensor& v, const MaybeTensor& cos,
                           const MaybeTensor& sin, bool causal, std::optional<double> scale, Hold& hold) {
  check_dim(op, "q", q, 4, "[P, G, H, D]");
  PatchAttentionParams p{};
  p.dtype = dtype_of(op, "q", q);
  check_like(op, "k", k, q);
  check_like(op, "v", v, q);
  check_head_dim(op, q.size(3), q);
  MIMO_CHECK(q.size(1) >= 1 && q.size(1) <= kMaxPatchFrames, op, ": q must have 1 to ", kMaxPatchFrames,
             " frames per patch, got ", describe(q));
  MIMO_CHECK(q.size(0) <= (1 << 30), op, ": q must have at most 2^30 patches, got ", describe(q));
  MIMO_CHECK(q.size(2) <= 65535, op, ": q must have at most 65535 heads, got ", describe(q));
  p.patches = q.size(0);
  p.frames = int32_t(q.size(1));
  p.heads = int32_t(q.size(2));
  p.dim = int32_t(q.size(3));
  p.causal = causal;
  p.scale = score_scale(op, scale, p.dim);
  const RotaryTables tables = rotary_tables(op, cos, sin, "q", q, p.dim, "position", p.frames, hold);
  p.cos = tables.cos;
  p.sin = tables.sin;
  p.q = patch_heads(q, hold);
  p.k = patch_heads(k, hold);
  p.v = patch_heads(v, hold);
  return p;
}

Tensor new_like(const Tensor& q) { return torch::stable::new_empty(q, {q.size(0), q.size(1), q.size(2), q.size(3)}); }

Tensor patch_attention(const Tensor& q, const Tensor& k, const Tensor& v, const MaybeTensor& cos,
                       const MaybeTensor& sin, bool causal, std::optional<double> scale) {
  const char* op = "patch_attention";
  Hold hold;
  PatchAttentionParams p = check(op, q, k, v, cos, sin, causal, scale, hold);
  Tensor out = new_like(q);
  p.out = out.mutable_data_ptr();
  if (p.patches && p.heads) MIMO_RUN(op, q, patch_attention, p);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> patch_attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k,
                                                            const Tensor& v, const MaybeTensor& cos,
                                                            const MaybeTensor& sin, bool causal,
                                                            std::optional<double> scale) {
  const char* op = "patch_attention_backward";
  Hold hold;
  PatchAttentionBackwardParams p{};
  p.forward = check(op, q, k, v, cos, sin, causal, scale, hold);
  check_like(op, "grad_out", grad_out, q);
  p.grad_out = patch_heads(grad_out, hold);
  Tensor grad_q = new_like(q), grad_k = new_like(q), grad_v = new_like(q);
  p.grad_q = grad_q.mutable_data_ptr();
  p.grad_k = grad_k.mutable_data_ptr();
  p.grad_v = grad_v.mutable_data_ptr();
  if (p.forward.patches && p.forward.heads) MIMO_RUN(op, q, patch_attention_backward, p);
  return {grad_q, grad_k, grad_v};
}

}  // namespace
}  // namespace mimo

MIMO_DEF(
    m.def("patch_attention(Tensor q, Tensor k, Tensor v, Tensor? cos=None, Tensor? sin=None, bool causal=False, "
          "float? scale=None) -> Tensor");
    m.def("patch_attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor? cos, Tensor? sin, "
          "bool causal, float? scale) -> (Tensor grad_q, Tensor grad_k, Tensor grad_v)");)
MIMO_IMPL(m.impl("patch_attention", TORCH_BOX(&mimo::patch_attention));
          m.impl("patch_attention_backward", TORCH_BOX(&mimo::patch_attention_backward));)
