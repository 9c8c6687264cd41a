// A stack of Qwen2 blocks at one new position per row of a batch, against a cache of the keys and values so far
// (grouped-query heads: kv_heads divides heads).
//
// A block is four phases of a Team (cpu/team.h), as few as its data dependences allow:
//   1. heads      task: some key-value heads: their rows of the q, k and v products, biases, rotation, cache, attention
//   2. out        task: some rows of the output product, added to x;           at the end: RMS norm of x
//   3. gate, up   task: some rows of both products, SwiGLU
//   4. down       task: some rows of the product, added to x;                  at the end: the next block's RMS norm
// Products: cpu/linear.h. Activations and cache are float32 for every dtype of the weights. Rows of activations have a
// stride of linear_padded(width) and end in zeros; nothing is allocated after construction. No result depends on the
// batch or the threads: every number is computed by one thread in one order.
#pragma once
#include <cmath>
#include <limits>

#include "cpu/linear.h"
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

// --- blocks ----------------------------------------------------------------------------------------------------------

template <class T>
class DecodeBlocks {
 public:
  // `positions`: how many the cache holds.
  DecodeBlocks(const BlockShape& shape, int layers, int batch, int positions, int threads)
      : s_(shape),
        batch_(batch),
        capacity_(positions),
        head_(int(linear_padded(shape.head_dim))),
        queries_(shape.heads * shape.head_dim),
        keys_(shape.kv_heads * shape.head_dim),
        x_stride_(linear_padded(shape.dim)),
        qkv_stride_(queries_ + 2 * keys_),
        attended_stride_(linear_padded(queries_)),
        ffn_stride_(linear_padded(shape.ffn)),
        scores_stride_(linear_padded(positions)),
        x_(batch * x_stride_),
        y_(batch * x_stride_),
        delta_(batch * x_stride_),
        qkv_(batch * qkv_stride_),
        attended_(batch * attended_stride_),
        gate_(batch * ffn_stride_),
        up_(batch * ffn_stride_),
        scores_(threads * scores_stride_),
        cache_(2 * layers * layer_size()) {
    clear(x_, batch * x_stride_);
    clear(y_, batch * x_stride_);
    clear(attended_, batch * attended_stride_);
    clear(gate_, batch * ffn_stride_);
    clear(up_, batch * ffn_stride_);
    clear(cache_, 2 * layers * layer_size());
  }

  float* x(int b) const { return &x_[b * x_stride_]; }  // the residual stream
  float* y(int b) const { return &y_[b * x_stride_]; }  // its norm

  void normalize(const void* weight) const {
    for (int b = 0; b < batch_; ++b) rms_norm(x(b), static_cast<const T*>(weight), s_.dim, s_.eps, y(b));
  }

  // How many tasks for `rows` rows of weights, `unit` of which stay together.
  static int tasks_of(const Team& team, int rows, int unit, int64_t row_bytes) {
    constexpr int64_t kTaskBytes = 64 << 10;
    const int64_t wanted = rows * row_bytes / (kTaskBytes * team.threads()) * team.threads();
    const int64_t few = wanted > team.threads() ? wanted : team.threads();
    const int64_t most = few < team.max_tasks() ? few : team.max_tasks();
    const int units = (rows + unit - 1) / unit;
    return int(most < units ? most : units);
  }

  // body(begin, end) for all rows in pieces of whole units, then finish().
  template <class Body, class Finish>
  static void split(Team::Member& member, int rows, int unit, int64_t row_bytes, Body&& body, Finish&& finish) {
    const int tasks = member.team().threads() == 1 ? 1 : tasks_of(member.team(), rows, unit, row_bytes);
    const int units = (rows + unit - 1) / unit;
    member.run(
        tasks,
        [&](int task) {
          const int64_t begin = int64_t(units) * task / tasks * unit, end = int64_t(units) * (task + 1) / tasks * unit;
          body(int(begin), int(end < rows ? end : rows));
        },
        finish);
  }

  // Runs block number `layer` at `position`, from y to y: the norm of the new x by `next_norm`.
  void step(Team::Member& member, const BlockWeights& w, int layer, int position, const float* cos, const float* sin,
            const void* next_norm) const {
    constexpr int kUnit = 16;  // rows
    constexpr int64_t size = sizeof(T);
    const auto nothing = [] {};
    const int group = s_.heads / s_.kv_heads * s_.head_dim;  // query rows of a key-value head
    split(
        member, s_.kv_heads, 1, int64_t(group + 2 * s_.head_dim) * s_.dim * size,
        [&](int begin, int end) { heads(w, layer, position, cos, sin, begin, end, member.index()); }, nothing);
    split(
        member, s_.dim, kUnit, queries_ * size,
        [&](int begin, int end) {
          product(w.out, queries_, attended_.get(), attended_stride_, delta_.get(), x_stride_, begin, end);
          add_delta(begin, end);
        },
        [&] { normalize(w.norm_2); });
    split(member, s_.ffn, kUnit, 2 * s_.dim * size, [&](int begin, int end) { gate_and_up(w, begin, end); }, nothing);
    split(
        member, s_.dim, kUnit, s_.ffn * size,
        [&](int begin, int end) {
          product(w.down, s_.ffn, gate_.get(), ffn_stride_, delta_.get(), x_stride_, begin, end);
          add_delta(begin, end);
        },
        [&] { normalize(next_norm); });
  }

 private:
  static void clear(const Scratch<float>& s, int64_t count) { std::memset(s.get(), 0, size_t(count) * sizeof(float)); }

  int64_t layer_size() const { return int64_t(batch_) * s_.kv_heads * capacity_ * head_; }
  float* cached(int layer, bool value, int b, int kv_head) const {
    return &cache_[(2 * layer + value) * layer_size() + (int64_t(b) * s_.kv_heads + kv_head) * capacity_ * head_];
  }

  void product(const void* weight, int width, const float* x, int64_t x_stride, float* y, int64_t y_stride, int begin,
               int end) const {
    linear(static_cast<const T*>(weight), width, x, x_stride, batch_, y, y_stride, begin, end);
  }

  void add_delta(int begin, int end) const {
    for (int b = 0; b < batch_; ++b) add_row(&delta_[b * x_stride_ + begin], end - begin, x(b) + begin);
  }

  void gate_and_up(const BlockWeights& w, int begin, int end) const {
    product(w.gate, s_.dim, y_.get(), x_stride_, gate_.get(), ffn_stride_, begin, end);
    product(w.up, s_.dim, y_.get(), x_stride_, up_.get(), ffn_stride_, begin, end);
    for (int b = 0; b < batch_; ++b) {
      float *gate = &gate_[b * ffn_stride_], *up = &up_[b * ffn_stride_];
      for (int n = begin; n < end; n += kLanes<float>) {  // beyond the last row: zeros
        const Vec<float> g = load(gate + n);
        store(gate + n, g / (1.0f + exp(-g)) * load(up + n));
      }
    }
  }

  // Key-value heads [begin, end) and the query heads that share them: products, then attention row by row.
  void heads(const BlockWeights& w, int layer, int position, const float* cos, const float* sin, int begin, int end,
             int member) const {
    const int width = s_.head_dim, shared = s_.heads / s_.kv_heads;
    const auto rows = [&](const void* weight, int at, int per_head) {
      product(weight, s_.dim, y_.get(), x_stride_, &qkv_[at], qkv_stride_, begin * per_head, end * per_head);
    };
    rows(w.q, 0, shared * width);
    rows(w.k, queries_, width);
    rows(w.v, queries_ + keys_, width);
    const auto bias = [&](const void* weight, int first, float* to) {
      add_row(static_cast<const T*>(weight) + first, width, to);
    };
    for (int b = 0; b < batch_; ++b) {
      float* row = &qkv_[b * qkv_stride_];
      for (int g = begin; g < end; ++g) {
        float *keys = cached(layer, false, b, g), *values = cached(layer, true, b, g);
        float *k = row + queries_ + g * width, *v = k + keys_;
        bias(w.k_bias, g * width, k);
        bias(w.v_bias, g * width, v);
        rotate_head(k, cos, sin, 1.0f, width, keys + int64_t(position) * head_);
        std::memcpy(values + int64_t(position) * head_, v, size_t(width) * sizeof(float));
        for (int h = g * shared; h < (g + 1) * shared; ++h) {
          float* q = row + h * width;
          bias(w.q_bias, h * width, q);
          float turned[kMaxDecodeHeadDim] = {};
          rotate_head(q, cos, sin, 1.0f / std::sqrt(float(width)), width, turned);
          attend(turned, keys, values, position + 1, &scores_[member * scores_stride_],
                 &attended_[b * attended_stride_ + h * width]);
        }
      }
    }
  }

  // Soft-max attention of one query over `count` cached positions.
  void attend(const float* q, const float* keys, const float* values, int count, float* scores, float* out) const {
    constexpr int L = kLanes<float>;
    for (int p = 0; p < count; ++p) {
      Vec<float> dot{};
      for (int d = 0; d < head_; d += L) dot += load(q + d) * load(keys + int64_t(p) * head_ + d);
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
      for (int p = 0; p < count; ++p) sum += load(values + int64_t(p) * head_ + d) * scores[p];
      store_up_to(out + d, sum * scale, lanes);
    });
  }

  const BlockShape s_;
  const int batch_, capacity_, head_;  // head_: the padded width of a cached head
  const int queries_, keys_;           // rows of the q product, and of k and v
  const int64_t x_stride_, qkv_stride_, attended_stride_, ffn_stride_, scores_stride_;
  const Scratch<float> x_, y_, delta_, qkv_, attended_, gate_, up_, scores_, cache_;
};

}  // namespace mimo::cpu::MIMO_ISA
