// One HTTP request and the answer to it, as plain data: what handlers see of the server.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace skein {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   // "GET"
  std::string path;     // as sent, up to the "?"; nothing is decoded or normalised, so one text has one meaning
  std::string query;    // after the "?"
  HttpHeaders headers;  // names in lower case, in the order sent
  std::string body;
  std::string remote;  // address of the client

  // The first header of this (lower case) name.
  std::optional<std::string_view> header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpHeaders headers;
};

// Where the answer goes: respond() once, or start_stream(), send() any number of times, end_stream(). All functions may
// be called from any thread and return at once. Dropped without an answer, it answers 500.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual const HttpRequest& request() const = 0;
  virtual void respond(HttpResponse response) = 0;
  virtual void start_stream(HttpResponse head) = 0;
  // What a client does not read is kept up to a bound; past it the client counts as gone.
  virtual void send(std::string piece) = 0;
  virtual void end_stream() = 0;
  // Runs `work` on a handler thread.
  virtual void run_soon(std::function<void()> work) = 0;
  // Called once, from any thread, if the client goes away before the answer is complete; at once if it has. An answer
  // that is under way needs it to stop work that nobody reads.
  virtual void on_gone(std::function<void()> callback) = 0;
};

using HttpHandler = std::function<void(std::shared_ptr<HttpExchange>)>;

}  // namespace skein
