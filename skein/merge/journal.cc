#include "skein/merge/journal.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/io/digest.h"
#include "skein/io/json.h"

namespace skein::merge {
namespace {

constexpr char kPrefix[] = "journal-";
constexpr char kSuffix[] = ".jsonl";

std::vector<std::string> journal_paths(Env& env, const std::string& folder) {
  std::vector<std::string> paths;
  const auto names = env.list(folder);
  if (!names.ok()) return paths;
  for (const auto& name : *names) {
    if (is_journal_name(name)) paths.push_back(join_path(folder, name));
  }
  return paths;
}

std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

// The digest of a record's other fields, which damage of the line would not have.
std::string seal_of(std::int64_t tensor_idx, const TensorRecord& record) {
  Digest digest;
  digest.update(concat(tensor_idx, " ", record.digest, " ", record.piece_bytes, " ", record.num_nonfinite));
  return digest.hex();
}

Json facts_of(const InputFile& input) {
  return {{"path", input.path},
          {"size", input.facts.size_bytes},
          {"modified_ns", input.facts.modified_ns},
          {"inode", input.facts.inode},
          {"header", input.header_digest}};
}

// The first line of a journal of this plan.
Json heading_of(const Plan& plan) {
  Json heading{{"plan", plan.digest}, {"inputs", Json::array()}};
  for (const auto& input : plan.input_files()) heading["inputs"].push_back(facts_of(input));
  return heading;
}

Error other_plan(const std::string& path, const Json& heading, const Plan& plan) {
  const Json now = heading_of(plan);
  const Json before = heading.is_object() && heading.contains("inputs") && heading["inputs"].is_array()
                          ? heading["inputs"]
                          : Json::array();
  for (const auto& input : before) {
    const auto same_path = [&](const Json& other) { return other["path"] == input.value("path", Json()); };
    const auto found = std::find_if(now["inputs"].begin(), now["inputs"].end(), same_path);
    if (found == now["inputs"].end() || *found == input) continue;
    return Error{concat("the unfinished merge was planned for another ", (*found)["path"].get<std::string>(), " (",
                        input.value("size", Json()).dump(), " bytes then, ", (*found)["size"].dump(),
                        " now); --overwrite begins anew with its present content")};
  }
  return Error{concat(path, " is of a merge with another recipe or other options; --overwrite begins anew")};
}

// The lines that are whole: a crash may have cut the last one short.
std::vector<std::string> whole_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0;;) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) return lines;
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::open(Env& env, const std::string& folder, int rank, const Plan& plan) {
  const std::string path = join_path(folder, concat(kPrefix, rank, kSuffix));
  auto journal = std::make_unique<Journal>();
  // What an earlier run has left is kept as whole lines: appending behind half a line would spoil the next.
  std::string kept;
  if (env.exists(path)) {
    SKEIN_ASSIGN(const std::string text, read_text_file(env, path));
    for (const auto& line : whole_lines(text)) kept += line + "\n";
  }
  if (kept.empty()) kept = line_of(heading_of(plan));
  SKEIN_TRY(write_text_atomically(env, path, kept));
  SKEIN_ASSIGN(journal->file_, env.open_for_append(path));
  return journal;
}

Status Journal::add(const std::vector<std::pair<std::size_t, TensorRecord>>& records) {
  std::string lines;
  for (const auto& [tensor_idx, record] : records) {
    lines += line_of({{"tensor", tensor_idx},
                      {"digest", record.digest},
                      {"piece_bytes", record.piece_bytes},
                      {"nonfinite", record.num_nonfinite},
                      {"seal", seal_of(static_cast<std::int64_t>(tensor_idx), record)}});
  }
  SKEIN_TRY(file_->append(std::as_bytes(std::span(lines))));
  return file_->sync();
}

Result<std::map<std::size_t, TensorRecord>> read_journals(Env& env, const std::string& folder, const Plan& plan) {
  std::map<std::size_t, TensorRecord> done;
  for (const auto& path : journal_paths(env, folder)) {
    SKEIN_ASSIGN(const std::string text, read_text_file(env, path));
    const auto lines = whole_lines(text);
    if (lines.empty()) continue;
    SKEIN_ASSIGN(const Json heading, parse_json(lines[0], concat(path, ", line 1")));
    if (heading != heading_of(plan)) return other_plan(path, heading, plan);
    for (std::size_t i = 1; i < lines.size(); ++i) {
      const std::string where = concat(path, ", line ", i + 1);
      SKEIN_ASSIGN(const Json line, parse_json(lines[i], where));
      SKEIN_ASSIGN(const auto tensor_idx, json_integer(line, "tensor", std::nullopt, where));
      TensorRecord record;
      SKEIN_ASSIGN(record.digest, json_string(line, "digest", std::nullopt, where));
      SKEIN_ASSIGN(record.piece_bytes, json_integer(line, "piece_bytes", std::nullopt, where));
      SKEIN_ASSIGN(const auto num_nonfinite, json_integer(line, "nonfinite", std::nullopt, where));
      record.num_nonfinite = static_cast<std::uint64_t>(num_nonfinite);
      SKEIN_ASSIGN(const std::string seal, json_string(line, "seal", "", where));
      if (seal != seal_of(tensor_idx, record)) continue;  // damaged: that tensor is made again
      if (tensor_idx < 0 || static_cast<std::size_t>(tensor_idx) >= plan.tensors.size() || record.piece_bytes < 1) {
        return Error{concat(where, " names no tensor of this merge; --overwrite begins anew")};
      }
      done[static_cast<std::size_t>(tensor_idx)] = std::move(record);
    }
  }
  return done;
}

bool is_journal_name(const std::string& file_name) {
  return file_name.starts_with(kPrefix) && file_name.ends_with(kSuffix);
}

bool has_journal(Env& env, const std::string& folder) { return !journal_paths(env, folder).empty(); }

Status remove_journals(Env& env, const std::string& folder) {
  for (const auto& path : journal_paths(env, folder)) SKEIN_TRY(env.remove_file(path));
  return {};
}

}  // namespace skein::merge
