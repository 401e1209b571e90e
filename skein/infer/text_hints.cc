#include "skein/infer/text_hints.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

class RetrievalHints : public HintSource {
 public:
  RetrievalHints(std::shared_ptr<const SentenceEncoder> encoder, std::vector<ExpertTexts> experts,
                 std::vector<bool> is_allowed)
      : encoder_(std::move(encoder)), experts_(std::move(experts)), is_allowed_(std::move(is_allowed)) {}

  std::shared_ptr<const SequenceHint> hint(const Example& example) const override {
    const at::Tensor query = encoder_->embed({retrieval_text(example)})[0];
    std::vector<float> bias(experts_.size(), -std::numeric_limits<float>::infinity());
    std::size_t best = experts_.size();
    double most = 0;
    for (std::size_t e = 0; e < experts_.size(); ++e) {
      if (!is_allowed_[e] || experts_[e].examples.size(0) == 0) continue;
      const double similarity = experts_[e].examples.mv(query).max().item<double>();
      if (best < experts_.size() && similarity <= most) continue;
      best = e;
      most = similarity;
    }
    if (best < bias.size()) bias[best] = 0;
    return std::make_shared<RoutingHint>(std::move(bias));
  }

 private:
  std::shared_ptr<const SentenceEncoder> encoder_;
  std::vector<ExpertTexts> experts_;
  std::vector<bool> is_allowed_;
};

class DescriptionHints : public HintSource {
 public:
  DescriptionHints(std::shared_ptr<const SentenceEncoder> encoder, at::Tensor descriptions)
      : encoder_(std::move(encoder)), descriptions_(std::move(descriptions)) {}

  std::shared_ptr<const SequenceHint> hint(const Example& example) const override {
    return std::make_shared<RoutingHint>(floats_of(descriptions_.mv(encoder_->embed({retrieval_text(example)})[0])));
  }

 private:
  std::shared_ptr<const SentenceEncoder> encoder_;
  at::Tensor descriptions_;  // (E, D), times the weight
};

}  // namespace

ExpertTexts read_expert_texts(Env& env, const std::string& folder) {
  const std::string path = join_path(folder, kTextsFile);
  if (!env.exists(path)) {
    throw Failure(
        {concat(folder, ": no ", kTextsFile, "; make one with skein gates fit --method retrieval"), ErrorKind::kUsage});
  }
  const auto file = or_throw(open_safetensors(env, path, adapter_limits()));
  ExpertTexts texts{load_tensor(*file, "examples", {}), load_tensor(*file, "description", {})};
  const bool fits =
      texts.examples.dim() == 2 && texts.description.dim() == 1 && texts.examples.size(1) == texts.description.size(0);
  if (!fits || !texts.examples.isfinite().all().item<bool>() || !texts.description.isfinite().all().item<bool>()) {
    throw Failure(
        {concat(path, ": expected finite numbers, examples (n, D) and description (D); the file is damaged")});
  }
  return texts;
}

Status write_expert_texts(Env& env, const std::string& folder, const ExpertTexts& texts) {
  const at::Tensor examples = texts.examples.contiguous(), description = texts.description.contiguous();
  return write_safetensors(env, join_path(folder, kTextsFile),
                           {{"description", view_of(description)}, {"examples", view_of(examples)}},
                           {{"format", "pt"}});
}

std::string retrieval_text(const Example& example) {
  std::string choices;
  for (const std::string& choice : example.choices) choices += (choices.empty() ? "" : ", ") + choice;
  std::string input = example.input;
  for (const Turn& turn : example.messages) input += (input.empty() ? "" : "\n") + turn.content;
  return concat("Answer Choices: ", choices.empty() ? "None" : choices, ", Instance: ", input);
}

ExpertTexts embed_expert(const SentenceEncoder& encoder, const std::vector<Example>& examples,
                         const std::string& description) {
  std::vector<std::string> texts;
  for (const Example& example : examples) texts.push_back(retrieval_text(example));
  ExpertTexts result{encoder.embed(texts), {}};
  if (!description.empty()) {
    result.description = encoder.embed({description})[0];
  } else if (texts.empty()) {
    throw Failure({"an expert needs examples or a description to be found by", ErrorKind::kUsage});
  } else {
    const at::Tensor mean = result.examples.mean(0);
    result.description = mean / mean.norm().clamp_min(1e-12);
  }
  return result;
}

std::shared_ptr<const HintSource> retrieval_hints(std::shared_ptr<const SentenceEncoder> encoder,
                                                  std::vector<ExpertTexts> experts, std::vector<bool> is_allowed) {
  return std::make_shared<RetrievalHints>(std::move(encoder), std::move(experts), std::move(is_allowed));
}

std::shared_ptr<const HintSource> description_hints(std::shared_ptr<const SentenceEncoder> encoder,
                                                    const std::vector<ExpertTexts>& experts, double weight) {
  std::vector<at::Tensor> rows;
  for (const ExpertTexts& expert : experts) rows.push_back(expert.description * weight);
  return std::make_shared<DescriptionHints>(std::move(encoder), at::stack(rows));
}

}  // namespace skein
