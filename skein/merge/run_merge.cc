#include "skein/merge/run_merge.h"

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/io/output_folder.h"
#include "skein/io/safetensors.h"
#include "skein/merge/adapter_merge.h"
#include "skein/merge/journal.h"
#include "skein/merge/manifest.h"
#include "skein/merge/merge_statistics.h"
#include "skein/merge/output_files.h"
#include "skein/merge/run_adapter_merge.h"
#include "skein/merge/stages.h"

namespace skein::merge {
namespace {

using Clock = std::chrono::steady_clock;
using Records = std::map<std::size_t, TensorRecord>;

// ---- one stage on this rank ----

class StageRun {
 public:
  StageRun(Env& env, Comm& comm, const MergeRequest& request, const std::string& recipe_text, Stage& stage,
           const std::string& out, const std::string& stages_digest)
      : env_(env),
        comm_(comm),
        request_(request),
        recipe_text_(recipe_text),
        alignment_(*stage.alignment),
        plan_(*stage.plan),
        out_(out),
        stages_digest_(stages_digest) {}

  Result<MergeSummary> run() {
    SKEIN_ASSIGN(memory_, plan_memory(plan_, request_.memory_bytes, request_.num_threads));
    summarise_plan();
    std::uint64_t complete = 0;
    if (is_root()) complete = request_.resume && plan_digest_of(env_, out_) == plan_.digest ? 1 : 0;
    comm_.broadcast(std::as_writable_bytes(std::span(&complete, 1)), 0);
    if (complete == 1) {
      summary_.was_complete = true;
      return summary_;
    }
    // Between two of these lines nothing is collective, so that no rank waits for one that has failed.
    const Status begun = agree(comm_, is_root() ? begin() : Status());
    const Status written = begun.ok() ? write_tensors() : begun;
    if (!written.ok()) {
      give_up();
      return written.error();
    }
    SKEIN_TRY(agree(comm_, finish()));
    return summary_;
  }

 private:
  bool is_root() const { return comm_.rank() == 0; }
  std::string work() const { return unfinished_path(out_); }
  std::string work_file(const std::string& name) const { return join_path(work(), name); }

  void summarise_plan() {
    summary_.method = plan_.method->name;
    summary_.num_models = plan_.sources.size();
    summary_.num_tensors = plan_.tensors.size();
    summary_.num_dropped = plan_.dropped.size();
    summary_.read_bytes = plan_.read_bytes();
    summary_.written_bytes = plan_.weight_bytes();
    summary_.planned_peak_bytes = memory_.peak_bytes;
  }

  // The root: the folder to work in, with files of the right sizes.
  Status begin() {
    if (env_.exists(work()) && !request_.resume) {
      if (!request_.overwrite && has_journal(env_, work())) {
        return Error{concat("an unfinished merge for ", out_, " lies in ", work(),
                            "; --resume goes on with it, --overwrite begins anew")};
      }
      SKEIN_TRY(env_.remove_tree(work()));
    }
    SKEIN_ASSIGN(folder_, OutputFolder::begin_kept(env_, out_, request_.overwrite));
    SKEIN_ASSIGN(const Records known, read_journals(env_, work(), plan_));
    SKEIN_TRY(clear_away());
    for (const auto& file : plan_.files) {
      SKEIN_ASSIGN(const auto opened, env_.open_sized(work_file(file.name), file.size_bytes));
      SKEIN_TRY(opened->write_at(0, std::as_bytes(std::span(file.header))));
      SKEIN_TRY(opened->close());
    }
    return {};
  }

  // What a killed run left half-written beside weights and journals, and what it wrote last: made anew.
  Status clear_away() {
    SKEIN_ASSIGN(const auto names, env_.list(work()));
    for (const auto& name : names) {
      const auto has_name = [&](const OutputFile& file) { return file.name == name; };
      if (is_journal_name(name) || std::any_of(plan_.files.begin(), plan_.files.end(), has_name)) continue;
      SKEIN_TRY(env_.remove_tree(work_file(name)));
    }
    return {};
  }

  // Records of an earlier run whose bytes are still there: what is read again is what is believed.
  Status take_over(const std::vector<std::size_t>& share) {
    if (!request_.resume || statistics_) return {};  // statistics are of the blocks that this run sees
    SKEIN_ASSIGN(const Records known, read_journals(env_, work(), plan_));
    for (const std::size_t i : share) {
      const auto found = known.find(i);
      if (found == known.end()) continue;
      const auto& tensor = plan_.tensors[i];
      if (!tensor.extras.empty()) continue;  // their bytes have no digest
      SKEIN_ASSIGN(const auto file, env_.open(work_file(plan_.files[static_cast<std::size_t>(tensor.file)].name)));
      SKEIN_ASSIGN(const bool same,
                   has_digest(*file, tensor.offset, tensor.num_bytes, found->second.digest, found->second.piece_bytes));
      if (same) records_.insert(*found);
    }
    summary_.num_resumed = records_.size();
    return {};
  }

  Status write_tensors() {
    const auto share = share_of_rank(plan_, comm_.rank(), comm_.size());
    if (request_.statistics_page) statistics_.emplace(plan_);
    SKEIN_TRY(agree(comm_, take_over(share)));  // before anyone writes to a journal
    SKEIN_TRY(agree(comm_, open_files()));
    std::vector<std::size_t> wanted;
    for (const std::size_t i : share) {
      if (!records_.contains(i)) wanted.push_back(i);
    }
    ExecuteOptions options;
    options.memory = memory_;
    options.on_done = [this](std::size_t tensor_idx, const TensorRecord& record) -> Status {
      unsynced_.emplace_back(tensor_idx, record);
      records_[tensor_idx] = record;
      return {};
    };
    options.on_tick = [this](std::uint64_t bytes) -> Status {
      if (request_.on_progress) request_.on_progress(bytes, plan_.weight_bytes());
      return Clock::now() - synced_at_ >= request_.journal_every ? sync() : Status();
    };
    options.observer = statistics_ ? &*statistics_ : nullptr;
    const Status executed = execute(plan_, comm_, wanted, files_, options);
    const Status synced = sync();  // also of a run that failed: that much can be gone on with
    SKEIN_TRY(executed);
    return agree(comm_, synced.ok() ? close_files() : synced);
  }

  Status open_files() {
    for (const auto& file : plan_.files) {
      SKEIN_ASSIGN(auto opened, env_.open_sized(work_file(file.name), file.size_bytes));
      files_.push_back(std::move(opened));
    }
    SKEIN_ASSIGN(journal_, Journal::open(env_, work(), comm_.rank(), plan_));
    return {};
  }

  Status close_files() {
    for (const auto& file : files_) SKEIN_TRY(file->close());
    return check_unchanged(env_, plan_.input_files());
  }

  // First the bytes, then the journal's word for them.
  Status sync() {
    if (unsynced_.empty()) return {};
    for (const auto& file : files_) SKEIN_TRY(file->sync());
    SKEIN_TRY(journal_->add(unsynced_));
    num_journaled_ += unsynced_.size();
    unsynced_.clear();
    synced_at_ = Clock::now();
    return {};
  }

  // A run that failed before it had anything to go on with leaves nothing behind.
  void give_up() {
    if (folder_ == nullptr || comm_.size() > 1 || request_.resume || num_journaled_ > 0) return;
    (void)env_.remove_tree(work());
  }

  // All ranks' records to the root, which writes the rest and gives the folder its name.
  Status finish() {
    std::string lines;
    for (const auto& [i, record] : records_) {
      lines += concat(i, " ", record.digest, " ", record.piece_bytes, " ", record.num_nonfinite, "\n");
    }
    const auto parts = comm_.gather(std::as_bytes(std::span(lines)), 0);
    const std::string statistics = statistics_ ? statistics_->lines() : std::string();
    const auto statistics_parts = comm_.gather(std::as_bytes(std::span(statistics)), 0);
    if (!is_root()) return {};
    if (statistics_) SKEIN_TRY(write_statistics(statistics_parts));
    std::vector<TensorRecord> records(plan_.tensors.size());
    for (const auto& part : parts) {
      std::istringstream stream(std::string(reinterpret_cast<const char*>(part.data()), part.size()));
      std::size_t i = 0;
      TensorRecord record;
      while (stream >> i >> record.digest >> record.piece_bytes >> record.num_nonfinite) records[i] = record;
    }
    for (std::size_t i = 0; i < records.size(); ++i) {
      if (records[i].num_nonfinite == 0) continue;
      summary_.num_nonfinite += records[i].num_nonfinite;
      summary_.nonfinite_tensors.push_back(plan_.tensors[i].name);
    }
    return write_rest(records);
  }

  Status write_statistics(const std::vector<std::vector<std::byte>>& parts) {
    std::string lines;
    for (const auto& part : parts) lines.append(reinterpret_cast<const char*>(part.data()), part.size());
    SKEIN_ASSIGN(const Json json, statistics_json(plan_, lines));
    SKEIN_TRY(write_text_atomically(env_, work_file("merge_stats.json"),
                                    json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"));
    return write_text_atomically(env_, work_file("merge_stats.html"), request_.statistics_page(json));
  }

  Status write_rest(const std::vector<TensorRecord>& records) {
    SKEIN_TRY(write_index());
    SKEIN_TRY(write_summary_tensors());
    SKEIN_TRY(write_side_files());
    SKEIN_TRY(remove_journals(env_, work()));
    SKEIN_ASSIGN(Json manifest, make_manifest(env_, work(), plan_, recipe_text_, records, request_.version));
    if (!stages_digest_.empty()) manifest["stages"] = stages_digest_;
    SKEIN_TRY(write_text_atomically(env_, work_file(kManifestName),
                                    manifest.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"));
    return folder_->commit();
  }

  Status write_index() {
    const auto is_weights = [](const OutputFile& file) { return file.is_weights; };
    if (std::count_if(plan_.files.begin(), plan_.files.end(), is_weights) < 2) return {};
    Json map = Json::object();
    for (const auto& tensor : plan_.tensors) map[tensor.name] = plan_.files[static_cast<std::size_t>(tensor.file)].name;
    const Json index{{"metadata", {{"total_size", plan_.weight_bytes()}}}, {"weight_map", std::move(map)}};
    return write_text_atomically(env_, work_file("model.safetensors.index.json"), index.dump(2) + "\n");
  }

  Status write_side_files() {
    const SideFileOptions options{
        .recipe_text = recipe_text_, .output_name = base_name(out_), .program = "Skein " + request_.version};
    std::vector<std::string> warnings;
    SKEIN_ASSIGN(const auto files, side_files(env_, plan_, alignment_.vocabulary(), options, warnings));
    for (const auto& file : files) SKEIN_TRY(write_text_atomically(env_, work_file(file.name), file.text));
    if (request_.on_warning) {
      for (const auto& warning : warnings) request_.on_warning(warning);
    }
    return {};
  }

  Status write_summary_tensors() {
    std::map<std::string, std::vector<SummaryTensor>> by_file;
    for (auto& tensor : plan_.model->summary_tensors()) by_file[tensor.file].push_back(std::move(tensor));
    for (const auto& [stem, tensors] : by_file) {
      std::vector<NamedTensor> named;
      for (const auto& tensor : tensors) {
        named.push_back({tensor.name, TensorView{DType::kF32,
                                                 {static_cast<std::int64_t>(tensor.values.size())},
                                                 std::as_bytes(std::span(tensor.values))}});
      }
      SKEIN_TRY(write_safetensors(env_, work_file(stem + ".safetensors"), named));
    }
    return {};
  }

  Env& env_;
  Comm& comm_;
  const MergeRequest& request_;
  const std::string& recipe_text_;
  const InputAlignment& alignment_;
  Plan& plan_;
  const std::string& out_;
  const std::string& stages_digest_;
  MemoryPlan memory_;
  MergeSummary summary_;
  std::unique_ptr<OutputFolder> folder_;  // the root's
  std::vector<std::unique_ptr<SizedFile>> files_;
  std::unique_ptr<Journal> journal_;
  std::optional<StatisticsObserver> statistics_;
  Records records_;
  std::vector<std::pair<std::size_t, TensorRecord>> unsynced_;
  std::size_t num_journaled_ = 0;
  Clock::time_point synced_at_ = Clock::now();
};

// What can be refused before any file is opened.
Status check_request(Env& env, const Comm& comm, const MergeRequest& request, const RecipeFile& parsed) {
  if (comm.rank() == 0 && env.exists(request.out) && !request.overwrite && !request.resume) {
    return Error{concat(request.out, " exists already; give another name, or --overwrite to replace it")};
  }
  for (const std::size_t stage : parsed.order) {
    const Recipe& recipe = parsed.stages[stage];
    if (stage == parsed.order.back() || is_safe_file_name(recipe.name)) continue;
    return Error{concat(recipe.path, ", line ", recipe.line, ": the stage's name \"", printable(recipe.name),
                        "\" cannot name a folder")};
  }
  return {};
}

// Whether --resume finds the result of several stages finished, on every rank. Another one there is an error, before
// its stages are made in vain.
Result<bool> is_finished(Env& env, Comm& comm, const MergeRequest& request, const std::string& stages_digest) {
  if (!request.resume || stages_digest.empty()) return false;
  std::uint64_t finished = 0;
  Status status;
  if (comm.rank() == 0) {
    finished = stages_digest_of(env, request.out) == stages_digest ? 1 : 0;
    if (finished == 0 && env.exists(request.out) && !request.overwrite) {
      status =
          Error{concat(request.out, " is of another recipe, other options or other inputs; --overwrite replaces it")};
    }
  }
  SKEIN_TRY(agree(comm, status));
  comm.broadcast(std::as_writable_bytes(std::span(&finished, 1)), 0);
  return finished == 1;
}

}  // namespace

Result<MergeSummary> run_merge(Env& env, Comm& comm, const MergeRequest& request) {
  auto read = read_recipe_file(env, request.recipe_path);
  SKEIN_TRY(agree(comm, read.ok() ? check_request(env, comm, request, *read) : Status(read.error())));
  const RecipeFile parsed = std::move(*read);
  const std::string stages_folder =
      join_path(parent_folder(request.out), concat(".", base_name(request.out), ".skein-stages"));
  const auto stages_digest = digest_of_stages(env, parsed, request);
  SKEIN_TRY(agree(comm, stages_digest.ok() ? Status() : Status(stages_digest.error())));
  std::map<std::string, std::string> stage_folders;
  MergeSummary summary;
  SKEIN_ASSIGN(const bool finished, is_finished(env, comm, request, *stages_digest));
  if (finished) {
    summary.method = parsed.stages[parsed.order.back()].merge_method;
    summary.was_complete = true;
    if (comm.rank() == 0) SKEIN_TRY(env.remove_tree(stages_folder));
    return summary;
  }
  for (const std::size_t stage : parsed.order) {
    const bool is_result = stage == parsed.order.back();
    const Recipe recipe = with_folders(parsed.stages[stage], stage_folders);
    const std::string out = is_result ? request.out : join_path(stages_folder, recipe.name);
    const std::string own_digest = is_result ? *stages_digest : std::string();
    MergeRequest own = request;
    if (!is_result) {  // what an earlier run left there is gone on with, or makes way
      own.resume = own.resume || plan_digest_of(env, out) != "";
      own.overwrite = true;
      own.statistics_page = nullptr;
      stage_folders[recipe.name] = out;
    }
    const auto adapters = merges_adapters(env, recipe);
    SKEIN_TRY(agree(comm, adapters.ok() ? Status() : Status(adapters.error())));
    if (*adapters) {
      SKEIN_ASSIGN(summary, run_adapter_merge(env, comm, own, recipe, parsed.text, out, own_digest));
      continue;
    }
    auto planned = plan_stage(env, recipe, own);
    SKEIN_TRY(agree(comm, planned.ok() ? Status() : Status(planned.error())));
    const Plan& plan = *(*planned)->plan;
    const std::string root_digest = broadcast_text(comm, plan.digest, 0);
    SKEIN_TRY(agree(comm, root_digest == plan.digest
                              ? Status()
                              : Error{"this rank planned another merge than rank 0; do all see the same files?"}));
    if (request.on_warning) {
      for (const auto& warning : plan.warnings) request.on_warning(warning);
    }
    SKEIN_ASSIGN(summary, StageRun(env, comm, own, parsed.text, **planned, out, own_digest).run());
  }
  if (comm.rank() == 0 && parsed.order.size() > 1) SKEIN_TRY(env.remove_tree(stages_folder));
  return summary;
}

}  // namespace skein::merge
