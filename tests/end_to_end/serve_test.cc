// skein serve as its clients and its administrator see it: a tiny pool, over real sockets.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "tests/end_to_end/program.h"

namespace skein {
namespace {

using testing::HasSubstr;
using testing::Not;

sockaddr_in local(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  return address;
}

int free_port() {
  const int probe = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = local(0);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(probe, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(probe);
  return ntohs(address.sin_port);
}

struct Reply {
  int status = 0;  // 0: no connection
  std::string head, body;
  Json json() const { return json_of(body); }
};

class Connection {
 public:
  explicit Connection(int port) : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    const sockaddr_in address = local(port);
    is_open_ = connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    timeval patience{.tv_sec = 60, .tv_usec = 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Connection() { close(socket_); }
  bool is_open() const { return is_open_; }
  void send(const std::string& method, const std::string& path, const std::string& body, const std::string& headers) {
    const std::string bytes = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" +
                              "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
                              "\r\n" + headers + "\r\n" + body;
    EXPECT_EQ(::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // Until the server closes, or `end` has come.
  std::string read(const std::string& end = "") {
    char buffer[4096];
    while (end.empty() || read_.find(end) == std::string::npos) {
      const ssize_t size = recv(socket_, buffer, sizeof buffer, 0);
      if (size <= 0) break;
      read_.append(buffer, static_cast<std::size_t>(size));
    }
    return read_;
  }

 private:
  int socket_;
  bool is_open_ = false;
  std::string read_;
};

// A server of a tiny base, with a pool of two experts where asked for.
class Server {
 public:
  explicit Server(const std::vector<std::string>& more, int port = free_port()) : port_(port) {
    std::vector<std::string> words = {"serve", "--port", std::to_string(port_), "--dtype", "f32", "--threads", "1",
                                      "--log", "json"};
    words.insert(words.end(), more.begin(), more.end());
    program_ = std::make_unique<RunningSkein>(words);
    wait_until([&] { return get("/ready").status == 200; });
  }
  RunningSkein& program() { return *program_; }
  int port() const { return port_; }

  Reply ask(const std::string& method, const std::string& path, const std::string& body = "",
            const std::string& headers = "") {
    Connection connection(port_);
    if (!connection.is_open()) return {};
    connection.send(method, path, body, headers);
    const std::string bytes = connection.read();
    const std::size_t cut = bytes.find("\r\n\r\n");
    if (bytes.size() < 12 || cut == std::string::npos) return {};
    return {std::stoi(bytes.substr(9, 3)), bytes.substr(0, cut), bytes.substr(cut + 4)};
  }
  Reply get(const std::string& path) { return ask("GET", path); }
  Reply post(const std::string& path, const Json& body) { return ask("POST", path, body.dump()); }
  std::vector<std::string> models() {
    std::vector<std::string> ids;
    const Json answer = get("/v1/models").json();
    for (const Json& model : answer.at("data")) ids.push_back(model["id"]);
    return ids;
  }
  // Fails the test if it does not come true.
  template <typename Condition>
  void wait_until(Condition condition) {
    for (int i = 0; i < 1200; ++i) {
      if (condition()) return;
      if (!program_->is_running()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    ADD_FAILURE() << "waited in vain; the program "
                  << (program_->is_running() ? "runs" : "has ended: " + program_->wait().err);
  }

 private:
  const int port_;
  std::unique_ptr<RunningSkein> program_;
};

struct Pool {
  TemporaryFolder folder;
  std::string base = tiny_base(folder);
  std::string library = folder / "pool";
  std::string ab = tiny_expert(folder, base, letter_task(folder, "ab", "ab", 8), "ab");
  std::string xyz = tiny_expert(folder, base, letter_task(folder, "xyz", "xyz", 9), "xyz");
  Pool() {
    EXPECT_EQ(run_skein({"library", "create", library, "--base", base}).code, 0);
    EXPECT_EQ(run_skein({"library", "add", library, ab}).code, 0);
  }
};

TEST(Serve, AnswersWhatGenerateWrites) {
  const Pool pool;
  const Outcome generated =
      run_skein({"generate", "--base", pool.base, "--library", pool.library, "--top-k", "1", "--prompt", "ab1",
                 "--max-new-tokens", "6", "--json", "--dtype", "f32", "--threads", "1"});
  ASSERT_EQ(generated.code, 0) << generated.err;
  Server server({"--base", pool.base, "--library", pool.library});
  EXPECT_THAT(server.models(), testing::IsSupersetOf({"base", "ab", "skein/phatgoose"}));
  const Json request = {{"model", "skein/phatgoose"},
                        {"prompt", "ab1"},
                        {"max_tokens", 6},
                        {"temperature", 0},
                        {"router", {{"top_k", 1}}}};
  const Reply reply = server.post("/v1/completions", request);
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.json()["choices"][0]["text"], json_of(generated.out)["text"]);

  Json streamed = request;
  streamed["stream"] = true;
  const Reply stream = server.post("/v1/completions", streamed);
  EXPECT_THAT(stream.head, HasSubstr("text/event-stream"));
  EXPECT_THAT(stream.body, HasSubstr("data: [DONE]"));

  const Json trace =
      server
          .post("/v1/trace",
                {{"model", "skein/phatgoose"}, {"prompt", "ab"}, {"max_tokens", 2}, {"router", {{"top_k", 1}}}})
          .json();
  EXPECT_EQ(trace["trace"]["experts"], Json({"ab"}));
  EXPECT_EQ(trace["trace"]["tokens"][0]["part"], "prompt");
  EXPECT_THAT(server.get("/metrics").body, HasSubstr("skein_generated_tokens_total{model=\"skein/phatgoose\"}"));
  EXPECT_THAT(server.get("/").body, HasSubstr("<!doctype html>"));

  // An expert that is added on disk appears.
  EXPECT_EQ(run_skein({"library", "add", pool.library, pool.xyz}).code, 0);
  server.wait_until([&] {
    const auto models = server.models();
    return std::find(models.begin(), models.end(), "xyz") != models.end();
  });
  EXPECT_EQ(server.post("/v1/completions", {{"model", "xyz"}, {"prompt", "x"}, {"max_tokens", 1}}).status, 200);
}

TEST(Serve, LoadsAndUnloadsAdaptersOfOneFolderOnly) {
  const Pool pool;
  write_file(pool.folder / "outside/adapter_config.json", "{}");
  Server server({"--base", pool.base, "--adapter-folder", pool.folder.path()});
  const auto load = [&](const std::string& name, const std::string& path) {
    return server.post("/v1/load_lora_adapter", {{"lora_name", name}, {"lora_path", path}});
  };
  EXPECT_EQ(load("mine", "ab").status, 200);
  EXPECT_EQ(server.post("/v1/completions", {{"model", "mine"}, {"prompt", "a"}, {"max_tokens", 1}}).status, 200);
  EXPECT_EQ(load("mine", "ab").json()["error"]["code"], "adapter_already_loaded");
  for (const char* path : {"../etc", "/etc", "ab/../../etc", "missing"}) {
    EXPECT_EQ(load("other", path).json()["error"]["code"], "path_forbidden") << path;
  }
  for (const char* name : {"..", "a/b", "base", "-x", "a\nb", ".hidden", "%2e%2e", "na\u00efve"}) {
    EXPECT_EQ(load(name, "ab").json()["error"]["code"], "invalid_adapter_name") << name;
  }
  EXPECT_EQ(load("broken", "base").status, 400);  // a folder that holds no adapter
  EXPECT_EQ(server.post("/v1/unload_lora_adapter", {{"lora_name", "mine"}}).status, 200);
  EXPECT_EQ(server.post("/v1/completions", {{"model", "mine"}, {"prompt", "a"}}).status, 404);
  EXPECT_EQ(server.post("/v1/unload_lora_adapter", {{"lora_name", "mine"}}).status, 404);
}

TEST(Serve, AsksForTheKeyAndLogsNeitherKeysNorTexts) {
  const Pool pool;
  write_file(pool.folder / "keys", "a-very-secret-key\n");
  Server server({"--base", pool.base, "--api-key-file", pool.folder / "keys"});
  EXPECT_EQ(server.get("/v1/models").status, 401);
  EXPECT_EQ(server.ask("GET", "/v1/models", "", "Authorization: Bearer a-very-secret-kez\r\n").status, 401);
  const std::string good = "Authorization: Bearer a-very-secret-key\r\n";
  EXPECT_EQ(server.ask("POST", "/v1/completions", R"({"prompt": "abc", "max_tokens": 1})", good).status, 200);
  EXPECT_EQ(server.ask("GET", "/a-secret-path?a-secret-query", "", good).status, 404);
  server.program().signal(SIGTERM);
  const Outcome outcome = server.program().wait();
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("\"route\":\"/v1/completions\",\"status\":200"));
  for (const char* secret : {"secret", "abc"}) EXPECT_THAT(outcome.err, Not(HasSubstr(secret)));
}

TEST(Serve, FinishesWhatRunsWhenItIsAskedToStop) {
  const Pool pool;
  Server server({"--base", pool.base});
  Connection connection(server.port());
  connection.send("POST", "/v1/completions",
                  R"({"prompt": "a", "max_tokens": 50, "ignore_eos": true, "n": 8, "stream": true, "temperature": 1})",
                  "");
  EXPECT_THAT(connection.read("data: "), HasSubstr("200 OK"));
  server.program().signal(SIGTERM);
  EXPECT_THAT(connection.read(), HasSubstr("data: [DONE]"));
  EXPECT_EQ(server.program().wait().code, 0);
}

TEST(Serve, TakesItsOptionsFromAFileAndTheEnvironment) {
  const Pool pool;
  const int port = free_port();
  const std::string config = pool.folder / "serve.yml";
  write_file(config, "base: " + pool.base + "\nmax-choices: 2\nname: from-the-file\nmax-tokens: 3\n");
  ASSERT_EQ(setenv("SKEIN_SERVE_MAX_TOKENS", "2", 1), 0);
  {
    Server server({"--config", config, "--name", "from-the-line"}, port);
    EXPECT_EQ(server.models().front(), "from-the-line");
    EXPECT_EQ(server.post("/v1/completions", {{"prompt", "a"}, {"n", 3}}).status, 400);
    EXPECT_EQ(server.post("/v1/completions", {{"prompt", "a"}, {"max_tokens", 3}}).status, 400);
    EXPECT_EQ(server.post("/v1/completions", {{"prompt", "a"}, {"max_tokens", 2}}).status, 200);
  }
  unsetenv("SKEIN_SERVE_MAX_TOKENS");
  write_file(config, "base: " + pool.base + "\n\nmax-tokenz: 3\n");
  const Outcome wrong = run_skein({"serve", "--config", config});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("line 3"));
  EXPECT_THAT(wrong.err, HasSubstr("did you mean max-tokens?"));
  EXPECT_EQ(run_skein({"serve"}).code, 2);
}

}  // namespace
}  // namespace skein
