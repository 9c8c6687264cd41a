// How a weight matrix [rows, columns] lies in memory: as plain rows of the activations' dtype, or quantised, as
// mimo_audio_native.quantize_weight makes it and mimo_audio_native/reference/quantized_linear.py defines it.
//
// A quantised matrix is uint8 [rows, quantized_row_bytes], columns a multiple of 32. Rows lie interleaved in panels of
// 16 (the last one has h < 16 rows and takes no more room), so that one vector load meets a number of each row:
//
//   int8   float32 scale [h]                     | for every 4 columns: [h][4] bytes, number + 128
//   int4   bfloat16 scales [columns / group][h]  | for every 8 columns: [h][4] bytes; low half: column c, high half:
//                                                |                      column 4 + c, each number + 8
#pragma once
#include <cstdint>
#include <initializer_list>

namespace mimo {

enum class WeightFormat : uint8_t { dense, int8, int4_32, int4_128 };

inline constexpr int kPanelRows = 16;
inline constexpr int kActivationGroup = 32;  // neighbours of an activation row that share a scale

constexpr bool is_int4(WeightFormat f) { return f == WeightFormat::int4_32 || f == WeightFormat::int4_128; }

// Columns that share a scale, and what a number is stored above.
constexpr int weight_group(WeightFormat f) { return f == WeightFormat::int4_128 ? 128 : 32; }
constexpr int weight_zero(WeightFormat f) { return is_int4(f) ? 8 : 128; }

// Bytes of the scales that a panel of one row begins with.
constexpr int64_t scale_bytes(WeightFormat f, int64_t columns) {
  return is_int4(f) ? columns / weight_group(f) * 2 : int64_t(sizeof(float));
}

constexpr int64_t quantized_row_bytes(WeightFormat f, int64_t columns) {
  return scale_bytes(f, columns) + (is_int4(f) ? columns / 2 : columns);
}

// The format of rows of so many bytes, or dense where there is none.
constexpr WeightFormat quantized_format(int64_t columns, int64_t row_bytes) {
  for (const WeightFormat f : {WeightFormat::int8, WeightFormat::int4_32, WeightFormat::int4_128}) {
    const int multiple = is_int4(f) ? weight_group(f) : kActivationGroup;
    if (columns % multiple == 0 && row_bytes == quantized_row_bytes(f, columns)) return f;
  }
  return WeightFormat::dense;
}

// A panel of a quantised matrix (always inlined, as cpu/isa.h asks of what its files share with others): rows first ..
// first + height - 1.
struct WeightPanel {
  const uint8_t* scales;
  const uint8_t* numbers;
  int height;
};

__attribute__((always_inline)) constexpr WeightPanel weight_panel(const uint8_t* data, WeightFormat f, int64_t rows,
                                                                  int64_t columns, int64_t first) {
  const int height = rows - first < kPanelRows ? int(rows - first) : kPanelRows;
  const uint8_t* scales = data + first * quantized_row_bytes(f, columns);
  return {scales, scales + height * scale_bytes(f, columns), height};
}

}  // namespace mimo
