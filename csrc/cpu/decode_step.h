// A stack of Qwen2 blocks at one new position per row of a batch, against a cache of the keys and values so far
// (grouped-query heads: kv_heads divides heads).
//
// A block is four phases of a Team (cpu/team.h), as few as its data dependences allow:
//   1. heads      task: some key-value heads: their rows of the q, k and v products, biases, rotation, cache, attention
//   2. out        task: some rows of the output product, added to x;           at the end: RMS norm of x
//   3. gate, up   task: some rows of both products, SwiGLU
//   4. down       task: some rows of the product, added to x;                  at the end: the next block's RMS norm
// backbone_step has an attention of its own in place of the first and shares the rest.
//
// Products: cpu/linear.h, or cpu/quantized.h for quantised weights. Activations and cache are float32 for every dtype
// of the weights; the input of a product with quantised ones is quantised where a phase ends, once for all tasks. Rows
// of activations have a stride of linear_padded(width) and end in zeros; nothing is allocated after construction. No
// result depends on the batch or the threads: every number is computed by one thread in one order.
#pragma once
#include <cmath>
#include <limits>

#include "cpu/linear.h"
#include "cpu/quantized.h"
#include "cpu/rows.h"
#include "cpu/team.h"
#include "cpu/vector_math.h"
#include "mimo/decode_step.h"

namespace mimo::cpu::MIMO_ISA {

// --- rows ------------------------------------------------------------------------------------------------------------

// Calls body(first, count) for the vectors of a row, count = kLanes<float> but for the last.
template <class Body>
inline __attribute__((always_inline)) void for_each_vector(int width, Body&& body) {
  constexpr int L = kLanes<float>;
  for (int d = 0; d < width; d += L) body(d, width - d < L ? width - d : L);
}

template <class T>
inline Vec<float> load_up_to(const T* p, int count) {
  return count == kLanes<float> ? load_wide(p) : load_part(p, count);
}

inline void store_up_to(float* p, Vec<float> v, int count) { std::memcpy(p, &v, size_t(count) * sizeof(float)); }

template <class T>
inline void add_row(const T* from, int width, float* to) {
  for_each_vector(width, [&](int d, int count) {
    store_up_to(to + d, load_up_to(to + d, count) + load_up_to(from + d, count), count);
  });
}

// y = x / sqrt(mean x^2 + eps) * weight.
template <class T>
inline void rms_norm(const float* x, const T* weight, int width, float eps, float* y) {
  Vec<float> squares{};
  for_each_vector(width, [&](int d, int count) {
    const Vec<float> v = load_up_to(x + d, count);
    squares += v * v;
  });
  const float scale = 1.0f / std::sqrt(sum_lanes<float>(squares) / float(width) + eps);
  for_each_vector(width, [&](int d, int count) {
    store_up_to(y + d, load_up_to(x + d, count) * scale * load_up_to(weight + d, count), count);
  });
}

// Rotate-half by one position's angles, times `scale`.
inline void rotate_head(const float* __restrict x, const float* cos, const float* sin, float scale, int width,
                        float* __restrict out) {
  const int half = width / 2;
  for (int d = 0; d < half; ++d) {
    const float c = cos[d] * scale, s = sin[d] * scale;
    out[d] = x[d] * c - x[d + half] * s;
    out[d + half] = x[d + half] * c + x[d] * s;
  }
}

// Rows of activations: a stride of linear_padded(width), zeros at the end, and at first everywhere.
class Rows {
 public:
  Rows(int64_t count, int64_t width) : stride_(linear_padded(width)), data_(count * stride_) {
    std::memset(data_.get(), 0, size_t(count * stride_) * sizeof(float));
  }
  float* operator[](int64_t i) const { return data_.get() + i * stride_; }
  int64_t stride() const { return stride_; }

 private:
  const int64_t stride_;
  const Scratch<float> data_;
};

// Rows that meet the weights of a stack: with what products of quantised weights take of them.
class ProductInput : public Rows {
 public:
  ProductInput(int64_t count, int64_t width, WeightFormat format)
      : Rows(count, width),
        count_(count),
        format_(format),
        quantized(format == WeightFormat::dense ? 0 : count, width, weight_zero(format)) {}

  // Once the rows are there.
  void ready() const {
    for (int64_t b = 0; b < count_ && format_ != WeightFormat::dense; ++b) quantized.set(b, (*this)[b]);
  }

 private:
  const int64_t count_;
  const WeightFormat format_;

 public:
  const QuantizedRows quantized;
};

// Bytes of a weight row.
template <class T>
int64_t weight_row_bytes(const BlockShape& s, int64_t width) {
  return s.format == WeightFormat::dense ? width * int64_t(sizeof(T)) : quantized_row_bytes(s.format, width);
}

// How many threads pay for themselves: each has so many bytes of weights per step, times rows of the batch. `cached`:
// the numbers that a layer's attention reads per row where they are as many.
template <class T>
int decode_threads(const BlockShape& s, int64_t layers, int64_t batch, int64_t cached) {
  constexpr int64_t kBytesPerThread = 512 << 10;
  const int64_t attention = int64_t(s.heads + s.kv_heads) * 2 * s.head_dim;
  const int64_t bytes = weight_row_bytes<T>(s, s.dim) * (attention + int64_t(s.ffn) * 3) + cached * int64_t(sizeof(T));
  const int64_t wanted = layers * bytes * batch / kBytesPerThread, most = thread_count();
  return int(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

// --- blocks ----------------------------------------------------------------------------------------------------------

template <class T>
class DecodeBlocks {
 public:
  const Rows x;                 // the residual stream
  const ProductInput y;         // its norm
  const Rows qkv;               // products of y, head by head
  const ProductInput attended;  // what attention makes of them

  // `positions`: how many the cache holds.
  DecodeBlocks(const BlockShape& shape, int layers, int batch, int positions, int threads)
      : x(batch, shape.dim),
        y(batch, shape.dim, shape.format),
        qkv(batch, (shape.heads + 2 * shape.kv_heads) * shape.head_dim),
        attended(batch, shape.heads * shape.head_dim, shape.format),
        s_(shape),
        batch_(batch),
        capacity_(positions),
        queries_(shape.heads * shape.head_dim),
        keys_(shape.kv_heads * shape.head_dim),
        delta_(batch, shape.dim),
        gate_(batch, shape.ffn, shape.format),
        up_(batch, shape.ffn),
        scores_(threads, positions),
        cache_(int64_t(layers) * 2 * batch * shape.kv_heads * positions, shape.head_dim) {}

  void normalize(const void* weight) const {
    for (int b = 0; b < batch_; ++b) rms_norm(x[b], static_cast<const T*>(weight), s_.dim, s_.eps, y[b]);
    y.ready();
  }

  // y[b, begin .. end - 1] of the product with a weight [rows, width] of the stack.
  void product(const void* weight, int rows, int width, const ProductInput& from, float* to, int64_t to_stride,
               int begin, int end) const {
    if (s_.format == WeightFormat::dense) {
      linear(static_cast<const T*>(weight), width, from[0], from.stride(), batch_, to, to_stride, begin, end);
      return;
    }
    const QuantizedWeight w{static_cast<const uint8_t*>(weight), s_.format, rows, width};
    quantized_product(w, from.quantized, batch_, begin, end,
                      [&](int64_t b, int64_t row, int count, const float* values) {
                        std::memcpy(to + b * to_stride + row, values, size_t(count) * sizeof(float));
                      });
  }

  int64_t row_bytes(int width) const { return weight_row_bytes<T>(s_, width); }

  // Runs block number `layer` at `position`, from y to y: the norm of the new x by `next_norm`.
  void step(Team::Member& member, const BlockWeights& w, int layer, int position, const float* cos, const float* sin,
            const void* next_norm) const {
    const int rows_of_head = (s_.heads / s_.kv_heads + 2) * s_.head_dim;
    member.run_rows(
        s_.kv_heads, 1, rows_of_head * row_bytes(s_.dim),
        [&](int begin, int end) { heads(w, layer, position, cos, sin, begin, end, scores_[member.index()]); },
        [&] { attended.ready(); });
    feed_forward(member, w, next_norm);
  }

  // What follows a block's attention: from attended to y.
  void feed_forward(Team::Member& member, const BlockWeights& w, const void* next_norm) const {
    member.run_rows(
        s_.dim, kLinearPad, row_bytes(queries_),
        [&](int begin, int end) { add_product(w.out, queries_, attended, begin, end); }, [&] { normalize(w.norm_2); });
    member.run_rows(
        s_.ffn, kLinearPad, 2 * row_bytes(s_.dim), [&](int begin, int end) { gate_and_up(w, begin, end); },
        [&] { gate_.ready(); });
    member.run_rows(
        s_.dim, kLinearPad, row_bytes(s_.ffn),
        [&](int begin, int end) { add_product(w.down, s_.ffn, gate_, begin, end); }, [&] { normalize(next_norm); });
  }

 private:
  void add_product(const void* weight, int width, const ProductInput& from, int begin, int end) const {
    product(weight, s_.dim, width, from, delta_[0], delta_.stride(), begin, end);
    for (int b = 0; b < batch_; ++b) add_row(delta_[b] + begin, end - begin, x[b] + begin);
  }

  void gate_and_up(const BlockWeights& w, int begin, int end) const {
    product(w.gate, s_.ffn, s_.dim, y, gate_[0], gate_.stride(), begin, end);
    product(w.up, s_.ffn, s_.dim, y, up_[0], up_.stride(), begin, end);
    for (int b = 0; b < batch_; ++b) {
      float *gate = gate_[b], *up = up_[b];
      for (int n = begin; n < end; n += kLanes<float>) {  // beyond the last row: zeros
        const Vec<float> g = load(gate + n);
        store(gate + n, g / (1.0f + exp(-g)) * load(up + n));
      }
    }
  }

  // Key-value heads [begin, end) and the query heads that share them: products, then attention row by row.
  void heads(const BlockWeights& w, int layer, int position, const float* cos, const float* sin, int begin, int end,
             float* scores) const {
    const int width = s_.head_dim, shared = s_.heads / s_.kv_heads;
    const auto rows = [&](const void* weight, int at, int per_head) {
      product(weight, s_.kv_heads * per_head, s_.dim, y, qkv[0] + at, qkv.stride(), begin * per_head, end * per_head);
    };
    rows(w.q, 0, shared * width);
    rows(w.k, queries_, width);
    rows(w.v, queries_ + keys_, width);
    const auto bias = [&](const void* weight, int head, float* to) {
      add_row(static_cast<const T*>(weight) + head * width, width, to);
    };
    const int64_t layer_rows = int64_t(batch_) * s_.kv_heads * capacity_;
    for (int b = 0; b < batch_; ++b) {
      for (int g = begin; g < end; ++g) {
        const int64_t first = 2 * layer * layer_rows + (int64_t(b) * s_.kv_heads + g) * capacity_;
        const float *keys = cache_[first], *values = cache_[first + layer_rows];
        float *k = qkv[b] + queries_ + g * width, *v = k + keys_;
        bias(w.k_bias, g, k);
        bias(w.v_bias, g, v);
        rotate_head(k, cos, sin, 1.0f, width, cache_[first + position]);
        std::memcpy(cache_[first + layer_rows + position], v, size_t(width) * sizeof(float));
        for (int h = g * shared; h < (g + 1) * shared; ++h) {
          float* q = qkv[b] + h * width;
          bias(w.q_bias, h, q);
          float turned[kMaxDecodeHeadDim];
          rotate_head(q, cos, sin, 1.0f / std::sqrt(float(width)), width, turned);
          for (int64_t d = width; d < cache_.stride(); ++d) turned[d] = 0;
          attend(turned, keys, values, position + 1, scores, attended[b] + h * width);
        }
      }
    }
  }

  // Soft-max attention of one query over `count` cached positions.
  void attend(const float* q, const float* keys, const float* values, int count, float* scores, float* out) const {
    constexpr int L = kLanes<float>;
    const int64_t stride = cache_.stride();
    for (int p = 0; p < count; ++p) {
      Vec<float> dot{};
      for (int64_t d = 0; d < stride; d += L) dot += load(q + d) * load(keys + p * stride + d);
      scores[p] = sum_lanes<float>(dot);
    }
    const int whole = (count + L - 1) / L * L;
    for (int p = count; p < whole; ++p) scores[p] = -std::numeric_limits<float>::infinity();
    Vec<float> top = load(scores);
    for (int p = L; p < whole; p += L) top = larger<float>(load(scores + p), top);
    const float maximum = max_lane<float>(top);
    Vec<float> total{};
    for (int p = 0; p < whole; p += L) {
      const Vec<float> e = exp(load(scores + p) - maximum);
      total += e;
      store(scores + p, e);
    }
    const float scale = 1.0f / sum_lanes<float>(total);
    for_each_vector(s_.head_dim, [&](int d, int lanes) {
      Vec<float> sum{};
      for (int p = 0; p < count; ++p) sum += load(values + p * stride + d) * scores[p];
      store_up_to(out + d, sum * scale, lanes);
    });
  }

  const BlockShape s_;
  const int batch_, capacity_;
  const int queries_, keys_;  // rows of the q product, and of k and v
  const Rows delta_;
  const ProductInput gate_;
  const Rows up_, scores_;
  const Rows cache_;  // [layers, keys and values, batch, kv_heads, capacity] rows
};

}  // namespace mimo::cpu::MIMO_ISA
