// The float32 searches of RVQ on the CPU: the codes of few rows, and of many.
//
// Layers depend on one another only through the residual, and x.e for all codebooks with a table of inner products has
// the same 2 D sum(K) operations per row as the layer-by-layer form. The table would have to be made and cached per
// version of the codebooks, and its sums carry the rounding of 20 look-ups. So: layer by layer, residual in cache.
//
// Many rows (search_blocks). A thread takes a block of rows through all layers; nothing is shared, so there is one
// parallel region per call. The dot products are a matrix product in the shape of the machine: a tile of 14 rows x 32
// entries (AVX-512; 6 x 16 for AVX2) stays in registers over all D columns. Entries come from panels [D][32], packed
// once per call, residuals from tiles [D / 16][14][16]: both are read in order, and a residual's address is one pointer
// plus a constant. A block has as many rows as leave residuals, dot products and one panel in the L2 cache: a panel is
// read once per block, a residual once per panel. After a codebook the block's rows choose their codes and subtract
// their entries while the residuals are still in L2.
//
// Few rows (search_rows). Packing would cost more than the products. Entries are read where they lie, by all threads, a
// group of entries against all rows, with vectors along D; the rows then choose. Two parallel regions per layer.
#pragma once
#include "cpu/rvq_common.h"

namespace mimo::cpu::MIMO_ISA {

inline constexpr int kPanel = 2 * kLanes<float>;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// What the screens know of all entries, codebook after codebook.
class ScreenedCodebooks {
 public:
  ScreenedCodebooks(const RvqSearchParams& p, bool exact_squares)
      : dim_(p.codebooks.dim), total_(total(p.codebooks)), arrays_(3 * total_) {
    int64_t padded = 0, offset = 0;
    for (int r = 0; r < p.codebooks.layers; ++r) {
      ScreenedCodebook& book = books_[r];
      book.entries = static_cast<const float*>(p.codebooks.entries[r]);
      book.entry_squares = p.entry_squares + offset;
      book.size = p.codebooks.sizes[r];
      book.padded = int(round_up(book.size, kPanel));
      book.exact_squares = exact_squares;
      book.square = arrays_.get() + padded;
      book.norm = book.square + total_;
      book.rounding = book.norm + total_;
      for (int k = book.size; k < book.padded; ++k) {
        book.square[k] = __builtin_inff();
        book.norm[k] = book.rounding[k] = 0;
      }
      offset_[r] = padded;
      padded += book.padded;
      offset += book.size;
      largest_ = book.padded > largest_ ? book.padded : largest_;
    }
  }
  const ScreenedCodebook& operator[](int r) const { return books_[r]; }
  int64_t offset(int r) const { return offset_[r]; }  // of codebook r's first entry among all padded entries
  int64_t padded_total() const { return total_; }
  int64_t largest() const { return largest_; }

  // Fills in the norms of entries [begin, end) of codebook r from their exact squares.
  void measure(int r, int begin, int end) const {
    const ScreenedCodebook& book = books_[r];
    for (int k = begin; k < end; ++k) {
      const double square = square_of(book.entries + int64_t(k) * dim_, dim_);
      book.entry_squares[k] = square;
      book.square[k] = float(square);
      book.norm[k] = norm_above(square);
      book.rounding[k] = 0;
    }
  }
  // The same of entry k from its square in float32.
  void measure_from(int r, int k, float square) const {
    const ScreenedCodebook& book = books_[r];
    const bool finite = square < __builtin_inff();
    book.entry_squares[k] = finite ? double(square) : square_of(book.entries + int64_t(k) * dim_, dim_);
    book.square[k] = square;
    book.norm[k] = norm_above(square, dim_);
    book.rounding[k] = 0;
  }

 private:
  static int64_t total(const Codebooks& codebooks) {
    int64_t sum = 0;
    for (int r = 0; r < codebooks.layers; ++r) sum += round_up(codebooks.sizes[r], kPanel);
    return sum;
  }

  int dim_;
  int64_t total_, largest_ = 0;
  Scratch<float> arrays_;
  ScreenedCodebook books_[kMaxCodebooks];
  int64_t offset_[kMaxCodebooks];
};

// --- many rows ------------------------------------------------------------------------------------------------------

// Screens residuals in float32: the residuals of a thread's block, the packed entries, and their dot products.
class FloatScreen {
 public:
  using Packed = float;
  static constexpr int kTileRows = kVectorBytes == 64 ? 14 : 6;
  static constexpr int64_t kBlockBytes = 512 << 10;  // of residuals
  static int64_t columns(int dim) { return round_up(dim, kChunk); }

  FloatScreen(int dim, int64_t tiles)
      : dim_(dim), tile_floats_(columns(dim) * kTileRows), tiles_(tiles * tile_floats_) {}
  Row<float> row(int64_t i) const {
    return {tiles_.get() + i / kTileRows * tile_floats_ + i % kTileRows * kChunk, kTileRows * kChunk};
  }
  // Called when row i has changed; returns a bound of |r^ - r|.
  float update(int64_t) const { return 0; }

  // Packs entries [first, first + kPanel) of a codebook as panel[d][entry], zero beyond the last entry and column.
  static void pack(const ScreenedCodebook& book, int first, int dim, float* panel) {
    constexpr int lanes = kLanes<float>;
    for (int64_t d = 0; d < columns(dim); d += lanes) {
      for (int half = 0; half < 2; ++half) {
        Vec<float> block[lanes] = {};
        for (int j = 0; j < lanes; ++j) {
          const int k = first + half * lanes + j;
          if (k < book.size && d < dim) block[j] = load_part(book.entries + int64_t(k) * dim + d, dim - d);
        }
        transpose_square<float>(block);
        for (int i = 0; i < lanes; ++i) store(panel + (d + i) * kPanel + half * lanes, block[i]);
      }
    }
  }

  // out[i * stride + j] = row i . entry j for the rows of `tiles` tiles and the entries of one panel.
  void dots(int64_t tiles, const float* panel, float* out, int64_t stride) const {
    for (int64_t t = 0; t < tiles; ++t) {
      tile_dots(tiles_.get() + t * tile_floats_, panel, int(columns(dim_)) / kChunk, out + t * kTileRows * stride,
                stride);
    }
  }

 private:
  static void tile_dots(const float* tile, const float* panel, int chunks, float* out, int64_t stride) {
    Vec<float> sum[kTileRows][2] = {};
    for (int c = 0; c < chunks; ++c, tile += kTileRows * kChunk) {
      for (int d = 0; d < kChunk; ++d, panel += kPanel) {
        const Vec<float> e0 = load(panel), e1 = load(panel + kLanes<float>);
#pragma GCC unroll 14
        for (int i = 0; i < kTileRows; ++i) {
          const Vec<float> r = broadcast(tile[i * kChunk + d]);
          sum[i][0] += r * e0;
          sum[i][1] += r * e1;
        }
      }
    }
#pragma GCC unroll 14
    for (int i = 0; i < kTileRows; ++i) {
      store(out + i * stride, sum[i][0]);
      store(out + i * stride + kLanes<float>, sum[i][1]);
    }
  }

  int dim_;
  int64_t tile_floats_;
  Scratch<float> tiles_;
};

template <class Screen>
void search_blocks(const RvqSearchParams& p, const ScreenedCodebooks& books) {
  using Packed = typename Screen::Packed;
  constexpr int64_t tile_rows = Screen::kTileRows;
  const int dim = p.codebooks.dim;
  const int64_t panel_size = Screen::columns(dim) * kPanel, panels = books.padded_total() / kPanel;
  const Scratch<Packed> packed(panels * panel_size);
  parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
    for (int r = 0; r < p.codebooks.layers; ++r) {
      const int64_t first = books.offset(r) / kPanel;
      for (int64_t q = begin > first ? begin : first; q < end && q < first + books[r].padded / kPanel; ++q) {
        const int k = int(q - first) * kPanel;
        books.measure(r, k, k + kPanel < books[r].size ? k + kPanel : books[r].size);
        Screen::pack(books[r], k, dim, packed.get() + q * panel_size);
      }
    }
  });

  const RvqBound bound = rvq_bound(dim);
  const auto* x = static_cast<const float*>(p.x);
  const int64_t tiles = (p.count + tile_rows - 1) / tile_rows;
  const int64_t wanted = Screen::kBlockBytes / (tile_rows * Screen::columns(dim) * int64_t(sizeof(float)));
  parallel_for(tiles, 1, [&](int64_t begin, int64_t end) {
    const int64_t most = wanted > 1 ? wanted : 1, blocks = (end - begin + most - 1) / most;
    const int64_t per_block = (end - begin + blocks - 1) / blocks;
    Screen screen(dim, per_block);
    const Scratch<float> dots(per_block * tile_rows * books.largest());
    const Scratch<float> rounding(per_block * tile_rows);
    for (int64_t block = begin; block < end; block += per_block) {
      const int64_t block_tiles = end - block < per_block ? end - block : per_block;
      const int64_t first = block * tile_rows;
      const int64_t rows = p.count - first < block_tiles * tile_rows ? p.count - first : block_tiles * tile_rows;
      for (int64_t i = 0; i < block_tiles * tile_rows; ++i) {  // rows beyond the last repeat it
        load_row(screen.row(i), x + (first + (i < rows ? i : rows - 1)) * dim, dim);
        rounding[i] = screen.update(i);
      }
      for (int64_t i = 0; i < rows; ++i) p.row_squares[first + i] = square_of(screen.row(i), dim);
      for (int r = 0; r < p.codebooks.layers; ++r) {
        const ScreenedCodebook& book = books[r];
        const Packed* panel = packed.get() + books.offset(r) / kPanel * panel_size;
        for (int k = 0; k < book.padded; k += kPanel, panel += panel_size) {
          screen.dots(block_tiles, panel, dots.get() + k, book.padded);
        }
        for (int64_t i = 0; i < rows; ++i) {
          const Row<float> row = screen.row(i);
          double* square = p.row_squares + r * p.count + first + i;
          const int k = choose(dots.get() + i * book.padded, book, bound, row, *square, rounding[i], dim);
          p.codes[r * p.count + first + i] = k;
          subtract_entry(row, book.entries + int64_t(k) * dim, dim);
          square[p.count] = square_of(row, dim);
          rounding[i] = screen.update(i);
        }
      }
    }
  });
}

// --- few rows -------------------------------------------------------------------------------------------------------

inline constexpr int kGroup = 4;  // entries read together
inline constexpr int kGroupRows = kVectorBytes == 64 ? 4 : 2;

// out[i * stride + j] = row i . entry j of kRows rows (`pitch` apart) and kGroup entries; with kSquares also the
// squared norms of the entries.
template <int kRows, bool kSquares>
void group_dots(const float* rows, int64_t pitch, const float* const (&entries)[kGroup], int dim, float* out,
                int64_t stride, float* squares) {
  Vec<float> sum[kRows][kGroup] = {}, square[kGroup] = {};
  int d = 0;
  for (; d + kLanes<float> <= dim; d += kLanes<float>) {
    Vec<float> e[kGroup];
    for (int j = 0; j < kGroup; ++j) e[j] = load(entries[j] + d);
    for (int i = 0; i < kRows; ++i) {
      const Vec<float> r = load(rows + i * pitch + d);
      for (int j = 0; j < kGroup; ++j) sum[i][j] += r * e[j];
    }
    if constexpr (kSquares) {
      for (int j = 0; j < kGroup; ++j) square[j] += e[j] * e[j];
    }
  }
  for (int j = 0; j < kGroup; ++j) {
    for (int i = 0; i < kRows; ++i) {
      float total = sum_lanes<float>(sum[i][j]);
      for (int tail = d; tail < dim; ++tail) total += rows[i * pitch + tail] * entries[j][tail];
      out[i * stride + j] = total;
    }
    if constexpr (kSquares) {
      squares[j] = sum_lanes<float>(square[j]);
      for (int tail = d; tail < dim; ++tail) squares[j] += entries[j][tail] * entries[j][tail];
    }
  }
}

inline void search_rows(const RvqSearchParams& p, const ScreenedCodebooks& books) {
  const int dim = p.codebooks.dim;
  const int64_t pitch = int64_t(chunks_of(dim)) * kChunk;
  const Scratch<float> residual(p.count * pitch), dots(p.count * books.largest());
  const RvqBound bound = rvq_bound(dim);
  const auto row = [&](int64_t n) { return Row<float>{residual.get() + n * pitch, kChunk}; };
  for (int64_t n = 0; n < p.count; ++n) {
    load_row(row(n), static_cast<const float*>(p.x) + n * dim, dim);
    p.row_squares[n] = square_of(row(n), dim);
  }
  for (int r = 0; r < p.codebooks.layers; ++r) {
    const ScreenedCodebook& book = books[r];
    parallel_for((book.size + kGroup - 1) / kGroup, 8, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        const int k = int(group) * kGroup;
        const float* entries[kGroup];  // the last entry stands in for those beyond it: padded columns are never chosen
        for (int j = 0; j < kGroup; ++j) {
          entries[j] = book.entries + int64_t(k + j < book.size ? k + j : book.size - 1) * dim;
        }
        float squares[kGroup];
        float* out = dots.get() + k;
        group_dots<1, true>(row(0).data, pitch, entries, dim, out, book.padded, squares);
        int64_t n = 1;
        for (; n + kGroupRows <= p.count; n += kGroupRows) {
          group_dots<kGroupRows, false>(row(n).data, pitch, entries, dim, out + n * book.padded, book.padded, nullptr);
        }
        for (; n < p.count; ++n) {
          group_dots<1, false>(row(n).data, pitch, entries, dim, out + n * book.padded, book.padded, nullptr);
        }
        for (int j = 0; j < kGroup && k + j < book.size; ++j) books.measure_from(r, k + j, squares[j]);
      }
    });
    for (int64_t n = 0; n < p.count; ++n) {  // columns no group has written
      for (int k = int(round_up(book.size, kGroup)); k < book.padded; ++k) dots[n * book.padded + k] = 0;
    }
    parallel_for(p.count, 8, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int k = choose(dots.get() + n * book.padded, book, bound, row(n), p.row_squares[r * p.count + n], 0, dim);
        p.codes[r * p.count + n] = k;
        subtract_entry(row(n), book.entries + int64_t(k) * dim, dim);
        p.row_squares[(r + 1) * p.count + n] = square_of(row(n), dim);
      }
    });
  }
}

}  // namespace mimo::cpu::MIMO_ISA
