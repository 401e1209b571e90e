#include "skein/train/run_setup.h"

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/io/output_folder.h"
#include "skein/spec/base_model.h"
#include "skein/spec/example.h"
#include "skein/spec/expert_folder.h"
#include "skein/train/ranks.h"
#include "skein/train/training_state.h"

namespace skein {

RunData read_run_data(Env& env, const LoadedModel& model, const std::vector<std::string>& paths,
                      const TrainOptions& options) {
  RunData data;
  const std::vector<Example> examples = or_throw(read_examples(env, paths));
  data.tasks = tasks_of(examples);
  data.train = or_throw(encode_train_data(examples, model, options.prompt));
  if (options.valid.empty()) return data;
  std::vector<Example> valid = or_throw(read_examples(env, options.valid));
  const auto limit = static_cast<std::size_t>(options.valid_limit);
  if (limit > 0 && valid.size() > limit) valid.resize(limit);
  data.valid = or_throw(encode_train_data(valid, model, options.prompt));
  return data;
}

Json run_identity(Env& env, const LoadedModel& model, const std::vector<std::string>& paths,
                  const TrainOptions& options, bool with_lora) {
  Json identity;
  identity["options"] = train_options_to_json(options, with_lora);
  identity["dtype"] = model.backbone->compute().dtype == at::kBFloat16 ? "bf16" : "f32";
  if (const int bits = model.backbone->compute().base_bits; bits != 0) identity["base_bits"] = bits;
  identity["data"] = or_throw(data_digests(env, paths));
  identity["valid"] = or_throw(data_digests(env, options.valid));
  identity["base_fingerprint"] = or_throw(base_fingerprint(env, model.base));
  return identity;
}

std::optional<TrainReport> finished_before(const Json& entry, const Json& identity) {
  if (!entry.is_object() || !entry.contains("training") || !entry.contains("report")) return std::nullopt;
  if (!check_identity(entry["training"], identity, "").ok()) return std::nullopt;
  auto report = report_from_json(entry["report"], "card.json");
  return report.ok() ? std::optional(std::move(*report)) : std::nullopt;
}

void copy_file(Env& env, const std::string& from, const std::string& to) {
  or_throw(write_text_atomically(env, to, or_throw(read_text_file(env, from))));
}

void check_start(Env& env, const Comm& comm, const LoadedModel& model, const TrainOptions& options,
                 const std::string& state_folder, bool overwrite) {
  or_throw(check_train_options(options));
  if (model.filler != nullptr) {
    throw Failure(
        {"training starts from the plain base; load the model without an adapter or a library", ErrorKind::kUsage});
  }
  if (overwrite && !options.resume && is_root(comm)) or_throw(env.remove_tree(state_folder));
}

std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

namespace {

// Nothing if the run has to run; else what the card says of it.
std::optional<TrainReport> check_target(Env& env, const FolderRun& run, const FolderRunRequest& request) {
  if (!env.exists(run.out) || request.overwrite) return std::nullopt;
  const Json card = request.options.resume ? or_throw(read_card(env, run.out)) : Json();
  if (auto report = finished_before(card, run.identity)) return report;
  throw Failure({concat(run.out, " exists already; --overwrite replaces it")});
}

Json card_of(const LoadedModel& model, const FolderRunRequest& request, const FolderRun& run,
             const TrainReport& report) {
  Json card;
  card["kind"] = run.kind;
  if (!request.options.program_version.empty()) card["skein_version"] = request.options.program_version;
  card["tasks"] = run.data.tasks;
  card["base"] = model.base.path;
  card["base_fingerprint"] = run.identity["base_fingerprint"];
  card["training"] = run.identity;
  card["report"] = report_to_json(report);
  return card;
}

}  // namespace

FolderRun begin_folder_run(Env& env, Comm& comm, const LoadedModel& model, const FolderRunRequest& request) {
  FolderRun run;
  run.out = without_trailing_slash(request.out);
  run.state_folder = run.out + ".training";
  run.kind = request.kind;
  together(comm, [&] {
    check_start(env, comm, model, request.options, run.state_folder, request.overwrite);
    run.identity = run_identity(env, model, request.data, request.options, request.with_lora);
    run.identity.update(request.more_identity);
    run.done = check_target(env, run, request);
    if (!run.done) run.data = read_run_data(env, model, request.data, request.options);
  });
  if (run.done) {
    on_root(comm, [&] {
      log_info(concat(run.out, " is complete already"));
      or_throw(env.remove_tree(run.state_folder));
    });
  } else if (is_root(comm) && run.data.train.inputs_cut > 0) {
    log_info(concat(run.data.train.inputs_cut, " of ", run.data.train.examples.size(), " inputs were longer than ",
                    request.options.prompt.max_input, " tokens and lost their end"));
  }
  run.loop.what = concat(run.kind, " ", base_name(run.out));
  run.loop.state_folder = run.state_folder;
  run.loop.identity = run.identity;
  run.loop.keep_best = true;
  run.loop.comm = &comm;
  return run;
}

void end_folder_run(Env& env, Comm& comm, const LoadedModel& model, const FolderRunRequest& request,
                    const FolderRun& run, const TrainReport& report, const Json& card_extra,
                    const std::function<void(const std::string& folder)>& write_weights) {
  on_root(comm, [&] {
    Json card = card_of(model, request, run, report);
    card.update(card_extra);
    const auto folder = or_throw(OutputFolder::begin(env, run.out, request.overwrite));
    write_weights(folder->path());
    or_throw(write_card(env, folder->path(), card));
    copy_file(env, log_file(run.state_folder), join_path(folder->path(), "log.jsonl"));
    or_throw(folder->commit());
    or_throw(env.remove_tree(run.state_folder));
  });
}

}  // namespace skein
