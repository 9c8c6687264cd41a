// Products with quantised weights on CUDA (mimo/weight_format.h; cpu/quantized.h says how activations are quantised):
// a warp per group of 32 activations makes them int8, a block per panel of 16 weight rows multiplies.
//
// Correct and simple, not tuned: a block's threads are 16 rows by 16 slices of the columns, so that a half-warp reads
// 64 neighbouring bytes; integer products of four by __dp4a; the slices are added up in order, so that no result
// depends on the batch.
#pragma once
#include "cuda/half.h"
#include "cuda/launch.h"
#include "cuda/warp.cuh"
#include "mimo/weight_format.h"

namespace mimo::cuda {

// Rows of activations as int8, with a scale per group and what a group's products are too large by.
struct QuantizedRows {
  int8_t* numbers;   // [count, columns]
  float* scales;     // [count, columns / 32]
  int32_t* offsets;  // the same

  static __host__ __device__ int64_t bytes(int64_t count, int64_t columns) {
    return count * columns + count * (columns / kActivationGroup) * 8;
  }
  // In memory of so many bytes, 16-byte aligned; columns are a multiple of 32.
  static QuantizedRows at(void* memory, int64_t count, int64_t columns) {
    const int64_t groups = count * (columns / kActivationGroup);
    float* scales = reinterpret_cast<float*>(static_cast<char*>(memory) + count * columns);
    return {static_cast<int8_t*>(memory), scales, reinterpret_cast<int32_t*>(scales + groups)};
  }
};

struct QuantizedMatrix {
  const uint8_t* data;
  WeightFormat format;
  int32_t rows, columns;
};

inline constexpr int kQuantizeWarps = 8, kSlices = 16;

template <class S>
__global__ void __launch_bounds__(32 * kQuantizeWarps)
    quantize_rows_kernel(const S* x, QuantizedRows out, int64_t groups, int zero) {
  const int64_t g = int64_t(blockIdx.x) * kQuantizeWarps + threadIdx.y;
  wait_for_previous_kernel();
  let_next_kernel_start();
  if (g >= groups) return;
  const float v = widen(x[g * kActivationGroup + threadIdx.x]);
  float most = fabsf(v), nan = v * 0.0f;
  for (int step = 16; step > 0; step /= 2) {
    most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    nan += __shfl_xor_sync(~0u, nan, step);
  }
  const float inverse = most > 0.0f ? 127.0f / most : 0.0f;
  const float number = rintf(v * inverse);
  int32_t sum = nan == 0.0f ? int32_t(number) : 0;
  out.numbers[g * kActivationGroup + threadIdx.x] = int8_t(sum);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x == 0) {
    out.scales[g] = most / 127.0f + nan;
    out.offsets[g] = -zero * sum;
  }
}

// store(b, row, value) of all products: block x is a panel, y a row of activations.
template <class Store>
__global__ void __launch_bounds__(kPanelRows* kSlices)
    quantized_product_kernel(QuantizedMatrix w, QuantizedRows x, Store store) {
  __shared__ float parts[kSlices][kPanelRows];
  const int row = int(threadIdx.x) % kPanelRows, slice = int(threadIdx.x) / kPanelRows;
  const int64_t first = int64_t(blockIdx.x) * kPanelRows, b = blockIdx.y;
  const WeightPanel panel = weight_panel(w.data, w.format, w.rows, w.columns, first);
  const int groups = w.columns / kActivationGroup, height = panel.height;
  const bool int4 = is_int4(w.format);
  const int per_scale = weight_group(w.format) / kActivationGroup, lines = int4 ? 4 : 8;
  wait_for_previous_kernel();
  let_next_kernel_start();
  float sum = 0.0f;
  for (int g = slice; g < groups && row < height; g += kSlices) {
    const int8_t* from = x.numbers + b * w.columns + g * kActivationGroup;
    int32_t dot = x.offsets[b * groups + g];
    const auto four = [&](int quad) { return *reinterpret_cast<const int32_t*>(from + 4 * quad); };
    for (int i = 0; i < lines; ++i) {
      uint32_t numbers;
      memcpy(&numbers, panel.numbers + (int64_t(g * lines + i) * height + row) * 4, sizeof numbers);
      if (int4) {
        dot = __dp4a(four(2 * i), int32_t(numbers & 0x0f0f0f0fu), dot);
        dot = __dp4a(four(2 * i + 1), int32_t(numbers >> 4 & 0x0f0f0f0fu), dot);
      } else {  // number + 128 as a signed byte is number with its highest bit flipped: 128 less
        dot = __dp4a(four(i), int32_t(numbers ^ 0x80808080u), dot);
      }
    }
    float scale = 1.0f;
    if (int4) {
      uint16_t bits;
      memcpy(&bits, panel.scales + (int64_t(g / per_scale) * height + row) * 2, sizeof bits);
      const uint32_t wide = uint32_t(bits) << 16;
      memcpy(&scale, &wide, sizeof scale);
    }
    sum = __fmaf_rn(float(dot), scale * x.scales[b * groups + g], sum);
  }
  parts[slice][row] = sum;
  __syncthreads();
  if (slice > 0 || row >= height) return;
  for (int i = 1; i < kSlices; ++i) sum += parts[i][row];
  if (!int4) {
    float scale;
    memcpy(&scale, panel.scales + row * 4, sizeof scale);
    sum *= scale;
  }
  store(b, first + row, sum);
}

// x [count, columns] -> out. int8 weights are read as signed bytes, which leaves nothing to take off.
template <class S>
void launch_quantize_rows(const S* x, const QuantizedRows& out, int64_t count, int64_t columns, WeightFormat format,
                          cudaStream_t stream) {
  const int64_t groups = count * (columns / kActivationGroup);
  const unsigned blocks = unsigned((groups + kQuantizeWarps - 1) / kQuantizeWarps);
  MIMO_LAUNCH_EARLY(blocks, dim3(32, kQuantizeWarps), 0, stream, quantize_rows_kernel<S>)
  (x, out, groups, is_int4(format) ? weight_zero(format) : 0);
}

template <class Store>
void launch_quantized_product(const QuantizedMatrix& w, const QuantizedRows& x, int64_t count, const Store& store,
                              cudaStream_t stream) {
  const unsigned panels = unsigned((w.rows + kPanelRows - 1) / kPanelRows);
  MIMO_LAUNCH_EARLY(dim3(panels, unsigned(count)), dim3(kPanelRows * kSlices), 0, stream,
                    quantized_product_kernel<Store>)
  (w, x, store);
}

}  // namespace mimo::cuda
