#include "skein/train/trainer.h"

#include <charconv>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/io/digest.h"
#include "skein/io/fault_env.h"
#include "skein/spec/expert_folder.h"
#include "skein/train/tiny_training.h"

namespace skein {
namespace {

using testing::HasSubstr;

// "17 4 5" -> 17, 4, 5: texts whose ids can be seen.
class NumberTokenizer : public Tokenizer {
 public:
  NumberTokenizer() {
    special_.eos = 2;
    special_.end_of_generation = {2};
  }
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions&) const override {
    std::vector<TokenId> ids;
    for (const char* at = text.data(); at != text.data() + text.size();) {
      TokenId id = 0;
      const auto [end, fault] = std::from_chars(at, text.data() + text.size(), id);
      if (fault == std::errc()) ids.push_back(id);
      at = fault == std::errc() ? end : at + 1;
    }
    return ids;
  }
  std::string decode(std::span<const TokenId>, bool) const override { return ""; }
  std::string_view token(TokenId) const override { return ""; }
  std::int64_t vocabulary_size() const override { return 96; }
  const SpecialTokens& special() const override { return special_; }
  const std::optional<std::string>& chat_template() const override { return no_template_; }

 private:
  SpecialTokens special_;
  std::optional<std::string> no_template_;
};

std::string lines_of(const TrainData& data) {
  std::string text;
  const auto words = [](const std::vector<TokenId>& ids) {
    std::string joined;
    for (const TokenId id : ids) joined += concat(joined.empty() ? "" : " ", id);
    return joined;
  };
  for (const EncodedExample& example : data.examples) {
    text += Json{{"input", words(example.input)}, {"target", words(example.target)}, {"task", "numbers"}}.dump() + "\n";
  }
  return text;
}

struct Trainer : testing::Test {
  Trainer() {
    for (const char* name : {"config.json", "model.safetensors"}) {
      const std::string text = or_throw(read_text_file(real_env(), tiny::golden_path(concat("models/llama/", name))));
      or_throw(env->make_folders("base"));
      or_throw(write_text_atomically(*env, concat("base/", name), text));
    }
    model.base = or_throw(open_base_model(*env, "base"));
    model.tokenizer = std::make_shared<NumberTokenizer>();
    set_compute_threads(1);
    model.backbone = load_backbone(model.base, ComputeOptions{});
    or_throw(write_text_atomically(*env, "train.jsonl", lines_of(tiny::random_data(9, 1))));
    or_throw(write_text_atomically(*env, "valid.jsonl", lines_of(tiny::random_data(5, 2))));
    options.valid = {"valid.jsonl"};
    options.valid_every = 3;
    options.save_every = 3;
    options.lora.target_kinds = {"q_proj"};  // few tensors, few file operations to fail
  }
  TrainReport expert(Env& files, const std::string& out, bool overwrite = false) {
    return train_expert(files, *make_single_comm(), model, {"train.jsonl"}, out, options, overwrite);
  }
  TrainReport gate(Env& files, const std::string& out, bool overwrite = false) {
    return train_gate(files, *make_single_comm(), model, out, {"train.jsonl"}, options, overwrite);
  }
  std::string digest(const std::string& path) { return or_throw(digest_of_file(*env, path)); }
  template <typename Work>
  std::string message_of(Work work) {
    try {
      work();
    } catch (const Failure& failure) {
      return failure.what();
    }
    return "no failure";
  }

  std::unique_ptr<Env> env = make_memory_env();
  LoadedModel model;
  TrainOptions options = tiny::options();
};

TEST_F(Trainer, WritesAnExpertFolderWithAdapterCardAndLog) {
  const TrainReport report = expert(*env, "out/");
  EXPECT_EQ(report.steps, 6);
  EXPECT_FALSE(env->exists("out.training"));
  const LoraAdapter adapter = or_throw(read_lora_adapter(*env, "out", model.backbone->slots()));
  EXPECT_EQ(adapter.modules.size(), 3U);  // q_proj of three layers
  EXPECT_EQ(adapter.config.rank, 4);
  const Json card = or_throw(read_card(*env, "out"));
  EXPECT_EQ(card["tasks"], Json{"numbers"});
  EXPECT_EQ(card["base_fingerprint"], or_throw(base_fingerprint(*env, model.base)));
  EXPECT_EQ(card["training"]["data"]["train.jsonl"], digest("train.jsonl"));
  EXPECT_EQ(card["training"]["options"]["learning_rate"], 5e-3);
  EXPECT_EQ(card["report"]["valid_loss"], report.best_valid_loss);
  EXPECT_EQ(card["report"]["target_tokens"], report.target_tokens);
  const std::string log = or_throw(read_text_file(*env, "out/log.jsonl"));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 6 + 3);  // steps, and validations after 0, 3, 6
}

TEST_F(Trainer, AddsAGateToAnExpertAndLeavesTheExpertAsItWas) {
  expert(*env, "out");
  const std::string before = digest("out/adapter_model.safetensors");
  const TrainReport report = gate(*env, "out");
  EXPECT_EQ(digest("out/adapter_model.safetensors"), before);
  const GateFile file = or_throw(read_gate(*env, "out", "phatgoose", model.backbone->slots()));
  EXPECT_EQ(file.steps, 6);
  EXPECT_EQ(file.modules.size(), 3U);
  EXPECT_EQ(file.base_fingerprint, or_throw(base_fingerprint(*env, model.base)));
  EXPECT_EQ(or_throw(read_card(*env, "out"))["gates"]["phatgoose"]["report"]["steps"], 6);
  EXPECT_EQ(report.best_step, 6);
  EXPECT_TRUE(env->exists("out/gate_log.jsonl"));
  EXPECT_FALSE(env->exists("out.gate-training"));
}

TEST_F(Trainer, RefusesToOverwriteUnlessTold) {
  expert(*env, "out");
  gate(*env, "out");
  EXPECT_THAT(message_of([&] { expert(*env, "out"); }), HasSubstr("--overwrite"));
  EXPECT_THAT(message_of([&] { gate(*env, "out"); }), HasSubstr("--overwrite"));
  const std::string before = digest("out/adapter_model.safetensors");
  options.lora.seed = 1;
  expert(*env, "out", /*overwrite=*/true);
  EXPECT_NE(digest("out/adapter_model.safetensors"), before);
}

TEST_F(Trainer, ResumingACompleteRunReportsItAndTrainsNothing) {
  const TrainReport report = expert(*env, "out");
  gate(*env, "out");
  const std::string before = digest("out/gates/phatgoose.safetensors");
  options.resume = true;
  EXPECT_EQ(expert(*env, "out").target_tokens, report.target_tokens);
  EXPECT_EQ(gate(*env, "out").steps, 6);
  EXPECT_EQ(digest("out/gates/phatgoose.safetensors"), before);
  options.learning_rate = 1e-3;  // another run: its result is not there
  EXPECT_THAT(message_of([&] { expert(*env, "out"); }), HasSubstr("exists already"));
}

TEST_F(Trainer, ResumingWithChangedDataOrOptionsNamesTheChange) {
  const auto failing = make_fault_env(*env);
  options.save_every = 1;
  failing->set_plan({.fail_at_operation = 80});  // somewhere after the first state
  EXPECT_NE(message_of([&] { expert(*failing, "out"); }), "no failure");
  ASSERT_TRUE(env->exists("out.training/state.safetensors"));
  options.resume = true;
  options.learning_rate = 1e-3;
  EXPECT_THAT(message_of([&] { expert(*env, "out"); }), HasSubstr("options.learning_rate was 0.005 and is now 0.001"));
  options.learning_rate = 5e-3;
  or_throw(write_text_atomically(*env, "train.jsonl", lines_of(tiny::random_data(9, 77))));
  EXPECT_THAT(message_of([&] { expert(*env, "out"); }), HasSubstr("data.train.jsonl was"));
}

// Each file operation of the whole command fails in turn; what is there is nothing or all, and resuming ends with the
// same expert.
TEST_F(Trainer, AFailureAnywhereLeavesNoHalfExpertAndResumesToTheSameBytes) {
  expert(*env, "whole");
  const std::string adapter = digest("whole/adapter_model.safetensors");
  const auto counting = make_fault_env(*env);
  expert(*counting, "counted");
  for (std::int64_t operation = 0; operation < counting->operations(); ++operation) {
    const auto failing = make_fault_env(*env);
    failing->set_plan({.fail_at_operation = operation});
    const std::string out = concat("out", operation);
    options.resume = false;
    message_of([&] { expert(*failing, out); });
    failing->set_plan({});
    or_throw(failing->lose_unsynced());
    if (env->exists(out)) {
      EXPECT_EQ(digest(out + "/adapter_model.safetensors"), adapter) << operation;
    }
    options.resume = true;
    expert(*env, out);
    EXPECT_EQ(digest(out + "/adapter_model.safetensors"), adapter) << operation;
    EXPECT_FALSE(env->exists(out + ".training")) << operation;
  }
}

TEST_F(Trainer, AFailureAnywhereLeavesNoHalfGateAndResumesToTheSameBytes) {
  expert(*env, "whole");
  const auto copy_expert = [&](const std::string& to) {
    or_throw(env->make_folders(to));
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors", "card.json"}) {
      or_throw(
          write_text_atomically(*env, concat(to, "/", name), or_throw(read_text_file(*env, concat("whole/", name)))));
    }
  };
  copy_expert("counted");
  const auto counting = make_fault_env(*env);
  gate(*counting, "counted");
  const std::string bytes = digest("counted/gates/phatgoose.safetensors");
  for (std::int64_t operation = 0; operation < counting->operations(); ++operation) {
    const std::string out = concat("out", operation);
    copy_expert(out);
    const auto failing = make_fault_env(*env);
    failing->set_plan({.fail_at_operation = operation});
    options.resume = false;
    message_of([&] { gate(*failing, out); });
    failing->set_plan({});
    or_throw(failing->lose_unsynced());
    if (env->exists(out + "/gates/phatgoose.safetensors")) {
      EXPECT_EQ(digest(out + "/gates/phatgoose.safetensors"), bytes) << operation;
    }
    options.resume = true;
    gate(*env, out);
    EXPECT_EQ(digest(out + "/gates/phatgoose.safetensors"), bytes) << operation;
    EXPECT_FALSE(env->exists(out + ".gate-training")) << operation;
  }
}

TEST_F(Trainer, NamesABadLineAndWritesNothing) {
  or_throw(
      write_text_atomically(*env, "train.jsonl", "{\"input\": \"3 4\", \"target\": \"5\"}\n{\"input\": \"3 4\"}\n"));
  EXPECT_THAT(message_of([&] { expert(*env, "out"); }), HasSubstr("train.jsonl:2"));
  EXPECT_FALSE(env->exists("out"));
  EXPECT_FALSE(env->exists("out.training"));
  or_throw(write_text_atomically(*env, "train.jsonl", ""));
  EXPECT_THAT(message_of([&] { expert(*env, "out"); }), HasSubstr("train.jsonl"));
}

TEST_F(Trainer, RefusesAnExampleLongerThanTheContextByName) {
  TrainData data = tiny::random_data(3, 1);
  data.examples[1].input.assign(70, 5);  // the tiny model reads 64 positions
  or_throw(write_text_atomically(*env, "train.jsonl", lines_of(data)));
  const std::string message = message_of([&] { expert(*env, "out"); });
  EXPECT_THAT(message, HasSubstr("train.jsonl:2"));
  EXPECT_THAT(message, HasSubstr("at most 64"));
}

TEST_F(Trainer, CountsInputsThatWereCut) {
  options.prompt.max_input = 4;
  EXPECT_GT(expert(*env, "out").inputs_cut, 0);
}

TEST_F(Trainer, RefusesAGateForAnExpertOfAnotherBaseUnlessTold) {
  expert(*env, "out");
  Json card = or_throw(read_card(*env, "out"));
  card["base_fingerprint"] = "00000000000000000000000000000000";
  or_throw(write_card(*env, "out", card));
  const std::string message = message_of([&] { gate(*env, "out"); });
  EXPECT_THAT(message, HasSubstr("00000000000000000000000000000000"));
  EXPECT_THAT(message, HasSubstr(or_throw(base_fingerprint(*env, model.base))));
  options.allow_other_base = true;
  EXPECT_EQ(gate(*env, "out").steps, 6);
}

TEST_F(Trainer, ReadsNoMoreValidationExamplesThanTheLimit) {
  options.valid_limit = 2;
  const double two = expert(*env, "two").best_valid_loss;
  const TrainData all = tiny::random_data(5, 2);
  TrainData first_two;
  first_two.examples = {all.examples[0], all.examples[1]};
  first_two.ids = {"0", "1"};
  or_throw(write_text_atomically(*env, "valid.jsonl", lines_of(first_two)));
  options.valid_limit = 0;
  EXPECT_EQ(expert(*env, "all_of_two").best_valid_loss, two);
}

}  // namespace
}  // namespace skein
