#include "skein/cli/serve_load.h"

#include <algorithm>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cmath>
#include <limits>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"

namespace skein {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

tcp::endpoint endpoint_of(int port) { return {asio::ip::address_v4::loopback(), static_cast<unsigned short>(port)}; }

// Cuts the events out of a stream of bytes: lines of "data: ...".
class EventReader {
 public:
  // Calls on_event with the text of each event that is complete.
  template <typename OnEvent>
  void read(const std::string& body, const OnEvent& on_event) {
    for (std::size_t end; (end = body.find('\n', at_)) != std::string::npos; at_ = end + 1) {
      constexpr std::string_view kData = "data: ";
      std::string_view line(body.data() + at_, end - at_);
      if (line.starts_with(kData)) on_event(line.substr(kData.size()));
    }
  }

 private:
  std::size_t at_ = 0;
};

Json body_of(const LoadRequest& request) {
  Json body = {{"model", request.model}, {"prompt", request.prompt},
               {"temperature", 0},       {"max_tokens", request.max_tokens},
               {"stream", true},         {"stream_options", {{"include_usage", true}}},
               {"ignore_eos", true}};
  if (request.wants_trace) body["trace"] = true;
  return body;
}

// One answer while it is read.
struct Reading {
  const LoadRequest& request;
  LoadAnswer& answer;
  Clock::time_point started;
  std::optional<Clock::time_point> last;
  std::int64_t num_events = 0;
  bool is_done = false;

  void take(std::string_view text) {
    if (text.starts_with("[DONE]")) {
      is_done = true;
      return;
    }
    const Json event = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (event.is_discarded() || event.contains("error")) {
      answer.failure = std::string(text.substr(0, 200));
      return;
    }
    if (event.contains("usage") && event["usage"].is_object())
      answer.tokens = event["usage"].value("completion_tokens", 0);
    if (!event.contains("choices") || event["choices"].empty()) return;
    const Json& choice = event["choices"][0];
    if (choice.contains("trace")) answer.traces.push_back(choice["trace"]);
    const Clock::time_point now = Clock::now();
    if (!last) {
      answer.first_token_s = std::chrono::duration<double>(now - started).count();
    } else if (!choice.value("text", std::string()).empty()) {
      answer.gaps_s.push_back(std::chrono::duration<double>(now - *last).count());
    }
    last = now;
    ++num_events;
  }
};

void read_stream(tcp::socket& socket, beast::flat_buffer& buffer, http::response_parser<http::string_body>& parser,
                 Reading& reading) {
  EventReader events;
  while (!parser.is_done() && !reading.is_done && reading.answer.failure.empty()) {
    http::read_some(socket, buffer, parser);
    events.read(parser.get().body(), [&](std::string_view event) { reading.take(event); });
    if (reading.request.leaves_after > 0 && reading.num_events >= reading.request.leaves_after) return;
  }
  if (!reading.is_done && reading.answer.failure.empty()) reading.answer.failure = "the stream broke off";
}

}  // namespace

LoadAnswer ask(int port, const LoadRequest& request) {
  LoadAnswer answer;
  const Clock::time_point started = Clock::now();
  try {
    asio::io_context io;
    tcp::socket socket(io);
    socket.connect(endpoint_of(port));
    http::request<http::string_body> message(http::verb::post, "/v1/completions", 11);
    message.set(http::field::host, "127.0.0.1");
    message.set(http::field::content_type, "application/json");
    message.set(http::field::connection, "close");
    message.body() = body_of(request).dump();
    message.prepare_payload();
    http::write(socket, message);
    beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.body_limit(std::numeric_limits<std::uint64_t>::max());  // none is taken for 0 where a length is given
    http::read_header(socket, buffer, parser);
    answer.status = parser.get().result_int();
    answer.says_when = parser.get().count(http::field::retry_after) > 0;
    if (answer.status != 200) {
      http::read(socket, buffer, parser);
      if (answer.status != 429)
        answer.failure = concat("status ", answer.status, ": ", parser.get().body().substr(0, 200));
      return answer;
    }
    Reading reading{request, answer, started, std::nullopt, 0, false};
    read_stream(socket, buffer, parser, reading);
    if (answer.tokens == 0) answer.tokens = reading.num_events;
  } catch (const std::exception& error) {
    answer.failure = error.what();
  }
  answer.seconds = seconds_since(started);
  return answer;
}

int status_of(int port, const std::string& path) {
  try {
    asio::io_context io;
    tcp::socket socket(io);
    socket.connect(endpoint_of(port));
    http::request<http::empty_body> message(http::verb::get, path, 11);
    message.set(http::field::host, "127.0.0.1");
    http::write(socket, message);
    beast::flat_buffer buffer;
    http::response<http::string_body> response;
    http::read(socket, buffer, response);
    return response.result_int();
  } catch (const std::exception&) {
    return 0;
  }
}

int free_port() {
  asio::io_context io;
  return tcp::acceptor(io, endpoint_of(0)).local_endpoint().port();
}

std::int64_t LoadResult::tokens() const {
  std::int64_t tokens = 0;
  for (const LoadAnswer& answer : answers) tokens += answer.tokens;
  return tokens;
}

std::vector<double> LoadResult::first_tokens_s() const {
  std::vector<double> values;
  for (const LoadAnswer& answer : answers) {
    if (answer.is_whole()) values.push_back(answer.first_token_s);
  }
  return values;
}

std::vector<double> LoadResult::gaps_s() const {
  std::vector<double> values;
  for (const LoadAnswer& answer : answers) values.insert(values.end(), answer.gaps_s.begin(), answer.gaps_s.end());
  return values;
}

std::vector<std::string> LoadResult::failures() const {
  std::set<std::string> kinds;
  for (const LoadAnswer& answer : answers) {
    if (!answer.failure.empty()) kinds.insert(answer.failure);
  }
  return {kinds.begin(), kinds.end()};
}

LoadResult load_with_streams(int port, int streams, const NextRequest& next) {
  LoadResult result;
  std::mutex mutex;
  const Clock::time_point started = Clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < streams; ++i) {
    threads.emplace_back([&] {
      while (!interrupted()) {
        std::optional<LoadRequest> request;
        {
          const std::lock_guard lock(mutex);
          request = next();
        }
        if (!request) return;
        LoadAnswer answer = ask(port, *request);
        const std::lock_guard lock(mutex);
        result.answers.push_back(std::move(answer));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  result.seconds = seconds_since(started);
  return result;
}

LoadResult load_with_arrivals(int port, double rate, double seconds, std::uint64_t seed, const NextRequest& next) {
  LoadResult result;
  std::mutex mutex;
  std::mt19937_64 generator(seed);
  std::exponential_distribution<double> gap(rate);
  const Clock::time_point started = Clock::now();
  std::vector<std::thread> threads;
  for (double at = gap(generator); at < seconds && !interrupted(); at += gap(generator)) {
    std::optional<LoadRequest> request = next();
    if (!request) break;
    std::this_thread::sleep_until(started +
                                  std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(at)));
    threads.emplace_back([&, request = std::move(*request)] {
      LoadAnswer answer = ask(port, request);
      const std::lock_guard lock(mutex);
      result.answers.push_back(std::move(answer));
    });
  }
  for (std::thread& thread : threads) thread.join();
  result.seconds = seconds_since(started);
  return result;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return std::nan("");
  const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size())));
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(std::clamp<std::size_t>(rank, 1, values.size()) - 1);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace skein
