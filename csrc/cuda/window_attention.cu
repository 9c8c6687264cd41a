// Sliding-window attention on CUDA, blockwise ("flash"): nothing but the results is written to memory.
//
// A block of kThreads threads owns one head and kRows rows of one sequence; kLanes neighbouring threads share a row,
// each holding kWide of its elements in registers (16 for the vocoder's heads, so that a row is one thread and scores
// need no shuffles; 8 lanes x 16 for float64, which is there for exactness). The block walks over the columns its rows
// see (keys for queries; queries for keys in the second half of the backward pass) in tiles of kTile rows, widened and
// rotated once into shared memory, from where all threads of a warp read the same row at the same time (a broadcast). A
// warp skips the chunks of a tile that none of its rows see.
//
// Which sequence a block works on is read on the device: block b belongs to the last sequence s with
// cu_seqlens[s] / kRows + s <= b, which leaves each sequence enough blocks and at most one idle; nothing synchronises
// and the grid depends on shapes only. Offsets that do not rise from 0 to T, or rotary tables shorter than a sequence,
// trap.
//
// This file launches. window_attention_rows.cuh has what the kernels share, window_attention_forward.cuh and
// window_attention_backward.cuh the kernels; window_attention_tensor.cuh and window_attention_tensor_backward.cuh those
// of half precision.
#include "cuda/window_attention_backward.cuh"
#include "cuda/window_attention_forward.cuh"
#include "cuda/window_attention_tensor.cuh"
#include "cuda/window_attention_tensor_backward.cuh"

namespace mimo::cuda {
namespace {

constexpr unsigned kManyBlocks = 2048;  // of 64 rows: several times what a GPU runs at once

template <class Split>
dim3 grid_of(const WindowAttentionParams& p) {
  const int sequences = p.cu_seqlens ? p.sequences : 1;
  return dim3(unsigned(p.rows / Split::kRows + sequences), unsigned(p.heads));
}

template <class Split>
LaunchError launch(const WindowAttentionParams& p, cudaStream_t stream) {
  MIMO_LAUNCH(grid_of<Split>(p), kThreads, Split::kSharedBytes, stream, forward_kernel<Split>)(p);
  return MIMO_LAUNCH_ERROR();
}

// A block's heads: all of them where there are blocks enough, since it works out what its rows see once.
template <class T>
LaunchError launch_tensor(const WindowAttentionParams& p, cudaStream_t stream) {
  dim3 grid = grid_of<T>(p);
  const int heads = grid.x < kManyBlocks ? T::kHeads : p.heads;
  grid.y = unsigned((p.heads + heads - 1) / heads);
  MIMO_ALLOW_SHARED(forward_tensor_kernel<T>);
  MIMO_LAUNCH(grid, kThreads, T::kSharedBytes, stream, forward_tensor_kernel<T>)(p, heads);
  return MIMO_LAUNCH_ERROR();
}

// Windows of which 16 rows see no more than kColumns, and all others.
template <class S, int kWidth, int kColumns>
LaunchError for_window(const WindowAttentionParams& p, cudaStream_t stream) {
  if (int64_t(p.left) + p.right + 16 <= kColumns)
    return launch_tensor<TensorSplit<S, kWidth, kColumns, true>>(p, stream);
  return launch_tensor<TensorSplit<S, kWidth, 64, false>>(p, stream);
}

template <class Split>
LaunchError launch(const WindowAttentionBackwardParams& b, cudaStream_t stream) {
  const dim3 grid = grid_of<Split>(b.forward);
  MIMO_LAUNCH(grid, kThreads, Split::kSharedBytes, stream, backward_queries_kernel<Split>)(b);
  if (const LaunchError error = MIMO_LAUNCH_ERROR()) return error;
  MIMO_LAUNCH(grid, kThreads, Split::kSharedBytes, stream, backward_keys_kernel<Split>)(b);
  return MIMO_LAUNCH_ERROR();
}

template <class S>
LaunchError launch_half(const WindowAttentionParams& p, cudaStream_t stream) {
  if (p.dim <= 16) return for_window<S, 16, 72>(p, stream);
  if (p.dim <= 32) return for_window<S, 32, 80>(p, stream);
  if (p.dim <= 64) return for_window<S, 64, 80>(p, stream);
  return launch_tensor<TensorSplit<S, 128, 64, false>>(p, stream);
}

template <class T>
LaunchError launch_tensor(const WindowAttentionBackwardParams& b, cudaStream_t stream) {
  dim3 grid = grid_of<T>(b.forward);
  grid.y = unsigned((b.forward.heads + T::kHeads - 1) / T::kHeads);
  MIMO_ALLOW_SHARED(backward_queries_tensor_kernel<T>);
  MIMO_LAUNCH(grid, kThreads, T::kSharedBytes, stream, backward_queries_tensor_kernel<T>)(b);
  if (const LaunchError error = MIMO_LAUNCH_ERROR()) return error;
  MIMO_ALLOW_SHARED(backward_keys_tensor_kernel<T>);
  MIMO_LAUNCH(grid, kThreads, T::kSharedBytes, stream, backward_keys_tensor_kernel<T>)(b);
  return MIMO_LAUNCH_ERROR();
}

template <class S>
LaunchError launch_half(const WindowAttentionBackwardParams& b, cudaStream_t stream) {
  if (b.forward.dim <= 16) return launch_tensor<BackwardTiles<S, 16>>(b, stream);
  if (b.forward.dim <= 32) return launch_tensor<BackwardTiles<S, 32>>(b, stream);
  if (b.forward.dim <= 64) return launch_tensor<BackwardTiles<S, 64>>(b, stream);
  return launch_tensor<BackwardTiles<S, 128>>(b, stream);
}

template <class S, class Params>
LaunchError for_dim(const Params& params, int dim, cudaStream_t stream) {
  if constexpr (sizeof(S) == 2) {
    return launch_half<S>(params, stream);
  } else {
    if (dim <= 16) return launch<Split<S, float, 16, 1>>(params, stream);
    if (dim <= 32) return launch<Split<S, float, 32, 1>>(params, stream);
    if (dim <= 64) return launch<Split<S, float, 32, 2>>(params, stream);
    return launch<Split<S, float, 32, 4>>(params, stream);
  }
}

template <class Params>
LaunchError for_dtype(const Params& params, const WindowAttentionParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  if (p.dtype == DType::f64) return launch<Split<double, double, 16, 8>>(params, s);
  return MIMO_FLOAT_OR_HALF(p.dtype, for_dim<T>(params, p.dim, s));
}

}  // namespace

LaunchError window_attention(const WindowAttentionParams& p, void* stream) { return for_dtype(p, p, stream); }

LaunchError window_attention_backward(const WindowAttentionBackwardParams& b, void* stream) {
  return for_dtype(b, b.forward, stream);
}

}  // namespace mimo::cuda
