// Evaluation data of several makes as one list of examples (docs/formats/data.md).
//
//   .jsonl, .jsonl.gz   Skein's own lines
//   .json               a BIG-bench task.json: input, target or target_scores, its prefixes
//   samples_*.jsonl     what lm-evaluation-harness wrote under --log_samples: its very prompts and choices
//
// A .jsonl file is lm-eval's if its first line has "arguments" and "doc_id". Files come from strangers: lengths, kinds
// and indices are checked; an error names file, line or example.
#pragma once

#include <string>
#include <vector>

#include "skein/spec/example.h"

namespace skein {

// Examples of all files, in order.
Result<std::vector<Example>> read_task_files(Env& env, const std::vector<std::string>& paths);

}  // namespace skein
