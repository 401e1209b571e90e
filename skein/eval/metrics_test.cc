#include "skein/eval/metrics.h"

#include <gmock/gmock.h>

#include <sstream>

#include "skein/base/concat.h"
#include "skein/eval/bleu.h"
#include "skein/eval/porter_stemmer.h"
#include "skein/eval/python_text.h"
#include "skein/eval/squad.h"
#include "skein/io/json.h"

namespace skein {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string golden(const std::string& name) { return concat(SKEIN_SOURCE_DIR, "/tests/golden/metrics/", name); }

std::vector<Json> golden_texts() {
  std::vector<Json> lines;
  or_throw(for_each_json_line(real_env(), golden("texts.jsonl"), [&](Json&& line, std::int64_t) -> Status {
    lines.push_back(std::move(line));
    return {};
  }));
  return lines;
}

TEST(TextMetrics, EqualTheReferencePackages) {
  const std::vector<Json> lines = golden_texts();
  ASSERT_GE(lines.size(), 80u);
  for (const Json& line : lines) {
    const auto references = line["references"].get<std::vector<std::string>>();
    for (const char* name : {"squad_match", "token_f1", "rouge_1", "rouge_2", "rouge_l", "rouge_l_stemmed", "bleu"}) {
      const TextMetric& metric = *or_throw(parse_metrics(name, "test")).front();
      // Both sides are a handful of f64 operations on the same small counts.
      EXPECT_NEAR(metric.score(line["prediction"], references), line[name].get<double>(), 1e-12)
          << name << " of " << line["prediction"];
    }
  }
}

TEST(Bleu, CutsWordsAsTheThirteenATokenizer) {
  for (const Json& line : golden_texts())
    EXPECT_EQ(bleu_words(line["prediction"].get<std::string>()), line["words_13a"].get<std::vector<std::string>>());
}

TEST(Bleu, OfACorpusIsThatOfSacrebleu) {
  BleuCounts sum;
  for (const Json& line : golden_texts())
    sum += bleu_counts(line["prediction"].get<std::string>(), line["references"].get<std::vector<std::string>>());
  EXPECT_NEAR(corpus_bleu(sum), or_throw(read_json_file(real_env(), golden("corpus.json")))["bleu"].get<double>(),
              1e-10);
}

TEST(PorterStem, IsThatOfNltk) {
  std::istringstream lines(or_throw(read_text_file(real_env(), golden("stems.txt"))));
  std::string word, stem;
  int count = 0;
  for (; lines >> word >> stem; ++count) EXPECT_EQ(porter_stem(word), stem) << word;
  EXPECT_GE(count, 1500);
}

TEST(ParseMetrics, TakesSeveralAndTheShortName) {
  const auto names = [](const std::string& text) {
    std::vector<std::string> found;
    for (const TextMetric* metric : or_throw(parse_metrics(text, "line 3"))) found.push_back(metric->name);
    return found;
  };
  EXPECT_THAT(names(""), ElementsAre("exact_match"));
  EXPECT_THAT(names("squad"), ElementsAre("squad_match", "token_f1"));
  EXPECT_THAT(names("bleu+rouge_l"), ElementsAre("bleu", "rouge_l"));
}

TEST(ParseMetrics, NamesWhatItDoesNotKnow) {
  for (const char* text : {"blue", "bleu+", "+bleu", "bleu+blue"}) {
    const auto metrics = parse_metrics(text, "line 3");
    ASSERT_FALSE(metrics.ok()) << text;
    EXPECT_THAT(metrics.error().message, HasSubstr("line 3: metric \""));
    EXPECT_THAT(metrics.error().message, HasSubstr("rouge_l"));
  }
}

TEST(TextMetrics, TakeTheBestReference) {
  const TextMetric& exact = *or_throw(parse_metrics("exact_match", "test")).front();
  EXPECT_EQ(exact.score(" two\n", {"one", "two "}), 1);
  EXPECT_EQ(exact.score("Two", {"one", "two"}), 0);
}

TEST(PythonText, SurvivesBytesThatAreNotUtf8) {
  EXPECT_EQ(lower_text("A\xff\xc3"), "a\xff\xc3");
  EXPECT_THAT(split_words("a\xff b\xc3"), ElementsAre("a\xff", "b\xc3"));
  EXPECT_EQ(normalized_answer("The \xe2\x80 Dog!"), "\xe2\x80 dog");
}

}  // namespace
}  // namespace skein
