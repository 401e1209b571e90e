#include "skein/text/chat_template.h"

#include <gtest/gtest.h>

#include <random>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/text/golden_corpus.h"
#include "skein/text/jinja/template.h"

namespace skein {
namespace {

// A tokenizer that has nothing but a template and two special tokens.
class TemplateOnly : public Tokenizer {
 public:
  explicit TemplateOnly(std::optional<std::string> source) : source_(std::move(source)) {
    special_.bos = 0;
    special_.eos = 1;
  }
  std::vector<TokenId> encode(std::string_view, const EncodeOptions&) const override { return {}; }
  std::string decode(std::span<const TokenId>, bool) const override { return {}; }
  std::string_view token(TokenId id) const override { return id == 0 ? "<bos>" : "<eos>"; }
  std::int64_t vocabulary_size() const override { return 2; }
  const SpecialTokens& special() const override { return special_; }
  const std::optional<std::string>& chat_template() const override { return source_; }

 private:
  SpecialTokens special_;
  std::optional<std::string> source_;
};

std::string template_source(const std::string& name) {
  return or_throw(read_text_file(real_env(), golden_path("templates/" + name)));
}

Result<std::string> render(const std::string& source, const std::string& content = "Hi") {
  return render_chat(TemplateOnly(source), {{"user", content}}, true);
}

TEST(ChatTemplate, RendersWhatTransformersRenders) {
  int cases = 0;
  or_throw(for_each_json_line(real_env(), golden_path("chat.jsonl.gz"), [&](Json&& line, std::int64_t) -> Status {
    std::vector<ChatMessage> messages;
    for (const Json& message : line["messages"]) {
      messages.push_back({message["role"].get<std::string>(), message["content"].get<std::string>()});
    }
    const std::string name = line["template"].get<std::string>();
    const auto text =
        render_chat(TemplateOnly(template_source(name)), messages, line["add_generation_prompt"].get<bool>());
    if (line.contains("text")) {
      EXPECT_TRUE(text.ok()) << name << ": " << (text.ok() ? "" : text.error().message);
      if (text.ok()) {
        EXPECT_EQ(*text, line["text"].get<std::string>()) << name << " for " << line["messages"].dump();
      }
    } else {
      EXPECT_FALSE(text.ok()) << name << " for " << line["messages"].dump();
      if (!text.ok()) {
        EXPECT_NE(text.error().message.find(line["refused"].get<std::string>()), std::string::npos)
            << text.error().message;
      }
    }
    ++cases;
    return {};
  }));
  EXPECT_GE(cases, 80);
}

TEST(ChatTemplate, SaysThatABaseModelHasNone) {
  const auto text = render_chat(TemplateOnly(std::nullopt), {{"user", "x"}}, true);
  ASSERT_FALSE(text.ok());
  EXPECT_NE(text.error().message.find("no chat template"), std::string::npos);
}

TEST(ChatTemplate, NamesWhatItDoesNotHaveAndWhere) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n{% include 'x' %}", "line 2: the block tag \"include\""},
      {"{{ messages|groupby('role') }}", "the filter \"groupby\""},
      {"{{ 'a'.format(1) }}", "the string method \"format\""},
      {"{{ 1 is prime }}", "the test \"prime\""},
      {"{{ cycler(1) }}", "the function \"cycler\""},
      {"\n\n{{ missing.field }}", "line 3: \"missing\" is undefined"},
      {"{{ 'x' + 1 }}", "means nothing"},
      {"{{ 1 / 0 }}", "division by zero"},
      {"{% if true %}", "\"endif\" is missing"},
      {"{{ 'open }}", "a string does not end"},
      {"{% set x.y = 1 %}", "not a namespace"},
      {"{{ raise_exception('no tools') }}", "refuses this conversation: no tools"},
  };
  for (const auto& [source, expected] : cases) {
    const auto text = render(source);
    ASSERT_FALSE(text.ok()) << source;
    EXPECT_NE(text.error().message.find(expected), std::string::npos) << source << "\n" << text.error().message;
  }
}

TEST(ChatTemplate, BoundsWhatAHostileTemplateCanCost) {
  const std::string cases[] = {
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% set n = namespace(t='x') %}{% for i in range(64) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
      "{% set n = namespace(l=[1]) %}{% for i in range(64) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
      "{% set n = namespace(l=[1]) %}{% for i in range(5000) %}{% set n.l = [n.l] %}{% endfor %}",
      "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{{ 'a' * 10000000000 }}",
      "{{ 'aaaaaaaaaa'|replace('a', 'a' * 60000000) }}",
      "{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}",
      "{{ " + std::string(5000, '-') + "1 }}",
      [] {
        std::string deep;
        for (int i = 0; i < 5000; ++i) deep += "{% if true %}";
        return deep;
      }(),
      std::string(2 << 20, 'x'),
  };
  for (const std::string& source : cases) {
    const auto text = render(source);
    EXPECT_FALSE(text.ok()) << source.substr(0, 80);
  }
}

TEST(ChatTemplate, LeavesCodeInMessagesAlone) {
  EXPECT_EQ(or_throw(render("{{ messages[0].content }}", "{{ 1 }}{% x %}")), "{{ 1 }}{% x %}");
}

// Damaged templates are refused or rendered; nothing else may happen. (Run under the sanitizers too.)
TEST(ChatTemplate, SurvivesDamagedTemplates) {
  std::mt19937 random(7);
  for (const char* const name : {"smollm2.jinja", "gemma3-it.jinja", "language.jinja", "whitespace.jinja"}) {
    const std::string source = template_source(name);
    int rendered = 0;
    for (int round = 0; round < 400; ++round) {
      std::string damaged = source;
      for (int change = 0; change < 3; ++change) {
        const std::size_t at = random() % damaged.size();
        switch (random() % 3) {
          case 0:
            damaged.erase(at, random() % 8);
            break;
          case 1:
            damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 20));
            break;
          default:
            damaged[at] = static_cast<char>(random());
        }
      }
      rendered += render(damaged).ok();
    }
    EXPECT_LT(rendered, 400) << name;  // some damage must have been noticed
  }
}

}  // namespace
}  // namespace skein
