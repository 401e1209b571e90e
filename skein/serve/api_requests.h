// The requests of OpenAI's API, checked and as plain structs. Fields of their own name are those of the API; what this
// server adds is `trace`, `router`, `repetition_penalty`, `cache_salt` and `ignore_eos`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "skein/serve/api_error.h"
#include "skein/serve/request.h"
#include "skein/text/chat_template.h"

namespace skein {

struct RequestLimits {
  std::int64_t max_tokens = 4096;          // of one answer
  std::size_t max_prompt_bytes = 1 << 20;  // of all prompts of a request
  int max_choices = 64;                    // prompts times n
  std::size_t max_stops = 16;
  std::size_t max_stop_characters = 256;
  std::size_t max_messages = 1024;
  std::size_t max_salt_characters = 64;
  int max_logprobs = 20;
  std::size_t max_biases = 300;
  int max_experts_named = 4096;
};

// What a request changes of a router's settings; absent: as the router has it.
struct RouterChanges {
  std::optional<int> top_k;
  std::optional<double> top_p, temperature;
  std::vector<std::string> only, without;
  std::optional<RouterUse::Scope> scope;
  std::optional<RouterUse::Sharing> sharing;
  bool is_any() const;
  void apply_to(RouterOptions& options) const;
};

using Prompt = std::variant<std::string, std::vector<TokenId>>;

struct GenerationRequest {
  enum class Kind { kChat, kCompletion, kTrace } kind = Kind::kChat;
  std::string model;                  // empty: the base
  std::vector<ChatMessage> messages;  // else prompts
  std::vector<Prompt> prompts;
  int n = 1;
  std::optional<std::int64_t> max_tokens;  // absent: all that the limits leave
  Sampling sampling;
  std::optional<std::uint64_t> seed;  // absent: drawn
  std::vector<std::string> stop;
  bool ignore_end = false;
  std::string cache_salt;  // as vLLM's: prompts are reused among requests with the same one
  int num_logprobs = -1;
  bool echo = false;
  bool stream = false;
  bool include_usage = false;
  bool trace = false;
  RouterChanges router;

  bool is_chat() const { return !messages.empty(); }
};

struct EmbeddingRequest {
  std::string model;
  std::vector<Prompt> inputs;
  bool is_base64 = false;
  std::optional<std::int64_t> dimensions;
};

struct AdapterRequest {
  std::string name;
  std::string path;  // of load alone
};

// Throw ApiFailure (400).
GenerationRequest parse_chat_request(const Json& body, const RequestLimits& limits);
GenerationRequest parse_completion_request(const Json& body, const RequestLimits& limits);
GenerationRequest parse_trace_request(const Json& body, const RequestLimits& limits);  // prompt or messages
EmbeddingRequest parse_embedding_request(const Json& body, const RequestLimits& limits);
AdapterRequest parse_adapter_request(const Json& body, bool is_load);

}  // namespace skein
