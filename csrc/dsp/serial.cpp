// Threads of the CPU kernels outside torch: none. Data workers are processes already.
#include "mimo/parallel.h"

namespace mimo {

void parallel_pieces(int64_t count, int64_t, void (*body)(void*, int64_t, int64_t), void* context) {
  if (count > 0) body(context, 0, count);
}

int64_t thread_count() { return 1; }

}  // namespace mimo
