// torch.ops.mimo.rvq_*: schemas, checks, allocation, dispatch. Definition: mimo_audio_native/reference/rvq.py.
#include "mimo/rvq.h"

#include "common/torch_api.h"

namespace mimo {
namespace {

// Checks R codebooks [K_r, D] and makes them contiguous; `hold` keeps the copies alive.
Codebooks codebooks_of(const char* op, const std::vector<Tensor>& tensors, std::vector<Tensor>& hold) {
  MIMO_CHECK(!tensors.empty(), op, ": codebooks must hold at least one tensor [K, D], got none");
  MIMO_CHECK(tensors.size() <= size_t(kMaxCodebooks), op, ": codebooks must hold at most ", kMaxCodebooks,
             " tensors, got ", tensors.size());
  Codebooks out{};
  out.layers = int32_t(tensors.size());
  for (size_t r = 0; r < tensors.size(); ++r) {
    const std::string name = "codebooks[" + std::to_string(r) + "]";
    const Tensor& t = tensors[r];
    check_dim(op, name.c_str(), t, 2, "[K, D]");
    check_dtype(op, name.c_str(), t, {ScalarType::Float, ScalarType::Double});
    check_same_dtype(op, name.c_str(), t, "codebooks[0]", tensors[0]);
    check_same_device(op, name.c_str(), t, "codebooks[0]", tensors[0]);
    MIMO_CHECK(t.size(1) == tensors[0].size(1), op, ": ", name, " must have the width D of codebooks[0] (",
               tensors[0].size(1), "), got ", describe(t));
    MIMO_CHECK(t.size(0) > 0 && t.size(1) > 0, op, ": ", name, " must not be empty, got ", describe(t));
    hold.push_back(torch::stable::contiguous(t));
    out.entries[r] = hold.back().const_data_ptr();
    out.sizes[r] = int32_t(t.size(0));
  }
  out.dim = int32_t(tensors[0].size(1));
  return out;
}

Tensor rvq_decode(const Tensor& codes, const std::vector<Tensor>& codebooks) {
  const char* op = "rvq_decode";
  std::vector<Tensor> hold;
  RvqDecodeParams p{};
  p.codebooks = codebooks_of(op, codebooks, hold);
  check_dim(op, "codes", codes, 2, "[R, N]");
  check_dtype(op, "codes", codes, {ScalarType::Long});
  check_same_device(op, "codes", codes, "codebooks[0]", codebooks[0]);
  MIMO_CHECK(codes.size(0) <= p.codebooks.layers, op, ": codes must have at most ", p.codebooks.layers,
             " rows (one per codebook), got ", describe(codes));
  const Tensor dense = torch::stable::contiguous(codes);
  p.codebooks.layers = int32_t(codes.size(0));
  p.codes = dense.const_data_ptr<int64_t>();
  p.count = codes.size(1);
  p.dtype = dtype_of(op, "codebooks[0]", codebooks[0]);
  if (codes.is_cpu()) {
    for (int64_t r = 0; r < codes.size(0); ++r) {
      for (int64_t n = 0; n < p.count; ++n) {
        const int64_t code = p.codes[r * p.count + n];
        MIMO_CHECK(code >= 0 && code < p.codebooks.sizes[r], op, ": codes[", r, ", ", n, "] must be in 0 .. ",
                   p.codebooks.sizes[r] - 1, ", got ", code);
      }
    }
  }
  Tensor out = torch::stable::new_empty(codebooks[0], {p.count, p.codebooks.dim});
  p.out = out.mutable_data_ptr();
  MIMO_RUN(op, codes, rvq_decode, p);
  return out;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(m.def("rvq_decode(Tensor codes, Tensor[] codebooks) -> Tensor");)
MIMO_IMPL(m.impl("rvq_decode", TORCH_BOX(&mimo::rvq_decode));)
