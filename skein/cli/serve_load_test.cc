#include "skein/cli/serve_load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>

#include "skein/serve/http_server.h"

namespace skein {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string event(const std::string& text) { return "data: {\"choices\": [{\"text\": \"" + text + "\"}]}\n\n"; }

// Answers every completion by the number its prompt begins with.
class ServeLoad : public ::testing::Test {
 protected:
  static void answer(const std::shared_ptr<HttpExchange>& exchange) {
    if (exchange->request().method == "GET") return exchange->respond({.status = 204});
    const Json body = Json::parse(exchange->request().body);
    const int kind = body["prompt"][0];
    if (kind == 1) return exchange->respond({.status = 429, .headers = {{"Retry-After", "1"}}});
    if (kind == 2) return exchange->respond({.status = 500, .body = "broken"});
    exchange->start_stream({.content_type = "text/event-stream"});
    if (kind == 3) exchange->send("data: {\"error\": {\"message\": \"no memory\"}}\n\n");
    if (kind == 4) {  // events cut anywhere, an end of line of another kind, the count in the last
      const std::string all = event("a") + event("") + "data: {\"choices\": [{\"text\": \"b\"}]}\r\n\r\n" +
                              "data: {\"choices\": [], \"usage\": {\"completion_tokens\": 7}}\n\ndata: [DONE]\n\n";
      for (const char c : all) exchange->send(std::string(1, c));
    }
    if (kind == 5) {
      for (int i = 0; i < 3; ++i) exchange->send(event(body["trace"] == true ? "t" : ""));
      exchange->send("data: [DONE]\n\n");
    }
    exchange->end_stream();
  }
  LoadAnswer ask_for(int kind, LoadRequest request = {}) {
    request.prompt = {kind};
    return ask(server_.port(), request);
  }

  HttpServer server_{{.port = 0}, answer};
};

TEST_F(ServeLoad, ReadsStreamsHoweverTheyAreCut) {
  const LoadAnswer answer = ask_for(4);
  EXPECT_TRUE(answer.is_whole()) << answer.failure;
  EXPECT_EQ(answer.tokens, 7);
  EXPECT_EQ(answer.gaps_s.size(), 1u);  // an event without a text is none between tokens
  EXPECT_GT(answer.first_token_s, 0);
  EXPECT_GE(answer.seconds, answer.first_token_s);
  const LoadAnswer counted = ask_for(5, {.wants_trace = true});
  EXPECT_EQ(counted.tokens, 3);
}

TEST_F(ServeLoad, TellsRefusalsFromFailures) {
  const LoadAnswer refused = ask_for(1);
  EXPECT_EQ(refused.status, 429);
  EXPECT_TRUE(refused.says_when);
  EXPECT_EQ(refused.failure, "");
  EXPECT_FALSE(refused.is_whole());
  EXPECT_THAT(ask_for(2).failure, HasSubstr("status 500: broken"));
  EXPECT_THAT(ask_for(3).failure, HasSubstr("no memory"));
  EXPECT_THAT(ask_for(6).failure, HasSubstr("broke off"));  // without [DONE]
  EXPECT_TRUE(ask_for(4, {.leaves_after = 1}).is_whole());  // left on purpose
  EXPECT_NE(ask(free_port(), {.prompt = {4}}).failure, "");
  EXPECT_EQ(status_of(server_.port(), "/health"), 204);
  EXPECT_EQ(status_of(free_port(), "/health"), 0);
}

TEST_F(ServeLoad, SendsAllThatIsAskedOf) {
  const auto some = [](int count) {
    return [left = std::make_shared<int>(count)]() -> std::optional<LoadRequest> {
      if (--*left < 0) return std::nullopt;
      return LoadRequest{.prompt = {*left % 2 == 0 ? 4 : 2}};
    };
  };
  const LoadResult streams = load_with_streams(server_.port(), 4, some(20));
  EXPECT_EQ(streams.answers.size(), 20u);
  EXPECT_EQ(streams.tokens(), 70);
  EXPECT_EQ(streams.first_tokens_s().size(), 10u);
  EXPECT_THAT(streams.failures(), ElementsAre(HasSubstr("status 500")));
  const LoadResult arrivals = load_with_arrivals(server_.port(), 1000, 60, 1, some(20));
  EXPECT_EQ(arrivals.answers.size(), 20u);
  EXPECT_EQ(load_with_arrivals(server_.port(), 1000, 0, 1, some(20)).answers.size(), 0u);
}

TEST(Quantile, IsTheNearestRank) {
  const std::vector<double> values = {4, 1, 3, 2};
  EXPECT_EQ(quantile(values, 0), 1);
  EXPECT_EQ(quantile(values, 0.5), 2);
  EXPECT_EQ(quantile(values, 0.51), 3);
  EXPECT_EQ(quantile(values, 1), 4);
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
}

}  // namespace
}  // namespace skein
