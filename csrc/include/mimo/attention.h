// Head widths that the attention ops take: multiples of 8 in this range.
#pragma once

namespace mimo {

inline constexpr int kMinHeadDim = 8, kMaxHeadDim = 128;

}  // namespace mimo
