// Attention inside patches on CUDA: everything between input and result lives in registers.
//
// A patch of one head belongs to `lanes` neighbouring threads, one at the full model's 4 frames x 16 dims. A lane holds
// kWide elements of every key and value of the patch, half of them from either half of the row, so that rotation pairs
// meet in one lane; it walks over the queries and asks for the next one before it works on this one. Scores are sums
// over the lanes (shuffles), and every lane keeps the whole soft-max. There is no shared memory and no barrier.
// Neighbouring heads lie next to each other in memory, so the reads of a warp, up to 16 bytes per thread, cover whole
// sectors between them. kFrames bounds the frames (loops over keys unroll, so that indices into registers are
// constants); kWide shrinks as kFrames grows, to keep kFrames x kWide of keys and values in registers. float64, there
// for exactness, spills, and so does the backward pass of more than 8 frames.
//
// The backward pass takes the same walk with the gradients of keys and values as sums in registers; probabilities come
// again from q and k. No atomics: results do not vary between runs.
#include <cmath>
#include <cstring>

#include "cuda/half.h"
#include "cuda/launch.h"
#include "cuda/patch_attention_tensor.cuh"
#include "mimo/patch_attention.h"

namespace mimo::cuda {
namespace {

constexpr int kThreads = 128;

// One way to split the work: S is the type in memory, C the type of the arithmetic.
template <class S, class C, int kFrames_, int kWide_>
struct Split {
  using Stored = S;
  using Value = C;
  static constexpr int kFrames = kFrames_, kWide = kWide_, kHalf = kWide_ / 2;
};

// The smallest power of two of lanes that holds a row, as its logarithm.
template <class Split>
__host__ __device__ int lane_bits(int dim) {
  int bits = 0;
  while (Split::kWide << bits < dim) ++bits;
  return bits;
}

// kCount neighbouring elements, moved 16 bytes at a time where they are as many.
template <class S, int kCount>
struct alignas(kCount * sizeof(S) < 16 ? kCount * sizeof(S) : 16) Pack {
  uint32_t words[kCount * sizeof(S) / 4];

  template <class C>
  __device__ void widen_to(C* to) const {
    S x[kCount];
    std::memcpy(x, words, sizeof x);
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = widen(x[i]);
  }
  template <class C>
  __device__ void narrow_from(const C* from) {
    S x[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) narrow(from[i], x + i);
    std::memcpy(words, x, sizeof x);
  }
};

// What a lane holds of a row: elements d .. d + kHalf - 1 of either half.
template <class Split>
struct Share {
  using C = typename Split::Value;
  C x[Split::kWide];

  __device__ void fill(C value) {
#pragma unroll
    for (int e = 0; e < Split::kWide; ++e) x[e] = value;
  }
  __device__ void scale(C factor) {
#pragma unroll
    for (int e = 0; e < Split::kWide; ++e) x[e] *= factor;
  }
  __device__ void add(C factor, const Share& other) {
#pragma unroll
    for (int e = 0; e < Split::kWide; ++e) x[e] += factor * other.x[e];
  }
};

// The patch-head of a thread and its lane's place in the rows.
template <class Split>
struct Place {
  using S = typename Split::Stored;
  using C = typename Split::Value;
  const PatchAttentionParams& p;
  int lanes, d, half, head;
  int64_t patch;
  bool wide, live;  // whether the lane holds anything; whether it writes

  __device__ explicit Place(const PatchAttentionParams& params) : p(params), half(params.dim / 2) {
    const int bits = lane_bits<Split>(p.dim);
    lanes = 1 << bits;
    const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x, last = p.patches * p.heads - 1;
    const int64_t n = thread >> bits;
    d = int(thread & (lanes - 1)) * Split::kHalf;
    wide = d < half;
    live = wide && n <= last;
    patch = min(n, last) / p.heads;
    head = int(min(n, last) % p.heads);
  }

  __device__ Share<Split> read(const PatchHeads& x, int frame) const {
    using Half = Pack<S, Split::kHalf>;
    Share<Split> out;
    out.fill(0);
    if (wide) {
      const S* row =
          static_cast<const S*>(x.data) + patch * x.patch_stride + frame * x.frame_stride + head * x.head_stride + d;
      const Half first = *reinterpret_cast<const Half*>(row), second = *reinterpret_cast<const Half*>(row + half);
      first.widen_to(out.x);
      second.widen_to(out.x + Split::kHalf);
    }
    return out;
  }

  __device__ void write(const Share<Split>& x, int frame, void* to) const {
    using Half = Pack<S, Split::kHalf>;
    if (!live) return;
    Half first, second;
    first.narrow_from(x.x);
    second.narrow_from(x.x + Split::kHalf);
    S* row = static_cast<S*>(to) + ((patch * p.frames + frame) * p.heads + head) * p.dim + d;
    *reinterpret_cast<Half*>(row) = first;
    *reinterpret_cast<Half*>(row + half) = second;
  }

  // Rotate-half by the angles of a frame; direction -1 rotates back.
  __device__ void rotate(int frame, C direction, Share<Split>& x) const {
    if (!p.cos || !wide) return;
#pragma unroll
    for (int e = 0; e < Split::kHalf; ++e) {
      const int at = frame * half + d + e;
      const C c = __ldg(p.cos + at), s = direction * C(__ldg(p.sin + at)), a = x.x[e], b = x.x[Split::kHalf + e];
      x.x[e] = a * c - b * s;
      x.x[Split::kHalf + e] = b * c + a * s;
    }
  }

  // Over the whole row: all its lanes get the same.
  __device__ C dot(const Share<Split>& a, const Share<Split>& b) const {
    C sum = 0;
#pragma unroll
    for (int e = 0; e < Split::kWide; ++e) sum += a.x[e] * b.x[e];
    for (int bit = 1; bit < lanes; bit *= 2) sum += __shfl_xor_sync(~0u, sum, bit);
    return sum;
  }

  // The same for all threads.
  __device__ bool sees(int query, int key) const { return key < p.frames && (key <= query || !p.causal); }
  __device__ int next(int frame) const { return min(frame + 1, p.frames - 1); }

  // Rotated keys, and values, of all frames.
  __device__ void read_all(Share<Split> (&k)[Split::kFrames], Share<Split> (&v)[Split::kFrames]) const {
#pragma unroll
    for (int j = 0; j < Split::kFrames; ++j) {
      if (j < p.frames) {
        k[j] = read(p.k, j);
        v[j] = read(p.v, j);
      }
    }
#pragma unroll
    for (int j = 0; j < Split::kFrames; ++j) {
      if (j < p.frames) rotate(j, 1, k[j]);
    }
  }

  // weights[j] of the keys that a query sees, from its rotated and scaled row.
  __device__ void softmax(int query, const Share<Split>& q, const Share<Split> (&k)[Split::kFrames],
                          C (&weights)[Split::kFrames]) const {
    C top = -C(INFINITY), sum = 0;
#pragma unroll
    for (int j = 0; j < Split::kFrames; ++j) {
      if (!sees(query, j)) continue;
      weights[j] = dot(q, k[j]);
      top = max(top, weights[j]);
    }
#pragma unroll
    for (int j = 0; j < Split::kFrames; ++j) {
      if (!sees(query, j)) continue;
      weights[j] = std::exp(weights[j] - top);
      sum += weights[j];
    }
    const C inverse = C(1) / sum;
#pragma unroll
    for (int j = 0; j < Split::kFrames; ++j) {
      if (sees(query, j)) weights[j] *= inverse;
    }
  }
};

template <class Split>
__global__ void __launch_bounds__(kThreads) forward_kernel(PatchAttentionParams p) {
  using C = typename Split::Value;
  const Place<Split> place(p);
  Share<Split> k[Split::kFrames], v[Split::kFrames], next = place.read(p.q, 0);
  place.read_all(k, v);
#pragma unroll 1
  for (int i = 0; i < p.frames; ++i) {
    Share<Split> q = next, out;
    next = place.read(p.q, place.next(i));
    place.rotate(i, 1, q);
    q.scale(C(p.scale));
    C weights[Split::kFrames];
    place.softmax(i, q, k, weights);
    out.fill(0);
#pragma unroll
    for (int j = 0; j < Split::kFrames; ++j) {
      if (place.sees(i, j)) out.add(weights[j], v[j]);
    }
    place.write(out, i, p.out);
  }
}

template <class Split>
__global__ void __launch_bounds__(kThreads) backward_kernel(PatchAttentionBackwardParams b) {
  using C = typename Split::Value;
  const PatchAttentionParams& p = b.forward;
  const Place<Split> place(p);
  Share<Split> k[Split::kFrames], v[Split::kFrames], grad_k[Split::kFrames], grad_v[Split::kFrames];
  Share<Split> next_q = place.read(p.q, 0), next_grad = place.read(b.grad_out, 0);
  place.read_all(k, v);
#pragma unroll
  for (int j = 0; j < Split::kFrames; ++j) {
    grad_k[j].fill(0);
    grad_v[j].fill(0);
  }
#pragma unroll 1
  for (int i = 0; i < p.frames; ++i) {
    Share<Split> q = next_q, grad = next_grad, grad_q;
    next_q = place.read(p.q, place.next(i));
    next_grad = place.read(b.grad_out, place.next(i));
    place.rotate(i, 1, q);
    q.scale(C(p.scale));
    C weights[Split::kFrames], grad_weights[Split::kFrames], delta = 0;
    place.softmax(i, q, k, weights);
#pragma unroll
    for (int j = 0; j < Split::kFrames; ++j) {
      if (!place.sees(i, j)) continue;
      grad_weights[j] = place.dot(grad, v[j]);
      delta += weights[j] * grad_weights[j];
    }
    grad_q.fill(0);
#pragma unroll
    for (int j = 0; j < Split::kFrames; ++j) {
      if (!place.sees(i, j)) continue;
      const C grad_score = weights[j] * (grad_weights[j] - delta);
      grad_q.add(grad_score, k[j]);
      grad_k[j].add(grad_score, q);
      grad_v[j].add(weights[j], grad);
    }
    grad_q.scale(C(p.scale));
    place.rotate(i, -1, grad_q);
    place.write(grad_q, i, b.grad_q);
  }
#pragma unroll
  for (int j = 0; j < Split::kFrames; ++j) {
    if (j >= p.frames) continue;
    place.rotate(j, -1, grad_k[j]);
    place.write(grad_k[j], j, b.grad_k);
    place.write(grad_v[j], j, b.grad_v);
  }
}

// --- launches --------------------------------------------------------------------------------------------------------

template <class Split>
unsigned blocks_of(const PatchAttentionParams& p) {
  const int64_t threads = (p.patches * p.heads) << lane_bits<Split>(p.dim);
  return unsigned((threads + kThreads - 1) / kThreads);
}

template <class Split>
LaunchError launch(const PatchAttentionParams& p, cudaStream_t stream) {
  MIMO_LAUNCH(blocks_of<Split>(p), kThreads, 0, stream, forward_kernel<Split>)(p);
  return MIMO_LAUNCH_ERROR();
}

template <class Split>
LaunchError launch(const PatchAttentionBackwardParams& b, cudaStream_t stream) {
  MIMO_LAUNCH(blocks_of<Split>(b.forward), kThreads, 0, stream, backward_kernel<Split>)(b);
  return MIMO_LAUNCH_ERROR();
}

// Rows of dim elements are whole halves of kWide: multiples of 16 take 16, all others 8 or 4.
template <class S>
LaunchError for_frames(const PatchAttentionParams& p, cudaStream_t stream) {
  if constexpr (sizeof(S) == 2) {
    if (p.frames == kTensorFrames && p.dim == 16) return launch_tensor<Tiles<S, 16>>(p, stream);
    if (p.frames == kTensorFrames && p.dim == 32) return launch_tensor<Tiles<S, 32>>(p, stream);
    if (p.frames == kTensorFrames && p.dim == 64) return launch_tensor<Tiles<S, 64>>(p, stream);
  }
  if (p.frames <= 4 && p.dim % 16 == 0) return launch<Split<S, float, 4, 16>>(p, stream);
  if (p.frames <= 8) return launch<Split<S, float, 8, 8>>(p, stream);
  return launch<Split<S, float, kMaxPatchFrames, 4>>(p, stream);
}

template <class S>
LaunchError for_frames(const PatchAttentionBackwardParams& b, cudaStream_t stream) {
  const int frames = b.forward.frames;
  if (frames <= 4) return launch<Split<S, float, 4, 8>>(b, stream);
  if (frames <= 8) return launch<Split<S, float, 8, 4>>(b, stream);
  return launch<Split<S, float, kMaxPatchFrames, 4>>(b, stream);
}

template <class Params>
LaunchError for_dtype(const Params& params, DType dtype, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  if (dtype == DType::f64) return launch<Split<double, double, kMaxPatchFrames, 4>>(params, s);
  return MIMO_FLOAT_OR_HALF(dtype, for_frames<T>(params, s));
}

}  // namespace

LaunchError patch_attention(const PatchAttentionParams& p, void* stream) { return for_dtype(p, p.dtype, stream); }

LaunchError patch_attention_backward(const PatchAttentionBackwardParams& b, void* stream) {
  return for_dtype(b, b.forward.dtype, stream);
}

}  // namespace mimo::cuda
