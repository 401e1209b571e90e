#include "skein/nn/t5/t5.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "skein/nn/bridge.h"
#include "skein/nn/random_base.h"

namespace skein {
namespace {

BackboneConfig version_1_0() {
  BackboneConfig config = tiny_config(Family::kT5);
  config.activation = Activation::kRelu;
  config.gated_ff = false;
  config.tied_embeddings = true;
  config.logits_scale = 1 / std::sqrt(40.0);
  return config;
}

std::vector<std::int32_t> tokens(std::int64_t count, std::int32_t first) {
  std::vector<std::int32_t> ids(count);
  for (std::int64_t i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>((first + 7 * i + i * i) % 61);
  return ids;
}

// One source, one target, f64; walks the tensors in forward order.
class Reference {
 public:
  explicit Reference(const BackboneConfig& config) : config_(config), base_(random_base(config)) {
    for (const TensorName& tensor : tensor_names(config)) names_[tensor.role].push_back(tensor.name);
  }
  at::Tensor logits(const std::vector<std::int32_t>& source, const std::vector<std::int32_t>& target) {
    const at::Tensor embedding = next(TensorRole::kEmbedding);
    const auto embed = [&](const std::vector<std::int32_t>& ids) {
      return embedding.index_select(0, at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end())));
    };
    at::Tensor x = embed(source);
    at::Tensor bias = score_bias(x.size(0), true);
    for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
      x = x + attend(norm(x), at::Tensor(), bias);
      x = x + feed_forward(norm(x));
    }
    const at::Tensor encoded = norm(x);
    x = embed(target);
    bias = score_bias(x.size(0), false);
    for (std::int64_t layer = 0; layer < config_.num_decoder_layers; ++layer) {
      x = x + attend(norm(x), at::Tensor(), bias);
      x = x + attend(norm(x), encoded, at::Tensor());
      x = x + feed_forward(norm(x));
    }
    x = norm(x) * config_.logits_scale;
    return x.matmul((config_.tied_embeddings ? embedding : next(TensorRole::kHead)).t());
  }

 private:
  at::Tensor next(TensorRole role) {
    return load_tensor(*base_.weights, names_.at(role).at(taken_[role]++), {}).to(at::kDouble);
  }
  at::Tensor norm(const at::Tensor& x) {
    return x / (x.pow(2).mean(-1, true) + config_.norm_eps).sqrt() * next(TensorRole::kNorm);
  }
  at::Tensor linear(const at::Tensor& x) { return x.matmul(next(TensorRole::kLinear).t()); }
  // (H, T, T); -inf where the decoder may not look.
  at::Tensor score_bias(std::int64_t length, bool bidirectional) {
    const at::Tensor table = next(TensorRole::kRelativeBias);
    at::Tensor bias = at::empty({config_.num_heads, length, length}, at::kDouble);
    for (std::int64_t query = 0; query < length; ++query) {
      for (std::int64_t key = 0; key < length; ++key) {
        const auto cell = bias.select(2, key).select(1, query);
        if (!bidirectional && key > query) {
          cell.fill_(-INFINITY);
        } else {
          cell.copy_(table[relative_bucket(key - query, bidirectional, config_.relative_buckets,
                                           config_.relative_max_distance)]);
        }
      }
    }
    return bias;
  }
  at::Tensor attend(const at::Tensor& x, const at::Tensor& source, const at::Tensor& bias) {
    const auto heads = [&](const at::Tensor& rows) {
      return linear(rows).view({rows.size(0), config_.num_heads, config_.d_head}).transpose(0, 1);
    };
    const at::Tensor keys_of = source.defined() ? source : x;
    const at::Tensor q = heads(x), k = heads(keys_of), v = heads(keys_of);  // (H, T, Dh)
    at::Tensor scores = q.matmul(k.transpose(1, 2));
    if (bias.defined()) scores = scores + bias;
    return linear(scores.softmax(-1).matmul(v).transpose(0, 1).reshape({x.size(0), -1}));
  }
  at::Tensor feed_forward(const at::Tensor& x) {
    if (!config_.gated_ff) return linear(at::relu(linear(x)));
    const at::Tensor gate = linear(x), up = linear(x);
    return linear(at::gelu(gate, "tanh") * up);
  }

  BackboneConfig config_;
  BaseModel base_;
  std::map<TensorRole, std::vector<std::string>> names_;
  std::map<TensorRole, std::size_t> taken_;
};

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().to(at::kDouble).item<double>(); }

TEST(T5, AgreesWithTheSlowReferenceInBothVersions) {
  for (const BackboneConfig& config : {version_1_0(), tiny_config(Family::kT5)}) {
    const auto backbone = load_backbone(random_base(config), {});
    for (const std::int64_t length : {1, 4, 33}) {
      const auto source = tokens(length + 5, 2), target = tokens(length, 0);
      ForwardState state;
      const EncodedSource encoded = backbone->encode(pack({{.tokens = source}}, at::kCPU), state);
      const at::Tensor got =
          backbone->logits(backbone->forward(pack({{.tokens = target, .source = 0}}, at::kCPU), &encoded, state));
      const at::Tensor expected = Reference(config).logits(source, target);
      EXPECT_LT(distance(got, expected), 2e-5 * expected.abs().max().item<double>()) << length;
    }
  }
}

TEST(T5, TargetsPackedTogetherEqualEachAlone) {
  const auto backbone = load_backbone(random_base(tiny_config(Family::kT5)), {});
  ForwardState state;
  const std::vector<SequenceInput> sources{
      {.tokens = tokens(9, 1)}, {.tokens = tokens(4, 2)}, {.tokens = tokens(4, 8)}};
  const EncodedSource encoded = backbone->encode(pack(sources, at::kCPU), state);
  const std::vector<std::pair<std::int64_t, std::vector<std::int32_t>>> targets{
      {1, tokens(3, 0)}, {0, tokens(5, 0)}, {1, tokens(5, 4)}, {2, tokens(1, 6)}};
  std::vector<SequenceInput> packed;
  for (const auto& [source, ids] : targets) packed.push_back({.tokens = ids, .source = source});
  const at::Tensor together = backbone->forward(pack(packed, at::kCPU), &encoded, state);
  std::int64_t row = 0;
  for (const auto& [source, ids] : targets) {
    const EncodedSource own = backbone->encode(pack({sources[source]}, at::kCPU), state);
    const at::Tensor alone = backbone->forward(pack({{.tokens = ids, .source = 0}}, at::kCPU), &own, state);
    EXPECT_TRUE(at::equal(together.narrow(0, row, alone.size(0)), alone)) << "target at row " << row;
    row += alone.size(0);
  }
}

TEST(T5, BranchesStandAtThePositionsThatFollowThePrompt) {
  const auto backbone = load_backbone(random_base(tiny_config(Family::kT5)), {});
  ForwardState state;
  const EncodedSource encoded = backbone->encode(pack({{.tokens = tokens(9, 1)}}, at::kCPU), state);
  const auto prompt = tokens(4, 0);
  const std::vector<std::vector<std::int32_t>> branches{tokens(6, 2), tokens(3, 9), tokens(5, 4)};
  const at::Tensor together =
      backbone->forward(pack({{.tokens = prompt, .branches = branches, .source = 0}}, at::kCPU), &encoded, state);
  std::int64_t row = 4;
  for (const auto& branch : branches) {
    auto whole = prompt;
    whole.insert(whole.end(), branch.begin(), branch.end());
    const auto length = static_cast<std::int64_t>(branch.size());
    const at::Tensor alone = backbone->forward(pack({{.tokens = whole, .source = 0}}, at::kCPU), &encoded, state);
    EXPECT_LT(distance(together.narrow(0, row, length), alone.narrow(0, 4, length)), 2e-5) << "branch at row " << row;
    row += length;
  }
}

TEST(T5, DecodesTokenByTokenFromCachedSources) {
  const auto backbone = load_backbone(random_base(tiny_config(Family::kT5)), {});
  ForwardState state;
  const EncodedSource encoded =
      backbone->encode(pack({{.tokens = tokens(9, 1)}, {.tokens = tokens(14, 3)}}, at::kCPU), state);
  const auto ids = tokens(26, 0);
  const at::Tensor whole = backbone->forward(pack({{.tokens = ids, .source = 1}}, at::kCPU), &encoded, state);
  KvSequence cache(backbone->config(), at::TensorOptions().dtype(at::kFloat), 4);
  for (std::int64_t t = 0; t < 26; ++t) {
    const PackedBatch step = pack({{.tokens = {ids[t]}, .cache = &cache, .source = 1}}, at::kCPU);
    const at::Tensor row = backbone->forward(step, t == 0 ? &encoded : nullptr, state);
    EXPECT_LT(distance(row[0], whole[t]), 2e-5) << "token " << t;
  }
}

TEST(RelativeBucket, HalvesForTheFutureAndEndsInTheLastBucket) {
  // Bidirectional, 32 buckets: 0..7 exact, 8 at 8..., 15 from about 91 on; +16 for keys after the query.
  EXPECT_EQ(relative_bucket(0, true, 32, 128), 0);
  EXPECT_EQ(relative_bucket(-7, true, 32, 128), 7);
  EXPECT_EQ(relative_bucket(7, true, 32, 128), 23);
  EXPECT_EQ(relative_bucket(-16, true, 32, 128), 10);
  EXPECT_EQ(relative_bucket(-128, true, 32, 128), 15);
  EXPECT_EQ(relative_bucket(4000, true, 32, 128), 31);
  // One-directional: the future is bucket 0, the past has all 32.
  EXPECT_EQ(relative_bucket(5, false, 32, 128), 0);
  EXPECT_EQ(relative_bucket(-15, false, 32, 128), 15);
  EXPECT_EQ(relative_bucket(-64, false, 32, 128), 26);
  EXPECT_EQ(relative_bucket(-9999, false, 32, 128), 31);
}

}  // namespace
}  // namespace skein
