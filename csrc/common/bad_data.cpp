// The messages behind bad_data.h.
#include "common/bad_data.h"

namespace mimo {
namespace {

std::string sampling_text(const std::string& op, const BadDataPlace& at) {
  const std::string row = "[" + std::to_string(at.row) + "]";
  if (at.part == kBadTemperature) {
    return op + ": temperature" + row + " must be 0 (the largest logit) or positive and finite";
  }
  if (at.part == kBadTopP) return op + ": top_p" + row + " must be a number";
  return invalid_logits_text(op, at.row);
}

std::string step_text(const std::string& op, const BadDataPlace& at) {
  const std::string row = "[" + std::to_string(at.row) + "]";
  if (at.part == kBadPages) return op + ": pages" + row + " must name pages of the cache for all that the row sees";
  if (at.part == kBadPadding) return op + ": padding" + row + " must be 0 to the row's length";
  if (at.part == kBadEnds) return op + ": ends" + row + " must be the row's length to length";
  return op + ": lengths" + row + " must be 0 to length";
}

std::string code_text(const std::string& op, const BadDataPlace& at) {
  const std::string layer = std::to_string(at.part);
  return op + ": codes[" + layer + ", " + std::to_string(at.row) + "] must be an index of codebooks[" + layer + "]";
}

}  // namespace

std::string invalid_logits_text(const std::string& op, int64_t row) {
  return op + ": the logits of row " + std::to_string(row) +
         " cannot be sampled: one is NaN, or the largest divided by the temperature is not finite";
}

std::string bad_data_text(const BadDataPlace& at) {
  switch (at.op) {
    case BadData::none:
      return "";
    case BadData::sample:
      return sampling_text("sample", at);
    case BadData::delayed_sampling:
      return sampling_text("delayed_sampling", at);
    case BadData::patch_decode:
      return sampling_text("patch_decode", at);
    case BadData::rvq_decode:
      return code_text("rvq_decode", at);
    case BadData::rvq_backward:
      return code_text("rvq_quantize_backward", at);
    case BadData::backbone_step:
      return step_text("backbone_step", at);
  }
  return "";
}

}  // namespace mimo
