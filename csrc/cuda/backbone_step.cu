// backbone_step on CUDA: the blocks' kernels (decode_step.cuh) and the final norm. The host decides nothing in between
// and looks at nothing, so the call can be captured in a graph.
#include "cuda/decode_step.cuh"
#include "mimo/backbone_step.h"

namespace mimo::cuda {
namespace {

struct Plan {
  DecodeState state{};
  AttentionPieces pieces{};
  QuantizedBuffers quantized{};
  int64_t bytes;

  explicit Plan(const BackboneStepParams& p) {
    Buffers buffers{static_cast<char*>(p.workspace)};
    const BlockShape& shape = p.shape;
    const int64_t batch = p.batch, heads = batch * shape.heads;
    state.shape = shape;
    state.batch = p.batch;
    state.position = p.length;
    state.cache = p.cache;
    state.cos = p.cos;
    state.sin = p.sin;
    state.lengths = p.lengths;
    state.ends = p.ends;
    state.padding = p.padding;
    state.x = buffers.take<float>(batch * shape.dim);
    state.q = buffers.take<float>(heads * shape.head_dim);
    state.attended = buffers.take<float>(heads * shape.head_dim);
    state.act = buffers.take<float>(batch * shape.ffn);
    pieces = take_attention_pieces(buffers, state);
    quantized = QuantizedBuffers::take(buffers, state);
    bytes = buffers.used;
  }
};

template <class W>
LaunchError step(const BackboneStepParams& p, void* on) {
  const auto stream = static_cast<cudaStream_t>(on);
  const Plan plan(p);
  const DecodeState& state = plan.state;
  launch_widen<W>(p.hidden, state.x, int64_t(p.batch) * p.shape.dim, stream);
  for (int layer = 0; layer < p.layers; ++layer) {
    const auto attend = [&] { launch_attention<W>(state, plan.pieces, layer, stream); };
    if (const LaunchError error =
            launch_decode_block<W, W>(state, plan.quantized, p.blocks[layer], layer, stream, attend)) {
      return error;
    }
  }
  launch_rms_norm<W>(state, p.norm, p.out, stream);
  return MIMO_LAUNCH_ERROR();
}

}  // namespace

int64_t backbone_step_workspace(const BackboneStepParams& p) { return Plan(p).bytes; }

LaunchError backbone_step(const BackboneStepParams& p, void* stream) {
  return MIMO_FLOAT_OR_HALF(p.dtype, step<T>(p, stream));
}

}  // namespace mimo::cuda
