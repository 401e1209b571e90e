// An HTTP/1.1 server for hostile clients: every size and every wait has a bound. Boost.Beast inside, in http_server.cc
// and http_connection.cc alone.
//
// Reading and writing run on `num_io_threads` threads, handlers on others, so that a slow handler delays no other
// client's bytes. One request of a connection is answered before the next is read.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "skein/serve/http_exchange.h"

namespace skein {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0: one that is free
  int num_io_threads = 1;
  int num_handler_threads = 2;
  int max_connections = 512;                         // more are answered 503 and closed
  std::size_t max_header_bytes = 16 << 10;           // request line included; more: 431
  std::size_t max_body_bytes = 4 << 20;              // more: 413
  std::size_t max_unsent_bytes = 16 << 20;           // of a stream that its client does not read
  std::chrono::milliseconds header_timeout{10'000};  // from the first byte to the end of the header
  std::chrono::milliseconds body_timeout{30'000};    // for all of the body
  std::chrono::milliseconds idle_timeout{75'000};    // between two requests of a connection
  std::chrono::milliseconds write_timeout{30'000};   // for one write; a client that reads nothing is gone
};

class HttpServer {
 public:
  // Listens from here on. No exchange may outlive this. handler: called once per request, from several threads; what it
  // throws is answered 500. Throws Failure: the address is taken or is none of this machine's.
  HttpServer(const HttpServerOptions& options, HttpHandler handler);
  ~HttpServer();  // shut_down at once
  HttpServer(const HttpServer&) = delete;

  int port() const;
  // Takes no more connections; answers from now on close theirs.
  void stop_accepting();
  // stop_accepting, waits up to `within` for the answers under way to be written, closes everything. Idempotent.
  void shut_down(std::chrono::milliseconds within);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace skein
