// torch.ops.mimo.patch_decode: schema, checks, allocation, dispatch. Definition:
// mimo_audio_native/reference/patch_decode.py.
#include "mimo/patch_decode.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "common/sampling.h"

namespace mimo {
namespace {

constexpr const char* kOp = "patch_decode";

struct LayerTensor {
  const char* name;
  const void* BlockWeights::* place;
  const char* meaning;  // its shape; the letters are those of mimo_audio_native.patch_decode
};

constexpr LayerTensor kLayerTensors[] = {
    {"norm", &BlockWeights::norm_1, "[D]"},   {"q", &BlockWeights::q, "[Q, D]"},
    {"q bias", &BlockWeights::q_bias, "[Q]"}, {"k", &BlockWeights::k, "[K, D]"},
    {"k bias", &BlockWeights::k_bias, "[K]"}, {"v", &BlockWeights::v, "[K, D]"},
    {"v bias", &BlockWeights::v_bias, "[K]"}, {"out", &BlockWeights::out, "[D, Q]"},
    {"norm 2", &BlockWeights::norm_2, "[D]"}, {"gate", &BlockWeights::gate, "[F, D]"},
    {"up", &BlockWeights::up, "[F, D]"},      {"down", &BlockWeights::down, "[D, F]"},
};
constexpr size_t kTensorsPerLayer = std::size(kLayerTensors);

// Checks a weight [rows, columns], or [rows] where columns is 0, against hidden's dtype and device. `name` is called
// only for an error: a call checks hundreds of weights. `hold` keeps a contiguous copy alive.
template <class Name>
const void* weight_of(Name&& name, const char* meaning, const Tensor& t, const Tensor& hidden, int64_t rows,
                      int64_t columns, std::vector<Tensor>& hold) {
  const bool shaped =
      columns ? t.dim() == 2 && t.size(0) == rows && t.size(1) == columns : t.dim() == 1 && t.size(0) == rows;
  const bool placed = t.is_cpu() == hidden.is_cpu() && t.is_cuda() == hidden.is_cuda() &&
                      (t.is_cpu() || t.get_device_index() == hidden.get_device_index());
  if (!shaped || !placed || t.scalar_type() != hidden.scalar_type()) {
    const std::string called = name();
    check_same_dtype(kOp, called.c_str(), t, "hidden", hidden);
    check_same_device(kOp, called.c_str(), t, "hidden", hidden);
    MIMO_CHECK(shaped, kOp, ": ", called, " must be ", meaning, " = [", rows, columns ? text(", ", columns) : "",
               "], got ", describe(t));
  }
  if (t.is_contiguous()) return t.const_data_ptr();
  hold.push_back(torch::stable::contiguous(t));
  return hold.back().const_data_ptr();
}

std::string layer_name(size_t i) {
  return text("layers[", i, "] (layer ", i / kTensorsPerLayer, ", ", kLayerTensors[i % kTensorsPerLayer].name, ")");
}

// The rows of the first layer's tensor number `i`, which say how wide the heads or the FFN are.
int64_t rows_of(const std::vector<Tensor>& layers, size_t i) {
  check_dim(kOp, layer_name(i).c_str(), layers[i], 2, kLayerTensors[i].meaning);
  const int64_t rows = layers[i].size(0);
  MIMO_CHECK(rows >= 1 && rows <= kMaxDecodeWidth, kOp, ": ", layer_name(i), " must have 1 to ", kMaxDecodeWidth,
             " rows, got ", describe(layers[i]));
  return rows;
}

// Checks 12 tensors per layer and fills in the sizes.
std::vector<BlockWeights> blocks_of(const std::vector<Tensor>& layers, const Tensor& hidden, int64_t heads,
                                    BlockShape& shape, std::vector<Tensor>& hold) {
  MIMO_CHECK(!layers.empty() && layers.size() % kTensorsPerLayer == 0, kOp, ": layers must hold ", kTensorsPerLayer,
             " tensors per layer, one layer at least, got ", layers.size());
  MIMO_CHECK(heads >= 1 && heads <= kMaxDecodeWidth, kOp, ": attention_heads must be 1 to ", kMaxDecodeWidth, ", got ",
             heads);
  const int64_t dim = hidden.size(1), q = rows_of(layers, 1), k = rows_of(layers, 3), ffn = rows_of(layers, 9);
  const int64_t width = q / heads;
  MIMO_CHECK(q % (2 * heads) == 0 && width <= kMaxDecodeHeadDim, kOp, ": ", layer_name(1), " must have rows for ",
             heads, " attention_heads of an even width up to ", kMaxDecodeHeadDim, ", got ", describe(layers[1]));
  MIMO_CHECK(k % width == 0 && heads % (k / width) == 0, kOp, ": ", layer_name(3), " must have the head width ", width,
             " times a divisor of attention_heads (", heads, ") rows, got ", describe(layers[3]));
  shape.dim = int32_t(dim);
  shape.heads = int32_t(heads);
  shape.kv_heads = int32_t(k / width);
  shape.head_dim = int32_t(width);
  shape.ffn = int32_t(ffn);
  const auto size_of = [&](char letter) {
    return letter == 'D' ? dim : letter == 'Q' ? q : letter == 'K' ? k : letter == 'F' ? ffn : 0;
  };
  std::vector<BlockWeights> blocks(layers.size() / kTensorsPerLayer);
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerTensor& what = kLayerTensors[i % kTensorsPerLayer];
    blocks[i / kTensorsPerLayer].*what.place =
        weight_of([i] { return layer_name(i); }, what.meaning, layers[i], hidden, size_of(what.meaning[1]),
                  what.meaning[2] == ',' ? size_of(what.meaning[4]) : 0, hold);
  }
  return blocks;
}

const float* table_of(const char* name, const Tensor& t, const Tensor& hidden, int64_t steps, int64_t half,
                      std::vector<Tensor>& hold) {
  check_dim(kOp, name, t, 2, "[P, W / 2]");
  check_dtype(kOp, name, t, {ScalarType::Float});
  check_same_device(kOp, name, t, "hidden", hidden);
  MIMO_CHECK(t.size(1) == half, kOp, ": ", name, " must be [P, W / 2 = ", half, "], got ", describe(t));
  MIMO_CHECK(t.size(0) >= steps, kOp, ": ", name, " must have a row per step, at least ", steps,
             " (group_size + largest delay), got ", describe(t));
  hold.push_back(torch::stable::contiguous(t));
  return hold.back().const_data_ptr<float>();
}

Tensor patch_decode(const Tensor& hidden, const std::vector<Tensor>& layers, const Tensor& norm,
                    const std::vector<Tensor>& heads, const std::vector<Tensor>& embeddings,
                    const std::optional<Tensor>& projection, const Tensor& cos, const Tensor& sin,
                    int64_t attention_heads, double eps, const std::vector<int64_t>& empty_ids,
                    const std::vector<int64_t>& delays, int64_t group_size, const Tensor& temperature,
                    const Tensor& top_k, const Tensor& top_p, const Tensor& seeds, const Tensor& offsets) {
  check_dim(kOp, "hidden", hidden, 2, "[B, D]");
  check_dtype(kOp, "hidden", hidden, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
  const int64_t batch = hidden.size(0), dim = hidden.size(1);
  MIMO_CHECK(batch <= kMaxDecodeBatch && dim >= 1 && dim <= kMaxDecodeWidth, kOp, ": hidden must have at most ",
             kMaxDecodeBatch, " rows and 1 to ", kMaxDecodeWidth, " columns, got ", describe(hidden));
  MIMO_CHECK(std::isfinite(eps) && eps >= 0, kOp, ": eps must be at least 0 and finite, got ", eps);
  MIMO_CHECK(group_size >= 1 && group_size <= kMaxDecodeSteps, kOp, ": group_size must be 1 to ", kMaxDecodeSteps,
             ", got ", group_size);

  std::vector<Tensor> hold{torch::stable::contiguous(hidden)};
  PatchDecodeParams p{};
  p.hidden = hold[0].const_data_ptr();
  const std::vector<BlockWeights> blocks = blocks_of(layers, hidden, attention_heads, p.shape, hold);
  p.blocks = blocks.data();
  p.layers = int32_t(blocks.size());
  p.shape.eps = float(eps);
  p.norm = weight_of([] { return "norm"; }, "[D]", norm, hidden, dim, 0, hold);
  DelayedSamplingParams& s = p.sampling;
  set_codebooks(kOp, "hidden", hidden, heads, embeddings, empty_ids, delays, s, hold);
  if (projection) {
    p.projection = weight_of([] { return "projection"; }, "[D, E]", *projection, hidden, dim, s.embed_dim, hold);
  } else {
    MIMO_CHECK(s.embed_dim == dim, kOp, ": projection must be given where embeddings are not as wide as hidden (", dim,
               "), got None for embeddings[0] ", describe(embeddings[0]));
  }
  const int64_t steps = group_size + *std::max_element(delays.begin(), delays.end());
  MIMO_CHECK(steps <= kMaxDecodeSteps, kOp, ": group_size + the largest of delays must be at most ", kMaxDecodeSteps,
             ", got ", steps);
  p.steps = int32_t(steps);
  p.cos = table_of("cos", cos, hidden, steps, p.shape.head_dim / 2, hold);
  p.sin = table_of("sin", sin, hidden, steps, p.shape.head_dim / 2, hold);
  int64_t invalid_row = -1;
  s.sampling = row_sampling_of(kOp, {temperature, top_k, top_p, seeds, offsets}, batch, "hidden", hidden, hold);
  s.sampling.invalid_row = &invalid_row;
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
