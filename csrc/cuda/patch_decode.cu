// patch_decode on CUDA: for every step the blocks' kernels (decode_step.cuh), the final norm, delayed_sampling, and the
// way from its embeddings back to x. The host decides nothing in between and looks at nothing, so the whole call can be
// captured in a CUDA graph.
#include "cuda/decode_step.cuh"
#include "mimo/patch_decode.h"

namespace mimo::cuda {
namespace {

template <class W>
struct Plan {
  DecodeState state{};
  float* embedded = nullptr;
  W *out = nullptr, *next = nullptr;
  void* sampling = nullptr;
  QuantizedBuffers quantized{};
  int64_t bytes;

  explicit Plan(const PatchDecodeParams& p) {
    Buffers buffers{static_cast<char*>(p.workspace)};
    const DelayedSamplingParams& s = p.sampling;
    const BlockShape& shape = p.shape;
    const int64_t batch = s.batch, queries = int64_t(shape.heads) * shape.head_dim;
    state.shape = shape;
    state.batch = s.batch;
    state.cache.count = s.batch;
    state.cache.size = p.steps;
    state.cos = p.cos;
    state.sin = p.sin;
    state.x = buffers.take<float>(batch * shape.dim);
    state.q = buffers.take<float>(batch * queries);
    state.attended = buffers.take<float>(batch * queries);
    state.act = buffers.take<float>(batch * shape.ffn);
    state.cache.data = buffers.take<float>(2 * p.layers * state.layer_size());
    embedded = buffers.take<float>(p.projection ? batch * s.embed_dim : 0);
    out = buffers.take<W>(batch * shape.dim);
    next = buffers.take<W>(batch * s.embed_dim);
    int64_t most = 0;
    DelayedSamplingParams step = s;
    for (step.step = 0; step.step < p.steps; ++step.step) {
      const int64_t needed = delayed_sampling_workspace(step);
      most = most < needed ? needed : most;
    }
    sampling = buffers.take<char>(most);
    quantized = QuantizedBuffers::take(buffers, state);
    bytes = buffers.used;
  }
};

template <class W>
LaunchError decode(const PatchDecodeParams& p, void* on) {
  const auto stream = static_cast<cudaStream_t>(on);
  const Plan<W> plan(p);
  DecodeState state = plan.state;
  DelayedSamplingParams sampling = p.sampling;
  sampling.hidden = plan.out;
  sampling.next = plan.next;
  sampling.workspace = plan.sampling;
  const int batch = sampling.batch, dim = p.shape.dim, embed_dim = sampling.embed_dim;
  for (int step = 0; step < p.steps; ++step) {
    if (step == 0) {
      launch_widen<W>(p.hidden, state.x, int64_t(batch) * dim, stream);
    } else if (p.projection) {
      launch_widen<W>(plan.next, plan.embedded, int64_t(batch) * embed_dim, stream);
      launch_product<false, W>(p.projection, plan.embedded, embed_dim, state.x, dim, batch, stream);
    } else {
      launch_widen<W>(plan.next, state.x, int64_t(batch) * dim, stream);
    }
    state.position = step;
    for (int layer = 0; layer < p.layers; ++layer) {
      const auto attend = [&] { launch_short_attention<float>(state, layer, stream); };
      if (const LaunchError error =
              launch_decode_block<W, float>(state, plan.quantized, p.blocks[layer], layer, stream, attend)) {
        return error;
      }
    }
    launch_rms_norm<W>(state, p.norm, plan.out, stream);
    if (const LaunchError error = MIMO_LAUNCH_ERROR()) return error;
    sampling.step = step;
    if (const LaunchError error = delayed_sampling(sampling, stream)) return error;
  }
  return nullptr;
}

}  // namespace

int64_t patch_decode_workspace(const PatchDecodeParams& p) {
  return MIMO_FLOAT_OR_HALF(p.sampling.dtype, Plan<T>(p).bytes);
}

LaunchError patch_decode(const PatchDecodeParams& p, void* stream) {
  return MIMO_FLOAT_OR_HALF(p.sampling.dtype, decode<T>(p, stream));
}

}  // namespace mimo::cuda
