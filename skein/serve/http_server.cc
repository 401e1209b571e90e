#include "skein/serve/http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <exception>
#include <mutex>
#include <thread>

#include "skein/base/concat.h"
#include "skein/base/result.h"
#include "skein/serve/http_connection.h"

namespace skein {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;

struct HttpServer::State : HttpConnections {
  using HttpConnections::HttpConnections;
  int port = 0;
  std::mutex shut_down_mutex;
  bool is_down = false;
  // Below what connections touch when they are destroyed with the operations they wait for.
  asio::io_context io;
  Tcp::acceptor acceptor{io};
  asio::steady_timer accept_pause{io};
  std::vector<std::thread> io_threads;

  void accept_next();
};

void HttpServer::State::accept_next() {
  acceptor.async_accept(asio::make_strand(io), [this](ErrorCode error, Tcp::socket socket) {
    if (!acceptor.is_open() || error == asio::error::operation_aborted) return;
    if (error) {  // out of descriptors, mostly: others are closed soon
      accept_pause.expires_after(std::chrono::milliseconds(50));
      accept_pause.async_wait([this](ErrorCode stopped) {
        if (!stopped) accept_next();
      });
      return;
    }
    take_connection(*this, std::move(socket));
    accept_next();
  });
}

HttpServer::HttpServer(const HttpServerOptions& options, HttpHandler handler)
    : state_(std::make_unique<State>(options, std::move(handler))) {
  const std::string where = concat(options.host, ":", options.port);
  try {
    Tcp::resolver resolver(state_->io);
    const auto found = resolver.resolve(options.host, std::to_string(options.port), Tcp::resolver::passive);
    const Tcp::endpoint endpoint = found.begin()->endpoint();
    state_->acceptor.open(endpoint.protocol());
    state_->acceptor.set_option(asio::socket_base::reuse_address(true));
    state_->acceptor.bind(endpoint);
    state_->acceptor.listen(1024);
    state_->port = state_->acceptor.local_endpoint().port();
  } catch (const std::exception& error) {
    throw Failure({concat("cannot listen on ", printable(where), ": ", error.what(),
                          "; the port may be taken (--port), or the address not be this machine's (--host)")});
  }
  state_->accept_next();
  for (int i = 0; i < options.num_io_threads; ++i) {
    state_->io_threads.emplace_back([state = state_.get()] { state->io.run(); });
  }
}

HttpServer::~HttpServer() { shut_down(std::chrono::milliseconds(0)); }

int HttpServer::port() const { return state_->port; }

void HttpServer::stop_accepting() {
  if (state_->is_draining.exchange(true)) return;
  asio::post(state_->io, [state = state_.get()] {
    ErrorCode ignored;
    state->acceptor.close(ignored);
    state->accept_pause.cancel();
  });
}

void HttpServer::shut_down(std::chrono::milliseconds within) {
  const std::lock_guard lock(state_->shut_down_mutex);
  if (state_->is_down) return;
  state_->is_down = true;
  stop_accepting();
  const auto until = std::chrono::steady_clock::now() + within;
  while (state_->num_exchanges > 0 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  state_->io.stop();
  for (std::thread& thread : state_->io_threads) thread.join();
  state_->handlers.join();
}

}  // namespace skein
