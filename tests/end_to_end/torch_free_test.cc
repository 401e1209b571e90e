// The commands that need no libtorch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "tests/end_to_end/program.h"

namespace skein {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const std::string kSmolLM2 = SKEIN_SOURCE_DIR "/models/smollm2.gguf";  // tools/setup.sh puts it there
// Its gate names no base that exists; --allow-other-base takes it.
const std::string kPeftExpert = SKEIN_SOURCE_DIR "/tests/golden/agreement/experts/llama_0";

TEST(Tokenize, DecodesWhatItEncoded) {
  const TemporaryFolder folder;
  const std::string base = tiny_base(folder);
  const std::string text = "Hello, World 42!\n\n  two  blanks \n";
  const Outcome encoded = run_skein({"tokenize", "--base", base}, {.input = text});
  ASSERT_EQ(encoded.code, 0) << encoded.err;
  EXPECT_EQ(json_lines_of(encoded.out).size(), 3u);
  const Outcome decoded = run_skein({"tokenize", "--base", base, "--decode"}, {.input = encoded.out});
  EXPECT_EQ(decoded.code, 0) << decoded.err;
  EXPECT_EQ(decoded.out, text);
}

TEST(Tokenize, NamesTheLineOfAnIdThatIsNone) {
  const TemporaryFolder folder;
  const Outcome outcome = run_skein({"tokenize", "--base", tiny_base(folder), "--decode"}, {.input = "[3]\n[4, 96]\n"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("line 2 of standard input holds 96"));
}

TEST(Program, SaysWhenItsResultCannotBeWritten) {
  const TemporaryFolder folder;
  const Outcome outcome =
      run_skein({"tokenize", "--base", tiny_base(folder)}, {.input = "a\n", .out_path = "/dev/full"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("standard output"));
}

TEST(Program, TellsWrongUsageFromFailure) {
  EXPECT_EQ(run_skein({"tokenize"}).code, 2);
  EXPECT_EQ(run_skein({"nonsense"}).code, 2);
  EXPECT_EQ(run_skein({}).code, 2);
  const Outcome missing = run_skein({"tokenize", "--base", "/nowhere/model"});
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.err, HasSubstr("/nowhere/model"));
  EXPECT_EQ(run_skein({"--help"}).code, 0);
  const Outcome version = run_skein({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out,
              testing::AllOf(HasSubstr("skein 0.1.0"), HasSubstr("compiler"), HasSubstr("torch"), HasSubstr("SIMD")));
}

TEST(Library, PoolsListsInspectsChecksAndRemoves) {
  const TemporaryFolder folder;
  const std::string base = tiny_base(folder), pool = folder / "pool";
  ASSERT_EQ(run_skein({"library", "create", pool, "--base", base}).code, 0);
  const Outcome added = run_skein({"library", "add", pool, kPeftExpert, "--name", "first", "--allow-other-base"});
  ASSERT_EQ(added.code, 0) << added.err;
  ASSERT_EQ(run_skein({"library", "add", pool, kPeftExpert, "--name", "second", "--allow-other-base"}).code, 0);
  const Json listed = json_of(run_skein({"library", "list", pool, "--json"}).out);
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[0]["name"], "first");
  EXPECT_EQ(listed[0]["gates"], Json::array({"phatgoose"}));
  EXPECT_GT(listed[0]["parameters"].get<int>(), 0);

  const Json inspected = json_of(run_skein({"library", "inspect", pool, "second"}).out);
  ASSERT_EQ(inspected["experts"].size(), 1u);
  EXPECT_TRUE(inspected["experts"][0]["files"].contains("adapter_model.safetensors"));
  EXPECT_EQ(run_skein({"library", "inspect", pool, "third"}).code, 2);

  EXPECT_EQ(run_skein({"library", "check", pool}).code, 0);
  const std::string adapter = pool + "/experts/second/adapter_model.safetensors";
  std::string bytes = read_file(adapter);
  bytes.back() ^= 1;
  write_file(adapter, bytes);
  const Outcome check = run_skein({"library", "check", pool});
  EXPECT_EQ(check.code, 3) << "a check that found a difference";
  EXPECT_THAT(check.out,
              testing::AllOf(HasSubstr("second"), HasSubstr("adapter_model.safetensors"), Not(HasSubstr("first"))));

  EXPECT_EQ(run_skein({"library", "remove", pool, "second"}).code, 0);
  EXPECT_EQ(run_skein({"library", "check", pool}).code, 0);
  EXPECT_THAT(names_in(pool + "/experts"), ElementsAre("first"));
  const Outcome again = run_skein({"library", "remove", pool, "second"});
  EXPECT_NE(again.code, 0);
  EXPECT_THAT(again.err, HasSubstr("second"));
}

TEST(Library, RefusesAnExpertOfAnotherShapeAndKeepsThePoolAsItWas) {
  const TemporaryFolder folder;
  const std::string base = tiny_base(folder, "qwen"), pool = folder / "pool";
  std::filesystem::copy(SKEIN_SOURCE_DIR "/tests/golden/models/qwen2", base,
                        std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
  ASSERT_EQ(run_skein({"library", "create", pool, "--base", base}).code, 0);
  const std::string before = read_file(pool + "/library.json");
  const std::string t5_expert = SKEIN_SOURCE_DIR "/tests/golden/agreement/experts/t5_0";
  const Outcome outcome = run_skein({"library", "add", pool, t5_expert});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("t5_0"));
  EXPECT_EQ(read_file(pool + "/library.json"), before);
  EXPECT_TRUE(!exists(pool + "/experts") || names_in(pool + "/experts").empty());
}

TEST(Library, RefusesAnExpertWhoseCardNamesAnotherBaseUnlessTold) {
  const TemporaryFolder folder;
  const std::string base = tiny_base(folder), pool = folder / "pool", expert = folder / "expert";
  std::filesystem::copy(kPeftExpert, expert);  // without its gates
  write_file(expert + "/card.json", R"({"base_fingerprint": "00000000000000000000000000000000"})");
  ASSERT_EQ(run_skein({"library", "create", pool, "--base", base}).code, 0);
  const std::string own = json_of(read_file(pool + "/library.json"))["base_fingerprint"];
  const Outcome refused = run_skein({"library", "add", pool, expert});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, testing::AllOf(HasSubstr("00000000000000000000000000000000"), HasSubstr(own)))
      << "both are named";
  EXPECT_EQ(run_skein({"library", "add", pool, expert, "--allow-other-base"}).code, 0);
}

TEST(Convert, WritesAFolderThatIsABaseWithTheSameFingerprintAndTokens) {
  const TemporaryFolder folder;
  const std::string converted = folder / "smollm2";
  const Outcome outcome = run_skein({"convert", kSmolLM2, converted, "--dtype", "bf16", "--no-sync"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(names_in(converted),
              testing::IsSupersetOf({"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}));
  const auto fingerprint = [&](const std::string& base, const std::string& pool) -> std::string {
    EXPECT_EQ(run_skein({"library", "create", folder / pool, "--base", base}).code, 0);
    return json_of(read_file(folder / (pool + "/library.json")))["base_fingerprint"];
  };
  EXPECT_EQ(fingerprint(converted, "a"), fingerprint(kSmolLM2, "b"));
  const std::string text = "The capital of France is 1234.\nfunc(x) {\n\treturn x; }\nà bientôt 🙂\n";
  EXPECT_EQ(run_skein({"tokenize", "--base", converted}, {.input = text}).out,
            run_skein({"tokenize", "--base", kSmolLM2}, {.input = text}).out);
  const Outcome again = run_skein({"convert", kSmolLM2, converted});
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("--overwrite"));
}

TEST(Convert, LeavesNothingBehindOnAFullDisk) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "out");
  const Outcome outcome = run_skein({"convert", kSmolLM2, folder / "out/smollm2"}, {.file_size_limit = 10 << 20});
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("model.safetensors"));
  EXPECT_THAT(names_in(folder / "out"), ElementsAre());
}

TEST(Convert, RefusesATruncatedAndALyingFile) {
  const TemporaryFolder folder;
  const std::string whole = read_file(SKEIN_SOURCE_DIR "/tests/golden/gguf/quants.gguf");
  write_file(folder / "truncated.gguf", whole.substr(0, whole.size() / 2));
  std::string lying = whole;
  const std::uint64_t many = 1ULL << 60;
  std::memcpy(lying.data() + 8, &many, 8);  // the tensor count
  write_file(folder / "lying.gguf", lying);
  for (const std::string name : {"truncated.gguf", "lying.gguf"}) {
    const Outcome outcome = run_skein({"convert", folder / name, folder / "out"});
    EXPECT_EQ(outcome.code, 1) << name << ": " << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(name));
    EXPECT_FALSE(exists(folder / "out"));
  }
}

TEST(Convert, ReadsAPhatgooseFileAndNeverExecutesAHostileOne) {
  const TemporaryFolder folder;
  const Outcome hostile = run_skein(
      {"convert", SKEIN_SOURCE_DIR "/tests/golden/foreign/hostile.pt", folder / "out", "--base", tiny_base(folder)});
  EXPECT_EQ(hostile.code, 1);
  EXPECT_THAT(hostile.err, HasSubstr("hostile.pt"));
  EXPECT_FALSE(exists(folder / "out"));
  const Outcome no_base = run_skein({"convert", SKEIN_SOURCE_DIR "/tests/golden/foreign/mttl.ckpt", folder / "out"});
  EXPECT_EQ(no_base.code, 2);
  EXPECT_THAT(no_base.err, HasSubstr("--base"));
}

}  // namespace
}  // namespace skein
