// The forward pass of attention inside patches of four frames on CUDA's tensor cores, in half precision.
//
// A warp owns four patches, 16 rows, of neighbouring heads: 128 bytes of every row come through shared memory of its
// own, so that there is no barrier. Scores are two products of 16 rows by 8 columns; a row meets its own patch in one
// of them, on two neighbouring lanes, and the rest is left out. Rows g and g + 8 of a fragment are the same frame of
// their patches, and so are columns g and g + 8: a lane needs the angles of one frame. Weights stay as exact as the
// definition's float32, as sums of two halves each.
#pragma once
#include "cuda/attention_tiles.cuh"
#include "mimo/patch_attention.h"

namespace mimo::cuda {
namespace {

constexpr int kTensorWarps = 4, kTensorThreads = 32 * kTensorWarps;
constexpr int kTensorFrames = 4, kTensorPatches = 16 / kTensorFrames;

template <class T>
constexpr int kTensorShared = kTensorWarps * 3 * 16 * T::kRow * 2;  // bytes

// The angles of the lane's frame and columns: element pairs of 8 columns each, of the first half of a row.
template <int kWidth>
struct Angles {
  float cos[kWidth / 16][2], sin[kWidth / 16][2];

  __device__ Angles(const PatchAttentionParams& p, int lane) {
    const int at = lane / 4 % kTensorFrames * (kWidth / 2) + lane % 4 * 2;
#pragma unroll
    for (int o = 0; o < kWidth / 16; ++o) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        cos[o][e] = p.cos ? __ldg(p.cos + at + 8 * o + e) : 1.0f;
        sin[o][e] = p.cos ? __ldg(p.sin + at + 8 * o + e) : 0.0f;
      }
    }
  }
};

// Register of a row's columns 8 o .. 8 o + 7 (two of them on each lane) in the fragments of a left or right operand;
// half 1 is the row 8 further.
template <bool kLeft, int kSteps>
__device__ __forceinline__ uint32_t& octet(uint32_t (&fragment)[kSteps][4], int o, int half) {
  return fragment[o / 2][kLeft ? o % 2 * 2 + half : half * 2 + o % 2];
}

template <class S, bool kLeft, int kWidth>
__device__ __forceinline__ void rotate_fragments(const Angles<kWidth>& angles, uint32_t (&fragment)[kWidth / 16][4]) {
#pragma unroll
  for (int o = 0; o < kWidth / 16; ++o) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      rotate_pairs<S>(angles.cos[o], angles.sin[o], 1, octet<kLeft>(fragment, o, half),
                      octet<kLeft>(fragment, o + kWidth / 16, half));
    }
  }
}

// Four patches of a group of heads to or from a warp's tile: `move(row of memory, place in the tile, whether there is
// such a row)` for the lane's 16-byte pieces.
template <class T, class Move>
__device__ __forceinline__ void each_piece(const PatchAttentionParams& p, const PatchHeads& x, int64_t patch, int head,
                                           int lane, typename T::S* tile, Move move) {
  constexpr int kStep = 32 / T::kPieces;  // rows; 4 for whole patches
  static_assert(kStep == kTensorFrames);
  const int frame = lane / T::kPieces, piece = lane % T::kPieces;
  const int64_t at = patch * x.patch_stride + frame * x.frame_stride + (head + piece / T::kHeadPieces) * x.head_stride +
                     piece % T::kHeadPieces * 8;
  const bool live = head + piece / T::kHeadPieces < p.heads;
#pragma unroll
  for (int i = 0; i < kTensorPatches; ++i) {
    move(at + i * x.patch_stride, T::at(tile, frame + i * kStep, piece * 8), live && patch + i < p.patches);
  }
}

// out = weights times the values of a row's own patch, one by one: the way of four patches one of which is not finite,
// for zero times infinity would reach the others.
template <class T>
__device__ __forceinline__ void meet_own_patch(const typename T::S* values, int column, int lane,
                                               const float (&weight)[2][2], float (&out)[T::kWidth / 8][4]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int first = lane / 16 * kTensorFrames + 8 * r;  // row of the patch's first frame
#pragma unroll
    for (int n = 0; n < T::kWidth / 8; ++n) out[n][2 * r] = out[n][2 * r + 1] = 0;
#pragma unroll 1
    for (int j = 0; j < kTensorFrames; ++j) {
      const float w = __shfl_sync(~0u, j % 2 ? weight[r][1] : weight[r][0], lane / 4 * 4 + lane / 16 * 2 + j / 2);
#pragma unroll
      for (int n = 0; n < T::kWidth / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          out[n][2 * r + e] += w * widen(*T::at(values, first + j, column + 8 * n + lane % 4 * 2 + e));
        }
      }
    }
  }
}

// The heads of four patches are shared out to `parts` blocks.
template <class T>
__global__ void __launch_bounds__(kTensorThreads) forward_tensor_kernel(PatchAttentionParams p, unsigned parts) {
  using S = typename T::S;
  constexpr int kWidth = T::kWidth, kTile = 16 * T::kRow;
  MIMO_DYNAMIC_SHARED(S, shared);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int64_t patch = int64_t(blockIdx.x / parts) * kTensorPatches;
  const int head = (int(blockIdx.x % parts) * kTensorWarps + warp) * T::kHeads;
  if (head >= p.heads) return;
  S *queries = shared + warp * 3 * kTile, *keys = queries + kTile, *values = keys + kTile;
  const auto fetch = [&](const PatchHeads& x, S* tile) {
    each_piece<T>(p, x, patch, head, lane, tile, [&](int64_t at, S* to, bool there) {
      cp_async_16(to, static_cast<const S*>(x.data) + (there ? at : 0), there);
    });
  };
  fetch(p.q, queries);
  fetch(p.k, keys);
  fetch(p.v, values);
  cp_async_commit();
  const Angles<kWidth> angles(p, lane);
  const float factor = float(p.scale) * 1.44269504f;
  // The lane's two columns of a row's patch, if it has them, and which of them the row sees.
  const int query = lane / 4 % kTensorFrames, key = lane % 4 * 2 % kTensorFrames;
  const bool mine = lane % 4 / 2 == lane / 16;
  const bool sees[2] = {mine && (key <= query || !p.causal), mine && (key < query || !p.causal)};
  cp_async_wait<0>();
  __syncwarp();
#pragma unroll
  for (int h = 0; h < T::kHeads; ++h) {
    const int column = h * kWidth;
    uint32_t q[kWidth / 16][4], k[kWidth / 16][4];
#pragma unroll
    for (int s = 0; s < kWidth / 16; ++s) {
      left_operand<T>(queries, column + 16 * s, lane, q[s]);
      right_operand<T>(keys, column + 16 * s, lane, k[s]);
    }
    if (p.cos) {
      rotate_fragments<S, true>(angles, q);
      rotate_fragments<S, false>(angles, k);
    }
    float score[2][4] = {};
#pragma unroll
    for (int s = 0; s < kWidth / 16; ++s) {
      mma<S>(score[0], q[s], k[s][0], k[s][1]);
      mma<S>(score[1], q[s], k[s][2], k[s][3]);
    }
    uint32_t weights[4] = {}, rest[4] = {};  // rows g meet columns 0 .. 7, rows g + 8 columns 8 .. 15
    float weight[2][2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float (&w)[2] = weight[r], whole[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) w[e] = sees[e] ? score[r][2 * r + e] * factor : -INFINITY;
      float top = max(w[0], w[1]);
      top = max(top, __shfl_xor_sync(~0u, top, 1));
#pragma unroll
      for (int e = 0; e < 2; ++e) w[e] = sees[e] ? power_of_two(w[e] - top) : 0.0f;
      float sum = w[0] + w[1];
      sum += __shfl_xor_sync(~0u, sum, 1);
      const float inverse = mine ? __fdividef(1.0f, sum) : 0.0f;
#pragma unroll
      for (int e = 0; e < 2; ++e) w[e] *= inverse;
      weights[3 * r] = pair_of<S>(w[0], w[1]);
      widen_pair<S>(weights[3 * r], whole);
      rest[3 * r] = pair_of<S>(w[0] - whole[0], w[1] - whole[1]);
    }
    float out[kWidth / 8][4] = {}, zero = 0;
#pragma unroll
    for (int n = 0; n < kWidth / 8; n += 2) {
      uint32_t v[4];
      right_operand_transposed<T>(values, column + 8 * n, lane, v);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        mma<S>(out[n + i], rest, v[2 * i], v[2 * i + 1]);
        mma<S>(out[n + i], weights, v[2 * i], v[2 * i + 1]);
#pragma unroll
        for (int e = 0; e < 4; ++e) zero = __fmaf_rn(out[n + i][e], 0.0f, zero);
      }
    }
    if (__any_sync(~0u, zero != 0)) meet_own_patch<T>(values, column, lane, weight, out);
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        *reinterpret_cast<uint32_t*>(T::at(queries, lane / 4 + 8 * r, column + 8 * n + lane % 4 * 2)) =
            pair_of<S>(out[n][2 * r], out[n][2 * r + 1]);
      }
    }
  }
  __syncwarp();
  const int64_t row = int64_t(p.heads) * kWidth;
  each_piece<T>(p, {nullptr, p.frames * row, row, kWidth}, patch, head, lane, queries,
                [&](int64_t at, const S* from, bool there) {
                  if (!there) return;
                  *reinterpret_cast<Pairs<8>*>(static_cast<S*>(p.out) + at) = *reinterpret_cast<const Pairs<8>*>(from);
                });
}

template <class T>
LaunchError launch_tensor(const PatchAttentionParams& p, cudaStream_t stream) {
  constexpr int kBlockHeads = kTensorWarps * T::kHeads;
  const unsigned parts = unsigned(p.heads + kBlockHeads - 1) / kBlockHeads;
  const unsigned fours = unsigned((p.patches + kTensorPatches - 1) / kTensorPatches);
  MIMO_ALLOW_SHARED(forward_tensor_kernel<T>);
  MIMO_LAUNCH(fours * parts, kTensorThreads, kTensorShared<T>, stream, forward_tensor_kernel<T>)(p, parts);
  return MIMO_LAUNCH_ERROR();
}

}  // namespace
}  // namespace mimo::cuda
