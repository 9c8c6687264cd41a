// The device buffers that the kernels of a decode step pass on to each other (decode_step.cuh).
#pragma once
#include "cuda/warp.cuh"
#include "mimo/decode_step.h"

namespace mimo::cuda {

inline constexpr int kDecodeWarps = 8;  // of a block

// The device buffers of a stack; all but the cache are overwritten in every block.
struct DecodeState {
  float *x, *q, *attended, *act;  // [batch, dim], [batch, heads W] twice, [batch, ffn]
  void* cache;                    // [layers, 2, batch, kv_heads, capacity, W]
  const float *cos, *sin;         // [> position, W / 2]
  const int64_t* lengths;         // [batch]: positions so far of every row, at most `position`; null: `position` of all
  const int64_t* padding;         // [batch]: positions at a row's left that are none of its own; null: no row has any
  BlockShape shape;
  int batch, capacity, position;

  __host__ __device__ int64_t layer_size() const { return int64_t(batch) * shape.kv_heads * capacity * shape.head_dim; }

  // The position of row b that is new, and the first that is its own.
  __device__ __forceinline__ int last(int b) const {
    if (!lengths) return position;
    const int64_t count = lengths[b];
    MIMO_DEVICE_CHECK(count >= 0 && count <= position);
    return int(count);
  }
  __device__ __forceinline__ int first(int b) const {
    if (!padding) return 0;
    const int64_t count = padding[b];
    MIMO_DEVICE_CHECK(count >= 0 && count <= last(b));
    return int(count);
  }

  // Keys (or values) of row b from position `from` on; C: the cache's dtype.
  template <class C>
  __device__ __forceinline__ C* cached(int layer, bool value, int b, int kv_head, int from) const {
    return static_cast<C*>(cache) + (2 * int64_t(layer) + value) * layer_size() +
           ((int64_t(b) * shape.kv_heads + kv_head) * capacity + from) * shape.head_dim;
  }
};

// Cuts the workspace into buffers; with no workspace, it only counts.
struct Buffers {
  char* base;
  int64_t used = 0;

  template <class T>
  T* take(int64_t count) {
    T* buffer = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (count * int64_t(sizeof(T)) + 255) / 256 * 256;
    return buffer;
  }
};

}  // namespace mimo::cuda
