// The device buffers that the kernels of a decode step pass on to each other (decode_step.cuh).
#pragma once
#include "cuda/bad_data.cuh"
#include "cuda/warp.cuh"
#include "mimo/decode_step.h"

namespace mimo::cuda {

inline constexpr int kDecodeWarps = 8;  // of a block

// The device buffers of a stack; all but the cache are overwritten in every block.
struct DecodeState {
  float *x, *q, *attended, *act;  // [batch, dim], [batch, heads W] twice, [batch, ffn]
  KeyValuePages cache;
  const float *cos, *sin;  // [> position, W / 2]
  const int64_t* lengths;  // [batch]: positions so far of every row, at most `position`; null: `position` of all
  const int64_t* ends;     // [batch]: the last position that a row sees, at most `position`; null: its new one
  const int64_t* padding;  // [batch]: positions at a row's left that are none of its own; null: no row has any
  BlockShape shape;
  int batch, position;
  BadDataReport report{BadData::backbone_step};  // of lengths, padding, pages; with bad counts a row sees all positions

  // Elements of a layer's keys, or of its values.
  __host__ __device__ int64_t layer_size() const {
    return int64_t(cache.count) * shape.kv_heads * cache.size * shape.head_dim;
  }

  // The position of row b that is new, and the last and the first that it sees.
  __device__ __forceinline__ int fresh(int b) const {
    if (!lengths) return position;
    const int64_t count = lengths[b];
    if (count >= 0 && count <= position) return int(count);
    report(b, kBadLengths);
    return position;
  }
  __device__ __forceinline__ int last(int b) const {
    if (!ends) return fresh(b);
    const int64_t count = ends[b];
    if (count >= fresh(b) && count <= position) return int(count);
    report(b, kBadEnds);
    return position;
  }
  __device__ __forceinline__ int first(int b) const {
    if (!padding) return 0;
    const int64_t count = padding[b];
    if (count >= 0 && count <= fresh(b)) return int(count);
    report(b, kBadPadding);
    return 0;
  }

  // Whether row b's lengths, ends and padding are what they may be.
  __device__ __forceinline__ bool is_good(int b) const {
    const int64_t count = lengths ? lengths[b] : position, unseen = padding ? padding[b] : 0;
    const int64_t end = ends ? ends[b] : count;
    return count >= 0 && end >= count && end <= position && unseen >= 0 && unseen <= count;
  }

  // The keys, or values, of a layer; C: the cache's dtype. Where in them those of row b's position lie; -1 if in no
  // page.
  template <class C>
  __device__ __forceinline__ C* cached(int layer, bool value) const {
    return static_cast<C*>(cache.data) + (2 * int64_t(layer) + value) * layer_size();
  }
  __device__ __forceinline__ int64_t place(int b, int kv_head, int position) const {
    int page = b;
    if (cache.table) {
      page = cache.table[int64_t(b) * cache.per_row + position / cache.size];
      position %= cache.size;
      if (page < 0 || page >= cache.count) {
        if (is_good(b)) report(b, kBadPages);
        return -1;
      }
    }
    return ((int64_t(page) * shape.kv_heads + kv_head) * cache.size + position) * shape.head_dim;
  }
  // Whether what a row sees beside its new position is in the cache before the call: not where rows may be positions of
  // one sequence.
  __host__ __device__ bool settled() const { return !ends && (!cache.table || batch == 1); }
  // Where row b's new position goes; -1: nowhere, as a page that bad counts lead to may be another row's.
  __device__ __forceinline__ int64_t new_place(int b, int kv_head) const {
    return cache.table && !is_good(b) ? -1 : place(b, kv_head, fresh(b));
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
