#include "skein/serve/http_connection.h"

#include <sys/socket.h>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <exception>
#include <mutex>

#include "skein/base/concat.h"
#include "skein/serve/api_error.h"

namespace skein {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;

std::optional<std::string_view> HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return std::nullopt;
}

namespace {

// How long, and how much, a connection that is being closed is still read, so that the client finds the answer before
// the reset that unread bytes would cause.
constexpr std::chrono::milliseconds kLingerTimeout{2'000};
constexpr std::size_t kLingerBytes = 8 << 20;
// Of what is read ahead; the header limit counts within it.
constexpr std::size_t kBufferBytes = 256 << 10;

class Connection;

// The answer's side of a request. Counts as under way until the last byte is written.
class Exchange : public HttpExchange {
 public:
  Exchange(std::shared_ptr<Connection> connection, HttpRequest request)
      : connection_(std::move(connection)), request_(std::move(request)) {}
  ~Exchange() override;
  const HttpRequest& request() const override { return request_; }
  void respond(HttpResponse response) override;
  void start_stream(HttpResponse head) override;
  void send(std::string piece) override;
  void end_stream() override;
  void run_soon(std::function<void()> work) override;
  void on_gone(std::function<void()> callback) override;
  void gone();  // the connection's: the client went away

 private:
  const std::shared_ptr<Connection> connection_;
  const HttpRequest request_;
  std::atomic<bool> is_answered_{false}, is_streaming_{false}, is_ended_{false};
  std::mutex mutex_;
  bool is_gone_ = false;
  std::function<void()> callback_;
};

// One client. All members are touched on the stream's strand alone.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(HttpConnections& state, Tcp::socket socket) : state_(&state), stream_(std::move(socket)) {
    ++state_->num_connections;
  }
  ~Connection() {
    finish_exchange();
    --state_->num_connections;
  }

  void run() {
    asio::dispatch(stream_.get_executor(), [self = shared_from_this()] {
      ErrorCode ignored;
      self->stream_.socket().set_option(Tcp::no_delay(true), ignored);
      const auto remote = self->stream_.socket().remote_endpoint(ignored);
      if (!ignored) self->remote_ = remote.address().to_string();
      self->wait_for_request();
    });
  }
  // Answers without reading: too many connections.
  void refuse() {
    asio::dispatch(stream_.get_executor(), [self = shared_from_this()] {
      self->keeps_alive_ = false;
      self->write_response(error_response({.status = 503,
                                           .message = "too many connections",
                                           .type = "server_error",
                                           .code = "too_many_connections",
                                           .retry_after_s = 1}));
    });
  }

  // From any thread, for the exchange under way.
  void post_response(HttpResponse response) {
    on_strand([response = std::move(response)](Connection& self) mutable { self.write_response(std::move(response)); });
  }
  void post_stream_head(HttpResponse head) {
    on_strand([head = std::move(head)](Connection& self) { self.write_stream_head(head); });
  }
  void post_piece(std::string piece) {
    on_strand([piece = std::move(piece)](Connection& self) { self.add_piece(piece); });
  }
  void post_stream_end() {
    on_strand([](Connection& self) {
      if (self.is_chunked_) self.unsent_ += "0\r\n\r\n";
      self.is_ending_ = true;
      self.write_unsent();
    });
  }
  void run_soon(std::function<void()> work) { asio::post(state_->handlers, std::move(work)); }
  void post_abort() {
    on_strand([](Connection& self) { self.fail(); });
  }

 private:
  using Parser = http::request_parser<http::string_body>;

  template <typename Work>
  void on_strand(Work work) {
    asio::post(stream_.get_executor(), [self = shared_from_this(), work = std::move(work)]() mutable { work(*self); });
  }
  template <typename Function>
  auto bound(Function function) {
    return
        [self = shared_from_this(), function](ErrorCode error, std::size_t size = 0) { function(*self, error, size); };
  }

  // --- reading ---
  void wait_for_request() {
    parser_.emplace();
    is_head_ = false;
    parser_->header_limit(static_cast<std::uint32_t>(state_->options.max_header_bytes));
    parser_->body_limit(state_->options.max_body_bytes);
    if (buffer_.size() > 0) return read_header();
    stream_.expires_after(state_->options.idle_timeout);
    stream_.async_read_some(buffer_.prepare(4096), bound([](Connection& self, ErrorCode error, std::size_t size) {
                              if (error) return self.close();
                              self.buffer_.commit(size);
                              self.read_header();
                            }));
  }

  void read_header() {
    stream_.expires_after(state_->options.header_timeout);
    http::async_read_header(stream_, buffer_, *parser_, bound([](Connection& self, ErrorCode error, std::size_t) {
                              if (error) return self.refuse_unread(error);
                              self.begin_body();
                            }));
  }

  void begin_body() {
    const auto& header = parser_->get();
    keeps_alive_ = header.keep_alive();
    version_ = header.version();
    is_head_ = header.method() == http::verb::head;
    // Two framings of one message are how requests are smuggled past a proxy.
    if (header.count(http::field::content_length) > 0 && header.chunked()) {
      return refuse_unread(http::error::bad_transfer_encoding);
    }
    const auto expectation = header[http::field::expect];
    if (expectation.empty()) return read_body();
    if (!beast::iequals(expectation, "100-continue")) {
      return refuse_request({.status = 417, .message = "the server cannot meet the Expect header"});
    }
    unsent_ = "HTTP/1.1 100 Continue\r\n\r\n";
    stream_.expires_after(state_->options.write_timeout);
    asio::async_write(stream_, asio::buffer(unsent_), bound([](Connection& self, ErrorCode error, std::size_t) {
                        self.unsent_.clear();
                        if (error) return self.close();
                        self.read_body();
                      }));
  }

  void read_body() {
    stream_.expires_after(state_->options.body_timeout);
    http::async_read(stream_, buffer_, *parser_, bound([](Connection& self, ErrorCode error, std::size_t) {
                       if (error) return self.refuse_unread(error);
                       self.hand_over();
                     }));
  }

  void refuse_unread(ErrorCode error) {
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      return refuse_request(
          {.status = 431,
           .message = concat("the request's header is longer than ", state_->options.max_header_bytes, " bytes")});
    }
    if (error == http::error::body_limit) {
      return refuse_request(
          {.status = 413,
           .message = concat("the request's body is longer than ", state_->options.max_body_bytes, " bytes")});
    }
    if (error.category() == make_error_code(http::error::bad_method).category() &&
        error != http::error::end_of_stream && error != http::error::partial_message) {
      return refuse_request({.message = concat("this is no HTTP request: ", error.message())});
    }
    close();  // the client left, or was too slow
  }
  void refuse_request(ApiError error) {
    keeps_alive_ = false;
    write_response(error_response(error));
  }

  void hand_over() {
    auto message = parser_->release();
    HttpRequest request{.method = std::string(message.method_string()), .remote = remote_};
    const std::string target(message.target());
    const std::size_t question = target.find('?');
    request.path = target.substr(0, question);
    if (question != std::string::npos) request.query = target.substr(question + 1);
    for (const auto& field : message) {
      std::string name(field.name_string());
      for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
      request.headers.emplace_back(std::move(name), std::string(field.value()));
    }
    request.body = std::move(message.body());
    auto exchange = std::make_shared<Exchange>(shared_from_this(), std::move(request));
    exchange_ = exchange;
    has_exchange_ = true;
    ++state_->num_exchanges;
    watch(++exchange_number_);
    asio::post(state_->handlers, [state = state_, exchange = std::move(exchange)] {
      try {
        state->handler(exchange);
      } catch (const std::exception&) {
        exchange->respond(error_response({.status = 500, .message = "the server failed on this request"}));
      }
    });
  }

  // While a handler works, a readable socket means that the client sent its next request early, or left.
  void watch(int number) {
    stream_.socket().async_wait(Tcp::socket::wait_read, [weak = weak_from_this(), number](ErrorCode error) {
      const auto self = weak.lock();
      if (self == nullptr || self->exchange_number_ != number || !self->has_exchange_) return;
      char byte;
      const auto got = error ? -1 : recv(self->stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      if (got > 0) return;
      if (got < 0 && !error && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return self->watch(number);
      }
      self->fail();
    });
  }

  // --- writing ---
  // The header's lines without the blank one that ends them.
  std::string head_of(const HttpResponse& response) const {
    std::string head = concat("HTTP/1.", version_ >= 11 ? 1 : 0, " ", response.status, " ",
                              std::string(http::obsolete_reason(http::status(response.status))), "\r\n");
    if (!response.content_type.empty()) head += "Content-Type: " + response.content_type + "\r\n";
    head += "X-Content-Type-Options: nosniff\r\n";
    for (const auto& [name, value] : response.headers) head += name + ": " + value + "\r\n";
    if (!keeps_alive_) {
      head += "Connection: close\r\n";
    } else if (version_ < 11) {
      head += "Connection: keep-alive\r\n";
    }
    return head;
  }

  void write_response(HttpResponse response) {
    if (state_->is_draining) keeps_alive_ = false;
    unsent_ = head_of(response);
    if (response.status != 204) unsent_ += concat("Content-Length: ", response.body.size(), "\r\n");
    unsent_ += "\r\n";
    if (!is_head_) unsent_ += response.body;
    is_ending_ = true;
    write_unsent();
  }

  void write_stream_head(const HttpResponse& head) {
    if (state_->is_draining || version_ < 11) keeps_alive_ = false;
    is_chunked_ = version_ >= 11;
    unsent_ = head_of(head) + (is_chunked_ ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    write_unsent();
  }

  void add_piece(const std::string& piece) {
    if (is_broken_) return;
    if (is_chunked_) {
      char size[20];
      std::snprintf(size, sizeof size, "%zx\r\n", piece.size());
      unsent_ += size;
      unsent_ += piece;
      unsent_ += "\r\n";
    } else {
      unsent_ += piece;
    }
    if (unsent_.size() > state_->options.max_unsent_bytes) return fail();
    write_unsent();
  }

  void write_unsent() {
    if (is_writing_ || is_broken_) return;
    if (unsent_.empty()) {
      if (is_ending_) end_answer();
      return;
    }
    is_writing_ = true;
    writing_.swap(unsent_);
    stream_.expires_after(state_->options.write_timeout);
    asio::async_write(stream_, asio::buffer(writing_), bound([](Connection& self, ErrorCode error, std::size_t) {
                        self.is_writing_ = false;
                        self.writing_.clear();
                        if (error) return self.fail();
                        self.write_unsent();
                      }));
  }

  void end_answer() {
    finish_exchange();
    is_ending_ = is_chunked_ = false;
    if (keeps_alive_ && !state_->is_draining) return wait_for_request();
    ErrorCode ignored;
    stream_.socket().shutdown(Tcp::socket::shutdown_send, ignored);
    stream_.expires_after(kLingerTimeout);
    linger(kLingerBytes);
  }
  void linger(std::size_t left) {
    if (left == 0) return close();
    buffer_.clear();
    stream_.async_read_some(buffer_.prepare(64 << 10),
                            [self = shared_from_this(), left](ErrorCode error, std::size_t size) {
                              if (error) return self->close();
                              self->linger(left - std::min(left, size));
                            });
  }

  // --- ends ---
  void finish_exchange() {
    if (!has_exchange_) return;
    has_exchange_ = false;
    exchange_.reset();
    --state_->num_exchanges;
  }
  // The answer cannot be completed: the handler's work is for nobody.
  void fail() {
    if (is_broken_) return;
    is_broken_ = true;
    const auto exchange = exchange_.lock();
    finish_exchange();
    close();
    if (exchange != nullptr) asio::post(state_->handlers, [exchange] { exchange->gone(); });
  }
  void close() {
    ErrorCode ignored;
    stream_.socket().close(ignored);
  }

  HttpConnections* const state_;  // outlives the io_context that owns what keeps this alive
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{kBufferBytes};
  std::optional<Parser> parser_;
  std::string remote_;
  bool keeps_alive_ = true, is_head_ = false;
  unsigned version_ = 11;
  std::weak_ptr<Exchange> exchange_;  // the handler owns it
  bool has_exchange_ = false;
  int exchange_number_ = 0;
  std::string unsent_, writing_;
  bool is_writing_ = false, is_ending_ = false, is_chunked_ = false, is_broken_ = false;
};

Exchange::~Exchange() {
  if (!is_answered_.exchange(true)) {
    connection_->post_response(error_response({.status = 500, .message = "the server gave no answer"}));
  } else if (is_streaming_ && !is_ended_.exchange(true)) {
    connection_->post_abort();  // the client must not take a torn answer for a whole one
  }
}

void Exchange::respond(HttpResponse response) {
  if (!is_answered_.exchange(true)) connection_->post_response(std::move(response));
}

void Exchange::start_stream(HttpResponse head) {
  if (is_answered_.exchange(true)) return;
  is_streaming_ = true;
  connection_->post_stream_head(std::move(head));
}

void Exchange::send(std::string piece) {
  if (is_streaming_ && !is_ended_ && !piece.empty()) connection_->post_piece(std::move(piece));
}

void Exchange::end_stream() {
  if (is_streaming_ && !is_ended_.exchange(true)) connection_->post_stream_end();
}

void Exchange::run_soon(std::function<void()> work) { connection_->run_soon(std::move(work)); }

void Exchange::on_gone(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!is_gone_) {
      callback_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Exchange::gone() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    is_gone_ = true;
    callback.swap(callback_);
  }
  if (callback) callback();
}

}  // namespace

void take_connection(HttpConnections& state, Tcp::socket socket) {
  const bool is_full = state.num_connections >= state.options.max_connections;
  // Far past the limit even a refusal costs too much.
  if (state.num_connections >= 2 * state.options.max_connections) return;
  const auto connection = std::make_shared<Connection>(state, std::move(socket));
  is_full ? connection->refuse() : connection->run();
}

}  // namespace skein
