// torch.ops.mimo.window_attention*: schemas, checks, allocation, dispatch. Definition:
// mimo_audio_native/reference/window_attention.py.
#include "mimo/window_attention.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

#include "common/attention.h"

namespace mimo {
namespace {

PackedHeads packed_heads(const Tensor& t, Hold& hold) {
  const Tensor& x = with_aligned_rows(t, hold);
  return {x.const_data_ptr(), x.stride(0), x.stride(1)};
}

void check_like(const char* op, const char* name, const Tensor& t, const Tensor& q) {
  check_dim(op, name, t, 3, "[T, H, D]");
  check_same_device(op, name, t, "q", q);
  check_same_dtype(op, name, t, "q", q);
  MIMO_CHECK(t.size(0) == q.size(0) && t.size(1) == q.size(1) && t.size(2) == q.size(2), op, ": ", name,
             " must have the shape of q ", shape_text(q), ", got ", describe(t));
}

// Returns the longest sequence where it is known without synchronising (the kernels check the rest on CUDA).
int64_t set_sequences(const char* op, const MaybeTensor& cu_seqlens, const Tensor& q, WindowAttentionParams& p,
                      Hold& hold) {
  p.sequences = 1;
  if (!cu_seqlens) return p.rows;
  check_dim(op, "cu_seqlens", *cu_seqlens, 1, "[B + 1]");
  check_dtype(op, "cu_seqlens", *cu_seqlens, {ScalarType::Int});
  check_same_device(op, "cu_seqlens", *cu_seqlens, "q", q);
  MIMO_CHECK(cu_seqlens->size(0) > 0 && cu_seqlens->size(0) <= (1 << 30), op,
             ": cu_seqlens must hold B + 1 offsets, 1 to 2^30, got ", describe(*cu_seqlens));
  hold.push_back(torch::stable::contiguous(*cu_seqlens));
  p.cu_seqlens = hold.back().const_data_ptr<int32_t>();
  p.sequences = int32_t(cu_seqlens->size(0) - 1);
  MIMO_CHECK(p.sequences > 0 || p.rows == 0, op, ": cu_seqlens must end with the number of rows T (", p.rows, "), got ",
             describe(*cu_seqlens));
  if (!cu_seqlens->is_cpu()) return 0;
  MIMO_CHECK(p.cu_seqlens[0] == 0, op, ": cu_seqlens must begin with 0, got ", p.cu_seqlens[0]);
  int64_t longest = 0;
  for (int32_t i = 0; i < p.sequences; ++i) {
    const int64_t length = int64_t(p.cu_seqlens[i + 1]) - p.cu_seqlens[i];
    MIMO_CHECK(length >= 0, op, ": cu_seqlens must not decrease, got ", p.cu_seqlens[i], " then ", p.cu_seqlens[i + 1],
               " at ", i + 1);
    longest = length > longest ? length : longest;
  }
  MIMO_CHECK(p.cu_seqlens[p.sequences] == p.rows, op, ": cu_seqlens must end with the number of rows T (", p.rows,
             "), got ", p.cu_seqlens[p.sequences]);
  return longest;
}

// Never cut below what every kernel takes for a wide window: else the size of the pack would choose the kernel, and
// with it the last bits of a sequence.
int32_t window_side(const char* op, const char* name, int64_t value, int32_t rows) {
  constexpr int64_t kWide = 256;
  MIMO_CHECK(value >= -1, op, ": ", name, " must be -1 (no limit) or at least 0, got ", value);
  const int64_t most = std::max<int64_t>(rows, kWide);
  return int32_t(value < 0 ? most : std::min(value, most));
}

WindowAttentionParams check(const char* op, const Tensor& q, const Tensor& k, const Tensor& v,
                            const MaybeTensor& cu_seqlens, int64_t left, int64_t right, const MaybeTensor& cos,
                            const MaybeTensor& sin, std::optional<double> scale, Hold& hold) {
  check_dim(op, "q", q, 3, "[T, H, D]");
  WindowAttentionParams p{};
  p.dtype = dtype_of(op, "q", q);
  check_like(op, "k", k, q);
  check_like(op, "v", v, q);
  const int64_t dim = q.size(2);
  check_head_dim(op, dim, q);
  MIMO_CHECK(q.size(0) <= (1 << 30), op, ": q must have at most 2^30 rows, got ", describe(q));
  MIMO_CHECK(q.size(1) <= 65535, op, ": q must have at most 65535 heads, got ", describe(q));
  p.rows = int32_t(q.size(0));
  p.heads = int32_t(q.size(1));
  p.dim = int32_t(dim);
  p.left = window_side(op, "left", left, p.rows);
  p.right = window_side(op, "right", right, p.rows);
  p.scale = score_scale(op, scale, dim);
  const int64_t longest = set_sequences(op, cu_seqlens, q, p, hold);
  const RotaryTables tables = rotary_tables(op, cos, sin, "q", q, dim, "position", longest, hold);
  p.cos = tables.cos;
  p.sin = tables.sin;
  p.positions = int32_t(std::min<int64_t>(tables.positions, std::numeric_limits<int32_t>::max()));
  p.q = packed_heads(q, hold);
  p.k = packed_heads(k, hold);
  p.v = packed_heads(v, hold);
  return p;
}

Tensor new_row_values(const Tensor& q) {  // [H, T], one number per head and row
  const bool wide = q.scalar_type() == ScalarType::Double;
  return torch::stable::new_empty(q, {q.size(1), q.size(0)}, wide ? ScalarType::Double : ScalarType::Float);
}

Tensor new_heads(const Tensor& q) { return torch::stable::new_empty(q, {q.size(0), q.size(1), q.size(2)}); }

std::tuple<Tensor, Tensor> window_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                            const MaybeTensor& cu_seqlens, int64_t left, int64_t right,
                                            const MaybeTensor& cos, const MaybeTensor& sin,
                                            std::optional<double> scale) {
  const char* op = "window_attention";
  Hold hold;
  WindowAttentionParams p = check(op, q, k, v, cu_seqlens, left, right, cos, sin, scale, hold);
  Tensor out = new_heads(q), lse = new_row_values(q);
  p.out = out.mutable_data_ptr();
  p.lse = lse.mutable_data_ptr();
  if (p.rows && p.heads) MIMO_RUN(op, q, window_attention, p);
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor> window_attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k,
                                                             const Tensor& v, const Tensor& out, const Tensor& lse,
                                                             const MaybeTensor& cu_seqlens, int64_t left, int64_t right,
                                                             const MaybeTensor& cos, const MaybeTensor& sin,
                                                             std::optional<double> scale) {
  const char* op = "window_attention_backward";
  Hold hold;
  WindowAttentionBackwardParams p{};
  p.forward = check(op, q, k, v, cu_seqlens, left, right, cos, sin, scale, hold);
  check_like(op, "grad_out", grad_out, q);
  check_like(op, "out", out, q);
  check_dim(op, "lse", lse, 2, "[H, T]");
  check_same_device(op, "lse", lse, "q", q);
  check_dtype(op, "lse", lse, {q.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float});
  MIMO_CHECK(lse.size(0) == q.size(1) && lse.size(1) == q.size(0), op, ": lse must be [H, T] = [", q.size(1), ", ",
             q.size(0), "], got ", describe(lse));
  p.grad_out = packed_heads(grad_out, hold);
  p.out = packed_heads(out, hold);
  hold.push_back(torch::stable::contiguous(lse));
  p.forward.lse = const_cast<void*>(hold.back().const_data_ptr());
  hold.push_back(new_row_values(q));
  p.delta = hold.back().mutable_data_ptr();
  Tensor grad_q = new_heads(q), grad_k = new_heads(q), grad_v = new_heads(q);
  p.grad_q = grad_q.mutable_data_ptr();
  p.grad_k = grad_k.mutable_data_ptr();
  p.grad_v = grad_v.mutable_data_ptr();
  if (p.forward.rows && p.forward.heads) MIMO_RUN(op, q, window_attention_backward, p);
  return {grad_q, grad_k, grad_v};
}

}  // namespace
}  // namespace mimo

MIMO_DEF(
    m.def("window_attention(Tensor q, Tensor k, Tensor v, Tensor? cu_seqlens=None, int left=-1, int right=-1, "
          "Tensor? cos=None, Tensor? sin=None, float? scale=None) -> (Tensor out, Tensor lse)");
    m.def("window_attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
          "Tensor? cu_seqlens, int left, int right, Tensor? cos, Tensor? sin, float? scale) "
          "-> (Tensor grad_q, Tensor grad_k, Tensor grad_v)");)
MIMO_IMPL(m.impl("window_attention", TORCH_BOX(&mimo::window_attention));
          m.impl("window_attention_backward", TORCH_BOX(&mimo::window_attention_backward));)
