// The verbs of the program. Each adds its subcommand (options, help, example) to the command line; when it is the one
// that was typed, what it has to do is left in `job` and run after the whole line was understood.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace skein {

struct Job {
  std::function<int()> run;        // returns the exit code; throws Failure, whose sentence main prints
  std::vector<std::string> typed;  // the words of the command line, the program first
};

// Torch-free.
void add_tokenize_verb(CLI::App& program, Job& job);
void add_library_verb(CLI::App& program, Job& job);
void add_convert_verb(CLI::App& program, Job& job);
void add_merge_verb(CLI::App& program, Job& job);
void add_bench_verb(CLI::App& program, Job& job);
void add_manual_verb(CLI::App& program, Job& job);
// Need libtorch; without it no_torch_verbs.cc says so in their place.
void add_generate_verb(CLI::App& program, Job& job);
void add_logits_verb(CLI::App& program, Job& job);
void add_train_verb(CLI::App& program, Job& job);
void add_trace_verb(CLI::App& program, Job& job);
void add_eval_verb(CLI::App& program, Job& job);
void add_compare_verb(CLI::App& program, Job& job);
void add_extract_verb(CLI::App& program, Job& job);
void add_gates_verb(CLI::App& program, Job& job);
void add_distill_verb(CLI::App& program, Job& job);
void add_serve_verb(CLI::App& program, Job& job);

}  // namespace skein
