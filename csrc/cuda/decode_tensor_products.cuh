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
    __half2 pairs[4];
    std::memcpy(pairs, &raw, sizeof pairs);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __half22float2(pairs[i]);
      split_pair(pair.x, pair.y, term[0][i], term[1][i]);
    }
  }
};

inline constexpr int kPiece = 64;            // columns: two steps of 32, 8 per lane
inline constexpr int kFoldedTiles = 4;       // that the warps add up at once
inline constexpr int kMostTensorWarps = 16;  // of a block

template <int kTall, int kTiles, class W, class Units>
__global__ void __launch_bounds__(kTall == 1 ? 32 * kMostTensorWarps : 32 * kDecodeWarps)
    tensor_product_kernel(Units units, ProductInput<W> in) {
  constexpr int kSteps = kTall == 1 ? 4 : 2;  // of 32 columns, whose weights are under way
  constexpr int kTerms = TensorWeights<W>::kTerms, kSums = kTall * kTiles;
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

  // The warps' sums, kFoldedTiles at a time; a thread finishes a lane's.
  MIMO_DYNAMIC_SHARED(float4, shared);
  constexpr int kFolded = kSums < kFoldedTiles ? kSums : kFoldedTiles;
  float* all_squares = reinterpret_cast<float*>(shared + warps * kFolded * 32);  // [warps, 8 kTiles]
  if constexpr (kNorm) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      squares[t] += __shfl_xor_sync(~0u, squares[t], 1);
      squares[t] += __shfl_xor_sync(~0u, squares[t], 2);
      if (lane % 4 == 0) all_squares[(warp * kTiles + t) * 8 + group] = squares[t];
    }
  }
#pragma unroll
  for (int done = 0; done < kSums; done += kFolded) {
    if (done) __syncthreads();
#pragma unroll
    for (int i = 0; i < kFolded; ++i) {
      const auto& c = sum[(done + i) / kTiles][(done + i) % kTiles];
      shared[(warp * kFolded + i) * 32 + lane] = make_float4(c[0], c[1], c[2], c[3]);
    }
    __syncthreads();
    for (int at = warp; at < kFolded; at += warps) {
      const int m = (done + at) / kTiles, t = (done + at) % kTiles;
      const int unit = unit_0 + 8 * m + group, b = row_0 + 8 * t + lane % 4 * 2;
      if (unit >= units.units() || b >= in.batch) continue;
      float4 total = shared[at * 32 + lane];
      for (int w = 1; w < warps; ++w) {
        const float4 more = shared[(w * kFolded + at) * 32 + lane];
        total.x += more.x, total.y += more.y, total.z += more.z, total.w += more.w;
      }
      float scale[2] = {1.0f, 1.0f};
      if constexpr (kNorm) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float* part = all_squares + 8 * t + lane % 4 * 2 + j;
          float square = part[0];
          for (int w = 1; w < warps; ++w) square += part[w * 8 * kTiles];
          scale[j] = 1.0f / sqrtf(square / float(width) + in.eps);
        }
      }
      units.finish(unit, b, total.x * scale[0], total.z * scale[0]);
      if (b + 1 < in.batch) units.finish(unit, b + 1, total.y * scale[1], total.w * scale[1]);
    }
  }
}

// Warps of a block: enough bytes under way also where there are few blocks. A function of the weight's shape alone.
inline int tensor_product_warps(int units, int width) {
  const int most = units <= 1024 && width >= 2048 ? kMostTensorWarps : kDecodeWarps;
  return std::min(most, (width + 2 * kPiece - 1) / (2 * kPiece));
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
  using std::integral_constant;
  const bool many = count > 1024;  // blocks for every multiprocessor also when they are taller
  if (in.batch == 1 || (in.batch <= 8 && !many))
    return launch(integral_constant<int, 1>{}, integral_constant<int, 1>{});
  if (in.batch <= 8) return launch(integral_constant<int, 2>{}, integral_constant<int, 1>{});
  if (!many) return launch(integral_constant<int, 1>{}, integral_constant<int, 8>{});
  return launch(integral_constant<int, 4>{}, integral_constant<int, 8>{});
}

}  // namespace mimo::cuda
