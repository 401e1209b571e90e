// One request for embeddings: its sequences in the engine, and the answer made of them.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "skein/serve/generation.h"

namespace skein {

// Lives until its last sequence has ended.
class EmbeddingJob : public std::enable_shared_from_this<EmbeddingJob> {
 public:
  EmbeddingJob(GenerationSetting setting, EmbeddingRequest request);
  void start(const std::vector<std::vector<TokenId>>& prompts);  // throws ApiFailure
  void cancel();

 private:
  class Sink;
  void ended(std::size_t index, Finish finish);
  void answer();

  const GenerationSetting setting_;
  const EmbeddingRequest request_;
  std::mutex mutex_;
  std::vector<RequestId> ids_;
  std::vector<std::optional<Finish>> ends_;
  std::size_t num_ended_ = 0;
};

}  // namespace skein
