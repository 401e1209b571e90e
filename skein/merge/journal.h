// What of an unfinished merge is safely on the disk: one line per finished tensor, written after its bytes were synced.
//
// A journal belongs to a plan: its first line holds the plan's digest and its inputs. A line that a crash cut short is
// no line, and a record whose seal differs is passed over. Each rank has its own, so that nobody writes to another's.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/executor.h"
#include "skein/merge/plan.h"

namespace skein::merge {

class Journal {
 public:
  // Begins rank's journal in `folder`, or goes on with it.
  static Result<std::unique_ptr<Journal>> open(Env& env, const std::string& folder, int rank, const Plan& plan);
  // Durable when this returns. The tensors' bytes must be so already.
  Status add(const std::vector<std::pair<std::size_t, TensorRecord>>& records);

 private:
  std::unique_ptr<WritableFile> file_;
};

// All ranks' journals in `folder`: tensor -> record. One of another plan is an error that says what changed: an input,
// by name, or the recipe and options.
Result<std::map<std::size_t, TensorRecord>> read_journals(Env& env, const std::string& folder, const Plan& plan);
bool is_journal_name(const std::string& file_name);
bool has_journal(Env& env, const std::string& folder);
Status remove_journals(Env& env, const std::string& folder);

}  // namespace skein::merge
