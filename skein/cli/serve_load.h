// Load on a server of OpenAI's API: one client, and many at once. Every request is a connection and a thread of its
// own, which mostly sleeps, so that the generator takes little from the server on the same machine.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "skein/io/json.h"
#include "skein/text/tokenizer.h"

namespace skein {

// A completion, streamed and greedy, that ends at max_tokens only.
struct LoadRequest {
  std::string model;
  std::vector<TokenId> prompt;
  std::int64_t max_tokens = 128;
  std::int64_t leaves_after = 0;  // tokens, then the connection is closed; 0: stays
  bool wants_trace = false;
};

struct LoadAnswer {
  int status = 0;              // 0: there was no answer
  std::string failure;         // empty: it was whole, refused with 429, or left on purpose
  bool says_when = false;      // a refusal with Retry-After
  double first_token_s = 0;    // since the connection was asked for
  double seconds = 0;          // to the end
  std::vector<double> gaps_s;  // between events with tokens
  std::int64_t tokens = 0;     // as the server counts them, else its events
  std::vector<Json> traces;    // pieces, as they came
  bool is_whole() const { return status == 200 && failure.empty(); }
};
// port: of 127.0.0.1, here and below.
LoadAnswer ask(int port, const LoadRequest& request);
// The status of GET path; 0: nobody listens.
int status_of(int port, const std::string& path);
// One that nobody listened on a moment ago.
int free_port();

struct LoadResult {
  double seconds = 0;  // from the first request to the end of the last answer
  std::vector<LoadAnswer> answers;
  std::int64_t tokens() const;
  double tokens_per_s() const { return static_cast<double>(tokens()) / seconds; }
  std::vector<double> first_tokens_s() const;  // of whole answers
  std::vector<double> gaps_s() const;
  std::vector<std::string> failures() const;  // each kind once
};
// The next request; nothing: no more. Called by one thread at a time.
using NextRequest = std::function<std::optional<LoadRequest>()>;

// `streams` clients, each with its next request when it has its answer.
LoadResult load_with_streams(int port, int streams, const NextRequest& next);
// Requests come when they come: Poisson arrivals, `rate` a second, for so many seconds (and then until all are
// answered).
LoadResult load_with_arrivals(int port, double rate, double seconds, std::uint64_t seed, const NextRequest& next);

// Nearest rank, q in [0, 1]; NaN of nothing.
double quantile(std::vector<double> values, double q);

}  // namespace skein
