// backbone_step on the CPU: the blocks of cpu/decode_step.h, with an attention of its own over a cache that the caller
// keeps and that may be long.
//
// One parallel region for all layers; a layer is five phases of a Team (cpu/team.h), the last three as in any stack:
//   1. q, k, v     task: some heads of the three products, biases, rotation; k and v go to the cache
//   2. attention   task: some pieces of kAttentionSplit positions, each of one row and key-value head;
//                  at the end: the pieces of a head put together in order
//   3. to 5.       out; gate and up; down
// The query heads that share a key head meet each of its keys and values together, so that the cache, like the weights,
// is read once per step. Scores are cpu/linear.h's product with keys for rows of weights; values are added up in
// registers over the positions. The cache has the dtype of the weights, everything else is float32.
//
// All rows have put their keys and values into the cache before any attends: rows of one call may be positions that
// follow each other, or that see each other.
//
// Same bits for any threads and any batch: every number is computed by one thread in one order, and pieces count from a
// row's own first position, so that padding changes nothing either.
#include "mimo/backbone_step.h"

#include "cpu/decode_step.h"
#include "cpu/weighted_values.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

// The positions that a row sees are attended to in pieces of so many.
constexpr int kAttentionSplit = 256;

template <class T>
class Backbone {
 public:
  explicit Backbone(const BackboneStepParams& p)
      : p_(p),
        s_(p.shape),
        shared_(s_.heads / s_.kv_heads),
        splits_((p.length + kAttentionSplit) / kAttentionSplit),
        team_(decode_threads<T>(s_, p.layers, p.batch, int64_t(p.length) * 2 * s_.kv_heads * s_.head_dim)),
        blocks_(s_, 0, p.batch, 0, team_.threads()),
        queries_(int64_t(p.batch) * s_.heads, s_.head_dim),
        parts_(int64_t(p.batch) * s_.heads * splits_, s_.head_dim),
        scores_(int64_t(team_.threads()) * shared_, kAttentionSplit),
        gathered_(p.cache.table ? int64_t(team_.threads()) * kAttentionSplit * s_.head_dim : 0),
        maxima_(int64_t(p.batch) * s_.heads * splits_),
        totals_(int64_t(p.batch) * s_.heads * splits_) {}

  void run() {
    const int dim = s_.dim;
    const auto norm_of = [&](int layer) { return layer < p_.layers ? p_.blocks[layer].norm_1 : p_.norm; };
    for (int b = 0; b < p_.batch; ++b) {
      widen_row(static_cast<const T*>(p_.hidden) + int64_t(b) * dim, dim, blocks_.x[b]);
    }
    blocks_.normalize(norm_of(0));
    team_.start([&](Team::Member& member) {
      for (int layer = 0; layer < p_.layers; ++layer) {
        step(member, p_.blocks[layer], layer);
        blocks_.feed_forward(member, p_.blocks[layer], norm_of(layer + 1));
      }
    });
    for (int b = 0; b < p_.batch; ++b) narrow_row(blocks_.y[b], dim, static_cast<T*>(p_.out) + int64_t(b) * dim);
  }

 private:
  int fresh(int b) const { return p_.lengths ? int(p_.lengths[b]) : p_.length; }  // row b's new position
  int first(int b) const { return p_.padding ? int(p_.padding[b]) : 0; }          // that it sees
  int last(int b) const { return p_.ends ? int(p_.ends[b]) : fresh(b); }
  int splits(int b) const { return (last(b) - first(b) + kAttentionSplit) / kAttentionSplit; }
  int64_t part(int b, int head, int split) const { return (int64_t(b) * s_.heads + head) * splits_ + split; }
  T* cached(int layer, bool value, int b, int kv_head, int position) const {
    const KeyValuePages& cache = p_.cache;
    int64_t page = b;
    if (cache.table) {
      page = cache.table[int64_t(b) * cache.per_row + position / cache.size];
      position %= cache.size;
    }
    const int64_t row = ((2 * int64_t(layer) + value) * cache.count + page) * s_.kv_heads + kv_head;
    return static_cast<T*>(cache.data) + (row * cache.size + position) * s_.head_dim;
  }

  // Keys (or values) of positions from .. from + count - 1, one after the other: where they lie, or a copy that lasts
  // until the member's next.
  const T* run(int layer, bool value, int b, int kv_head, int from, int count, int member) const {
    const int size = p_.cache.size;
    if (!p_.cache.table || from / size == (from + count - 1) / size) return cached(layer, value, b, kv_head, from);
    T* to = &gathered_[int64_t(member) * kAttentionSplit * s_.head_dim];
    for (int i = 0; i < count;) {
      const int left = size - (from + i) % size, part = left < count - i ? left : count - i;
      std::memcpy(to + int64_t(i) * s_.head_dim, cached(layer, value, b, kv_head, from + i),
                  size_t(part) * s_.head_dim * sizeof(T));
      i += part;
    }
    return to;
  }

  void step(Team::Member& member, const BlockWeights& w, int layer) const {
    constexpr int64_t size = sizeof(T);
    member.run_rows(
        s_.heads + 2 * s_.kv_heads, 1, s_.head_dim * blocks_.row_bytes(s_.dim),
        [&](int begin, int end) {
          for (int head = begin; head < end; ++head) project(w, layer, head);
        },
        [] {});
    member.run_rows(
        p_.batch * s_.kv_heads * splits_, 1, int64_t(2) * kAttentionSplit * s_.head_dim * size,
        [&](int begin, int end) {
          for (int i = begin; i < end; ++i) {
            attend(layer, i / splits_ / s_.kv_heads, i / splits_ % s_.kv_heads, i % splits_, member.index());
          }
        },
        [&] {
          combine();
          blocks_.attended.ready();
        });
  }

  // Head number `head` of q, then k, then v, for all rows.
  void project(const BlockWeights& w, int layer, int head) const {
    const int width = s_.head_dim;
    const bool is_q = head < s_.heads, is_v = head >= s_.heads + s_.kv_heads;
    const int own = is_q ? head : head - s_.heads - (is_v ? s_.kv_heads : 0);
    const T* weight = static_cast<const T*>(is_q ? w.q : is_v ? w.v : w.k);
    const T* bias = static_cast<const T*>(is_q ? w.q_bias : is_v ? w.v_bias : w.k_bias);
    blocks_.product(weight, (is_q ? s_.heads : s_.kv_heads) * width, s_.dim, blocks_.y,
                    blocks_.qkv[0] + (head - own) * width, blocks_.qkv.stride(), own * width, (own + 1) * width);
    for (int b = 0; b < p_.batch; ++b) {
      float *row = blocks_.qkv[b] + head * width, turned[kMaxDecodeHeadDim];
      add_row(bias + own * width, width, row);
      const int64_t angles = int64_t(fresh(b) - first(b)) * (width / 2);
      const auto rotate = [&](float scale, float* out) {
        rotate_head(row, p_.cos + angles, p_.sin + angles, scale, width, out);
      };
      if (is_q) {
        rotate(1.0f / std::sqrt(float(width)), queries_[int64_t(b) * s_.heads + own]);
      } else {
        if (!is_v) rotate(1.0f, turned);
        narrow_row(is_v ? row : turned, width, cached(layer, is_v, b, own, fresh(b)));
      }
    }
  }

  // The queries of key-value head `kv_head` over piece `split` of row b's positions.
  void attend(int layer, int b, int kv_head, int split, int member) const {
    constexpr int L = kLanes<float>;
    if (split >= splits(b)) return;
    const int from = first(b) + split * kAttentionSplit, left = last(b) + 1 - from;
    const int count = left < kAttentionSplit ? left : kAttentionSplit, whole = (count + L - 1) / L * L;
    const int head = kv_head * shared_, width = s_.head_dim;
    float* scores = scores_[int64_t(member) * shared_];
    linear(run(layer, false, b, kv_head, from, count, member), width, queries_[int64_t(b) * s_.heads + head],
           queries_.stride(), shared_, scores, kAttentionSplit, 0, count);
    for (int h = 0; h < shared_; ++h) {
      float* row = scores + h * kAttentionSplit;
      for (int p = count; p < whole; ++p) row[p] = -std::numeric_limits<float>::infinity();
      Vec<float> top = load(row);
      for (int p = L; p < whole; p += L) top = larger<float>(load(row + p), top);
      const float maximum = max_lane<float>(top);
      Vec<float> total{};
      for (int p = 0; p < whole; p += L) {
        const Vec<float> e = exp(load(row + p) - maximum);
        total += e;
        store(row + p, e);
      }
      maxima_[part(b, head + h, split)] = maximum;
      totals_[part(b, head + h, split)] = sum_lanes<float>(total);
    }
    weighted_values(scores, kAttentionSplit, shared_, run(layer, true, b, kv_head, from, count, member), count, width,
                    parts_[part(b, head, split)], splits_ * parts_.stride(), false);
  }

  // Puts the pieces of every head together: weighted by e^(own maximum - largest), divided by the sum of all weights.
  void combine() const {
    for (int b = 0; b < p_.batch; ++b) {
      for (int head = 0; head < s_.heads; ++head) {
        const int count = splits(b);
        const int64_t at = part(b, head, 0);
        float maximum = maxima_[at], total = 0.0f;
        for (int i = 1; i < count; ++i) maximum = maxima_[at + i] > maximum ? maxima_[at + i] : maximum;
        for (int i = 0; i < count; ++i) {
          maxima_[at + i] = ::expf(maxima_[at + i] - maximum);
          total += totals_[at + i] * maxima_[at + i];
        }
        float* out = blocks_.attended[b] + head * s_.head_dim;
        for_each_vector(s_.head_dim, [&](int d, int lanes) {
          Vec<float> sum{};
          for (int i = 0; i < count; ++i) sum += load(parts_[at + i] + d) * maxima_[at + i];
          store_up_to(out + d, sum * (1.0f / total), lanes);
        });
      }
    }
  }

  const BackboneStepParams& p_;
  const BlockShape& s_;
  const int shared_, splits_;  // query heads per key head; most pieces of a row
  Team team_;
  const DecodeBlocks<T> blocks_;
  const Rows queries_;                    // of every row and head, rotated and scaled
  const Rows parts_;                      // of every row, head and piece
  const Rows scores_;                     // of a member's piece and the heads that share it
  const Scratch<T> gathered_;             // of every member: keys or values of a piece that lie in several pages
  const Scratch<float> maxima_, totals_;  // of the parts
};

}  // namespace

void backbone_step(const BackboneStepParams& p) { MIMO_FLOAT_OR_HALF(p.dtype, Backbone<T>(p).run()); }

}  // namespace mimo::cpu::MIMO_ISA
