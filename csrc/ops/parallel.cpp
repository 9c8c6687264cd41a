// Threads of the CPU kernels inside torch: torch's own pool (at::parallel_for through the stable ABI).
#include "mimo/parallel.h"

#include "common/torch_api.h"

namespace mimo {

void parallel_pieces(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  torch::stable::parallel_for(0, count, grain, [=](int64_t begin, int64_t end) { body(context, begin, end); });
}

int64_t thread_count() { return torch::stable::get_num_threads(); }

}  // namespace mimo
