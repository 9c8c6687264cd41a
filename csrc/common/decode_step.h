// Argument checks that patch_decode and backbone_step share: the weights of a stack of blocks.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "common/quantized.h"
#include "common/rotary.h"
#include "mimo/decode_step.h"

namespace mimo {

struct LayerTensor {
  const char* name;
  const void* BlockWeights::* place;
  const char* meaning;  // its shape; the letters are those of mimo_audio_native.patch_decode
};

inline constexpr LayerTensor kLayerTensors[] = {
    {"norm", &BlockWeights::norm_1, "[D]"},   {"q", &BlockWeights::q, "[Q, D]"},
    {"q bias", &BlockWeights::q_bias, "[Q]"}, {"k", &BlockWeights::k, "[K, D]"},
    {"k bias", &BlockWeights::k_bias, "[K]"}, {"v", &BlockWeights::v, "[K, D]"},
    {"v bias", &BlockWeights::v_bias, "[K]"}, {"out", &BlockWeights::out, "[D, Q]"},
    {"norm 2", &BlockWeights::norm_2, "[D]"}, {"gate", &BlockWeights::gate, "[F, D]"},
    {"up", &BlockWeights::up, "[F, D]"},      {"down", &BlockWeights::down, "[D, F]"},
};
inline constexpr size_t kTensorsPerLayer = std::size(kLayerTensors);

// Checks arguments against hidden [B, D]; `hold` keeps contiguous copies alive.
struct DecodeArguments {
  const char* op;
  const Tensor& hidden;
  std::vector<Tensor>& hold;

  void check_hidden() const {
    check_dim(op, "hidden", hidden, 2, "[B, D]");
    check_dtype(op, "hidden", hidden, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
    MIMO_CHECK(hidden.size(0) <= kMaxDecodeBatch && hidden.size(1) >= 1 && hidden.size(1) <= kMaxDecodeWidth, op,
               ": hidden must have at most ", kMaxDecodeBatch, " rows and 1 to ", kMaxDecodeWidth, " columns, got ",
               describe(hidden));
  }

  // A weight [rows, columns], or [rows] where columns is 0, of hidden's dtype and device; a quantised matrix is uint8
  // of as many rows. `name` is called only for an error: a call checks hundreds of weights.
  template <class Name>
  const void* weight(Name&& name, const char* meaning, const Tensor& t, int64_t rows, int64_t columns,
                     WeightFormat format = WeightFormat::dense) const {
    const bool quantized = columns && format != WeightFormat::dense;
    const int64_t width = quantized ? quantized_row_bytes(format, columns) : columns;
    const ScalarType dtype = quantized ? ScalarType::Byte : hidden.scalar_type();
    const bool shaped =
        columns ? t.dim() == 2 && t.size(0) == rows && t.size(1) == width : t.dim() == 1 && t.size(0) == rows;
    const bool placed = t.is_cpu() == hidden.is_cpu() && t.is_cuda() == hidden.is_cuda() &&
                        (t.is_cpu() || t.get_device_index() == hidden.get_device_index());
    if (!shaped || !placed || t.scalar_type() != dtype) {
      const std::string called = name();
      if (quantized) {
        MIMO_CHECK(shaped && t.scalar_type() == dtype, op, ": ", called, " must be quantised like ", layer_name(1),
                   ": uint8 [", rows, ", ", width, "] for ", meaning, " = [", rows, ", ", columns, "], got ",
                   describe(t));
      }
      check_same_dtype(op, called.c_str(), t, "hidden", hidden);
      check_same_device(op, called.c_str(), t, "hidden", hidden);
      MIMO_CHECK(shaped, op, ": ", called, " must be ", meaning, " = [", rows, columns ? text(", ", columns) : "",
                 "], got ", describe(t));
    }
    if (t.is_contiguous()) return t.const_data_ptr();
    hold.push_back(torch::stable::contiguous(t));
    return hold.back().const_data_ptr();
  }

  static std::string layer_name(size_t i) {
    return text("layers[", i, "] (layer ", i / kTensorsPerLayer, ", ", kLayerTensors[i % kTensorsPerLayer].name, ")");
  }

  // The rows of the first layer's tensor number `i`, which say how wide the heads or the FFN are.
  int64_t rows_of(const std::vector<Tensor>& layers, size_t i) const {
    check_dim(op, layer_name(i).c_str(), layers[i], 2, kLayerTensors[i].meaning);
    const int64_t rows = layers[i].size(0);
    MIMO_CHECK(rows >= 1 && rows <= kMaxDecodeWidth, op, ": ", layer_name(i), " must have 1 to ", kMaxDecodeWidth,
               " rows, got ", describe(layers[i]));
    return rows;
  }

  // Checks 12 tensors per layer and fills in the sizes.
  std::vector<BlockWeights> blocks(const std::vector<Tensor>& layers, int64_t heads, double eps,
                                   BlockShape& shape) const {
    MIMO_CHECK(std::isfinite(float(eps)) && eps >= 0, op, ": eps must be at least 0 and finite in float32, got ", eps);
    MIMO_CHECK(!layers.empty() && layers.size() % kTensorsPerLayer == 0, op, ": layers must hold ", kTensorsPerLayer,
               " tensors per layer, one layer at least, got ", layers.size());
    MIMO_CHECK(heads >= 1 && heads <= kMaxDecodeWidth, op, ": attention_heads must be 1 to ", kMaxDecodeWidth, ", got ",
               heads);
    const int64_t dim = hidden.size(1), q = rows_of(layers, 1), k = rows_of(layers, 3), ffn = rows_of(layers, 9);
    const int64_t width = q / heads;
    MIMO_CHECK(q % (2 * heads) == 0 && width <= kMaxDecodeHeadDim, op, ": ", layer_name(1), " must have rows for ",
               heads, " attention_heads of an even width up to ", kMaxDecodeHeadDim, ", got ", describe(layers[1]));
    MIMO_CHECK(k % width == 0 && heads % (k / width) == 0, op, ": ", layer_name(3), " must have the head width ", width,
               " times a divisor of attention_heads (", heads, ") rows, got ", describe(layers[3]));
    shape.dim = int32_t(dim);
    shape.heads = int32_t(heads);
    shape.kv_heads = int32_t(k / width);
    shape.head_dim = int32_t(width);
    shape.ffn = int32_t(ffn);
    shape.eps = float(eps);
    shape.format = WeightFormat::dense;
    if (layers[1].scalar_type() == ScalarType::Byte) {
      shape.format = check_quantized(op, layer_name(1).c_str(), layers[1], dim);
      const int multiple = is_int4(shape.format) ? weight_group(shape.format) : kActivationGroup;
      MIMO_CHECK(q % multiple == 0 && ffn % multiple == 0, op, ": quantised layers must have Q = ", q, " and F = ", ffn,
                 " in multiples of ", multiple);
    }
    const auto size_of = [&](char letter) {
      return letter == 'D' ? dim : letter == 'Q' ? q : letter == 'K' ? k : letter == 'F' ? ffn : 0;
    };
    std::vector<BlockWeights> blocks(layers.size() / kTensorsPerLayer);
    for (size_t i = 0; i < layers.size(); ++i) {
      const LayerTensor& what = kLayerTensors[i % kTensorsPerLayer];
      blocks[i / kTensorsPerLayer].*what.place =
          weight([i] { return layer_name(i); }, what.meaning, layers[i], size_of(what.meaning[1]),
                 what.meaning[2] == ',' ? size_of(what.meaning[4]) : 0, shape.format);
    }
    return blocks;
  }
};

}  // namespace mimo
