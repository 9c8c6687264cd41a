// Sliding-window attention on the CPU, blockwise ("flash"): memory beyond the results does not grow with the rows.
//
// A task is one head and one block of kRows rows of one sequence; it visits the columns its rows can see (keys for
// queries, and queries for keys in the second half of the backward pass) in blocks of kColumns. Tasks write disjoint
// results and start at the sequence's first row, so results depend neither on the number of threads nor on the
// neighbours in the pack.
//
// Everything is the product of a few rows with a block that lies ready in scratch, widened to the compute type
// (float32, or float64 for float64 tensors) and rotated once: transposed [D, kColumns] where columns go across the
// lanes (scores), row-major [kColumns, D] where D does (sums of values). multiply() keeps kGroup rows x 2 vectors of
// sums in registers. Windows are narrow (51 keys for the vocoder), so each group of rows touches only its own part of
// the block.
//
// Forward: scores -> running maximum and sum (online soft-max) -> values; keeps lse = log sum exp per row.
// Backward: probabilities come again from the scores and lse. First pass, rows are queries: delta = sum(grad * out),
// dS = P (grad v - delta), dq = dS k. Second pass, rows are keys: dv = P^T grad, dk = dS^T q. Scores are computed in
// both passes, which costs 7 products instead of 5 and needs neither atomics nor partial sums.
#include "mimo/window_attention.h"

#include <limits>
#include <utility>

#include "cpu/half.h"
#include "cpu/isa.h"
#include "cpu/reduce.h"
#include "cpu/transpose.h"
#include "cpu/vector_math.h"
#include "cpu/window_attention_bf16.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

constexpr int kRows = 64, kColumns = 128;
constexpr int kGroup = kVectorBytes == 64 ? 8 : 4;  // rows whose sums fit the registers

// A block of rows of one sequence: the sequence begins at row `begin` of the pack; `first` counts within it.
struct Block {
  int begin, length, first;
  int count() const { return length - first < kRows ? length - first : kRows; }
};

struct Range {
  int low, high;
  bool empty() const { return low >= high; }
};

// Columns first .. first + count - 1 that rows row .. row + rows - 1 see, counted from `first`.
inline Range visible(int row, int rows, int before, int after, int first, int count) {
  const int64_t low = int64_t(row) - before - first, high = int64_t(row) + rows + after - first;
  return {int(low > 0 ? low : 0), int(high < count ? (high > 0 ? high : 0) : count)};
}

template <class C>
inline Range whole_vectors(Range r) {
  return {r.low / kLanes<C> * kLanes<C>, (r.high + kLanes<C> - 1) / kLanes<C> * kLanes<C>};
}

// --- vectors ---------------------------------------------------------------------------------------------------------

// [count, width] -> [width, kColumns]; count and width are whole vectors.
template <class C>
void transpose(const C* from, int count, int width, C* to) {
  for (int i = 0; i < count; i += kLanes<C>) {
    for (int d = 0; d < width; d += kLanes<C>) {
      Vec<C> square[kLanes<C>];
      for (int r = 0; r < kLanes<C>; ++r) square[r] = load(from + int64_t(i + r) * width + d);
      transpose_square<C>(square);
      for (int r = 0; r < kLanes<C>; ++r) store(to + int64_t(d + r) * kColumns + i, square[r]);
    }
  }
}

template <int kVectors, class C>
inline void multiply_tile(const C* a, int64_t a_stride, const C* b, int64_t b_stride, int depth, C* c, int64_t c_stride,
                          bool add) {
  Vec<C> sum[kGroup][kVectors];
  for (int r = 0; r < kGroup; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = add ? load(c + r * c_stride + v * kLanes<C>) : Vec<C>{};
  }
  for (int k = 0; k < depth; ++k) {
    Vec<C> column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = load(b + k * b_stride + v * kLanes<C>);
    for (int r = 0; r < kGroup; ++r) {
      for (int v = 0; v < kVectors; ++v) sum[r][v] += column[v] * a[r * a_stride + k];
    }
  }
  for (int r = 0; r < kGroup; ++r) {
    for (int v = 0; v < kVectors; ++v) store(c + r * c_stride + v * kLanes<C>, sum[r][v]);
  }
}

// c[kGroup, columns] = a[kGroup, depth] b[depth, columns], added to c where `add`; columns are whole vectors.
template <class C>
void multiply(const C* a, int64_t a_stride, const C* b, int64_t b_stride, int depth, C* c, int64_t c_stride,
              int columns, bool add) {
  int j = 0;
  for (; j + 2 * kLanes<C> <= columns; j += 2 * kLanes<C>) {
    multiply_tile<2>(a, a_stride, b + j, b_stride, depth, c + j, c_stride, add);
  }
  if (j < columns) multiply_tile<1>(a, a_stride, b + j, b_stride, depth, c + j, c_stride, add);
}

// --- rows in memory <-> blocks in scratch ----------------------------------------------------------------------------

// Rotate-half by the angles of one position, times `scale`; `direction` -1 rotates back.
template <class C>
inline void rotate(const C* __restrict x, const float* cos, const float* sin, C direction, C scale, int dim,
                   C* __restrict out) {
  if (!cos) {
    for (int d = 0; d < dim; ++d) out[d] = x[d] * scale;
    return;
  }
  const int half = dim / 2;
  for (int d = 0; d < half; ++d) {
    const C c = C(cos[d]) * scale, s = C(sin[d]) * direction * scale;
    out[d] = x[d] * c - x[d + half] * s;
    out[d + half] = x[d + half] * c + x[d] * s;
  }
}

// One head of one sequence.
template <class S, class C>
struct Head {
  const WindowAttentionParams& p;
  int begin, head, width;  // width: dim rounded up to whole vectors

  Head(const WindowAttentionParams& params, const Block& block, int h)
      : p(params), begin(block.begin), head(h), width((params.dim + kLanes<C> - 1) / kLanes<C> * kLanes<C>) {}

  const float* table(const float* angles, int position) const {
    return angles ? angles + int64_t(position) * (p.dim / 2) : nullptr;
  }

  // Rows first .. first + count - 1 as [padded, width], the rest zero.
  void load_rows(const PackedHeads& x, int first, int count, int padded, bool turn, C scale, C* out) const {
    const S* base = static_cast<const S*>(x.data) + head * x.head_stride;
    for (int i = 0; i < count; ++i) {
      C wide[kMaxHeadDim];
      widen(base + (begin + first + i) * x.row_stride, p.dim, wide);
      C* row = out + int64_t(i) * width;
      rotate<C>(wide, turn ? table(p.cos, first + i) : nullptr, table(p.sin, first + i), 1, scale, p.dim, row);
      for (int d = p.dim; d < width; ++d) row[d] = 0;
    }
    for (int64_t i = int64_t(count) * width; i < int64_t(padded) * width; ++i) out[i] = 0;
  }

  void store_row(const C* x, int position, bool turn_back, C scale, void* out) const {
    C wide[kMaxHeadDim];
    rotate<C>(x, turn_back ? table(p.cos, position) : nullptr, table(p.sin, position), -1, scale, p.dim, wide);
    narrow(wide, p.dim, static_cast<S*>(out) + (int64_t(begin + position) * p.heads + head) * p.dim);
  }

  // Of [heads, rows], the entry of a position.
  C& value(void* values, int position) const {
    return static_cast<C*>(values)[int64_t(head) * p.rows + begin + position];
  }
};

// Calls body(block, head, workspace) for every block of every head, on all threads.
template <class Workspace, class Body>
void for_each_block(const WindowAttentionParams& p, Body&& body) {
  Scratch<Block> blocks(p.rows / kRows + p.sequences + 1);
  int64_t count = 0;
  for (int s = 0; s < p.sequences; ++s) {
    const int begin = p.cu_seqlens ? p.cu_seqlens[s] : 0, end = p.cu_seqlens ? p.cu_seqlens[s + 1] : p.rows;
    for (int first = 0; first < end - begin; first += kRows) blocks[count++] = {begin, end - begin, first};
  }
  parallel_for(count * p.heads, 1, [&](int64_t from, int64_t to) {
    Workspace workspace;
    for (int64_t i = from; i < to; ++i) body(blocks[i % count], int(i / count), workspace);
  });
}

// Calls body(first, count) for the blocks of columns that a block of rows sees.
template <class Body>
inline void for_each_column_block(const Block& block, int before, int after, Body&& body) {
  const Range seen = visible(block.first, block.count(), before, after, 0, block.length);
  for (int first = seen.low; first < seen.high; first += kColumns) {
    body(first, seen.high - first < kColumns ? seen.high - first : kColumns);
  }
}

// Sets what a row does not see of its group's part of the block.
template <class C>
inline void hide(C* row, Range group, Range seen, C value) {
  const int from = seen.empty() ? group.high : seen.low;
  for (int j = group.low; j < from; ++j) row[j] = value;
  for (int j = seen.empty() ? group.high : seen.high; j < group.high; ++j) row[j] = value;
}

// --- forward ---------------------------------------------------------------------------------------------------------

template <class C>
struct ForwardWorkspace {
  Scratch<C> q{kRows * kMaxHeadDim}, rows{kColumns * kMaxHeadDim}, keys{kColumns * kMaxHeadDim};
  Scratch<C> out{kRows * kMaxHeadDim}, scores{kGroup * kColumns}, maximum{kRows}, sum{kRows};
};

// Scores -> e^(score - maximum), with the running maximum and sum of the row; fades what `out` holds so far.
template <class C>
inline void online_softmax(C* scores, Range group, Range seen, C& maximum, C& sum, C* out, int width) {
  constexpr C hidden = -std::numeric_limits<C>::infinity();
  if (seen.empty()) return hide(scores, group, seen, C(0));
  hide(scores, group, seen, hidden);
  Vec<C> top = broadcast(maximum);
  for (int j = group.low; j < group.high; j += kLanes<C>) top = larger<C>(load(scores + j), top);
  const C now = max_lane<C>(top);
  if (maximum != hidden && now != maximum) {
    const C fade = exp(broadcast(maximum - now))[0];
    for (int d = 0; d < width; d += kLanes<C>) store(out + d, load(out + d) * fade);
    sum *= fade;
  }
  Vec<C> total{};
  for (int j = group.low; j < group.high; j += kLanes<C>) {
    const Vec<C> e = exp_below(load(scores + j) - now);
    total += e;
    store(scores + j, e);
  }
  sum += sum_lanes<C>(total);
  maximum = now;
}

template <class S, class C>
void forward(const WindowAttentionParams& p) {
  for_each_block<ForwardWorkspace<C>>(p, [&](const Block& block, int h, ForwardWorkspace<C>& w) {
    const Head<S, C> head(p, block, h);
    const int count = block.count(), width = head.width;
    head.load_rows(p.q, block.first, count, kRows, true, C(p.scale), w.q.get());
    for (int64_t i = 0; i < int64_t(kRows) * width; ++i) w.out[i] = 0;
    for (int i = 0; i < kRows; ++i) {
      w.maximum[i] = -std::numeric_limits<C>::infinity();
      w.sum[i] = i < count ? 0 : 1;
    }
    for_each_column_block(block, p.left, p.right, [&](int first, int columns) {
      const int padded = whole_vectors<C>({0, columns}).high;
      head.load_rows(p.k, first, columns, padded, true, 1, w.rows.get());
      transpose(w.rows.get(), padded, width, w.keys.get());
      head.load_rows(p.v, first, columns, padded, false, 1, w.rows.get());
      for (int i = 0; i < count; i += kGroup) {
        const int group_rows = count - i < kGroup ? count - i : kGroup;
        const Range seen = visible(block.first + i, group_rows, p.left, p.right, first, columns);
        if (seen.empty()) continue;
        const Range group = whole_vectors<C>(seen);
        C* scores = w.scores.get();
        multiply(&w.q[i * width], width, &w.keys[group.low], kColumns, p.dim, scores + group.low, kColumns,
                 group.high - group.low, false);
        for (int r = 0; r < kGroup; ++r) {
          const Range row = visible(block.first + i + r, 1, p.left, p.right, first, r < group_rows ? columns : 0);
          online_softmax<C>(scores + r * kColumns, group, row, w.maximum[i + r], w.sum[i + r], &w.out[(i + r) * width],
                            width);
        }
        multiply(scores + group.low, kColumns, &w.rows[group.low * width], width, group.high - group.low,
                 &w.out[i * width], width, width, true);
      }
    });
    for (int i = 0; i < count; ++i) {
      head.store_row(&w.out[i * width], block.first + i, false, C(1) / w.sum[i], p.out);
    }
    for (int i = 0; i < kRows; i += kLanes<C>) store(&w.sum[i], load(&w.maximum[i]) + log(load(&w.sum[i])));
    for (int i = 0; i < count; ++i) head.value(p.lse, block.first + i) = w.sum[i];
  });
}

#if defined(__AVX512F__)
// --- products of bfloat16 pairs (cpu/window_attention_bf16.h) --------------------------------------------------------

struct PairsWorkspace {
  Scratch<float> rows{kColumns * kMaxHeadDim}, out{kRows * kMaxHeadDim}, scores{kGroup * kColumns};
  Scratch<float> maximum{kRows}, sum{kRows};
  Scratch<uint32_t> q{kRows * kMaxHeadDim / 2}, lines{kColumns * kMaxHeadDim / 2}, keys{kColumns * kMaxHeadDim / 2};
  Scratch<uint32_t> values{kColumns * kMaxHeadDim / 2}, weights{kGroup * kColumns / 2};
};

// As forward(), but that queries, keys and the weights of values are rounded to bfloat16 for the products.
void forward_pairs(const WindowAttentionParams& p) {
  for_each_block<PairsWorkspace>(p, [&](const Block& block, int h, PairsWorkspace& w) {
    const Head<BFloat16, float> head(p, block, h);
    const int count = block.count(), width = p.dim, pairs = width / 2;
    head.load_rows(p.q, block.first, count, kRows, true, float(p.scale), w.out.get());
    round_pairs(w.out.get(), kRows * width, w.q.get());
    for (int i = 0; i < kRows * width; ++i) w.out[i] = 0;
    for (int i = 0; i < kRows; ++i) {
      w.maximum[i] = -std::numeric_limits<float>::infinity();
      w.sum[i] = i < count ? 0 : 1;
    }
    for_each_column_block(block, p.left, p.right, [&](int first, int columns) {
      const int padded = whole_vectors<float>({0, columns}).high;
      head.load_rows(p.k, first, columns, padded, true, 1, w.rows.get());
      round_pairs(w.rows.get(), padded * width, w.lines.get());
      transpose(reinterpret_cast<const float*>(w.lines.get()), padded, pairs, reinterpret_cast<float*>(w.keys.get()));
      head.load_rows(p.v, first, columns, padded, false, 1, w.rows.get());
      pair_rows(w.rows.get(), padded, width, w.values.get());
      for (int i = 0; i < count; i += kGroup) {
        const int group_rows = count - i < kGroup ? count - i : kGroup;
        const Range seen = visible(block.first + i, group_rows, p.left, p.right, first, columns);
        if (seen.empty()) continue;
        const Range group = whole_vectors<float>(seen);
        float* scores = w.scores.get();
        multiply_pairs<kGroup>(&w.q[i * pairs], pairs, &w.keys[group.low], kColumns, pairs, scores + group.low,
                               kColumns, group.high - group.low, false);
        for (int r = 0; r < kGroup; ++r) {
          const Range row = visible(block.first + i + r, 1, p.left, p.right, first, r < group_rows ? columns : 0);
          online_softmax<float>(scores + r * kColumns, group, row, w.maximum[i + r], w.sum[i + r],
                                &w.out[(i + r) * width], width);
          round_pairs(scores + r * kColumns + group.low, group.high - group.low,
                      &w.weights[(r * kColumns + group.low) / 2]);
        }
        multiply_pairs<kGroup>(&w.weights[group.low / 2], kColumns / 2, &w.values[group.low / 2 * width], width,
                               (group.high - group.low) / 2, &w.out[i * width], width, width, true);
      }
    });
    for (int i = 0; i < count; ++i) {
      head.store_row(&w.out[i * width], block.first + i, false, 1.0f / w.sum[i], p.out);
    }
    for (int i = 0; i < kRows; i += kLanes<float>) store(&w.sum[i], load(&w.maximum[i]) + log(load(&w.sum[i])));
    for (int i = 0; i < count; ++i) head.value(p.lse, block.first + i) = w.sum[i];
  });
}
#endif

// --- backward --------------------------------------------------------------------------------------------------------

template <class C>
struct BackwardWorkspace {
  Scratch<C> a{kRows * kMaxHeadDim}, b{kRows * kMaxHeadDim}, grad_a{kRows * kMaxHeadDim}, grad_b{kRows * kMaxHeadDim};
  Scratch<C> x{kColumns * kMaxHeadDim}, y{kColumns * kMaxHeadDim}, x_columns{kColumns * kMaxHeadDim},
      y_columns{kColumns * kMaxHeadDim};
  Scratch<C> probabilities{kGroup * kColumns}, grad_scores{kGroup * kColumns}, lse{kColumns}, delta{kColumns};
};

template <class C>
inline C dot(const C* a, const C* b, int width) {
  Vec<C> sum{};
  for (int d = 0; d < width; d += kLanes<C>) sum += load(a + d) * load(b + d);
  return sum_lanes<C>(sum);
}

// Rows are queries: delta and grad_q.
template <class S, class C>
void backward_queries(const WindowAttentionBackwardParams& b) {
  const WindowAttentionParams& p = b.forward;
  for_each_block<BackwardWorkspace<C>>(p, [&](const Block& block, int h, BackwardWorkspace<C>& w) {
    const Head<S, C> head(p, block, h);
    const int count = block.count(), width = head.width;
    head.load_rows(p.q, block.first, count, kRows, true, C(p.scale), w.a.get());
    head.load_rows(b.out, block.first, count, kRows, false, 1, w.grad_a.get());
    head.load_rows(b.grad_out, block.first, count, kRows, false, 1, w.b.get());
    for (int i = 0; i < kRows; ++i) {
      w.delta[i] = dot(&w.grad_a[i * width], &w.b[i * width], width);
      w.lse[i] = i < count ? head.value(p.lse, block.first + i) : 0;
      if (i < count) head.value(b.delta, block.first + i) = w.delta[i];
    }
    for (int64_t i = 0; i < int64_t(kRows) * width; ++i) w.grad_a[i] = 0;
    for_each_column_block(block, p.left, p.right, [&](int first, int columns) {
      const int padded = whole_vectors<C>({0, columns}).high;
      head.load_rows(p.v, first, columns, padded, false, 1, w.x.get());
      transpose(w.x.get(), padded, width, w.y_columns.get());
      head.load_rows(p.k, first, columns, padded, true, 1, w.x.get());
      transpose(w.x.get(), padded, width, w.x_columns.get());
      for (int i = 0; i < count; i += kGroup) {
        const int group_rows = count - i < kGroup ? count - i : kGroup;
        const Range seen = visible(block.first + i, group_rows, p.left, p.right, first, columns);
        if (seen.empty()) continue;
        const Range group = whole_vectors<C>(seen);
        C *scores = w.probabilities.get(), *grad = w.grad_scores.get();
        multiply(&w.a[i * width], width, &w.x_columns[group.low], kColumns, p.dim, scores + group.low, kColumns,
                 group.high - group.low, false);
        multiply(&w.b[i * width], width, &w.y_columns[group.low], kColumns, p.dim, grad + group.low, kColumns,
                 group.high - group.low, false);
        for (int r = 0; r < kGroup; ++r) {
          C *s = scores + r * kColumns, *g = grad + r * kColumns;
          for (int j = group.low; j < group.high; j += kLanes<C>) {
            store(g + j, exp_below(load(s + j) - w.lse[i + r]) * (load(g + j) - w.delta[i + r]));
          }
          hide(g, group, visible(block.first + i + r, 1, p.left, p.right, first, r < group_rows ? columns : 0), C(0));
        }
        multiply(grad + group.low, kColumns, &w.x[group.low * width], width, group.high - group.low,
                 &w.grad_a[i * width], width, width, true);
      }
    });
    for (int i = 0; i < count; ++i) {
      head.store_row(&w.grad_a[i * width], block.first + i, true, C(p.scale), b.grad_q);
    }
  });
}

// Rows are keys: grad_k and grad_v. Key j is seen by queries j - right .. j + left.
template <class S, class C>
void backward_keys(const WindowAttentionBackwardParams& b) {
  const WindowAttentionParams& p = b.forward;
  for_each_block<BackwardWorkspace<C>>(p, [&](const Block& block, int h, BackwardWorkspace<C>& w) {
    const Head<S, C> head(p, block, h);
    const int count = block.count(), width = head.width;
    head.load_rows(p.k, block.first, count, kRows, true, 1, w.a.get());
    head.load_rows(p.v, block.first, count, kRows, false, 1, w.b.get());
    for (int64_t i = 0; i < int64_t(kRows) * width; ++i) w.grad_a[i] = w.grad_b[i] = 0;
    for_each_column_block(block, p.right, p.left, [&](int first, int columns) {
      const int padded = whole_vectors<C>({0, columns}).high;
      head.load_rows(p.q, first, columns, padded, true, C(p.scale), w.x.get());
      transpose(w.x.get(), padded, width, w.x_columns.get());
      head.load_rows(b.grad_out, first, columns, padded, false, 1, w.y.get());
      transpose(w.y.get(), padded, width, w.y_columns.get());
      for (int j = 0; j < padded; ++j) {
        w.lse[j] = j < columns ? head.value(p.lse, first + j) : 0;
        w.delta[j] = j < columns ? head.value(b.delta, first + j) : 0;
      }
      for (int i = 0; i < count; i += kGroup) {
        const int group_rows = count - i < kGroup ? count - i : kGroup;
        const Range seen = visible(block.first + i, group_rows, p.right, p.left, first, columns);
        if (seen.empty()) continue;
        const Range group = whole_vectors<C>(seen);
        C *scores = w.probabilities.get(), *grad = w.grad_scores.get();
        multiply(&w.a[i * width], width, &w.x_columns[group.low], kColumns, p.dim, scores + group.low, kColumns,
                 group.high - group.low, false);
        multiply(&w.b[i * width], width, &w.y_columns[group.low], kColumns, p.dim, grad + group.low, kColumns,
                 group.high - group.low, false);
        for (int r = 0; r < kGroup; ++r) {
          C *s = scores + r * kColumns, *g = grad + r * kColumns;
          for (int j = group.low; j < group.high; j += kLanes<C>) {
            const Vec<C> probability = exp_below(load(s + j) - load(&w.lse[j]));
            store(s + j, probability);
            store(g + j, probability * (load(g + j) - load(&w.delta[j])));
          }
          const Range row = visible(block.first + i + r, 1, p.right, p.left, first, r < group_rows ? columns : 0);
          hide(s, group, row, C(0));
          hide(g, group, row, C(0));
        }
        multiply(scores + group.low, kColumns, &w.y[group.low * width], width, group.high - group.low,
                 &w.grad_b[i * width], width, width, true);
        multiply(grad + group.low, kColumns, &w.x[group.low * width], width, group.high - group.low,
                 &w.grad_a[i * width], width, width, true);
      }
    });
    for (int i = 0; i < count; ++i) {
      head.store_row(&w.grad_a[i * width], block.first + i, true, 1, b.grad_k);
      head.store_row(&w.grad_b[i * width], block.first + i, false, 1, b.grad_v);
    }
  });
}

template <class S, class C>
void backward(const WindowAttentionBackwardParams& b) {
  backward_queries<S, C>(b);
  backward_keys<S, C>(b);
}

}  // namespace

void window_attention(const WindowAttentionParams& p) {
  if (p.dtype == DType::f64) return forward<double, double>(p);
#if defined(__AVX512F__)
  if (p.dtype == DType::bf16 && p.dim % kPairedWidth == 0 && cpu_has_bf16()) return forward_pairs(p);
#endif
  MIMO_FLOAT_OR_HALF(p.dtype, forward<T, float>(p));
}

void window_attention_backward(const WindowAttentionBackwardParams& b) {
  if (b.forward.dtype == DType::f64) return backward<double, double>(b);
  MIMO_FLOAT_OR_HALF(b.forward.dtype, backward<T, float>(b));
}

}  // namespace mimo::cpu::MIMO_ISA
