// Screens RVQ's residuals in bfloat16 on AMX tiles (Sapphire Rapids and later; x86-64 with AVX-512 only).
//
// Residuals and entries are rounded to bfloat16, and the norms of what the rounding took away go into the error bound
// (include/mimo/rvq.h). On normal data the bound leaves about two candidates per row and layer, half the time one; a
// float32 product each reduces them nearly always to one, float64 decides the rest. Blocks are larger than for float32
// products: fetching the candidates' float32 entries from beyond L2 costs as much as the tiles, and rows share them.
//
// A panel is [D / 32][2][16 pairs][16 entries][2]: tiles of 16 x 64 bytes in the order the instruction wants of its
// second operand. Residuals are [rows / 16][D / 32][16][32]. Two tiles of rows meet two tiles of entries: four tiles
// of sums, four loads and four products per 32 columns.
#pragma once
#include "cpu/rvq_common.h"

#define MIMO_AMX __attribute__((target("amx-tile,amx-bf16,avx512bf16")))

namespace mimo::cpu::MIMO_ISA {

inline constexpr int kTileColumns = 32;          // bfloat16 elements of one tile row
inline constexpr int kTile = 16 * kTileColumns;  // elements of one tile

// Rounds 32 elements to bfloat16 and adds the squares of what the rounding took away.
MIMO_AMX inline __m512i round_to_bf16(__m512 low, __m512 high, __m512& lost) {
  const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(high, low);
  const auto widen_half = [](__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  };
  const __m512 a = low - widen_half(_mm512_castsi512_si256(rounded));
  const __m512 b = high - widen_half(_mm512_extracti64x4_epi64(rounded, 1));
  lost = lost + a * a + b * b;
  return rounded;
}

// Rounds a residual into its tile row; returns a bound of |r^ - r|.
MIMO_AMX inline float round_row(Row<float> row, uint16_t* out, int steps, int dim) {
  __m512 lost{};
  for (int s = 0; s < steps; ++s) {
    _mm512_store_si512(out + s * kTile, round_to_bf16(load(row.chunk(2 * s)), load(row.chunk(2 * s + 1)), lost));
  }
  return norm_above(_mm512_reduce_add_ps(lost), dim);
}

MIMO_AMX inline void pack_bf16(const ScreenedCodebook& book, int first, int dim, int steps, uint16_t* panel) {
  for (int half = 0; half < 2; ++half) {
    __m512 lost[16] = {};
    for (int s = 0; s < steps; ++s) {
      const int d = s * kTileColumns;
      Vec<float> pairs[16];
      for (int j = 0; j < 16; ++j) {
        const int k = first + half * 16 + j;
        Vec<float> low{}, high{};
        if (k < book.size) {
          const float* entry = book.entries + int64_t(k) * dim + d;
          low = load_part(entry, dim - d);
          if (d + 16 < dim) high = load_part(entry + 16, dim - d - 16);
        }
        pairs[j] = (Vec<float>)round_to_bf16(low, high, lost[j]);
      }
      transpose<float>(pairs);
      for (int i = 0; i < 16; ++i)
        store(reinterpret_cast<float*>(panel + (2 * s + half) * kTile + i * kTileColumns), pairs[i]);
    }
    for (int j = 0; j < 16 && first + half * 16 + j < book.size; ++j) {
      book.rounding[first + half * 16 + j] = norm_above(_mm512_reduce_add_ps(lost[j]), dim);
    }
  }
}

// out[i * stride + j] = row i . entry j of 32 rows and 32 entries.
MIMO_AMX inline void dots_32x32(const uint16_t* rows, const uint16_t* panel, int steps, float* out, int64_t stride) {
  const uint16_t* next_rows = rows + int64_t(steps) * kTile;
  __asm__ volatile("" : : : "memory");  // the intrinsics do not say which memory they read
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int s = 0; s < steps; ++s, rows += kTile, next_rows += kTile, panel += 2 * kTile) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(6, panel, 64);
    _tile_loadd(7, panel + kTile, 64);
    _tile_loadd(5, next_rows, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  const auto pitch = size_t(stride) * sizeof(float);
  _tile_stored(0, out, pitch);
  _tile_stored(1, out + 16, pitch);
  _tile_stored(2, out + 16 * stride, pitch);
  _tile_stored(3, out + 16 * stride + 16, pitch);
}

MIMO_AMX inline void configure_tiles() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  __asm__ volatile("" : : "r"(&config) : "memory");  // as above
  _tile_loadconfig(&config);
}
MIMO_AMX inline void release_tiles() { _tile_release(); }

class AmxScreen {
 public:
  using Packed = uint16_t;
  static constexpr int kTileRows = 32;
  static constexpr int64_t kBlockBytes = 2560 << 10;
  static int64_t columns(int dim) { return (dim + kTileColumns - 1) / kTileColumns * kTileColumns; }

  AmxScreen(int dim, int64_t tiles)
      : dim_(dim),
        steps_(int(columns(dim)) / kTileColumns),
        rows_(tiles * kTileRows * columns(dim)),
        rounded_(tiles * kTileRows * columns(dim)) {
    configure_tiles();
  }
  ~AmxScreen() { release_tiles(); }

  Row<float> row(int64_t i) const { return {rows_.get() + i * columns(dim_), kChunk}; }
  float update(int64_t i) const {
    const Row<float> r = row(i);
    for (int64_t d = int64_t(chunks_of(dim_)) * kChunk; d < columns(dim_); ++d) r.data[d] = 0;
    return round_row(r, rounded_.get() + i / 16 * 16 * columns(dim_) + i % 16 * kTileColumns, steps_, dim_);
  }
  static void pack(const ScreenedCodebook& book, int first, int dim, uint16_t* panel) {
    pack_bf16(book, first, dim, int(columns(dim)) / kTileColumns, panel);
  }
  void dots(int64_t tiles, const uint16_t* panel, float* out, int64_t stride) const {
    for (int64_t t = 0; t < tiles; ++t) {
      dots_32x32(rounded_.get() + t * kTileRows * columns(dim_), panel, steps_, out + t * kTileRows * stride, stride);
    }
  }

 private:
  int dim_, steps_;
  Scratch<float> rows_;
  Scratch<uint16_t> rounded_;
};

}  // namespace mimo::cpu::MIMO_ISA

#undef MIMO_AMX
