#include "skein/nn/backbone.h"

#include <cmath>
#include <numeric>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "skein/nn/bridge.h"
#include "skein/nn/random_base.h"
#include "skein/nn/slot.h"

namespace skein {
namespace {

constexpr Family kDecoders[] = {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3};
// f32: a logit is a chain of about 6 products a layer, each of relative error sqrt(K) * 2^-24 on values near 1.
constexpr double kTolerance = 2e-5;

std::vector<std::int32_t> tokens(std::int64_t count, std::int32_t first = 3) {
  std::vector<std::int32_t> ids(count);
  for (std::int64_t i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>((first + 7 * i + i * i) % 61);
  return ids;
}

at::Tensor run(const Backbone& backbone, const std::vector<SequenceInput>& sequences,
               const EncodedSource* source = nullptr, const SlotFiller* filler = nullptr) {
  ForwardState state{filler, nullptr};
  return backbone.forward(pack(sequences, backbone.compute().device), source, state);
}

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().to(at::kDouble).item<double>(); }

KvSequence cache_of(const Backbone& backbone) {
  return KvSequence(backbone.config(), at::TensorOptions().dtype(backbone.compute().dtype), 2);
}

// ---- the slow, obvious twin: one sequence, f64, dense masks, formulas as the papers write them ----------------------

class Reference {
 public:
  explicit Reference(const BackboneConfig& config) : config_(config), base_(random_base(config)) {
    for (const TensorName& tensor : tensor_names(config)) names_[tensor.role].push_back(tensor.name);
  }
  at::Tensor logits(const std::vector<std::int32_t>& ids) {
    const at::Tensor embedding = next(TensorRole::kEmbedding);
    at::Tensor x = embedding.index_select(0, at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end())));
    x = x * config_.embedding_scale;
    for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) x = block(x, layer);
    x = norm(x);
    return x.matmul((config_.tied_embeddings ? embedding : next(TensorRole::kHead)).t());
  }

 private:
  at::Tensor next(TensorRole role) {
    return load_tensor(*base_.weights, names_.at(role).at(taken_[role]++), {}).to(at::kDouble);
  }
  at::Tensor norm(const at::Tensor& x) {
    const at::Tensor weight = next(TensorRole::kNorm) + (config_.norm_adds_one ? 1 : 0);
    return x / (x.pow(2).mean(-1, true) + config_.norm_eps).sqrt() * weight;
  }
  at::Tensor linear(const at::Tensor& x) { return x.matmul(next(TensorRole::kLinear).t()); }
  at::Tensor projection(const at::Tensor& x) {
    const at::Tensor y = linear(x);
    return config_.qkv_bias ? y + next(TensorRole::kBias) : y;
  }
  at::Tensor turn(const at::Tensor& x, double base) {  // (T, H, Dh)
    at::Tensor y = x.clone();
    const std::int64_t half = config_.d_head / 2;
    for (std::int64_t t = 0; t < x.size(0); ++t) {
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(t) * std::pow(base, -2.0 * i / config_.d_head);
        const at::Tensor a = x[t].select(1, i), b = x[t].select(1, i + half);
        y[t].select(1, i).copy_(a * std::cos(angle) - b * std::sin(angle));
        y[t].select(1, i + half).copy_(b * std::cos(angle) + a * std::sin(angle));
      }
    }
    return y;
  }
  at::Tensor attend(const at::Tensor& x, std::int64_t layer) {
    const bool slides = !config_.layer_is_sliding.empty() && config_.layer_is_sliding[layer];
    const std::int64_t rows = x.size(0), window = slides ? config_.sliding_window : rows;
    at::Tensor q = projection(x).view({rows, config_.num_heads, config_.d_head});
    at::Tensor k = projection(x).view({rows, config_.num_kv_heads, config_.d_head});
    const at::Tensor v = projection(x).view({rows, config_.num_kv_heads, config_.d_head});
    if (config_.qk_norm) {
      q = norm(q);
      k = norm(k);
    }
    const double base = slides ? config_.rope_theta_local : config_.rope_theta;
    q = turn(q, base);
    k = turn(k, base);
    at::Tensor out = at::zeros_like(q);
    for (std::int64_t head = 0; head < config_.num_heads; ++head) {
      const std::int64_t kv_head = head / (config_.num_heads / config_.num_kv_heads);
      for (std::int64_t t = 0; t < rows; ++t) {
        const std::int64_t first = std::max<std::int64_t>(0, t - window + 1), count = t - first + 1;
        const at::Tensor keys = k.select(1, kv_head).narrow(0, first, count);
        const at::Tensor scores = keys.matmul(q[t][head]) * config_.query_scale;
        out[t][head].copy_(scores.softmax(0).matmul(v.select(1, kv_head).narrow(0, first, count)));
      }
    }
    return linear(out.view({rows, -1}));
  }
  at::Tensor feed_forward(const at::Tensor& x) {
    const at::Tensor gate = linear(x), up = linear(x);
    return linear((config_.activation == Activation::kSilu ? gate * gate.sigmoid() : at::gelu(gate, "tanh")) * up);
  }
  at::Tensor block(at::Tensor x, std::int64_t layer) {
    const bool gemma = config_.family == Family::kGemma3;
    const at::Tensor attended = attend(norm(x), layer);
    x = x + (gemma ? norm(attended) : attended);
    const at::Tensor fed = feed_forward(norm(x));
    return x + (gemma ? norm(fed) : fed);
  }

  BackboneConfig config_;
  BaseModel base_;
  std::map<TensorRole, std::vector<std::string>> names_;
  std::map<TensorRole, std::size_t> taken_;
};

TEST(Backbone, AgreesWithTheSlowReference) {
  for (const Family family : kDecoders) {
    const BackboneConfig config = tiny_config(family);
    const auto backbone = load_backbone(random_base(config), {});
    for (const std::int64_t length : {1, 3, 5, 6, 19}) {
      const at::Tensor expected = Reference(config).logits(tokens(length));
      const at::Tensor got = backbone->logits(run(*backbone, {{.tokens = tokens(length)}}));
      EXPECT_LT(distance(got, expected), kTolerance * expected.abs().max().item<double>())
          << family_name(family) << " of length " << length;
    }
  }
}

TEST(Backbone, InBf16StaysWithinItsRounding) {
  for (const Family family : kDecoders) {
    const BackboneConfig config = tiny_config(family);
    const auto backbone = load_backbone(random_base(config), {.dtype = at::kBFloat16});
    const at::Tensor expected = Reference(config).logits(tokens(19));
    const at::Tensor got = backbone->logits(run(*backbone, {{.tokens = tokens(19)}}));
    EXPECT_EQ(got.scalar_type(), at::kBFloat16);
    // About 20 roundings of relative 2^-9 meet in a logit, in random directions: sqrt(20) * 2^-9 = 1 %; four times
    // that.
    EXPECT_LT((got - expected).pow(2).mean().sqrt().item<double>(), 0.04 * expected.std().item<double>())
        << family_name(family);
  }
}

// ---- packing -------------------------------------------------------------------------------------------------------

TEST(Backbone, PackedSequencesEqualEachAloneBitForBit) {
  for (const Family family : kDecoders) {
    const auto backbone = load_backbone(random_base(tiny_config(family)), {});
    const std::vector<std::int64_t> lengths{4, 9, 9, 1, 30, 2};
    std::vector<SequenceInput> sequences;
    for (const std::int64_t length : lengths)
      sequences.push_back({.tokens = tokens(length, static_cast<std::int32_t>(length))});
    const at::Tensor packed = run(*backbone, sequences);
    std::int64_t row = 0;
    for (const SequenceInput& sequence : sequences) {
      const at::Tensor alone = run(*backbone, {sequence});
      EXPECT_TRUE(at::equal(packed.narrow(0, row, alone.size(0)), alone)) << family_name(family) << " at row " << row;
      row += alone.size(0);
    }
  }
}

TEST(Backbone, BranchesEqualSeparateSequences) {
  for (const Family family : kDecoders) {
    const auto backbone = load_backbone(random_base(tiny_config(family)), {});
    const std::vector<std::int32_t> prompt = tokens(8);
    const std::vector<std::vector<std::int32_t>> branches{tokens(3, 11), tokens(1, 5), tokens(6, 2)};
    const at::Tensor together = run(*backbone, {{.tokens = tokens(5)}, {.tokens = prompt, .branches = branches}});
    std::int64_t row = 5 + 8;
    for (const auto& branch : branches) {
      std::vector<std::int32_t> whole = prompt;
      whole.insert(whole.end(), branch.begin(), branch.end());
      const std::int64_t length = static_cast<std::int64_t>(branch.size());
      const at::Tensor alone = run(*backbone, {{.tokens = whole}}).narrow(0, 8, length);
      EXPECT_LT(distance(together.narrow(0, row, length), alone), kTolerance) << family_name(family);
      row += length;
    }
  }
}

// ---- caches --------------------------------------------------------------------------------------------------------

TEST(Backbone, TokenByTokenEqualsTheWholeSequence) {
  for (const Family family : kDecoders) {
    const auto backbone = load_backbone(random_base(tiny_config(family)), {});
    const std::vector<std::int32_t> ids = tokens(17);
    const at::Tensor whole = run(*backbone, {{.tokens = ids}});
    KvSequence cache = cache_of(*backbone);
    for (std::int64_t t = 0; t < 17; ++t) {
      EXPECT_EQ(cache.length(), t);
      const at::Tensor row = run(*backbone, {{.tokens = {ids[t]}, .cache = &cache}});
      EXPECT_LT(distance(row[0], whole[t]), kTolerance) << family_name(family) << " at token " << t;
    }
  }
}

TEST(Backbone, ChunksOnACacheEqualTheWholeSequence) {
  for (const Family family : kDecoders) {
    const auto backbone = load_backbone(random_base(tiny_config(family)), {});
    const std::vector<std::int32_t> ids = tokens(20);
    const at::Tensor whole = run(*backbone, {{.tokens = ids}});
    KvSequence cache = cache_of(*backbone), other = cache_of(*backbone);
    std::int64_t done = 0;
    for (const std::int64_t chunk : {7, 1, 4, 8}) {
      const std::vector<std::int32_t> part(ids.begin() + done, ids.begin() + done + chunk);
      const at::Tensor rows =
          run(*backbone, {{.tokens = tokens(2), .cache = &other}, {.tokens = part, .cache = &cache}});
      EXPECT_LT(distance(rows.narrow(0, 2, chunk), whole.narrow(0, done, chunk)), kTolerance)
          << family_name(family) << " at token " << done;
      done += chunk;
    }
    EXPECT_EQ(other.length(), 8);
  }
}

TEST(Backbone, ABatchOfCachesDecodesAsEachAlone) {
  const auto backbone = load_backbone(random_base(tiny_config(Family::kGemma3)), {});
  std::vector<KvSequence> together, alone;
  std::vector<SequenceInput> batch;
  for (int i = 0; i < 5; ++i) together.push_back(cache_of(*backbone)), alone.push_back(cache_of(*backbone));
  for (int i = 0; i < 5; ++i) batch.push_back({.tokens = tokens(3 + 2 * i, i), .cache = &together[i]});
  run(*backbone, batch);
  for (int i = 0; i < 5; ++i) run(*backbone, {{.tokens = tokens(3 + 2 * i, i), .cache = &alone[i]}});
  for (int i = 0; i < 5; ++i) batch[i].tokens = {static_cast<std::int32_t>(20 + i)};
  const at::Tensor rows = run(*backbone, batch);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor row = run(*backbone, {{.tokens = batch[i].tokens, .cache = &alone[i]}});
    EXPECT_TRUE(at::equal(rows[i], row[0])) << i;
  }
}

TEST(Backbone, PiecesOfTwoRowsAndRowsComputedAgainAreTheSameBits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const Family family : kDecoders) {
      const auto backbone = load_backbone(random_base(tiny_config(family)), {.dtype = dtype});
      const std::vector<std::int32_t> ids = tokens(40);
      const auto piece = [&](std::int64_t begin, std::int64_t end) {
        return std::vector<std::int32_t>(ids.begin() + begin, ids.begin() + end);
      };
      const auto pool = std::make_shared<KvPool>(backbone->config(), at::TensorOptions().dtype(dtype), 16);
      KvSequence whole(pool), pieces(pool), again(pool);
      const at::Tensor prompt = run(*backbone, {{.tokens = piece(0, 25), .cache = &whole}});
      std::vector<at::Tensor> rows;
      for (std::int64_t t = 25; t < 40; ++t) rows.push_back(run(*backbone, {{.tokens = {ids[t]}, .cache = &whole}}));
      // The prompt on another's first page, in pieces.
      run(*backbone, {{.tokens = piece(0, 2), .cache = &pieces}});
      const at::Tensor rest = run(*backbone, {{.tokens = piece(2, 25), .cache = &pieces}});
      EXPECT_TRUE(at::equal(rest, prompt.narrow(0, 2, 23))) << family_name(family);
      again.adopt({pieces.pages().front()});
      const at::Tensor shared = run(*backbone, {{.tokens = piece(16, 25), .cache = &again}});
      EXPECT_TRUE(at::equal(shared, prompt.narrow(0, 16, 9))) << family_name(family);
      // What was decoded token by token, in one pass.
      const at::Tensor apart = run(*backbone, {{.tokens = piece(25, 40), .cache = &again, .rows_apart = true}});
      EXPECT_TRUE(at::equal(apart, at::cat(rows))) << family_name(family);
    }
  }
}

TEST(KvPool, GivesPagesOutUpToItsBoundAndTakesThemBack) {
  KvPool pool(tiny_config(Family::kLlama), at::TensorOptions(), 5, 2);
  EXPECT_EQ(pool.page_size(), 16);
  auto first = pool.take(), second = pool.take();
  EXPECT_EQ(pool.take(), nullptr);
  const void* const freed = first->k.const_data_ptr();
  first.reset();
  EXPECT_EQ(pool.num_used(), 1);
  EXPECT_EQ(pool.take()->k.const_data_ptr(), freed);
  auto aside = pool.set_aside(1);
  EXPECT_EQ(pool.num_used(), 2);
  EXPECT_EQ(pool.take(), nullptr);
  EXPECT_EQ(pool.set_aside(1), nullptr);
  aside.reset();
  EXPECT_NE(pool.take(), nullptr);
}

// ---- training ------------------------------------------------------------------------------------------------------

// y = W x + s * (sum over features of x) * v: something trainable in every slot.
class Nudge : public SlotFiller {
 public:
  explicit Nudge(const std::vector<SlotName>& slots) {
    for (std::size_t i = 0; i < slots.size(); ++i) {
      leaves.push_back((at::arange(slots[i].d_out) * 0.37 + static_cast<double>(i)).sin().mul(0.05).to(at::kFloat));
      leaves.back().requires_grad_(true);
    }
  }
  std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState&) const override {
    std::vector<at::Tensor> outputs = apply_frozen(group, x);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      outputs[i] = outputs[i] + (x.sum(1, true) * leaves[group.parts[i].slot_idx]).to(x.scalar_type());
    }
    return outputs;
  }
  std::vector<at::Tensor> take_grads() {
    std::vector<at::Tensor> grads;
    for (at::Tensor& leaf : leaves) {
      grads.push_back(leaf.grad().clone());
      leaf.mutable_grad() = at::Tensor();
    }
    return grads;
  }
  std::vector<at::Tensor> leaves;
};

at::Tensor loss_of(const Backbone& backbone, const std::vector<SequenceInput>& sequences, const Nudge& nudge) {
  EncodedSource source;
  ForwardState state{&nudge, nullptr};
  const bool t5 = backbone.config().is_encoder_decoder();
  if (t5) source = backbone.encode(pack({{.tokens = tokens(6)}, {.tokens = tokens(9, 1)}}, at::kCPU), state);
  const at::Tensor hidden = backbone.forward(pack(sequences, at::kCPU), t5 ? &source : nullptr, state);
  return at::log_softmax(backbone.logits(hidden).to(at::kFloat), -1).select(1, 7).mean();
}

std::vector<SequenceInput> training_batch() {
  return {{.tokens = tokens(7), .source = 0},
          {.tokens = tokens(7, 9), .source = 1},
          {.tokens = tokens(12, 4), .source = 1}};
}

TEST(Backbone, GradientsOfSlotsEqualFiniteDifferences) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3, Family::kT5}) {
    const auto backbone = load_backbone(random_base(tiny_config(family)), {});
    Nudge nudge(backbone->slots());
    loss_of(*backbone, training_batch(), nudge).backward();
    const std::vector<at::Tensor> grads = nudge.take_grads();
    for (std::size_t slot = 0; slot < grads.size(); ++slot) {
      // Along the gradient itself, where the difference is largest against rounding.
      const at::NoGradGuard no_grad;
      const double norm = grads[slot].norm().item<double>();
      ASSERT_GT(norm, 0) << backbone->slots()[slot].module;
      const double step = 2e-3;
      const at::Tensor direction = grads[slot] / norm;
      nudge.leaves[slot].add_(direction, step);
      const double above = loss_of(*backbone, training_batch(), nudge).item<double>();
      nudge.leaves[slot].sub_(direction, 2 * step);
      const double below = loss_of(*backbone, training_batch(), nudge).item<double>();
      nudge.leaves[slot].add_(direction, step);
      // The loss carries 2^-23 * 5 of rounding; divided by 2 * step that is 1.5e-4 at most. Curvature: step^2 *
      // O(1..10).
      EXPECT_NEAR((above - below) / (2 * step), norm, 4e-4 + 0.02 * norm) << backbone->slots()[slot].module;
    }
  }
}

TEST(Backbone, RecomputedBlocksGiveTheSameGradients) {
  for (const Family family : {Family::kLlama, Family::kGemma3, Family::kT5}) {
    const auto backbone = load_backbone(random_base(tiny_config(family)), {});
    Nudge nudge(backbone->slots());
    const at::Tensor plain_loss = loss_of(*backbone, training_batch(), nudge);
    plain_loss.backward();
    const std::vector<at::Tensor> plain = nudge.take_grads();
    backbone->set_checkpoint_blocks(true);
    const at::Tensor loss = loss_of(*backbone, training_batch(), nudge);
    loss.backward();
    const std::vector<at::Tensor> recomputed = nudge.take_grads();
    EXPECT_TRUE(at::equal(loss, plain_loss));
    for (std::size_t slot = 0; slot < plain.size(); ++slot) {
      EXPECT_LT(distance(plain[slot], recomputed[slot]), 1e-6 + 1e-5 * plain[slot].abs().max().item<double>())
          << family_name(family) << " " << backbone->slots()[slot].module;
    }
  }
}

TEST(Backbone, InInferenceModeComputesTheSame) {
  for (const Family family : kDecoders) {
    for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const auto backbone = load_backbone(random_base(tiny_config(family)), {.dtype = dtype});
      Nudge none(backbone->slots());
      const at::Tensor with_grad = run(*backbone, training_batch(), nullptr, &none);
      const c10::InferenceMode inference;
      const at::Tensor without = run(*backbone, training_batch(), nullptr, &none);
      EXPECT_TRUE(with_grad.requires_grad());
      EXPECT_LE(distance(with_grad, without), dtype == at::kFloat ? kTolerance : 0.1) << family_name(family);
    }
  }
}

// ---- names ---------------------------------------------------------------------------------------------------------

TEST(Backbone, OffersEverySlotOfTheTableOnceInOrder) {
  class Collector : public SlotFiller {
   public:
    std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState&) const override {
      for (const FrozenLinear& part : group.parts) seen.push_back(part.slot_idx);
      return apply_frozen(group, x);
    }
    mutable std::vector<int> seen;
  };
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3, Family::kT5}) {
    const auto backbone = load_backbone(random_base(tiny_config(family)), {});
    Collector collector;
    ForwardState state{&collector, nullptr};
    EncodedSource source;
    const bool t5 = family == Family::kT5;
    if (t5) source = backbone->encode(pack({{.tokens = tokens(4)}}, at::kCPU), state);
    backbone->forward(pack({{.tokens = tokens(3), .source = 0}}, at::kCPU), t5 ? &source : nullptr, state);
    std::vector<int> expected(backbone->slots().size());
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(collector.seen, expected) << family_name(family);
  }
}

TEST(Backbone, NamesATensorThatIsNotThere) {
  BaseModel base = random_base(tiny_config(Family::kLlama));
  base.weights = std::move(random_base(tiny_config(Family::kT5)).weights);
  try {
    load_backbone(base, {});
    FAIL() << "loaded another model's weights";
  } catch (const Failure& failure) {
    EXPECT_NE(std::string(failure.what()).find("model.embed_tokens.weight"), std::string::npos) << failure.what();
  }
}

}  // namespace
}  // namespace skein
