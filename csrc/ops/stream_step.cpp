// torch.ops.mimo.stream_layers, stream_up_convolution and stream_istft: schemas, checks, allocation, dispatch.
// Definitions: mimo_audio_native/reference/stream_step.py, which is also what other devices than the CPU run.
#include "mimo/stream_step.h"

#include <cmath>
#include <optional>

#include "common/spectral.h"
#include "mimo/decode_step.h"  // kMaxDecodeHeadDim

namespace mimo {
namespace {

using Hold = std::vector<Tensor>;

constexpr const void* StreamBlock::* kPlaces[] = {
    &StreamBlock::norm_1,   &StreamBlock::norm_1_bias, &StreamBlock::q,           &StreamBlock::q_bias,
    &StreamBlock::k,        &StreamBlock::v,           &StreamBlock::v_bias,      &StreamBlock::out,
    &StreamBlock::out_bias, &StreamBlock::norm_2,      &StreamBlock::norm_2_bias, &StreamBlock::fc1,
    &StreamBlock::fc1_bias, &StreamBlock::fc2,         &StreamBlock::fc2_bias,
};
constexpr const char* kMeanings[] = {"[D]", "[D]", "[D, D]", "[D]",    "[D, D]", "[D, D]", "[D]", "[D, D]",
                                     "[D]", "[D]", "[D]",    "[F, D]", "[F]",    "[D, F]", "[D]"};
constexpr size_t kTensorsPerBlock = std::size(kPlaces);

// Checks the streams of an op whose first tensor is x [B, n, ..].
Streams streams_of(const char* op, const Tensor& x, const Tensor& position, const Tensor& end,
                   const std::optional<Tensor>& active, Hold& hold) {
  MIMO_CHECK(x.size(0) <= INT32_MAX && x.size(1) <= (1 << 20), op, ": x must have at most ", 1 << 20,
             " rows per stream, got ", describe(x));
  const auto taken = [&](const char* name, const Tensor& t, ScalarType dtype) {
    check_dim(op, name, t, 1, "[B]");
    check_dtype(op, name, t, {dtype});
    check_same_device(op, name, t, "x", x);
    MIMO_CHECK(t.size(0) == x.size(0), op, ": ", name, " must have an entry per stream of x (", x.size(0), "), got ",
               describe(t));
    hold.push_back(torch::stable::contiguous(t));
    return hold.back().const_data_ptr();
  };
  Streams s{};
  s.position = static_cast<const int64_t*>(taken("position", position, ScalarType::Long));
  s.end = static_cast<const int64_t*>(taken("end", end, ScalarType::Long));
  if (active) s.active = static_cast<const uint8_t*>(taken("active", *active, ScalarType::Bool));
  s.batch = int32_t(x.size(0));
  s.rows = int32_t(x.size(1));
  return s;
}

// A tensor that is written in place.
void* written(const char* op, const char* name, const Tensor& t, ScalarType dtype, const Tensor& x,
              std::initializer_list<int64_t> sizes, const char* meaning) {
  check_dim(op, name, t, int64_t(sizes.size()), meaning);
  check_dtype(op, name, t, {dtype});
  check_same_device(op, name, t, "x", x);
  bool fits = true;
  std::string wanted;
  int64_t i = 0;
  for (const int64_t size : sizes) {
    fits = fits && t.size(i++) == size;
    wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
  }
  MIMO_CHECK(fits && t.is_contiguous(), op, ": ", name, " must be ", meaning, " = [", wanted,
             "], contiguous as it is written in place, got ", describe(t));
  return t.mutable_data_ptr();
}

// A weight of x's dtype.
const void* weight_of(const char* op, const std::string& name, const Tensor& t, const Tensor& x,
                      std::initializer_list<int64_t> sizes, const char* meaning, Hold& hold) {
  bool fits = t.dim() == int64_t(sizes.size()) && t.scalar_type() == x.scalar_type() && t.is_cpu() == x.is_cpu();
  int64_t i = 0;
  for (const int64_t size : sizes) fits = fits && t.size(i++) == size;
  if (!fits) {
    check_same_dtype(op, name.c_str(), t, "x", x);
    check_same_device(op, name.c_str(), t, "x", x);
    std::string wanted;
    for (const int64_t size : sizes) wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
    MIMO_CHECK(fits, op, ": ", name, " must be ", meaning, " = [", wanted, "], got ", describe(t));
  }
  if (t.is_contiguous()) return t.const_data_ptr();
  hold.push_back(torch::stable::contiguous(t));
  return hold.back().const_data_ptr();
}

void check_x(const char* op, const Tensor& x, const char* meaning) {
  check_dim(op, "x", x, 3, meaning);
  check_dtype(op, "x", x, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
}

Tensor stream_layers(const Tensor& x, const std::vector<Tensor>& layers, const std::vector<int64_t>& rights,
                     const Tensor& cache, const Tensor& behind, const Tensor& frequency, const Tensor& position,
                     const Tensor& end, const std::optional<Tensor>& active, int64_t left, int64_t delay,
                     const std::string& activation, double eps) {
  const char* op = "stream_layers";
  Hold hold;
  check_x(op, x, "[B, n, D]");
  StreamLayersParams p{};
  const int64_t batch = x.size(0), dim = x.size(2), count = int64_t(rights.size());
  MIMO_CHECK(count >= 1 && layers.size() == size_t(count) * kTensorsPerBlock, op, ": layers must hold ",
             kTensorsPerBlock, " tensors for each of the ", count, " entries of rights, got ", layers.size());
  int64_t sum = 0, widest = 0;
  for (const int64_t right : rights) {
    MIMO_CHECK(right >= 0 && right <= (1 << 20), op, ": rights must be 0 to ", 1 << 20, ", got ", right);
    sum += right;
    widest = right > widest ? right : widest;
  }
  MIMO_CHECK(left >= 0 && left <= (1 << 24), op, ": left must be 0 to ", 1 << 24, ", got ", left);
  MIMO_CHECK(delay >= 0 && delay <= (1 << 24), op, ": delay must be 0 to ", 1 << 24, ", got ", delay);
  MIMO_CHECK(std::isfinite(float(eps)) && eps >= 0, op, ": eps must be at least 0 and finite in float32, got ", eps);
  check_dim(op, "cache", cache, 6, "[B, L, 2, H, R, W]");
  const int64_t heads = cache.size(3), ring = cache.size(4), width = cache.size(5);
  MIMO_CHECK(heads >= 1 && width >= 2 && width % 2 == 0 && width <= kMaxDecodeHeadDim && heads * width == dim, op,
             ": cache [B, L, 2, H, R, W] must have H heads of an even width W up to ", kMaxDecodeHeadDim,
             " with H W = D = ", dim, ", got ", describe(cache));
  MIMO_CHECK(ring >= left + widest + x.size(1) && ring <= INT32_MAX, op,
             ": cache must have room for R >= ", left + widest + x.size(1),
             " rows (left, the largest right and n), got ", describe(cache));
  p.cache =
      written(op, "cache", cache, x.scalar_type(), x, {batch, count, 2, heads, ring, width}, "[B, L, 2, H, R, W]");
  p.behind = written(op, "behind", behind, x.scalar_type(), x, {batch, sum, dim}, "[B, sum of rights, D]");
  check_dim(op, "frequency", frequency, 1, "[W / 2]");
  check_dtype(op, "frequency", frequency, {ScalarType::Double});
  check_same_device(op, "frequency", frequency, "x", x);
  MIMO_CHECK(frequency.size(0) == width / 2, op, ": frequency must be [W / 2] = [", width / 2, "], got ",
             describe(frequency));
  hold.push_back(torch::stable::contiguous(frequency));
  p.frequency = hold.back().const_data_ptr<double>();
  const Tensor& fc1 = layers[11];
  check_dim(op, "layers[11] (fc1)", fc1, 2, "[F, D]");
  const int64_t ffn = fc1.size(0);
  MIMO_CHECK(ffn >= 1 && ffn <= INT32_MAX && dim <= (1 << 20), op, ": layers[11] (fc1) must be [F, D], got ",
             describe(fc1));
  const bool biased = layers[1].numel() > 0;
  std::vector<StreamBlock> blocks(count);
  for (size_t i = 0; i < layers.size(); ++i) {
    const size_t place = i % kTensorsPerBlock;
    const char* meaning = kMeanings[place];
    const std::string name = "layers[" + std::to_string(i) + "]";
    if ((place == 1 || place == 10) && !biased) {
      MIMO_CHECK(layers[i].numel() == 0, op, ": ", name, " must be empty as layers[1] is, got ", describe(layers[i]));
      continue;
    }
    const int64_t rows = meaning[1] == 'D' ? dim : ffn, columns = meaning[2] != ',' ? 0 : meaning[4] == 'D' ? dim : ffn;
    blocks[i / kTensorsPerBlock].*kPlaces[place] =
        columns ? weight_of(op, name, layers[i], x, {rows, columns}, meaning, hold)
                : weight_of(op, name, layers[i], x, {rows}, meaning, hold);
  }
  p.activation = activation == "gelu"        ? Activation::gelu
                 : activation == "gelu_tanh" ? Activation::gelu_tanh
                 : activation == "silu"      ? Activation::silu
                                             : Activation::relu;
  MIMO_CHECK(p.activation != Activation::relu || activation == "relu", op,
             ": activation must be \"gelu\", \"gelu_tanh\", \"relu\" or \"silu\", got \"", activation, "\"");
  p.streams = streams_of(op, x, position, end, active, hold);
  for (int b = 0; b < p.streams.batch; ++b) {
    MIMO_CHECK(p.streams.position[b] >= 0, op, ": position[", b, "] must be at least 0, got ", p.streams.position[b]);
  }
  hold.push_back(torch::stable::contiguous(x));
  p.x = hold.back().const_data_ptr();
  p.blocks = blocks.data();
  p.rights = rights.data();
  p.left = left;
  p.delay = delay;
  p.eps = float(eps);
  p.layers = int32_t(count);
  p.dim = int32_t(dim);
  p.heads = int32_t(heads);
  p.head_dim = int32_t(width);
  p.ffn = int32_t(ffn);
  p.ring = int32_t(ring);
  p.dtype = dtype_of(op, "x", x);
  Tensor out = torch::stable::new_empty(x, {batch, x.size(1), dim});
  p.out = out.mutable_data_ptr();
  if (out.numel() == 0) return out;
  MIMO_CPU_SELECT(stream_layers)(p);
  return out;
}

Tensor stream_up_convolution(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                             const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& carry,
                             const Tensor& line, const Tensor& sums, const Tensor& position, const Tensor& end,
                             const std::optional<Tensor>& active, int64_t stride, int64_t group, double keep,
                             double eps) {
  const char* op = "stream_up_convolution";
  Hold hold;
  check_x(op, x, "[B, n, I]");
  check_dim(op, "weight", weight, 3, "[I, O, K]");
  const int64_t batch = x.size(0), rows = x.size(1), inputs = x.size(2), outputs = weight.size(1);
  const int64_t kernel = weight.size(2);
  MIMO_CHECK(inputs >= 1 && inputs <= (1 << 20) && outputs >= 1 && outputs <= (1 << 20) && kernel <= (1 << 10), op,
             ": weight must be [I, O, K], got ", describe(weight));
  MIMO_CHECK(stride >= 1 && stride <= kernel, op, ": stride must be 1 to K = ", kernel, ", got ", stride);
  MIMO_CHECK(group >= 1 && group <= (1 << 20) && rows % group == 0, op, ": group must divide the rows of x (", rows,
             "), got ", group);
  MIMO_CHECK(std::isfinite(keep) && std::isfinite(eps) && eps >= 0, op, ": keep and eps must be finite, got ", keep,
             " and ", eps);
  StreamUpConvolutionParams p{};
  p.weight = weight_of(op, "weight", weight, x, {inputs, outputs, kernel}, "[I, O, K]", hold);
  if (bias) p.bias = weight_of(op, "bias", *bias, x, {outputs}, "[O]", hold);
  p.norm_weight = weight_of(op, "norm_weight", norm_weight, x, {outputs}, "[O]", hold);
  p.norm_bias = weight_of(op, "norm_bias", norm_bias, x, {outputs}, "[O]", hold);
  p.carry = static_cast<float*>(
      written(op, "carry", carry, ScalarType::Float, x, {batch, kernel - stride, outputs}, "[B, K - stride, O]"));
  check_dim(op, "line", line, 3, "[B, behind, O]");
  const int64_t behind = line.size(1);
  MIMO_CHECK(behind <= (1 << 24), op, ": line must have at most ", 1 << 24, " rows, got ", describe(line));
  p.line =
      static_cast<float*>(written(op, "line", line, ScalarType::Float, x, {batch, behind, outputs}, "[B, behind, O]"));
  p.sums = static_cast<double*>(written(op, "sums", sums, ScalarType::Double, x, {batch, 3}, "[B, 3]"));
  p.streams = streams_of(op, x, position, end, active, hold);
  hold.push_back(torch::stable::contiguous(x));
  p.x = hold.back().const_data_ptr();
  p.keep = keep;
  p.eps = eps;
  p.inputs = int32_t(inputs);
  p.outputs = int32_t(outputs);
  p.kernel = int32_t(kernel);
  p.stride = int32_t(stride);
  p.behind = int32_t(behind);
  p.group = int32_t(group);
  p.dtype = dtype_of(op, "x", x);
  Tensor out = torch::stable::new_empty(x, {batch, rows * stride, outputs});
  p.out = out.mutable_data_ptr();
  if (out.numel() == 0) return out;
  MIMO_CPU_SELECT(stream_up_convolution)(p);
  return out;
}

Tensor stream_istft(const Tensor& x, const Tensor& window, const std::optional<Tensor>& advance, const Tensor& carry,
                    const Tensor& position, const Tensor& end, const std::optional<Tensor>& active, int64_t hop,
                    double max_magnitude) {
  const char* op = "stream_istft";
  Hold hold;
  check_dim(op, "x", x, 3, "[B, n, n_fft + 2]");
  check_dtype(op, "x", x, {ScalarType::Float});
  check_like(op, "window", window, "x", x);
  const int64_t n_fft = x.size(2) - 2;
  check_fft_size(op, "n_fft = x's columns - 2", n_fft);
  check_overlap_add(op, window, n_fft, hop);
  MIMO_CHECK(std::isfinite(max_magnitude) && max_magnitude > 0, op, ": max_magnitude must be positive and finite, got ",
             max_magnitude);
  StreamIstftParams p{};
  p.period = 1;
  if (advance) {
    check_like(op, "advance", *advance, "x", x);
    check_dim(op, "advance", *advance, 2, "[P, n_fft / 2 + 1]");
    MIMO_CHECK(advance->size(0) >= 1 && advance->size(0) <= INT32_MAX && advance->size(1) == n_fft / 2 + 1, op,
               ": advance must be [P, n_fft / 2 + 1 = ", n_fft / 2 + 1, "], got ", describe(*advance));
    hold.push_back(torch::stable::contiguous(*advance));
    p.advance = hold.back().const_data_ptr<float>();
    p.period = int32_t(advance->size(0));
  }
  p.carry = static_cast<float*>(
      written(op, "carry", carry, ScalarType::Float, x, {x.size(0), 2, n_fft - hop}, "[B, 2, n_fft - hop]"));
  p.streams = streams_of(op, x, position, end, active, hold);
  hold.push_back(torch::stable::contiguous(window));
  p.window = hold.back().const_data_ptr<float>();
  hold.push_back(torch::stable::contiguous(x));
  p.x = hold.back().const_data_ptr<float>();
  p.max_magnitude = float(max_magnitude);
  p.n_fft = int32_t(n_fft);
  p.hop = int32_t(hop);
  Tensor out = torch::stable::new_empty(x, {x.size(0), x.size(1) * hop});
  p.out = out.mutable_data_ptr<float>();
  if (out.numel() == 0) return out;
  MIMO_CPU_SELECT(stream_istft)(p);
  return out;
}

}  // namespace
}  // namespace mimo

MIMO_DEF(
    m.def("stream_layers(Tensor x, Tensor[] layers, int[] rights, Tensor(a!) cache, Tensor(b!) behind, "
          "Tensor frequency, Tensor position, Tensor end, Tensor? active, int left, int delay, str activation, "
          "float eps) -> Tensor");
    m.def("stream_up_convolution(Tensor x, Tensor weight, Tensor? bias, Tensor norm_weight, Tensor norm_bias, "
          "Tensor(a!) carry, Tensor(b!) line, Tensor(c!) sums, Tensor position, Tensor end, Tensor? active, "
          "int stride, int group, float keep, float eps) -> Tensor");
    m.def("stream_istft(Tensor x, Tensor window, Tensor? advance, Tensor(a!) carry, Tensor position, Tensor end, "
          "Tensor? active, int hop, float max_magnitude) -> Tensor");)
MIMO_IMPL_CPU(m.impl("stream_layers", TORCH_BOX(&mimo::stream_layers));
              m.impl("stream_up_convolution", TORCH_BOX(&mimo::stream_up_convolution));
              m.impl("stream_istft", TORCH_BOX(&mimo::stream_istft));)
