// Routing by text: which expert's examples, or description, a text is most like (PHATGOOSE's retrieval baseline, arXiv
// 2402.05859, section 4; GLIDER's description scores, arXiv 2410.07172). Format: docs/formats/expert.md, texts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/infer/loaded_model.h"
#include "skein/infer/sentence_encoder.h"

namespace skein {

// texts.safetensors of an expert folder.
struct ExpertTexts {
  at::Tensor examples;     // (n, D) f32: embeddings of some of its training examples, rows of length 1
  at::Tensor description;  // (D) f32: of what it is for; of its examples' mean where nobody said
};
inline constexpr const char* kTextsFile = "texts.safetensors";
ExpertTexts read_expert_texts(Env& env, const std::string& folder);
Status write_expert_texts(Env& env, const std::string& folder, const ExpertTexts& texts);
// Embeds the examples in the form in which queries are made, and the description (empty: the mean of the examples).
ExpertTexts embed_expert(const SentenceEncoder& encoder, const std::vector<Example>& examples,
                         const std::string& description);

// "Answer Choices: a, b, Instance: input" ("None" without choices), as PHATGOOSE's retriever reads an example.
std::string retrieval_text(const Example& example);

// Retrieval: 0 for the expert that owns the most similar example, -inf for the others (ties: the lower index).
// is_allowed (E): experts that may be named. Task description: weight * cosine with each expert's description.
std::shared_ptr<const HintSource> retrieval_hints(std::shared_ptr<const SentenceEncoder> encoder,
                                                  std::vector<ExpertTexts> experts, std::vector<bool> is_allowed);
std::shared_ptr<const HintSource> description_hints(std::shared_ptr<const SentenceEncoder> encoder,
                                                    const std::vector<ExpertTexts>& experts, double weight);

}  // namespace skein
