// torch.ops.mimo.linear: schema, checks, allocation, dispatch. Definition: mimo_audio_native/reference/linear.py.
#include "mimo/linear.h"

#include <optional>
#include <vector>

#include "common/torch_api.h"

namespace mimo {
namespace {

constexpr const char* kOp = "linear";

Tensor linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  check_dim(kOp, "x", x, 2, "[B, K]");
  check_dtype(kOp, "x", x, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
  MIMO_CHECK(x.size(0) <= kMaxLinearRows && x.size(1) >= 1 && x.size(1) <= kMaxLinearWidth, kOp,
             ": x must have at most ", kMaxLinearRows, " rows and 1 to ", kMaxLinearWidth, " columns, got ",
             describe(x));
  std::vector<Tensor> hold;
  const auto taken = [&](const char* name, const Tensor& t) {
    check_same_dtype(kOp, name, t, "x", x);
    check_same_device(kOp, name, t, "x", x);
    hold.push_back(torch::stable::contiguous(t));
    return hold.back().const_data_ptr();
  };
  LinearParams p{};
  p.x = taken("x", x);
  check_dim(kOp, "weight", weight, 2, "[N, K]");
  MIMO_CHECK(weight.size(1) == x.size(1) && weight.size(0) <= kMaxLinearWidth, kOp,
             ": weight must be [N, K] with K = ", x.size(1), " and N at most ", kMaxLinearWidth, ", got ",
             describe(weight));
  p.weight = taken("weight", weight);
  const int64_t outputs = weight.size(0);
  if (bias) {
    check_dim(kOp, "bias", *bias, 1, "[N]");
    MIMO_CHECK(bias->size(0) == outputs, kOp, ": bias must be [N] = [", outputs, "], got ", describe(*bias));
    p.bias = taken("bias", *bias);
  }
  p.rows = int32_t(x.size(0));
  p.width = int32_t(x.size(1));
  p.outputs = int32_t(outputs);
  p.dtype = dtype_of(kOp, "x", x);
  Tensor out = torch::stable::new_empty(x, {x.size(0), outputs});
  p.out = out.mutable_data_ptr();
  if (out.numel() == 0) return out;
  MIMO_RUN_WITH_WORKSPACE(kOp, x, linear, p);
  return out;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(m.def("linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor");)
MIMO_IMPL(m.impl("linear", TORCH_BOX(&mimo::linear));)
