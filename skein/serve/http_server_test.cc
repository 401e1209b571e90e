#include "skein/serve/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>

#include "skein/base/concat.h"
#include "skein/base/result.h"

namespace skein {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// A client of bare bytes.
class Client {
 public:
  explicit Client(int port) {
    socket_ = socket(AF_INET, SOCK_STREAM, 0);
    timeval patience{.tv_sec = 20, .tv_usec = 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    is_open_ = connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { leave(); }
  void leave() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
  }
  bool is_open() const { return is_open_; }
  void send(const std::string& bytes) {
    for (std::size_t sent = 0; sent < bytes.size();) {
      const ssize_t part = ::send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (part <= 0) return;
      sent += static_cast<std::size_t>(part);
    }
  }
  // All until the server closes.
  std::string read_all() {
    std::string all;
    char buffer[4096];
    for (ssize_t size; (size = recv(socket_, buffer, sizeof buffer, 0)) > 0;)
      all.append(buffer, static_cast<std::size_t>(size));
    return all;
  }
  std::string read_until(const std::string& end) {
    std::string all;
    char byte;
    while (all.find(end) == std::string::npos && recv(socket_, &byte, 1, 0) == 1) all += byte;
    return all;
  }

 private:
  int socket_ = -1;
  bool is_open_ = false;
};

HttpServerOptions quick() {
  HttpServerOptions options{.port = 0, .max_header_bytes = 2048, .max_body_bytes = 1000};
  options.header_timeout = options.body_timeout = options.idle_timeout = std::chrono::milliseconds(300);
  return options;
}

// Answers with what it got.
void echo(const std::shared_ptr<HttpExchange>& exchange) {
  const HttpRequest& request = exchange->request();
  exchange->respond({.body = concat(request.method, " ", request.path, " ", request.query, " ", request.body)});
}

std::string answer_to(const std::string& bytes, const HttpServerOptions& options = quick()) {
  HttpServer server(options, echo);
  Client client(server.port());
  client.send(bytes);
  return client.read_all();
}

TEST(HttpServer, AnswersRequestsOfOneConnectionInTurn) {
  const std::string two =
      "GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: "
      "2\r\n\r\nhi";
  const std::string answer = answer_to(two);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  const std::size_t first = answer.find("GET /a x=1 "), second = answer.find("POST /b  hi");
  EXPECT_NE(first, std::string::npos);
  EXPECT_NE(second, std::string::npos);
  EXPECT_LT(first, second);
}

TEST(HttpServer, ReadsChunkedBodiesAndMeetsExpectations) {
  EXPECT_THAT(
      answer_to(
          "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
      HasSubstr("POST /  hi"));
  EXPECT_THAT(
      answer_to(
          "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"),
      StartsWith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"));
}

TEST(HttpServer, HeadHasNoBody) {
  const std::string answer = answer_to("HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("Content-Length: 9\r\n"));
  EXPECT_EQ(answer.substr(answer.size() - 4), "\r\n\r\n");
}

TEST(HttpServer, RefusesHeaderFloods) {
  EXPECT_THAT(answer_to("GET / HTTP/1.1\r\nX: " + std::string(10'000, 'a') + "\r\n\r\n"), StartsWith("HTTP/1.1 431"));
  std::string many = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 1000; ++i) many += concat("X-", i, ": y\r\n");
  EXPECT_THAT(answer_to(many), StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(answer_to("GET /" + std::string(10'000, 'a') + " HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 431"));
}

TEST(HttpServer, RefusesBodiesThatAreTooLongBeforeReadingThem) {
  EXPECT_THAT(answer_to("POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(answer_to("POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(answer_to("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n" + std::string(5000, 'a')),
              StartsWith("HTTP/1.1 413"));
}

TEST(HttpServer, RefusesWhatIsNoRequest) {
  for (const char* bytes :
       {"hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
        "GET / HTTP/1.1\r\nA B: c\r\n\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    EXPECT_THAT(answer_to(bytes), StartsWith("HTTP/1.1 400")) << bytes;
  }
}

TEST(HttpServer, RefusesTwoFramingsOfOneBody) {
  EXPECT_THAT(answer_to("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET "
                        "/smuggled HTTP/1.1\r\n\r\n"),
              StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(answer_to("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
              StartsWith("HTTP/1.1 400"));
}

TEST(HttpServer, HangsUpOnSlowSenders) {
  // None is answered, all are closed: read_all ends long before the client's own patience does.
  EXPECT_EQ(answer_to(""), "");
  EXPECT_EQ(answer_to("GET / HT"), "");
  EXPECT_EQ(answer_to("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhel"), "");
}

TEST(HttpServer, RefusesConnectionsPastTheLimit) {
  HttpServerOptions options = quick();
  options.max_connections = 1;
  options.idle_timeout = std::chrono::milliseconds(10'000);
  HttpServer server(options, echo);
  Client first(server.port());
  first.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(first.read_until("/a"), HasSubstr("200"));
  Client second(server.port());
  EXPECT_THAT(second.read_all(), StartsWith("HTTP/1.1 503"));
}

// Keeps the exchange of the last request.
struct Keeper {
  std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<HttpExchange> exchange;
  bool is_gone = false;
  void operator()(const std::shared_ptr<HttpExchange>& given) {
    const std::lock_guard lock(mutex);
    exchange = given;
    exchange->on_gone([this] {
      const std::lock_guard inner(mutex);
      is_gone = true;
      changed.notify_all();
    });
    changed.notify_all();
  }
  template <typename Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), condition);
  }
};

TEST(HttpServer, StreamsPiecesAsTheyCome) {
  Keeper keeper;
  HttpServer server(quick(), [&](const std::shared_ptr<HttpExchange>& exchange) { keeper(exchange); });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  ASSERT_TRUE(keeper.wait([&] { return keeper.exchange != nullptr; }));
  keeper.exchange->start_stream({.content_type = "text/event-stream"});
  keeper.exchange->send("one");
  EXPECT_THAT(client.read_until("one"), HasSubstr("Transfer-Encoding: chunked"));
  keeper.exchange->send("two");
  keeper.exchange->end_stream();
  EXPECT_THAT(client.read_all(), HasSubstr("3\r\ntwo\r\n0\r\n\r\n"));
  keeper.exchange.reset();
}

TEST(HttpServer, TellsWhenAClientLeaves) {
  Keeper keeper;
  HttpServer server(quick(), [&](const std::shared_ptr<HttpExchange>& exchange) { keeper(exchange); });
  {
    Client client(server.port());
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    ASSERT_TRUE(keeper.wait([&] { return keeper.exchange != nullptr; }));
  }
  EXPECT_TRUE(keeper.wait([&] { return keeper.is_gone; }));
  keeper.exchange.reset();
}

TEST(HttpServer, BreaksAStreamOffThatIsDropped) {
  Keeper keeper;
  HttpServer server(quick(), [&](const std::shared_ptr<HttpExchange>& exchange) { keeper(exchange); });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  ASSERT_TRUE(keeper.wait([&] { return keeper.exchange != nullptr; }));
  keeper.exchange->start_stream({});
  keeper.exchange->send("half");
  EXPECT_THAT(client.read_until("half"), HasSubstr("half"));
  keeper.exchange.reset();
  EXPECT_THAT(client.read_all(), ::testing::Not(HasSubstr("0\r\n\r\n")));  // no end that looks whole
}

TEST(HttpServer, CountsAClientThatReadsNothingAsGone) {
  HttpServerOptions options = quick();
  options.max_unsent_bytes = 100'000;
  Keeper keeper;
  HttpServer server(options, [&](const std::shared_ptr<HttpExchange>& exchange) { keeper(exchange); });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  ASSERT_TRUE(keeper.wait([&] { return keeper.exchange != nullptr; }));
  keeper.exchange->start_stream({});
  for (int i = 0; i < 1000; ++i) keeper.exchange->send(std::string(100'000, 'x'));
  EXPECT_TRUE(keeper.wait([&] { return keeper.is_gone; }));
  keeper.exchange.reset();
}

TEST(HttpServer, FinishesAnswersBeforeItShutsDown) {
  Keeper keeper;
  HttpServer server(quick(), [&](const std::shared_ptr<HttpExchange>& exchange) { keeper(exchange); });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  ASSERT_TRUE(keeper.wait([&] { return keeper.exchange != nullptr; }));
  server.stop_accepting();
  keeper.exchange->respond({.body = "late"});
  keeper.exchange.reset();
  server.shut_down(std::chrono::seconds(20));
  const std::string answer = client.read_all();
  EXPECT_THAT(answer, HasSubstr("late"));
  EXPECT_THAT(answer, HasSubstr("Connection: close"));
}

TEST(HttpServer, AnswersForHandlersThatThrowOrForget) {
  HttpServer server(quick(), [](const std::shared_ptr<HttpExchange>& exchange) {
    if (exchange->request().path == "/throw") throw std::runtime_error("secret detail");
  });
  for (const char* path : {"/throw", "/forget"}) {
    Client client(server.port());
    client.send(concat("GET ", path, " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
    const std::string answer = client.read_all();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 500")) << path;
    EXPECT_THAT(answer, ::testing::Not(HasSubstr("secret")));
  }
}

TEST(HttpServer, SaysWhichAddressIsTaken) {
  HttpServer server(quick(), echo);
  HttpServerOptions same = quick();
  same.port = server.port();
  try {
    HttpServer second(same, echo);
    FAIL() << "two servers on one port";
  } catch (const Failure& failure) {
    EXPECT_THAT(failure.what(), HasSubstr(concat("127.0.0.1:", same.port)));
  }
}

}  // namespace
}  // namespace skein
