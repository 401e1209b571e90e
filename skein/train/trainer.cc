#include "skein/train/trainer.h"

#include <algorithm>
#include <optional>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/experts/trainable_lora.h"
#include "skein/io/digest.h"
#include "skein/spec/base_model.h"
#include "skein/spec/example.h"
#include "skein/spec/expert_folder.h"
#include "skein/train/ranks.h"
#include "skein/train/run_setup.h"
#include "skein/train/train_loop.h"
#include "skein/train/training_state.h"

namespace skein {
namespace {

constexpr const char* kGateKind = "phatgoose";

Json gate_identity(Env& env, const LoadedModel& model, const std::string& expert, const std::vector<std::string>& data,
                   const TrainOptions& options) {
  Json identity = run_identity(env, model, data, options, /*with_lora=*/false);
  identity["expert"] = or_throw(digest_of_file(env, join_path(expert, "adapter_model.safetensors")));
  return identity;
}

void check_base_of(const std::string& expert, const Json& card, const Json& identity, const TrainOptions& options) {
  const auto fingerprint = identity["base_fingerprint"].get<std::string>();
  const std::string trained_on = or_throw(json_string(card, "base_fingerprint", "", join_path(expert, "card.json")));
  if (trained_on.empty() || trained_on == fingerprint || options.allow_other_base) return;
  throw Failure({concat(expert, ": the expert was trained on base ", printable(trained_on), ", this base is ",
                        fingerprint, "; --allow-other-base insists")});
}

// Nothing if the gate has to be trained; else what the card says of it.
std::optional<TrainReport> check_gate(Env& env, const std::string& expert, const Json& card, const Json& identity,
                                      const TrainOptions& options, bool overwrite) {
  const std::vector<std::string> kinds = gate_kinds(env, expert);
  if (overwrite || std::find(kinds.begin(), kinds.end(), kGateKind) == kinds.end()) return std::nullopt;
  const Json entry = options.resume && card.contains("gates") ? card["gates"].value(kGateKind, Json()) : Json();
  if (auto report = finished_before(entry, identity)) return report;
  throw Failure({concat(expert, " has a ", kGateKind, " gate already; --overwrite replaces it")});
}

}  // namespace

TrainReport train_expert(Env& env, Comm& comm, const LoadedModel& model, const std::vector<std::string>& data,
                         const std::string& out, const TrainOptions& options, bool overwrite) {
  const FolderRunRequest request{"lora", data, out, options, overwrite, /*with_lora=*/true};
  const FolderRun run = begin_folder_run(env, comm, model, request);
  if (run.done) return *run.done;
  const auto& slots = model.backbone->slots();
  TrainableLora lora(slots, options.lora, model.backbone->compute().device);
  const Trainee trainee{&lora, lora.parameters(), lora.parameter_names()};
  const TrainReport report =
      run_training(env, *model.backbone, trainee, run.data.train, run.data.valid, run.loop, options);
  if (report.interrupted) return report;
  end_folder_run(env, comm, model, request, run, report, Json::object(), [&](const std::string& folder) {
    const bool encoder_decoder = model.base.config.is_encoder_decoder();
    or_throw(write_lora_adapter(env, folder, lora.to_adapter(model.base.path, encoder_decoder), slots));
  });
  return report;
}

TrainReport train_gate(Env& env, Comm& comm, const LoadedModel& model, const std::string& expert_path,
                       const std::vector<std::string>& data_paths, const TrainOptions& options, bool overwrite) {
  const std::string expert = without_trailing_slash(expert_path);
  const std::string state_folder = expert + ".gate-training";
  const auto& slots = model.backbone->slots();
  LoraAdapter adapter;
  Json card, identity;
  RunData data;
  std::optional<TrainReport> done;
  together(comm, [&] {
    check_start(env, comm, model, options, state_folder, overwrite);
    adapter = or_throw(read_adapter(env, expert, slots));
    card = or_throw(read_card(env, expert));
    identity = gate_identity(env, model, expert, data_paths, options);
    check_base_of(expert, card, identity, options);
    done = check_gate(env, expert, card, identity, options, overwrite);
    if (!done) data = read_run_data(env, model, data_paths, options);
  });
  if (done) {
    on_root(comm, [&] {
      log_info(concat(expert, " has this gate already"));
      or_throw(env.remove_tree(state_folder));
    });
    return *done;
  }

  GatedLora gated(adapter, slots, model.backbone->compute());
  const Trainee trainee{&gated, gated.parameters(), gated.parameter_names()};
  TrainRun run;
  run.what = concat("gate ", base_name(expert));
  run.state_folder = state_folder;
  run.identity = identity;
  run.comm = &comm;
  const TrainReport report = run_training(env, *model.backbone, trainee, data.train, data.valid, run, options);
  if (report.interrupted) return report;

  on_root(comm, [&] {
    // The gate comes last: where it is, the run is complete.
    card["gates"][kGateKind] = Json{{"training", identity}, {"report", report_to_json(report)}};
    or_throw(write_card(env, expert, card));
    copy_file(env, log_file(state_folder), join_path(expert, "gate_log.jsonl"));
    const auto fingerprint = identity["base_fingerprint"].get<std::string>();
    or_throw(write_gate(env, expert, gated.to_gate(report.steps, fingerprint), slots));
    or_throw(env.remove_tree(state_folder));
  });
  return report;
}

}  // namespace skein
