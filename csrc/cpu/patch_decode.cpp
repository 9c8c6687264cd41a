// patch_decode on the CPU: a loop over the steps, each a pass through the blocks (cpu/decode_step.h) and a draw of the
// active codebooks (delayed_sampling), without a word of Python in between.
//
// A step reads all weights once, and few rows meet them: at the full size (1.07 GB in float32, read 11 times) the
// memory's bandwidth is the limit, which all threads share by streaming different rows of the same matrix. At the nano
// size (3 MB) the weights stay in the caches and waking threads would cost more than a product, so all blocks of a step
// run in one parallel region whose threads meet in phases (cpu/team.h).
//
// Weights are used where they lie: at the full size products run at the speed at which memory is read, so no other
// order of the weights can be faster.
#include "mimo/patch_decode.h"

#include "cpu/decode_step.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

template <class T>
void decode(const PatchDecodeParams& p) {
  DelayedSamplingParams sampling = p.sampling;
  const int batch = sampling.batch, dim = p.shape.dim, embed_dim = sampling.embed_dim;
  Team team(decode_threads<T>(p.shape, p.layers, batch, 0));
  const DecodeBlocks<T> blocks(p.shape, p.layers, batch, p.steps, team.threads());
  const Rows embedded(p.projection ? batch : 0, embed_dim);
  const Scratch<T> out(int64_t(batch) * dim), next(int64_t(batch) * embed_dim);
  sampling.hidden = out.get();
  sampling.next = next.get();

  const auto norm_of = [&](int layer) { return layer < p.layers ? p.blocks[layer].norm_1 : p.norm; };
  for (int step = 0; step < p.steps; ++step) {
    const bool projects = step > 0 && p.projection;
    const T* from = step ? next.get() : static_cast<const T*>(p.hidden);
    const int width = step ? embed_dim : dim;
    for (int b = 0; b < batch; ++b) {
      widen_row(from + int64_t(b) * width, width, projects ? embedded[b] : blocks.x[b]);
    }
    if (!projects) blocks.normalize(norm_of(0));
    team.start([&](Team::Member& member) {
      if (projects) {
        member.run_rows(
            dim, kLinearPad, int64_t(embed_dim) * int64_t(sizeof(T)),
            [&](int begin, int end) {
              linear(static_cast<const T*>(p.projection), embed_dim, embedded[0], embedded.stride(), batch, blocks.x[0],
                     blocks.x.stride(), begin, end);
            },
            [&] { blocks.normalize(norm_of(0)); });
      }
      const int64_t angles = int64_t(step) * (p.shape.head_dim / 2);
      for (int layer = 0; layer < p.layers; ++layer) {
        blocks.step(member, p.blocks[layer], layer, step, p.cos + angles, p.sin + angles, norm_of(layer + 1));
      }
    });
    for (int b = 0; b < batch; ++b) narrow_row(blocks.y[b], dim, out.get() + int64_t(b) * dim);
    sampling.step = step;
    delayed_sampling(sampling);
    if (*sampling.sampling.invalid_row >= 0) return;
  }
}

}  // namespace

void patch_decode(const PatchDecodeParams& p) { MIMO_FLOAT_OR_HALF(p.sampling.dtype, decode<T>(p)); }

}  // namespace mimo::cpu::MIMO_ISA
