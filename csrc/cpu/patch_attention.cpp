// Attention inside patches on the CPU: one pass over q, k, v and the result, everything between in the L1 cache.
//
// A patch of one head is a problem of its own, far too small for a vector, so kLanes of them share one: every element
// (frame, d) of kLanes "patch-heads" is a vector. Rows of kLanes elements are turned into that layout and back by
// transposing squares in registers; rotation, scores and soft-max are then plain arithmetic without a horizontal sum.
// Sums of rows that are neither rotated nor multiplied by one another (the values) stay as they lie in memory, with the
// weights of one lane as scalars: fewer transpositions, 1.2 times faster. Patch-heads are numbered
// patch * heads + head, so that lanes are full for any number of heads and neighbouring lanes read neighbouring memory;
// lanes past the last repeat it and are not stored. Lanes never mix: a patch gives the same bits alone or in any batch,
// on any number of threads.
//
// Backward: probabilities come again from q and k; dS = P (grad v - delta) with delta = sum_j P (grad v); then
// dq = dS k, dk = dS^T q, dv = P^T grad.
#include "mimo/patch_attention.h"

#include "cpu/half.h"
#include "cpu/isa.h"
#include "cpu/reduce.h"
#include "cpu/transpose.h"
#include "cpu/vector_math.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

constexpr int kTile = 4;                        // rows whose sums or weights stay in registers
constexpr int64_t kElementsPerPiece = 1 << 15;  // of q: enough work (tens of microseconds) to be worth a thread

// --- rows in memory <-> vectors of patch-heads -----------------------------------------------------------------------

// dim is a multiple of 8: where vectors are longer, a row may end with half of one.
template <class S, class C>
inline __attribute__((always_inline)) Vec<C> load_row(const S* from, bool whole) {
  if (kLanes<C> <= 8 || whole) return load_wide(from);
  S padded[kLanes<C>] = {};
  std::memcpy(padded, from, sizeof padded / 2);
  return load_wide(padded);
}

template <class S, class C>
inline __attribute__((always_inline)) void store_row(Vec<C> v, bool whole, S* to) {
  if (kLanes<C> <= 8 || whole) return store_narrow(to, v);
  S padded[kLanes<C>];
  store_narrow(padded, v);
  std::memcpy(to, padded, sizeof padded / 2);
}

// Which patch-heads the lanes hold.
template <class S, class C>
struct Lanes {
  static constexpr int L = kLanes<C>;
  const PatchAttentionParams& p;
  int count;
  int64_t patch[L], head[L];

  Lanes(const PatchAttentionParams& params, int64_t first) : p(params) {
    const int64_t left = p.patches * p.heads - first;
    count = left < L ? int(left) : L;
    patch[0] = first / p.heads;
    head[0] = first % p.heads;
    for (int l = 1; l < L; ++l) {
      const int64_t next = head[l - 1] + (l < count);
      patch[l] = patch[l - 1] + (next == p.heads);
      head[l] = next == p.heads ? 0 : next;
    }
  }

  // The row of a lane: of frame 0, and of frame i of a contiguous tensor [patches, frames, heads, dim].
  const S* row(const PatchHeads& x, int lane) const {
    return static_cast<const S*>(x.data) + patch[lane] * x.patch_stride + head[lane] * x.head_stride;
  }
  S* row(void* to, int lane, int i) const {
    return static_cast<S*>(to) + ((patch[lane] * p.frames + i) * p.heads + head[lane]) * p.dim;
  }

  // All frames of a tensor as [frames, dim] vectors.
  void read(const PatchHeads& x, C* out) const {
    const S* rows[L];
    for (int l = 0; l < L; ++l) rows[l] = row(x, l);
    for (int i = 0; i < p.frames; ++i) {
      for (int d = 0; d < p.dim; d += L) {
        const int width = p.dim - d < L ? p.dim - d : L;
        const int64_t at = i * x.frame_stride + d;
        Vec<C> square[L];
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) square[l] = load_row<S, C>(rows[l] + at, width == L);
        transpose_square<C>(square);
        C* to = out + int64_t(i * p.dim + d) * L;
#pragma GCC unroll 16
        for (int e = 0; e < L; ++e) {
          if (e < width) store(to + e * L, square[e]);
        }
      }
    }
  }

  // Frame i, [dim] vectors, to a contiguous tensor.
  void write(const C* x, int i, void* to) const {
    S* rows[L];
    for (int l = 0; l < L; ++l) rows[l] = row(to, l, i);
    for (int d = 0; d < p.dim; d += L) {
      const int width = p.dim - d < L ? p.dim - d : L;
      Vec<C> square[L];
#pragma GCC unroll 16
      for (int e = 0; e < L; ++e) square[e] = e < width ? load(x + (d + e) * L) : Vec<C>{};
      transpose_square<C>(square);
#pragma GCC unroll 16
      for (int l = 0; l < L; ++l) {
        if (l < count) store_row<S, C>(square[l], width == L, rows[l] + d);
      }
    }
  }

  // to[i] = sum over j of weights[i, j] * x[j] over all frames, rows as they lie in memory; strides in vectors.
  void sum_rows(const C* weights, int to_stride, int from_stride, const PatchHeads& x, void* to) const {
    for (int l = 0; l < count; ++l) {
      int i = 0;
      for (; i + kTile <= p.frames; i += kTile) {
        sum_rows_tile<kTile>(weights + i * to_stride * L + l, to_stride, from_stride, row(x, l), x.frame_stride,
                             row(to, l, i));
      }
      for (; i < p.frames; ++i) {
        sum_rows_tile<1>(weights + i * to_stride * L + l, to_stride, from_stride, row(x, l), x.frame_stride,
                         row(to, l, i));
      }
    }
  }

  template <int kRows>
  inline __attribute__((always_inline)) void sum_rows_tile(const C* weights, int to_stride, int from_stride,
                                                           const S* from, int64_t frame_stride, S* to) const {
    for (int d = 0; d < p.dim; d += L) {
      const bool whole = d + L <= p.dim;
      Vec<C> sum[kRows] = {};
      for (int j = 0; j < p.frames; ++j) {
        const Vec<C> value = load_row<S, C>(from + j * frame_stride + d, whole);
        for (int r = 0; r < kRows; ++r) sum[r] += value * weights[(r * to_stride + j * from_stride) * L];
      }
      for (int r = 0; r < kRows; ++r) store_row<S, C>(sum[r], whole, to + int64_t(r) * p.heads * p.dim + d);
    }
  }
};

// --- arithmetic ------------------------------------------------------------------------------------------------------

// Rotate-half of frame i, [dim] vectors, in place, times `scale`; direction -1 rotates back.
template <class C>
inline void rotate(const PatchAttentionParams& p, int i, C direction, C scale, C* x) {
  constexpr int L = kLanes<C>;
  if (!p.cos) {
    for (int d = 0; d < p.dim; ++d) store<C>(x + d * L, load(x + d * L) * scale);
    return;
  }
  const int half = p.dim / 2;
  for (int d = 0; d < half; ++d) {
    const C c = C(p.cos[i * half + d]) * scale, s = C(p.sin[i * half + d]) * scale * direction;
    const Vec<C> a = load(x + d * L), b = load(x + (d + half) * L);
    store<C>(x + d * L, a * c - b * s);
    store<C>(x + (d + half) * L, b * c + a * s);
  }
}

template <int kRows, class C>
inline __attribute__((always_inline)) void dots_tile(const C* x, const C* rows, int dim, C* out) {
  constexpr int L = kLanes<C>;
  Vec<C> sum[kRows] = {};
  for (int d = 0; d < dim; ++d) {
    const Vec<C> a = load(x + d * L);
    for (int r = 0; r < kRows; ++r) sum[r] += a * load(rows + (r * dim + d) * L);
  }
  for (int r = 0; r < kRows; ++r) store(out + r * L, sum[r]);
}

// out[r] = x . rows[r]
template <class C>
inline void dots(const C* x, const C* rows, int count, int dim, C* out) {
  constexpr int L = kLanes<C>;
  int r = 0;
  for (; r + kTile <= count; r += kTile) dots_tile<kTile>(x, rows + r * dim * L, dim, out + r * L);
  for (; r < count; ++r) dots_tile<1>(x, rows + r * dim * L, dim, out + r * L);
}

template <int kRows, class C>
inline __attribute__((always_inline)) void sum_tile(const C* weights, int stride, const C* rows, int dim, bool add,
                                                    C* out) {
  constexpr int L = kLanes<C>;
  Vec<C> weight[kRows];
  for (int r = 0; r < kRows; ++r) weight[r] = load(weights + r * stride * L);
  for (int d = 0; d < dim; ++d) {
    Vec<C> sum = add ? load(out + d * L) : Vec<C>{};
    for (int r = 0; r < kRows; ++r) sum += weight[r] * load(rows + (r * dim + d) * L);
    store(out + d * L, sum);
  }
}

// out = sum over r of weights[r * stride] * rows[r]; count > 0.
template <class C>
inline void weighted_sum(const C* weights, int stride, const C* rows, int count, int dim, C* out) {
  constexpr int L = kLanes<C>;
  int r = 0;
  for (; r + kTile <= count; r += kTile) {
    sum_tile<kTile>(weights + r * stride * L, stride, rows + r * dim * L, dim, r > 0, out);
  }
  for (; r < count; ++r) sum_tile<1>(weights + r * stride * L, stride, rows + r * dim * L, dim, r > 0, out);
}

// Of the first `seen` of `count` scores; the rest become 0.
template <class C>
inline void softmax(C* x, int seen, int count) {
  constexpr int L = kLanes<C>;
  Vec<C> top = load(x), sum{};
  for (int j = 1; j < seen; ++j) top = larger<C>(load(x + j * L), top);
  for (int j = 0; j < seen; ++j) {
    const Vec<C> e = exp(load(x + j * L) - top);
    sum += e;
    store(x + j * L, e);
  }
  const Vec<C> inverse = C(1) / sum;
  for (int j = 0; j < seen; ++j) store<C>(x + j * L, load(x + j * L) * inverse);
  for (int j = seen; j < count; ++j) store(x + j * L, Vec<C>{});
}

// Calls body(lanes, workspace) for all patch-heads, on all threads.
template <class S, class C, class Workspace, class Body>
void for_each_block(const PatchAttentionParams& p, Body body) {
  constexpr int L = kLanes<C>;
  const int64_t elements = int64_t(L) * p.frames * p.dim;
  parallel_for((p.patches * p.heads + L - 1) / L, (kElementsPerPiece + elements - 1) / elements,
               [&](int64_t from, int64_t to) {
                 const Workspace workspace(p);
                 for (int64_t i = from; i < to; ++i) body(Lanes<S, C>(p, i * L), workspace);
               });
}

// --- forward and backward --------------------------------------------------------------------------------------------

template <class S, class C>
struct Workspace {
  const PatchAttentionParams& p;
  const int64_t frame = int64_t(p.dim) * kLanes<C>, row = int64_t(p.frames) * kLanes<C>;
  Scratch<C> q{p.frames * frame}, k{p.frames * frame};  // [frames, dim], rotated, q scaled
  Scratch<C> weights{p.frames * row};                   // [frames, frames], by query and key

  explicit Workspace(const PatchAttentionParams& params) : p(params) {}

  int seen(int query) const { return p.causal ? query + 1 : p.frames; }

  void find_weights(const Lanes<S, C>& lanes) const {
    lanes.read(p.q, q.get());
    lanes.read(p.k, k.get());
    for (int i = 0; i < p.frames; ++i) {
      rotate<C>(p, i, 1, C(p.scale), &q[i * frame]);
      rotate<C>(p, i, 1, 1, &k[i * frame]);
    }
    for (int i = 0; i < p.frames; ++i) {
      dots(&q[i * frame], k.get(), seen(i), p.dim, &weights[i * row]);
      softmax(&weights[i * row], seen(i), p.frames);
    }
  }
};

template <class S, class C>
void forward(const PatchAttentionParams& p) {
  for_each_block<S, C, Workspace<S, C>>(p, [&](const Lanes<S, C>& lanes, const Workspace<S, C>& w) {
    w.find_weights(lanes);
    lanes.sum_rows(w.weights.get(), p.frames, 1, p.v, p.out);
  });
}

template <class S, class C>
struct BackwardWorkspace : Workspace<S, C> {
  Scratch<C> v{this->p.frames * this->frame}, grad{this->p.frames * this->frame};  // [frames, dim]
  Scratch<C> grad_scores{this->p.frames * this->row};                              // [frames, frames]
  Scratch<C> out{this->frame};

  using Workspace<S, C>::Workspace;
};

template <class S, class C>
void backward(const PatchAttentionBackwardParams& b) {
  constexpr int L = kLanes<C>;
  const PatchAttentionParams& p = b.forward;
  for_each_block<S, C, BackwardWorkspace<S, C>>(p, [&](const Lanes<S, C>& lanes, const BackwardWorkspace<S, C>& w) {
    w.find_weights(lanes);
    lanes.sum_rows(w.weights.get(), 1, p.frames, b.grad_out, b.grad_v);
    lanes.read(p.v, w.v.get());
    lanes.read(b.grad_out, w.grad.get());
    for (int i = 0; i < p.frames; ++i) {
      const int seen = w.seen(i);
      C *weights = &w.weights[i * w.row], *grad = &w.grad_scores[i * w.row];
      dots(&w.grad[i * w.frame], w.v.get(), seen, p.dim, grad);
      Vec<C> delta{};
      for (int j = 0; j < seen; ++j) delta += load(weights + j * L) * load(grad + j * L);
      for (int j = 0; j < seen; ++j) store<C>(grad + j * L, load(weights + j * L) * (load(grad + j * L) - delta));
      weighted_sum(grad, 1, w.k.get(), seen, p.dim, w.out.get());
      rotate<C>(p, i, -1, C(p.scale), w.out.get());
      lanes.write(w.out.get(), i, b.grad_q);
    }
    for (int j = 0; j < p.frames; ++j) {
      const int first = p.causal ? j : 0;  // of the queries that see key j
      weighted_sum(&w.grad_scores[first * w.row + j * L], p.frames, &w.q[first * w.frame], p.frames - first, p.dim,
                   w.out.get());
      rotate<C>(p, j, -1, 1, w.out.get());
      lanes.write(w.out.get(), j, b.grad_k);
    }
  });
}

}  // namespace

void patch_attention(const PatchAttentionParams& p) {
  if (p.dtype == DType::f64) return forward<double, double>(p);
  MIMO_FLOAT_OR_HALF(p.dtype, forward<T, float>(p));
}

void patch_attention_backward(const PatchAttentionBackwardParams& b) {
  if (b.forward.dtype == DType::f64) return backward<double, double>(b);
  MIMO_FLOAT_OR_HALF(b.forward.dtype, backward<T, float>(b));
}

}  // namespace mimo::cpu::MIMO_ISA
