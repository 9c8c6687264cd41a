// Bad data in words: the same for a CPU op, which raises them, and for what a CUDA kernel has reported.
#pragma once
#include <string>

#include "mimo/bad_data.h"

namespace mimo {

std::string invalid_logits_text(const std::string& op, int64_t row);

// What take_bad_data found; "" for nothing.
std::string bad_data_text(const BadDataPlace& place);

}  // namespace mimo
