// Training over the ranks of an MPI job: the same result, one writer, and a clean end when a rank is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "skein/base/concat.h"
#include "tests/end_to_end/program.h"

#ifdef SKEIN_MPIRUN
namespace skein {
namespace {

using testing::HasSubstr;

struct Training {
  TemporaryFolder folder;
  std::string base = tiny_base(folder);
  std::string data = letter_task(folder, "ab", "abc", 24);

  std::vector<std::string> words(const std::string& what, const std::string& out, int steps = 10) const {
    const std::string target = what == "gate" ? "--expert" : "--out";
    return {"train",        what,
            "--base",       base,
            "--data",       data,
            target,         folder / out,
            "--steps",      std::to_string(steps),
            "--batch",      "4",
            "--save-every", "5",
            "--dtype",      "f32",
            "--threads",    "1",
            "--no-sync"};
  }
};

// A shell line: words of skein on so many ranks, at most five minutes, stderr in a file.
std::string on_ranks(int ranks, const std::vector<std::string>& words, const std::string& err) {
  std::string command =
      concat("timeout 300 ", SKEIN_MPIRUN, " --allow-run-as-root --oversubscribe -n ", ranks, " " SKEIN_PROGRAM);
  for (const std::string& word : words) command += " " + word;
  return command + " > /dev/null 2> " + err;
}

int run_line(const std::string& line) { return WEXITSTATUS(std::system(("bash -c '" + line + "'").c_str())); }

// The F32 values of a safetensors file.
std::vector<float> values_in(const std::string& path) {
  const std::string bytes = read_file(path);
  if (bytes.size() < 8) return {};
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  std::vector<float> values((bytes.size() - 8 - header) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + 8 + header, values.size() * sizeof(float));
  return values;
}

// Sums of another order: gradients differ by 1e-7 of the usual size, and AdamW's first updates divide each by its own.
// Of numbers whose gradient is r times the usual one, a share r of all, that makes 1e-7 / r: 3e-4 in the mean over r. A
// wrong share of the batch or a wrong weight makes differences of order 1.
void expect_near(const std::string& left, const std::string& right) {
  const std::vector<float> a = values_in(left), b = values_in(right);
  ASSERT_FALSE(a.empty()) << left;
  ASSERT_EQ(a.size(), b.size());
  double squares = 0, differences = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    squares += static_cast<double>(a[i]) * a[i];
    differences += std::pow(static_cast<double>(a[i]) - b[i], 2);
  }
  EXPECT_LE(std::sqrt(differences / squares), 1e-2) << left;
}

TEST(Ranks, TrainWhatOneRankTrains) {
  const Training training;
  for (const std::string what : {"expert", "gate", "mov", "ia3", "full"}) {
    const std::string one = what == "gate" ? "expert1" : what + "1", two = what == "gate" ? "expert2" : what + "2";
    ASSERT_EQ(run_skein(training.words(what, one)).code, 0) << what;
    const std::string err = training.folder / "err";
    ASSERT_EQ(run_line(on_ranks(2, training.words(what, two), err)), 0) << read_file(err);
    EXPECT_EQ(read_file(err).find("next:"), read_file(err).rfind("next:")) << "one rank speaks: " << read_file(err);
    const char* file = what == "gate"   ? "/gates/phatgoose.safetensors"
                       : what == "mov"  ? "/mixture.safetensors"
                       : what == "full" ? "/model.safetensors"
                                        : "/adapter_model.safetensors";
    expect_near(training.folder / (two + file), training.folder / (one + file));
    const auto log =
        json_lines_of(read_file(training.folder / (two + (what == "gate" ? "/gate_log.jsonl" : "/log.jsonl"))));
    EXPECT_EQ(log.size(), 10u);
  }
}

TEST(Ranks, ALostRankEndsTheJobAndAnotherNumberGoesOn) {
  const Training training;
  const std::string err = training.folder / "err", state = training.folder / "lost.training/state.safetensors";
  ASSERT_EQ(run_skein(training.words("expert", "one", 400)).code, 0);
  // mpirun's children are the ranks; one is killed once a state is there.
  const std::string kill_one =
      concat(on_ranks(3, training.words("expert", "lost", 400), err), " & job=$!; ",                             //
             "for i in $(seq 30000); do [ -e ", state, " ] && break; sleep 0.01; done; ",                        //
             "mpi=$(cat /proc/$job/task/$job/children); set -- $(cat /proc/${mpi% }/task/${mpi% }/children); ",  //
             "kill -9 $2; wait $job");
  const int code = run_line(kill_one);
  EXPECT_NE(code, 0);
  EXPECT_NE(code, 124) << "a rank waited for ever";
  EXPECT_FALSE(exists(training.folder / "lost"));
  ASSERT_TRUE(exists(state));
  auto resume = training.words("expert", "lost", 400);
  resume.push_back("--resume");
  ASSERT_EQ(run_line(on_ranks(2, resume, err)), 0) << read_file(err);
  EXPECT_THAT(read_file(err), HasSubstr("began with 3 ranks"));
  EXPECT_TRUE(exists(training.folder / "lost/adapter_model.safetensors"));
  EXPECT_EQ(json_lines_of(read_file(training.folder / "lost/log.jsonl")).size(), 400u);
}

// ---- a farm ----

struct Farm {
  TemporaryFolder folder;
  std::string base = tiny_base(folder);
  std::vector<std::string> names{"ab", "bc", "ca"};

  Farm() {
    for (const std::string& name : names) letter_task(folder, name, name, 12);
  }
  std::string plan(const std::string& out, const std::string& extra = "") const {
    std::string text = concat("base: ", base, "\nout: ", out,
                              "\ndtype: f32\n"
                              "expert: {steps: 6, batch: 4, rank: 2, save_every: 2}\n"
                              "gate: {steps: 4, batch: 4, save_every: 2}\nexperts:\n");
    for (const std::string& name : names) text += concat("  - {name: ", name, ", data: ", name, ".jsonl}\n");
    write_file(folder / (out + ".yml"), text + extra);
    return folder / (out + ".yml");
  }
  std::vector<std::string> words(const std::string& plan) const {
    return {"train", "library", plan, "--threads", "1", "--no-sync"};
  }
  std::string weights(const std::string& out, const std::string& name) const {
    const std::string expert = folder / (out + "/experts/" + name);
    return read_file(expert + "/adapter_model.safetensors") + read_file(expert + "/gates/phatgoose.safetensors");
  }
};

TEST(TrainLibrary, GivesTheSameLibraryOnAnyNumberOfRanks) {
  const Farm farm;
  const Outcome one = run_skein(farm.words(farm.plan("one")));
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(run_skein({"library", "check", farm.folder / "one"}).code, 0);
  EXPECT_FALSE(exists(farm.folder / "one.training"));
  const std::string err = farm.folder / "err";
  ASSERT_EQ(run_line(on_ranks(2, farm.words(farm.plan("two")), err)), 0) << read_file(err);
  for (const std::string& name : farm.names) {
    EXPECT_THAT(one.err, HasSubstr(name + ": expert loss"));
    EXPECT_THAT(read_file(err), HasSubstr(name + ": expert loss"));
    ASSERT_FALSE(farm.weights("one", name).empty());
    EXPECT_TRUE(farm.weights("one", name) == farm.weights("two", name)) << name;
  }
  EXPECT_THAT(read_file(err), HasSubstr("(rank 1)"));
  const Outcome again = run_skein(farm.words(farm.plan("one")));
  EXPECT_EQ(again.code, 0);
  EXPECT_THAT(again.err, HasSubstr("complete already"));
}

TEST(TrainLibrary, AFailingExpertIsNamedTheOthersAreKeptAndTheCommandGoesOn) {
  const Farm farm;
  const std::string plan = farm.plan("pool", "  - {name: late, data: late.jsonl}\n");
  const std::string err = farm.folder / "err";
  EXPECT_EQ(run_line(on_ranks(2, farm.words(plan), err)), 1);
  EXPECT_THAT(read_file(err), testing::AllOf(HasSubstr("failed: late"), HasSubstr("3 of 4")));
  EXPECT_FALSE(exists(farm.folder / "pool"));
  letter_task(farm.folder, "late", "cb", 12);
  const Outcome again = run_skein(farm.words(plan));
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(json_of(read_file(farm.folder / "pool/library.json"))["experts"].size(), 4u);
}

TEST(Ranks, SayAnErrorOnceWithTheCodeOfOneProcess) {
  const Training training;
  const std::string err = training.folder / "err";
  auto words = training.words("expert", "out");
  words[5] = training.folder / "absent.jsonl";
  EXPECT_EQ(run_line(on_ranks(2, words, err)), 1);
  const std::string text = read_file(err);
  EXPECT_THAT(text, HasSubstr("absent.jsonl"));
  EXPECT_EQ(text.find("absent.jsonl"), text.rfind("absent.jsonl")) << text;
  words = training.words("expert", "out");
  words.insert(words.end(), {"--lr", "-1"});
  EXPECT_EQ(run_line(on_ranks(2, words, err)), 2);
}

}  // namespace
}  // namespace skein
#endif
