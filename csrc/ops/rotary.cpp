// torch.ops.mimo.rotary: schema, checks, allocation, dispatch. Definition: mimo_audio_native/reference/rotary.py.
#include "mimo/rotary.h"

#include <tuple>
#include <vector>

#include "common/torch_api.h"

namespace mimo {
namespace {

constexpr const char* kOp = "rotary";
constexpr int64_t kMost = (int64_t(1) << 31) - 1;  // rows, and pairs of a row's elements
constexpr int64_t kAlignment = 16;                 // bytes, what one instruction of the CUDA kernel moves

// Leading dimensions of q, k and their tables; the last one of them is the positions.
std::vector<int64_t> leading(const Tensor& t, int64_t count) {
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < count; ++i) sizes.push_back(t.size(i));
  return sizes;
}

bool aligned(const void* data, std::initializer_list<int64_t> bytes) {
  int64_t places = reinterpret_cast<intptr_t>(data);
  for (const int64_t n : bytes) places |= n;
  return places % kAlignment == 0;
}

RotaryHeads heads_of(const Tensor& t, RotaryParams& p, std::vector<Tensor>& hold, Tensor& out) {
  const int64_t dims = t.dim(), size = t.element_size();
  hold.push_back(t.stride(dims - 1) == 1 ? t : torch::stable::contiguous(t));
  const Tensor& x = hold.back();
  std::vector<int64_t> shape = leading(t, dims);
  out = torch::stable::new_empty(t, shape);
  RotaryHeads heads{};
  heads.data = x.const_data_ptr();
  heads.batch_stride = dims == 4 && x.size(0) > 1 ? x.stride(0) : 0;
  heads.row_stride = x.size(dims - 3) > 1 ? x.stride(dims - 3) : 0;
  heads.head_stride = x.size(dims - 2) > 1 ? x.stride(dims - 2) : 0;
  heads.out = out.mutable_data_ptr();
  heads.heads = int32_t(x.size(dims - 2));
  p.vectors = p.vectors && aligned(heads.data, {heads.batch_stride * size, heads.row_stride * size,
                                                heads.head_stride * size, p.half * size});
  return heads;
}

const float* table_of(const char* name, const Tensor& t, const Tensor& q, RotaryParams& p, std::vector<Tensor>& hold) {
  check_dtype(kOp, name, t, {ScalarType::Float});
  check_same_device(kOp, name, t, "q", q);
  const int64_t positions = q.dim() - 2, half = q.size(q.dim() - 1) / 2;
  const bool shared = t.dim() == 2 && t.size(0) == q.size(positions - 1) && t.size(1) == half;
  const bool own =
      t.dim() == 3 && q.dim() == 4 && t.size(0) == q.size(0) && t.size(1) == q.size(1) && t.size(2) == half;
  MIMO_CHECK(shared || own, kOp, ": ", name, " must be [T, D / 2] = [", q.size(positions - 1), ", ", half,
             "], or [B, T, D / 2] for q [B, T, H, D], got ", describe(t));
  p.table_per_batch = own;
  hold.push_back(torch::stable::contiguous(t));
  const float* data = hold.back().const_data_ptr<float>();
  p.vectors = p.vectors && aligned(data, {});
  return data;
}

std::tuple<Tensor, Tensor> rotary(const Tensor& q, const Tensor& k, const Tensor& cos, const Tensor& sin,
                                  bool inverse) {
  RotaryParams p{};
  p.dtype = dtype_of(kOp, "q", q);
  const int64_t dims = q.dim();
  MIMO_CHECK(dims == 3 || dims == 4, kOp, ": q must be [T, H, D] or [B, T, H, D], got ", describe(q));
  check_same_device(kOp, "k", k, "q", q);
  check_same_dtype(kOp, "k", k, "q", q);
  const int64_t dim = q.size(dims - 1);
  MIMO_CHECK(dim > 0 && dim % 2 == 0, kOp, ": q must have an even head width D, got ", describe(q));
  MIMO_CHECK(k.dim() == dims && leading(k, dims - 2) == leading(q, dims - 2) && k.size(dims - 1) == dim, kOp,
             ": k must have the shape of q ", shape_text(q), " but for its heads, got ", describe(k));
  const int64_t batch = dims == 4 ? q.size(0) : 1, length = q.size(dims - 3);
  MIMO_CHECK(batch * length <= kMost, kOp, ": q must have at most 2^31 - 1 rows, got ", describe(q));
  MIMO_CHECK((q.size(dims - 2) + k.size(dims - 2)) * (dim / 2) <= kMost / 2, kOp,
             ": q and k must have at most 2^31 elements per row together, got ", describe(q), " and ", describe(k));
  p.batch = int32_t(batch);
  p.length = int32_t(length);
  p.half = int32_t(dim / 2);
  p.inverse = inverse;
  p.vectors = true;
  std::vector<Tensor> hold;
  p.cos = table_of("cos", cos, q, p, hold);
  p.sin = table_of("sin", sin, q, p, hold);
  MIMO_CHECK(sin.dim() == cos.dim(), kOp, ": sin must have the shape of cos ", shape_text(cos), ", got ",
             describe(sin));
  Tensor turned_q, turned_k;
  p.q = heads_of(q, p, hold, turned_q);
  p.k = heads_of(k, p, hold, turned_k);
  if (batch * length > 0 && p.q.heads + p.k.heads > 0) MIMO_RUN(kOp, q, rotary, p);
  return {turned_q, turned_k};
}

}  // namespace
}  // namespace mimo

MIMO_DEF(m.def("rotary(Tensor q, Tensor k, Tensor cos, Tensor sin, bool inverse=False) -> (Tensor q, Tensor k)");)
MIMO_IMPL(m.impl("rotary", TORCH_BOX(&mimo::rotary));)
