// How a kernel reports bad data (mimo/bad_data.h): report(row), by any thread, any number of times.
#pragma once
#include "cuda/launch.h"
#include "mimo/bad_data.h"

namespace mimo::cuda {

// An argument of the launch. Of several reports one stays.
struct BadDataReport {
  uint64_t* word;
  BadData op;

  explicit BadDataReport(BadData of) : word(bad_data_word_of(-1)), op(of) {}

  __device__ void operator()(int64_t row, uint8_t part = 0) const {
    if (word) *word = bad_data_word({op, part, row});
  }
};

}  // namespace mimo::cuda
