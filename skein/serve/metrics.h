// What a server counts, in Prometheus' text format (prometheus-cpp inside).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "skein/serve/engine.h"

namespace skein {

// Thread-safe. Labels hold routes, status codes and names of served models only, never text of a request, so that their
// number is bounded.
class ServerMetrics {
 public:
  ServerMetrics();
  ~ServerMetrics();

  void request_ended(const std::string& route, int status, double seconds);
  void answer_ended(const std::string& model, std::int64_t prompt_tokens, std::int64_t generated_tokens);
  void first_token(double seconds);  // after the request came in
  void token_gap(double seconds);    // between two tokens of one answer
  // Everything, with the engine's own numbers as they are now.
  std::string text(const EngineStats& stats);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace skein
