// stream_layers on the CPU: a Transformer's blocks over the new rows of all streams, keys and values kept in rings.
//
// One parallel region for all blocks; a block is five phases of a Team (cpu/team.h):
//   1. q, k, v     task: some heads of the three products, biases, rotation; k and v go to the rings
//   2. attention   task: some heads of some streams
//   3. out         added to x;                                  at the end: the second norm
//   4. fc1         bias and activation
//   5. fc2         added to x;                                  at the end: the next block's rows and their norm
// Products are those of cpu/linear.h: weights are read once for all rows. Activations are float32 for every dtype of
// the weights; what is kept from step to step (keys, values, rows that wait) is rounded to it, also where a row passes
// within one call: how rows are cut into calls changes no bit, nor do other streams or threads.
#pragma once
#include "cpu/weighted_values.h"
#include "mimo/stream_step.h"

namespace mimo::cpu::MIMO_ISA {

inline Vec<float> activate(Activation kind, Vec<float> x) {
  switch (kind) {
    case Activation::gelu:
      return 0.5f * x * (1.0f + erf(x * 0.707106781f));
    case Activation::gelu_tanh: {  // tanh(y) = 1 - 2 / (e^2y + 1)
      const Vec<float> y = (x + x * x * x * 0.044715f) * 0.797884561f;
      return x - x / (exp(y + y) + 1.0f);
    }
    case Activation::silu:
      return x / (1.0f + exp(-x));
    default:
      return x < 0.0f ? Vec<float>{} : x;
  }
}

// y = (x - mean) / sqrt(variance + eps) * weight + bias.
template <class T>
inline void layer_norm(const float* x, const T* weight, const T* bias, int width, float eps, float* y) {
  constexpr int L = kLanes<float>;
  Vec<float> total{}, squares{};
  for_each_vector(width, [&](int d, int count) { total += load_up_to(x + d, count); });
  const float mean = sum_lanes<float>(total) / float(width);
  for_each_vector(width, [&](int d, int count) {
    Vec<float> v = load_up_to(x + d, count) - mean;
    if (count < L) v = load_part(reinterpret_cast<const float*>(&v), count);
    squares += v * v;
  });
  const float scale = 1.0f / std::sqrt(sum_lanes<float>(squares) / float(width) + eps);
  for_each_vector(width, [&](int d, int count) {
    const Vec<float> v = (load_up_to(x + d, count) - mean) * scale;
    store_up_to(y + d, v * load_up_to(weight + d, count) + load_up_to(bias + d, count), count);
  });
}

template <class T>
class StreamLayers {
  static constexpr int L = kLanes<float>;
  static constexpr int kQueries = 8;  // that meet their keys together: more would see many that only some of them see

 public:
  explicit StreamLayers(const StreamLayersParams& p)
      : p_(p),
        s_(p.streams),
        indices_(s_.batch),
        count_(find_active()),
        total_(count_ * s_.rows),
        team_(threads()),
        widest_(widest_right()),
        x_(total_, p.dim),
        y_(total_, p.dim),
        z_(total_, p.dim),
        product_(total_, p.dim * 3),
        queries_(int64_t(total_) * p.heads, p.head_dim),
        attended_(total_, p.dim),
        hidden_(total_, p.ffn),
        delta_(total_, p.dim),
        scores_(int64_t(team_.threads()) * kQueries, p.left + widest_ + kQueries + 2 * L),
        key_angles_(total_ * int64_t(p.head_dim)),
        query_angles_(total_ * int64_t(p.head_dim)) {}

  void run() {
    std::memset(p_.out, 0, size_t(s_.batch) * s_.rows * p_.dim * sizeof(T));
    if (count_ == 0) return;
    for (int i = 0; i < total_; ++i) widen_row(row_of(static_cast<const T*>(p_.x), i), p_.dim, x_[i]);
    turn_by(0, key_angles_.get());
    prepare(0);
    team_.start([&](Team::Member& member) {
      for (int layer = 0; layer < p_.layers; ++layer) step(member, layer);
    });
    for (int i = 0; i < total_; ++i) narrow_row(x_[i], p_.dim, row_of(static_cast<T*>(p_.out), i));
  }

 private:
  int find_active() const {
    int count = 0;
    for (int b = 0; b < s_.batch; ++b) {
      if (s_.is_active(b)) indices_[count++] = b;
    }
    return count;
  }

  int threads() const {
    constexpr int64_t kBytesPerThread = 512 << 10;
    const int64_t bytes = int64_t(sizeof(T)) * p_.layers * p_.dim * (4 * int64_t(p_.dim) + 2 * p_.ffn) * total_;
    const int64_t wanted = bytes / kBytesPerThread, most = thread_count();
    return int(wanted < 1 ? 1 : wanted < most ? wanted : most);
  }

  int64_t widest_right() const {
    int64_t widest = 0;
    for (int i = 0; i < p_.layers; ++i) widest = p_.rights[i] > widest ? p_.rights[i] : widest;
    return widest;
  }

  // Row i of the active streams' in a tensor [batch, rows, dim].
  template <class U>
  U* row_of(U* data, int i) const {
    return data + (int64_t(indices_[i / s_.rows]) * s_.rows + i % s_.rows) * p_.dim;
  }

  int64_t first(int stream) const { return s_.position[indices_[stream]]; }

  T* ring(int stream, int layer, bool value, int head) const {
    const int64_t row = ((int64_t(indices_[stream]) * p_.layers + layer) * 2 + value) * p_.heads + head;
    return static_cast<T*>(p_.cache) + row * p_.ring * p_.head_dim;
  }

  // Cosines and sines [head_dim / 2] each of the rows' positions, `right` behind: float64 angles, so that hour ten is
  // as exact as second one.
  void turn_by(int64_t right, float* angles) const {
    const int half = p_.head_dim / 2;
    for (int i = 0; i < total_; ++i) {
      const double position = double(first(i / s_.rows) + i % s_.rows - right);
      float* row = angles + int64_t(i) * p_.head_dim;
      for (int d = 0; d < half; ++d) {
        row[d] = float(::cos(position * p_.frequency[d]));
        row[half + d] = float(::sin(position * p_.frequency[d]));
      }
    }
  }

  void normalize(const Rows& from, const void* weight, const void* bias, const Rows& to) const {
    const T *w = static_cast<const T*>(weight), *b = static_cast<const T*>(bias);
    for (int i = 0; i < total_; ++i) {
      b ? layer_norm(from[i], w, b, p_.dim, p_.eps, to[i]) : rms_norm(from[i], w, p_.dim, p_.eps, to[i]);
    }
  }

  // A block's input: y for its keys and values; x, `right` rows later, and its norm for the queries.
  void prepare(int layer) {
    if (layer == p_.layers) return;
    const StreamBlock& w = p_.blocks[layer];
    normalize(x_, w.norm_1, w.norm_1_bias, y_);
    const int64_t right = p_.rights[layer];
    if (layer == 0 || right != p_.rights[layer - 1]) turn_by(right, query_angles_.get());
    if (right == 0) return;
    int64_t before = 0, all = 0;
    for (int i = 0; i < p_.layers; ++i) all += p_.rights[i], before += i < layer ? p_.rights[i] : 0;
    const int64_t width = p_.dim;
    const Scratch<T> line((right + s_.rows) * width);
    for (int stream = 0; stream < count_; ++stream) {
      T* behind = static_cast<T*>(p_.behind) + (int64_t(indices_[stream]) * all + before) * width;
      std::memcpy(line.get(), behind, size_t(right * width) * sizeof(T));
      const int row = stream * s_.rows;
      for (int i = 0; i < s_.rows; ++i) narrow_row(x_[row + i], width, line.get() + (right + i) * width);
      for (int i = 0; i < s_.rows; ++i) widen_row(line.get() + i * width, width, x_[row + i]);
      std::memcpy(behind, line.get() + s_.rows * width, size_t(right * width) * sizeof(T));
    }
    normalize(x_, w.norm_1, w.norm_1_bias, z_);
  }

  void step(Team::Member& member, int layer) {
    constexpr int64_t size = sizeof(T);
    const StreamBlock& w = p_.blocks[layer];
    int64_t delay = p_.delay;  // of the block's input
    for (int i = 0; i < layer; ++i) delay += p_.rights[i];
    member.run_rows(
        3 * p_.heads, 1, p_.head_dim * p_.dim * size,
        [&](int begin, int end) {
          for (int head = begin; head < end; ++head) project(w, layer, head);
        },
        [] {});
    member.run_rows(
        count_ * p_.heads, 1, (p_.left + s_.rows) * 2 * p_.head_dim * size,
        [&](int begin, int end) {
          for (int i = begin; i < end; ++i) attend(layer, delay, i / p_.heads, i % p_.heads, member.index());
        },
        [] {});
    add_product(member, w.out, w.out_bias, p_.dim, attended_, [&] { normalize(x_, w.norm_2, w.norm_2_bias, y_); });
    member.run_rows(
        p_.ffn, kLinearPad, p_.dim * size,
        [&](int begin, int end) {
          product(w.fc1, p_.dim, y_, hidden_, 0, begin, end);
          for (int i = 0; i < total_; ++i) {
            for_each_vector(end - begin, [&](int d, int count) {
              float* to = hidden_[i] + begin + d;
              const Vec<float> bias = load_up_to(static_cast<const T*>(w.fc1_bias) + begin + d, count);
              store_up_to(to, activate(p_.activation, load_up_to(to, count) + bias), count);
            });
          }
        },
        [] {});
    add_product(member, w.fc2, w.fc2_bias, p_.ffn, hidden_, [&] { prepare(layer + 1); });
  }

  // to[i][begin .. end - 1] = weight x from[i]; `to` begins at column `at`.
  void product(const void* weight, int width, const Rows& from, const Rows& to, int at, int begin, int end) const {
    linear(static_cast<const T*>(weight), width, from[0], from.stride(), total_, to[0] + at, to.stride(), begin, end);
  }

  // x += weight x from + bias, then finish().
  template <class Finish>
  void add_product(Team::Member& member, const void* weight, const void* bias, int width, const Rows& from,
                   Finish&& finish) const {
    member.run_rows(
        p_.dim, kLinearPad, width * int64_t(sizeof(T)),
        [&](int begin, int end) {
          product(weight, width, from, delta_, 0, begin, end);
          for (int i = 0; i < total_; ++i) {
            add_row(static_cast<const T*>(bias) + begin, end - begin, delta_[i] + begin);
            add_row(delta_[i] + begin, end - begin, x_[i] + begin);
          }
        },
        finish);
  }

  // Head number `head` of q, then k, then v, for all rows.
  void project(const StreamBlock& w, int layer, int number) const {
    const int width = p_.head_dim, kind = number / p_.heads, head = number % p_.heads, at = kind * p_.dim;
    const void* weights[] = {w.q, w.k, w.v};
    const T* biases[] = {static_cast<const T*>(w.q_bias), nullptr, static_cast<const T*>(w.v_bias)};
    const Rows& from = kind == 0 && p_.rights[layer] ? z_ : y_;
    product(weights[kind], p_.dim, from, product_, at, head * width, (head + 1) * width);
    for (int i = 0; i < total_; ++i) {
      float *row = product_[i] + at + head * width, turned[kMaxDecodeHeadDim];
      if (biases[kind]) add_row(biases[kind] + head * width, width, row);
      const int stream = i / s_.rows, own = i % s_.rows;
      if (kind == 0) {
        const float* angles = query_angles_.get() + int64_t(i) * width;
        const int64_t query = (int64_t(stream) * p_.heads + head) * s_.rows + own;
        rotate_head(row, angles, angles + width / 2, 1.0f / std::sqrt(float(width)), width, queries_[query]);
        continue;
      }
      const float* angles = key_angles_.get() + int64_t(i) * width;
      if (kind == 1) rotate_head(row, angles, angles + width / 2, 1.0f, width, turned);
      const int64_t slot = (first(stream) + own) % p_.ring;
      narrow_row(kind == 1 ? turned : row, width, ring(stream, layer, kind == 2, head) + slot * width);
    }
  }

  // Calls body(slot, count, offset) for the pieces of a ring that hold rows low .. high: offset counts from low.
  template <class Body>
  void for_each_piece(int64_t low, int64_t high, Body&& body) const {
    for (int64_t g = low; g <= high;) {
      const int64_t slot = g % p_.ring, left = high - g + 1, room = p_.ring - slot, count = left < room ? left : room;
      body(slot, int(count), g - low);
      g += count;
    }
  }

  // The queries of one head of one stream, a few at a time.
  void attend(int layer, int64_t delay, int stream, int head, int member) const {
    const int width = p_.head_dim;
    const int64_t reach = p_.left + p_.rights[layer], end = s_.end[indices_[stream]] + delay, stride = scores_.stride();
    const T *keys = ring(stream, layer, false, head), *values = ring(stream, layer, true, head);
    float* scores = scores_[int64_t(member) * kQueries];
    const auto low_of = [&](int64_t g) { return g - reach > delay ? g - reach : delay; };
    const auto high_of = [&](int64_t g) { return g < end - 1 ? g : end - 1; };
    for (int begin = 0; begin < s_.rows; begin += kQueries) {
      const int count = s_.rows - begin < kQueries ? s_.rows - begin : kQueries;
      const int64_t g = first(stream) + begin, low = low_of(g), high = high_of(g + count - 1), seen = high - low + 1;
      const float* queries = queries_[(int64_t(stream) * p_.heads + head) * s_.rows + begin];
      float* out = attended_[stream * s_.rows + begin] + head * width;
      for (int r = 0; r < count; ++r) std::memset(out + r * attended_.stride(), 0, size_t(width) * sizeof(float));
      if (seen <= 0) continue;
      for_each_piece(low, high, [&](int64_t slot, int rows, int64_t at) {
        linear(keys + slot * width, width, queries, queries_.stride(), count, scores + at, stride, 0, rows);
      });
      float scale[kQueries];
      for (int r = 0; r < count; ++r) {
        const int64_t from = low_of(g + r) - low, own = high_of(g + r) - low_of(g + r) + 1;
        scale[r] = soften(scores + r * stride, from, own, seen);
      }
      for_each_piece(low, high, [&](int64_t slot, int rows, int64_t at) {
        weighted_values(scores + at, stride, count, values + slot * width, rows, width, out, attended_.stride(), true);
      });
      for (int r = 0; r < count; ++r) {
        float* row = out + r * attended_.stride();
        for_each_vector(width,
                        [&](int d, int lanes) { store_up_to(row + d, load_up_to(row + d, lanes) * scale[r], lanes); });
      }
    }
  }

  // Scores from .. from + own - 1 of a row -> e^(score - largest), all others of the first `seen` -> 0; one over the
  // sum. Vectors count from `from`, so that it does not matter what else the row has.
  float soften(float* row, int64_t from, int64_t own, int64_t seen) const {
    if (own < 0) own = 0;
    float* scores = row + from;
    const int64_t whole = (own + L - 1) / L * L;
    for (int64_t i = own; i < whole; ++i) scores[i] = -std::numeric_limits<float>::infinity();
    Vec<float> top = broadcast(-std::numeric_limits<float>::max()), total{};
    for (int64_t i = 0; i < whole; i += L) top = larger<float>(load(scores + i), top);
    const float maximum = max_lane<float>(top);
    for (int64_t i = 0; i < whole; i += L) {
      const Vec<float> e = exp(load(scores + i) - maximum);
      total += e;
      store(scores + i, e);
    }
    for (int64_t i = 0; i < from && i < seen; ++i) row[i] = 0;
    for (int64_t i = from + own; i < seen; ++i) row[i] = 0;
    const float sum = sum_lanes<float>(total);
    return sum > 0 ? 1.0f / sum : 0.0f;
  }

  const StreamLayersParams& p_;
  const Streams& s_;
  const Scratch<int> indices_;  // of the active streams
  const int count_, total_;     // active streams, and their rows
  Team team_;
  const int64_t widest_;
  const Rows x_, y_, z_;  // the residual stream; its norm; the queries' norm where they are behind
  const Rows product_;    // q, k and v of every row
  const Rows queries_;    // [active streams, heads, rows], rotated and scaled
  const Rows attended_, hidden_, delta_;
  const Rows scores_;                               // of a member's queries
  const Scratch<float> key_angles_, query_angles_;  // cosines and sines of every row
};

}  // namespace mimo::cpu::MIMO_ISA
