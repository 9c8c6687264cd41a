// delayed_sampling on the CPU: the active heads' rows are split over threads (cpu/linear.h: their weights are most of
// the memory read), then the draws, then the tokens are written and their embeddings added up in codebook order.
#include "mimo/delayed_sampling.h"

#include "cpu/linear.h"
#include "cpu/rows.h"
#include "cpu/sampling.h"
#include "mimo/philox.h"

namespace mimo::cpu::MIMO_ISA {
namespace {

struct ActiveCodebook {
  int channel, frame;
  int64_t first;  // of its logits in a row of all active codebooks'
};

template <class T>
class Step {
 public:
  explicit Step(const DelayedSamplingParams& params) : p(params) {
    for (int c = 0; c < p.channels; ++c) {
      const int frame = p.step - p.delays[c];
      if (frame < 0 || frame >= p.group_size) continue;
      active[count++] = {c, frame, width};
      width += p.vocabulary[c];
      largest = p.vocabulary[c] > largest ? p.vocabulary[c] : largest;
    }
  }

  void run() const {
    const Scratch<float> logits(p.batch * width);
    const Scratch<int64_t> drawn(draws());
    multiply(logits.get());
    draw(logits.get(), drawn.get());
    for (int64_t i = 0; i < draws(); ++i) {
      if (drawn[i] < 0) {
        *p.sampling.invalid_row = i / count;
        return;
      }
    }
    write(drawn.get());
  }

 private:
  int64_t draws() const { return int64_t(p.batch) * count; }

  // logits [batch, width] = hidden x heads^T.
  void multiply(float* logits) const {
    constexpr int64_t kProductsPerTask = 1 << 17;
    const int64_t stride = linear_padded(p.dim);
    const Scratch<float> x(p.batch * stride);
    for (int64_t b = 0; b < p.batch; ++b) {
      widen_row(static_cast<const T*>(p.hidden) + b * p.dim, p.dim, x.get() + b * stride);
      for (int64_t d = p.dim; d < stride; ++d) x[b * stride + d] = 0;
    }
    parallel_for(width, 1 + kProductsPerTask / (int64_t(p.dim) * p.batch + 1), [&](int64_t begin, int64_t end) {
      for (int i = 0; i < count; ++i) {
        const ActiveCodebook& a = active[i];
        const int64_t from = begin > a.first ? begin - a.first : 0;
        const int64_t to = end - a.first < p.vocabulary[a.channel] ? end - a.first : p.vocabulary[a.channel];
        if (from < to) {
          linear(static_cast<const T*>(p.heads[a.channel]), p.dim, x.get(), stride, p.batch, logits + a.first, width,
                 from, to);
        }
      }
    });
  }

  // drawn [batch, count]: tokens, or -1 where the logits have none to draw.
  void draw(const float* logits, int64_t* drawn) const {
    constexpr int64_t kEntriesPerTask = 4096;
    const RowSampling& how = p.sampling;
    parallel_for(draws(), 1 + kEntriesPerTask * count / (width + 1), [&](int64_t begin, int64_t end) {
      const RowScratch row(largest);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / count;
        const auto [channel, frame, first] = active[i % count];
        const int vocabulary = p.vocabulary[channel];
        std::memcpy(row.scores.get(), logits + b * width + first, size_t(vocabulary) * sizeof(float));
        row.scores[p.empty_ids[channel]] = -kInfinity;
        const double uniform = philox_uniform(uint64_t(how.seeds[b]), uint64_t(how.offsets[b]),
                                              uint32_t(1 + frame * p.channels + channel));
        drawn[i] = sample_row(row, vocabulary, how.temperature[b], how.top_k[b], how.top_p[b], uniform);
      }
    });
  }

  void write(const int64_t* drawn) const {
    const Scratch<float> sum(p.embed_dim), entry(p.embed_dim);
    for (int64_t b = 0; b < p.batch; ++b) {
      for (int64_t d = 0; d < p.embed_dim; ++d) sum[d] = 0;
      for (int i = 0; i < count; ++i) {
        const ActiveCodebook& a = active[i];
        const int64_t token = drawn[b * count + i];
        p.tokens[(b * p.group_size + a.frame) * p.channels + a.channel] = token;
        widen_row(static_cast<const T*>(p.embeddings[a.channel]) + token * p.embed_dim, p.embed_dim, entry.get());
        for (int64_t d = 0; d < p.embed_dim; ++d) sum[d] += entry[d];
      }
      narrow_row(sum.get(), p.embed_dim, static_cast<T*>(p.next) + b * p.embed_dim);
    }
  }

  const DelayedSamplingParams& p;
  ActiveCodebook active[kMaxChannels];
  int64_t width = 0;
  int count = 0, largest = 0;
};

}  // namespace

void delayed_sampling(const DelayedSamplingParams& p) { MIMO_FLOAT_OR_HALF(p.dtype, Step<T>(p).run()); }

}  // namespace mimo::cpu::MIMO_ISA
