// One client of the HTTP server: reads its requests, hands them over, writes the answers. For http_server.cc alone.
#pragma once

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/thread_pool.hpp>

#include "skein/serve/http_server.h"

namespace skein {

// What the connections of a server share. Outlives them all.
struct HttpConnections {
  HttpConnections(const HttpServerOptions& o, HttpHandler h)
      : options(o), handler(std::move(h)), handlers(static_cast<std::size_t>(o.num_handler_threads)) {}

  const HttpServerOptions options;
  const HttpHandler handler;
  std::atomic<int> num_connections{0};
  std::atomic<int> num_exchanges{0};     // requests whose answer is not written yet
  std::atomic<bool> is_draining{false};  // answers close their connections
  boost::asio::thread_pool handlers;
};

// Serves the socket, whose executor is a strand, until either side closes it; past max_connections answers 503.
void take_connection(HttpConnections& state, boost::asio::ip::tcp::socket socket);

}  // namespace skein
