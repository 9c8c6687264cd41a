// Products of a decode step on tensor cores, for any batch: 8 units, so 16 weight rows, are the 16 rows of m16n8k16,
// 8 rows of x its columns. The weights go from memory to registers in the layout of the instruction, 16 bytes per lane
// and row: the columns of a lane need not be those of the PTX manual, as long as x takes the same.
//
// Weights are exact (float16: the sum of two bfloat16), x is the sum of two bfloat16, so to 2^-17 of itself.
//
// The warps of a block share the columns: warp w of n takes pieces w, w + n, .. of kPiece columns. A sum runs over
// a warp's pieces, then over the warps, in order. n follows from the weight's shape: the bits of a row of results
// depend neither on the batch nor on what the launch chooses by it, kTall (times 8 units per block) and kTiles (times 8
// rows of x per block).
#pragma once
#include <algorithm>
#include <type_traits>

#include "cuda/decode_state.cuh"
#include "cuda/mma.h"

namespace mimo::cuda {

// What a product reads: rows of x [batch, width], normalised by `norm` where that is given.
template <class W>
struct ProductInput {
  const float* x;
  const W* norm;  // or null
  float eps;
  int width, batch;
  bool vectors;  // weights and norm are read 16 bytes at a time
};

template <class W>
struct UnitRows {
  const W *first, *second;
};

// How 8 weights in a row, read from memory, become bf16 operands: pairs of columns, kTerms of them to be added.
template <class W>
struct TensorWeights;

template <>
struct TensorWeights<__nv_bfloat16> {
  static constexpr int kTerms = 1;
  __device__ static __forceinline__ void unpack(const uint4& raw, uint32_t (&term)[1][4]) {
    term[0][0] = raw.x, term[0][1] = raw.y, term[0][2] = raw.z, term[0][3] = raw.w;
  }
};

template <>
struct TensorWeights<__half> {
  static constexpr int kTerms = 2;
  __device__ static __forceinline__ void unpack(const uint4& raw, uint32_t (&term)[2][4]) {
    Columns<__half> weights;
    std::memcpy(&weights, &raw, sizeof weights);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      split_pair(widen(weights.value[2 * i]), widen(weights.value[2 * i + 1]), term[0][i], term[1][i]);
    }
  }
};

inline constexpr int kPiece = 64;            // columns: two steps of 32, 8 per lane
inline constexpr int kFoldedTiles = 4;       // that the warps add up at once
inline constexpr int kMostTensorWarps = 16;  // of a block

template <int kTall, int kTiles, class W, class Units>
__global__ void __launch_bounds__(32 * (kTall == 1 ? kMostTensorWarps : kDecodeWarps))
    tensor_product_kernel(Units units, ProductInput<W> in) {
  constexpr int kSteps = kTall * kTiles == 1 ? 4 : 2;  // of 32 columns, whose weights are under way
  constexpr int kTerms = TensorWeights<W>::kTerms;
  constexpr bool kNorm = Units::kNorm;
  const int lane = int(threadIdx.x), group = lane / 4, warp = int(threadIdx.y), warps = int(blockDim.y);
  const unsigned passes = unsigned(in.batch + 8 * kTiles - 1) / (8 * kTiles);
  const int unit_0 = int(blockIdx.x / passes) * 8 * kTall, row_0 = int(blockIdx.x % passes) * 8 * kTiles;
  const int width = in.width;
  const auto column = [&](int step) {  // the lane's first, in the warp's step
    return (step / 2 * warps + warp) * kPiece + step % 2 * 32 + lane % 4 * 8;
  };

  UnitRows<W> weights[kTall];
#pragma unroll
  for (int m = 0; m < kTall; ++m) weights[m] = units.rows(min(unit_0 + 8 * m + group, units.units() - 1), width);
  uint4 raw[kSteps][kTall][2], norm[kSteps];
  const auto load = [&](int s, int step) {
    const int d = column(step);
    const bool inside = d < width;
#pragma unroll
    for (int m = 0; m < kTall; ++m) {
      raw[s][m][0] = inside ? read_once(weights[m].first + d) : uint4{};
      raw[s][m][1] = inside ? read_once(weights[m].second + d) : uint4{};
    }
    if constexpr (kNorm) norm[s] = inside ? read_constant(in.norm + d) : uint4{};
  };
#pragma unroll
  for (int s = 0; s < kSteps; ++s) load(s, s);
  wait_for_previous_kernel();
  let_next_kernel_start();

  // With a single tile per block, the first warp finishes it: what that takes from memory is on its way from here on.
  constexpr bool kEarly = kTall * kTiles == 1;
  typename Units::More more[2]{};
  const auto read_more = [&](int unit, int b) {
    if (unit >= units.units() || b >= in.batch) return;
    more[0] = units.read(unit, b);
    if (b + 1 < in.batch) more[1] = units.read(unit, b + 1);
  };
  if (kEarly && warp == 0) read_more(unit_0 + group, row_0 + lane % 4 * 2);

  float sum[kTall][kTiles][4] = {}, squares[kTiles] = {};
  for (int step = 0; column(step) - lane % 4 * 8 < width; step += kSteps) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int d = column(step + s);
      uint32_t term[kTall][2][kTerms][4];
#pragma unroll
      for (int m = 0; m < kTall; ++m) {
        TensorWeights<W>::unpack(raw[s][m][0], term[m][0]);
        TensorWeights<W>::unpack(raw[s][m][1], term[m][1]);
      }
      Columns<W> gain;
      if constexpr (kNorm) std::memcpy(&gain, &norm[s], sizeof gain);
      load(s, step + s + kSteps);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        if (t && row_0 + 8 * t >= in.batch) break;
        float value[8] = {};
        if (d < width) {
          const float* x = in.x + int64_t(min(row_0 + 8 * t + group, in.batch - 1)) * width + d;
          const Columns<float> low = read_columns(x), high = read_columns(x + 4);
#pragma unroll
          for (int i = 0; i < 4; ++i) value[i] = low.value[i], value[4 + i] = high.value[i];
        }
        if constexpr (kNorm) {
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            squares[t] = __fmaf_rn(value[i], value[i], squares[t]);
            value[i] *= widen(gain.value[i]);
          }
        }
        uint32_t x[2][4];  // high and low parts of pairs
#pragma unroll
        for (int i = 0; i < 4; ++i) split_pair(value[2 * i], value[2 * i + 1], x[0][i], x[1][i]);
#pragma unroll
        for (int m = 0; m < kTall; ++m) {
#pragma unroll
          for (int i = 0; i < 4; i += 2) {
#pragma unroll
            for (int term_of_w = 0; term_of_w < kTerms; ++term_of_w) {
              const auto& first = term[m][0][term_of_w];
              const auto& second = term[m][1][term_of_w];
              const uint32_t a[4] = {first[i], second[i], first[i + 1], second[i + 1]};
              mma_bf16(sum[m][t], a, x[0][i], x[0][i + 1]);
              mma_bf16(sum[m][t], a, x[1][i], x[1][i + 1]);
            }
          }
        }
      }
    }
  }

  // The warps' sums, kFolded tiles at a time; a thread finishes a lane's.
  MIMO_DYNAMIC_SHARED(float4, shared);
  constexpr int kFolded = std::min(kTall * kTiles, kFoldedTiles);
  float* all_squares = reinterpret_cast<float*>(shared + warps * kFolded * 32);  // [warps, 8 kTiles]
  if constexpr (kNorm) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      squares[t] += __shfl_xor_sync(~0u, squares[t], 1);
      squares[t] += __shfl_xor_sync(~0u, squares[t], 2);
      if (lane % 4 == 0) all_squares[(warp * kTiles + t) * 8 + group] = squares[t];
    }
  }
#pragma unroll 1
  for (int done = 0; done < kTall * kTiles; done += kFolded) {
    if (done) __syncthreads();
#pragma unroll
    for (int i = 0; i < kTall * kTiles; ++i) {
      if (i / kFolded * kFolded != done) continue;
      const auto& c = sum[i / kTiles][i % kTiles];
      shared[(warp * kFolded + i % kFolded) * 32 + lane] = make_float4(c[0], c[1], c[2], c[3]);
    }
    __syncthreads();
#pragma unroll 1
    for (int at = warp; at < kFolded; at += warps) {
      const int m = (done + at) / kTiles, t = (done + at) % kTiles;
      const int unit = unit_0 + 8 * m + group, b = row_0 + 8 * t + lane % 4 * 2;
      if (unit >= units.units() || b >= in.batch) continue;
      if (!kEarly) read_more(unit, b);
      float4 total{};
      float2 square{};
#pragma unroll 8
      for (int w = 0; w < warps; ++w) {
        const float4 part = shared[(w * kFolded + at) * 32 + lane];
        total.x += part.x, total.y += part.y, total.z += part.z, total.w += part.w;
        if constexpr (kNorm) {
          const float* squares_part = all_squares + (w * kTiles + t) * 8 + lane % 4 * 2;
          square.x += squares_part[0], square.y += squares_part[1];
        }
      }
      const auto scale = [&](float squares) { return kNorm ? 1.0f / sqrtf(squares / float(width) + in.eps) : 1.0f; };
      const float first = scale(square.x), second = scale(square.y);
      units.finish(unit, b, more[0], total.x * first, total.z * first);
      if (b + 1 < in.batch) units.finish(unit, b + 1, more[1], total.y * second, total.w * second);
    }
  }
}

// Warps of a block: enough bytes under way also where there are few blocks. A function of the weight's shape alone.
inline int tensor_product_warps(int units, int width) {
  const int pieces = (width + kPiece - 1) / kPiece;
  return units <= 1024 ? std::min(kMostTensorWarps, pieces) : std::min(kDecodeWarps, (pieces + 1) / 2);
}

template <class W, class Units>
void launch_tensor_product(const Units& units, const ProductInput<W>& in, cudaStream_t stream) {
  const int count = units.units(), warps = tensor_product_warps(count, in.width);
  const auto launch = [&](auto tall, auto tiles) {
    constexpr int kTall = decltype(tall)::value, kTiles = decltype(tiles)::value;
    constexpr int kFolded = std::min(kTall * kTiles, kFoldedTiles);
    const unsigned blocks = unsigned((count + 8 * kTall - 1) / (8 * kTall));
    const unsigned passes = unsigned((in.batch + 8 * kTiles - 1) / (8 * kTiles));
    const size_t bytes = size_t(warps) * (kFolded * 32 * sizeof(float4) + 8 * kTiles * sizeof(float));
    MIMO_LAUNCH_EARLY(blocks * passes, dim3(32, unsigned(warps)), bytes, stream,
                      tensor_product_kernel<kTall, kTiles, W, Units>)
    (units, in);
  };
  const bool single = in.batch <= 8;
  using std::integral_constant;
  const auto one = integral_constant<int, 1>{};
  const auto two = integral_constant<int, 2>{};
  const auto four = integral_constant<int, 4>{};
  // Taller blocks read x less often; enough of them are to be left for all multiprocessors.
  if (count >= 4096 && in.batch > 1) return single ? launch(two, one) : launch(four, four);
  if (count >= 2048 && !single) return launch(two, four);
  return single ? launch(one, one) : launch(one, four);
}

}  // namespace mimo::cuda
