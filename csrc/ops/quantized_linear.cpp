// torch.ops.mimo.quantized_linear: schema, checks, allocation, dispatch. Definition:
// mimo_audio_native/reference/quantized_linear.py.
#include "mimo/quantized_linear.h"

#include <optional>

#include "common/quantized.h"

namespace mimo {
namespace {

constexpr const char* kOp = "quantized_linear";

Tensor quantized_linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  constexpr int64_t kMostColumns = 1 << 20;
  MIMO_CHECK(x.dim() >= 1, kOp, ": x must be [.., K], got ", describe(x));
  check_dtype(kOp, "x", x, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
  const int64_t columns = x.size(x.dim() - 1);
  MIMO_CHECK(columns >= 1 && columns <= kMostColumns, kOp, ": x must have 1 to ", kMostColumns, " columns, got ",
             describe(x));
  check_dim(kOp, "weight", weight, 2, "[N, bytes per row]");
  check_dtype(kOp, "weight", weight, {ScalarType::Byte});
  check_same_device(kOp, "weight", weight, "x", x);
  QuantizedLinearParams p{};
  p.format = check_quantized(kOp, "weight", weight, columns);
  MIMO_CHECK(weight.size(0) <= INT32_MAX, kOp, ": weight must have at most ", INT32_MAX, " rows, got ",
             describe(weight));
  std::vector<int64_t> shape;
  p.count = 1;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) {
    shape.push_back(x.size(i));
    p.count *= x.size(i);
  }
  p.rows = int32_t(weight.size(0));
  p.columns = int32_t(columns);
  shape.push_back(p.rows);
  p.dtype = dtype_of(kOp, "x", x);
  std::vector<Tensor> hold{torch::stable::contiguous(x), torch::stable::contiguous(weight)};
  p.x = hold[0].const_data_ptr();
  p.weight = hold[1].const_data_ptr<uint8_t>();
  if (bias) {
    check_dim(kOp, "bias", *bias, 1, "[N]");
    check_same_dtype(kOp, "bias", *bias, "x", x);
    check_same_device(kOp, "bias", *bias, "x", x);
    MIMO_CHECK(bias->size(0) == p.rows, kOp, ": bias must have an entry per row of weight (", p.rows, "), got ",
               describe(*bias));
    hold.push_back(torch::stable::contiguous(*bias));
    p.bias = hold.back().const_data_ptr();
  }
  Tensor out = torch::stable::new_empty(x, shape);
  p.out = out.mutable_data_ptr();
  if (p.count == 0 || p.rows == 0) return out;
  MIMO_RUN_WITH_WORKSPACE(kOp, x, quantized_linear, p);
  return out;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(m.def("quantized_linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor");)
MIMO_IMPL(m.impl("quantized_linear", TORCH_BOX(&mimo::quantized_linear));)
