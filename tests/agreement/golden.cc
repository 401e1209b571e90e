#include "tests/agreement/golden.h"

#include <cstdlib>
#include <cstring>

#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"
#include "skein/spec/base_model.h"

namespace skein::agreement {

std::string golden_folder() { return SKEIN_SOURCE_DIR "/tests/golden"; }

std::string model_path(const std::string& file) {
  const char* folder = std::getenv("SKEIN_TEST_MODELS");
  return join_path(folder != nullptr ? folder : SKEIN_SOURCE_DIR "/models", file);
}

Golden::Golden(const std::string& name)
    : file_(or_throw(open_safetensors(real_env(), concat(golden_folder(), "/agreement/", name, ".safetensors")))) {}

at::Tensor Golden::floats(const std::string& name) const { return load_tensor(*file_, name, ComputeOptions{}); }

std::vector<std::int32_t> Golden::ids(const std::string& name) const {
  const std::optional<TensorView> view = file_->view(name);
  SKEIN_CHECK(view.has_value() && view->dtype == DType::kI64);
  std::vector<std::int64_t> wide(view->bytes.size() / sizeof(std::int64_t));
  std::memcpy(wide.data(), view->bytes.data(), view->bytes.size());
  return {wide.begin(), wide.end()};
}

double Golden::scalar(const std::string& name) const { return floats(name).item<double>(); }

double Golden::bound(c10::ScalarType dtype) const {
  return kOtherOrder * scalar(dtype == at::kBFloat16 ? "error_bf16" : "error_f32");
}

std::vector<std::string> Golden::names_after(const std::string& prefix) const {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : file_->tensors()) {
    if (tensor.name.starts_with(prefix)) names.push_back(tensor.name.substr(prefix.size()));
  }
  return names;
}

std::unique_ptr<Backbone> load(const std::string& path, c10::ScalarType dtype) {
  ComputeOptions compute;
  compute.dtype = dtype;
  return load_backbone(or_throw(open_base_model(real_env(), path)), compute);
}

std::unique_ptr<Backbone> load_tiny(const std::string& name, c10::ScalarType dtype) {
  return load(concat(golden_folder(), "/models/", name), dtype);
}

std::vector<Sequence> sequences_of(const Golden& golden) {
  std::vector<Sequence> sequences;
  for (int i = 0;; ++i) {
    if (golden.has(concat("ids.", i))) {
      sequences.push_back({{}, golden.ids(concat("ids.", i))});
    } else if (golden.has(concat("source.", i))) {
      sequences.push_back({golden.ids(concat("source.", i)), golden.ids(concat("decoder.", i))});
    } else {
      return sequences;
    }
  }
}

namespace {

// Hidden states of all sequences as one batch, and the batch.
std::pair<at::Tensor, PackedBatch> batched_hidden(const Backbone& backbone, const std::vector<Sequence>& sequences,
                                                  ForwardState& state) {
  std::vector<SequenceInput> sources, inputs;
  for (const Sequence& sequence : sequences) {
    const std::int64_t source_idx = sequence.source.empty() ? -1 : static_cast<std::int64_t>(sources.size());
    if (source_idx >= 0) sources.push_back({.tokens = sequence.source});
    inputs.push_back({.tokens = sequence.tokens, .source = source_idx});
  }
  std::optional<EncodedSource> encoded;
  if (!sources.empty()) encoded = backbone.encode(pack(sources, at::kCPU), state);
  PackedBatch batch = pack(inputs, at::kCPU);
  at::Tensor hidden = backbone.forward(batch, encoded ? &*encoded : nullptr, state);
  return {std::move(hidden), std::move(batch)};
}

}  // namespace

std::vector<at::Tensor> batched_logits(const Backbone& backbone, const std::vector<Sequence>& sequences,
                                       ForwardState& state) {
  const c10::InferenceMode no_gradients;
  const auto [hidden, batch] = batched_hidden(backbone, sequences, state);
  const at::Tensor logits = backbone.logits(hidden).to(at::kFloat);
  std::vector<at::Tensor> split;
  for (const Segment& segment : batch.segments) split.push_back(logits.narrow(0, segment.begin, segment.length));
  return split;
}

at::Tensor logits_at(const Backbone& backbone, const Sequence& sequence, const at::Tensor& rows, ForwardState& state) {
  const c10::InferenceMode no_gradients;
  const at::Tensor hidden = batched_hidden(backbone, {sequence}, state).first;
  return backbone.logits(hidden.index_select(0, rows)).to(at::kFloat);
}

at::Tensor stepwise_logits(const Backbone& backbone, const Sequence& sequence, const std::vector<std::int64_t>& steps) {
  const c10::InferenceMode no_gradients;
  ForwardState state;
  // Room for less than the sequence: the cache has to grow on the way.
  KvSequence cache(backbone.config(), at::TensorOptions(backbone.compute().dtype), 2);
  std::optional<EncodedSource> encoded;
  if (!sequence.source.empty()) encoded = backbone.encode(pack({{.tokens = sequence.source}}, at::kCPU), state);
  std::vector<at::Tensor> logits;
  auto next = sequence.tokens.begin();
  for (const std::int64_t step : steps) {
    const SequenceInput input{
        .tokens = {next, next + step}, .cache = &cache, .source = encoded ? std::int64_t{0} : std::int64_t{-1}};
    // After the first step the cache holds the source's keys and values.
    const bool first = next == sequence.tokens.begin();
    const at::Tensor hidden = backbone.forward(pack({input}, at::kCPU), encoded && first ? &*encoded : nullptr, state);
    logits.push_back(backbone.logits(hidden).to(at::kFloat));
    next += step;
  }
  SKEIN_CHECK(next == sequence.tokens.end());
  return at::cat(logits);
}

void expect_close(const at::Tensor& ours, const at::Tensor& golden, double bound, const std::string& what) {
  ASSERT_EQ(ours.sizes(), golden.sizes()) << what;
  const at::Tensor difference = (ours.to(at::kDouble) - golden.to(at::kDouble)).abs().flatten();
  ASSERT_TRUE(at::isfinite(difference).all().item<bool>()) << what;
  const std::int64_t worst = difference.argmax().item<std::int64_t>();
  EXPECT_LE(difference[worst].item<double>(), bound)
      << what << ": worst at entry " << worst << " of " << ours.sizes() << ", " << ours.flatten()[worst].item<double>()
      << " against " << golden.flatten()[worst].item<double>();
}

}  // namespace skein::agreement
