// Argument checks that sample, delayed_sampling and patch_decode share.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "common/bad_data.h"
#include "common/torch_api.h"
#include "mimo/delayed_sampling.h"

namespace mimo {

// What each of `rows` rows is sampled with, as the ops take it: tensors [B].
struct SamplingTensors {
  const Tensor &temperature, &top_k, &top_p, &seeds, &offsets;
};

// Checks them against `first`, the op's first tensor, which has `rows` rows; `hold` keeps contiguous copies alive.
// Values are looked at on the CPU only; on CUDA, where looking would synchronise, the kernel reports them.
inline RowSampling row_sampling_of(const char* op, const SamplingTensors& t, int64_t rows, const char* first_name,
                                   const Tensor& first, std::vector<Tensor>& hold) {
  const auto data = [&](const char* name, const Tensor& x, ScalarType dtype) {
    check_dim(op, name, x, 1, "[B]");
    check_dtype(op, name, x, {dtype});
    check_same_device(op, name, x, first_name, first);
    MIMO_CHECK(x.size(0) == rows, op, ": ", name, " must have an entry per row of ", first_name, " (", rows, "), got ",
               describe(x));
    hold.push_back(torch::stable::contiguous(x));
    return hold.back().const_data_ptr();
  };
  RowSampling s{};
  s.temperature = static_cast<const float*>(data("temperature", t.temperature, ScalarType::Float));
  s.top_k = static_cast<const int32_t*>(data("top_k", t.top_k, ScalarType::Int));
  s.top_p = static_cast<const float*>(data("top_p", t.top_p, ScalarType::Float));
  s.seeds = static_cast<const int64_t*>(data("seeds", t.seeds, ScalarType::Long));
  s.offsets = static_cast<const int64_t*>(data("offsets", t.offsets, ScalarType::Long));
  for (int64_t b = 0; !runs_cuda_kernels(first) && b < rows; ++b) {
    MIMO_CHECK(std::isfinite(s.temperature[b]) && s.temperature[b] >= 0, op, ": temperature[", b,
               "] must be 0 (the largest logit) or positive and finite, got ", s.temperature[b]);
    MIMO_CHECK(!std::isnan(s.top_p[b]), op, ": top_p[", b, "] must be a number, got ", s.top_p[b]);
  }
  return s;
}

// After a CPU kernel: *s.invalid_row is the row it could not sample, or -1.
inline void check_sampled(const char* op, int64_t invalid_row) {
  MIMO_CHECK(invalid_row < 0, invalid_logits_text(op, invalid_row));
}

// Checks the codebooks of a step and fills in heads, embeddings, vocabulary, empty_ids, delays, channels and embed_dim.
// x [B, D] is what the heads are applied to.
inline void set_codebooks(const char* op, const char* x_name, const Tensor& x, const std::vector<Tensor>& heads,
                          const std::vector<Tensor>& embeddings, const std::vector<int64_t>& empty_ids,
                          const std::vector<int64_t>& delays, DelayedSamplingParams& p, std::vector<Tensor>& hold) {
  MIMO_CHECK(!heads.empty() && heads.size() <= size_t(kMaxChannels), op, ": heads must hold 1 to ", kMaxChannels,
             " tensors [V, D], got ", heads.size());
  const auto check_count = [&](const char* name, size_t count) {
    MIMO_CHECK(count == heads.size(), op, ": ", name, " must have an entry per head (", heads.size(), "), got ", count);
  };
  check_count("embeddings", embeddings.size());
  check_count("empty_ids", empty_ids.size());
  check_count("delays", delays.size());
  const auto data = [&](const std::string& name, const Tensor& t, int64_t rows, int64_t columns, const char* meaning) {
    check_dim(op, name.c_str(), t, 2, meaning);
    check_same_dtype(op, name.c_str(), t, x_name, x);
    check_same_device(op, name.c_str(), t, x_name, x);
    MIMO_CHECK((rows < 0 || t.size(0) == rows) && t.size(1) == columns, op, ": ", name, " must be ", meaning, " = [",
               rows < 0 ? std::string("V") : std::to_string(rows), ", ", columns, "], got ", describe(t));
    hold.push_back(torch::stable::contiguous(t));
    return hold.back().const_data_ptr();
  };
  check_dim(op, "embeddings[0]", embeddings[0], 2, "[V, E]");
  const int64_t embed_dim = embeddings[0].size(1);
  MIMO_CHECK(embed_dim >= 1 && embed_dim <= kMaxSampledWidth, op, ": embeddings[0] must have 1 to ", kMaxSampledWidth,
             " columns, got ", describe(embeddings[0]));
  p.channels = int32_t(heads.size());
  for (size_t r = 0; r < heads.size(); ++r) {
    const std::string at = text("[", r, "]");
    p.heads[r] = data("heads" + at, heads[r], -1, x.size(1), "[V, D]");
    const int64_t vocabulary = heads[r].size(0);
    MIMO_CHECK(vocabulary >= 2 && vocabulary <= kMaxVocabulary, op, ": heads", at, " must have 2 to ", kMaxVocabulary,
               " rows, got ", describe(heads[r]));
    p.embeddings[r] = data("embeddings" + at, embeddings[r], vocabulary, embed_dim, "[V, E]");
    MIMO_CHECK(empty_ids[r] >= 0 && empty_ids[r] < vocabulary, op, ": empty_ids", at, " must be in 0 .. ",
               vocabulary - 1, ", got ", empty_ids[r]);
    MIMO_CHECK(delays[r] >= 0 && delays[r] <= kMaxSampledStep, op, ": delays", at, " must be in 0 .. ", kMaxSampledStep,
               ", got ", delays[r]);
    p.vocabulary[r] = int32_t(vocabulary);
    p.empty_ids[r] = int32_t(empty_ids[r]);
    p.delays[r] = int32_t(delays[r]);
  }
  p.dim = int32_t(x.size(1));
  p.embed_dim = int32_t(embed_dim);
}

}  // namespace mimo
