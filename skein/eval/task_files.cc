#include "skein/eval/task_files.h"

#include <algorithm>

#include "skein/base/concat.h"

namespace skein {
namespace {

std::string shown(const Json& value) {
  return printable(value.dump(-1, ' ', true, Json::error_handler_t::replace), 60);
}

// Spaces at the end of a prompt belong to the answer's first token: they go to the separator.
void move_trailing_spaces(Example& example) {
  const std::size_t kept = example.input.find_last_not_of(' ') + 1;
  example.separator = example.input.substr(kept);
  example.input.resize(kept);
}

// ------------------------------------------ BIG-bench ------------------------------------------

// The format of bigbench's json_task.py, zero shots; choices stand in the file's order instead of a random one.
struct BigBenchFormat {
  std::string task, task_prefix, input_prefix, output_prefix, choice_prefix;
  bool shows_choices = true;
};

Result<std::vector<std::string>> read_targets(const Json& target, const std::string& where) {
  std::vector<std::string> texts;
  const Error wrong{
      concat(where, ": \"target\" is ", shown(target), "; expected a text or a list of texts, not empty")};
  if (target.is_string()) return std::vector<std::string>{target.get<std::string>()};
  if (!target.is_array() || target.empty()) return wrong;
  for (const Json& text : target) {
    if (!text.is_string()) return wrong;
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

Status read_target_scores(const Json& scores, const std::string& where, Example& example) {
  if (!scores.is_object() || scores.empty()) {
    return Error{concat(where, ": \"target_scores\" is ", shown(scores), "; expected an object of choices and scores")};
  }
  double most = 0;
  for (const auto& [choice, score] : scores.items()) {
    if (!score.is_number()) return Error{concat(where, ": the score of \"", printable(choice, 40), "\" is no number")};
    if (example.choices.empty() || score.get<double>() > most) most = score.get<double>();
    example.choices.push_back(choice);
  }
  for (const auto& [choice, score] : scores.items()) {
    if (score.get<double>() == most) example.references.push_back(choice);
  }
  example.target = example.references.front();
  if (example.references.size() == 1) example.references.clear();
  return {};
}

Result<Example> read_big_bench_example(const Json& entry, const BigBenchFormat& format, const std::string& where) {
  if (!entry.is_object()) return Error{concat(where, " is ", shown(entry), "; expected an object")};
  Example example;
  SKEIN_ASSIGN(example.input, json_string(entry, "input", std::nullopt, where));
  const auto scores = entry.find("target_scores"), target = entry.find("target");
  if (scores != entry.end() && !scores->is_null()) {
    SKEIN_TRY(read_target_scores(*scores, where, example));
  } else if (target != entry.end()) {
    SKEIN_ASSIGN(example.references, read_targets(*target, where));
    // The longest stands for all where one is asked for (r-three/phatgoose).
    example.target = *std::max_element(example.references.begin(), example.references.end(),
                                       [](const std::string& a, const std::string& b) { return a.size() < b.size(); });
    if (example.references.size() == 1) example.references.clear();
  } else {
    return Error{concat(where, ": neither \"target\" nor \"target_scores\"; an example needs one of them")};
  }
  std::string choices;
  if (format.shows_choices) {
    for (const std::string& choice : example.choices) choices += concat(format.choice_prefix, choice);
  }
  example.input = concat(format.task_prefix, format.input_prefix, example.input, choices, format.output_prefix);
  move_trailing_spaces(example);
  example.task = format.task;
  return example;
}

// Skein's metric for BIG-bench's preferred_score; empty: by choices.
std::string big_bench_metric(const std::string& preferred) {
  if (preferred.starts_with("exact_str_match")) return "exact_match";
  if (preferred == "bleu") return "bleu";
  if (preferred == "rougeLsum" || preferred == "rougeL") return "rouge_l";
  if (preferred == "rouge1") return "rouge_1";
  if (preferred == "rouge2") return "rouge_2";
  return "";
}

Result<std::vector<Example>> read_big_bench(Env& env, const std::string& path) {
  SKEIN_ASSIGN(const Json task, read_json_file(env, path));
  const Json* entries = task.is_object() && task.contains("examples") ? &task["examples"] : nullptr;
  if (entries == nullptr || !entries->is_array() || entries->empty()) {
    return Error{concat(path, ": no list of \"examples\"; expected a BIG-bench task.json (for other data .jsonl)")};
  }
  BigBenchFormat format;
  const std::string folder = base_name(parent_folder(path));
  const std::string otherwise =
      base_name(path) == "task.json" ? folder : base_name(path).substr(0, base_name(path).size() - 5);
  SKEIN_ASSIGN(format.task, json_string(task, "name", otherwise, path));
  SKEIN_ASSIGN(format.task_prefix, json_string(task, "task_prefix", "", path));
  SKEIN_ASSIGN(format.input_prefix, json_string(task, "example_input_prefix", "\nQ: ", path));
  SKEIN_ASSIGN(format.output_prefix, json_string(task, "example_output_prefix", "\nA: ", path));
  SKEIN_ASSIGN(format.choice_prefix, json_string(task, "choice_prefix", "\n  choice: ", path));
  SKEIN_ASSIGN(format.shows_choices, json_bool(task, "append_choices_to_input", true, path));
  SKEIN_ASSIGN(const std::string preferred, json_string(task, "preferred_score", "", path));
  std::vector<Example> examples;
  for (std::size_t i = 0; i < entries->size(); ++i) {
    SKEIN_ASSIGN(Example example, read_big_bench_example((*entries)[i], format, concat(path, ": example ", i)));
    example.id = concat(format.task, "-", i);
    if (preferred.starts_with("multiple_choice") ? example.choices.empty() : true)
      example.metric = big_bench_metric(preferred);
    examples.push_back(std::move(example));
  }
  return examples;
}

// ------------------------------------------ lm-evaluation-harness ------------------------------------------

// "samples_rte_2026-01-02T03-04-05.678.jsonl" -> "rte".
std::string task_of_samples(const std::string& path) {
  std::string name = base_name(path);
  if (name.starts_with("samples_")) name.erase(0, 8);
  const std::size_t stamp = name.find("_20");
  const std::size_t end = std::min(stamp, name.find(".jsonl"));
  return name.substr(0, end);
}

// The requests of a line: (prompt, continuation or null) each. Written as {"gen_args_0": {"arg_0": ..., "arg_1": ...}}
// or, by older versions, as lists.
struct Request {
  std::string prompt;
  const Json* rest = nullptr;
};

Result<std::vector<Request>> read_requests(const Json& arguments, const std::string& where) {
  std::vector<Request> requests;
  for (const Json& entry : arguments) {
    const Json *prompt = nullptr, *rest = nullptr;
    if (entry.is_object() && entry.contains("arg_0")) {
      prompt = &entry["arg_0"];
      if (entry.contains("arg_1")) rest = &entry["arg_1"];
    } else if (entry.is_array() && !entry.empty()) {
      prompt = &entry[0];
      if (entry.size() > 1) rest = &entry[1];
    }
    if (prompt == nullptr || !prompt->is_string()) {
      return Error{
          concat(where, ": a request of \"arguments\" is ", shown(entry), "; expected a prompt and what follows it")};
    }
    requests.push_back({prompt->get<std::string>(), rest});
  }
  if (requests.empty()) return Error{concat(where, ": \"arguments\" is empty; nothing was asked")};
  return requests;
}

// The place of the right choice: lm-eval writes the index as a number, as text, or the choice itself.
Result<std::size_t> right_choice(const Json& target, const std::vector<std::string>& choices,
                                 const std::string& where) {
  std::string text = target.is_string() ? target.get<std::string>() : target.dump(-1, ' ', true);
  const auto named = std::find(choices.begin(), choices.end(), text);
  if (named != choices.end()) return static_cast<std::size_t>(named - choices.begin());
  if (!text.empty() && text.size() <= 6 &&
      std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    const std::size_t place = std::stoul(text);
    if (place < choices.size()) return place;
  }
  return Error{concat(where, ": \"target\" is ", shown(target), "; expected the place of one of the ", choices.size(),
                      " choices, or its text")};
}

Status read_choices(const std::vector<Request>& requests, const Json& target, const std::string& where,
                    Example& example) {
  for (const Request& request : requests) {
    if (request.rest == nullptr || !request.rest->is_string() || request.prompt != example.input) {
      return Error{concat(where,
                          ": the requests are not continuations of one prompt; only tasks of choices and of "
                          "generated answers are read")};
    }
    example.choices.push_back(request.rest->get<std::string>());
  }
  // The delimiter that lm-eval put before every choice, so that scores per character do not count it.
  const bool spaced = std::all_of(example.choices.begin(), example.choices.end(),
                                  [](const std::string& choice) { return choice.size() > 1 && choice[0] == ' '; });
  if (spaced) {
    for (std::string& choice : example.choices) choice.erase(0, 1);
    example.separator = " ";
  }
  SKEIN_ASSIGN(const std::size_t right, right_choice(target, example.choices, where));
  example.target = example.choices[right];
  return {};
}

Result<Example> read_sample(const Json& line, const std::string& task, const std::string& where) {
  Example example;
  example.task = task;
  example.separator = "";
  if (!line.contains("arguments") || !line.contains("doc_id") || !line.contains("target")) {
    return Error{
        concat(where, ": no \"arguments\", \"doc_id\" or \"target\"; expected a line of lm-eval's --log_samples")};
  }
  example.id = line["doc_id"].is_string() ? line["doc_id"].get<std::string>() : line["doc_id"].dump(-1, ' ', true);
  SKEIN_ASSIGN(const std::vector<Request> requests, read_requests(line["arguments"], where));
  example.input = requests.front().prompt;
  const bool generated = requests.front().rest != nullptr && requests.front().rest->is_object();
  if (!generated) {
    SKEIN_TRY(read_choices(requests, line["target"], where, example));
    return example;
  }
  const Json& target = line["target"];
  SKEIN_ASSIGN(example.references, read_targets(target.is_number() ? Json(target.dump()) : target, where));
  example.target = example.references.front();
  if (example.references.size() == 1) example.references.clear();
  example.metric = "exact_match";
  return example;
}

Result<std::vector<Example>> read_samples(Env& env, const std::string& path) {
  std::vector<Example> examples;
  const std::string task = task_of_samples(path);
  std::string filter;  // a document stands once per filter of its answers: the first one's lines are taken
  SKEIN_TRY(for_each_json_line(env, path, [&](Json&& line, std::int64_t number) -> Status {
    const std::string where = concat(path, ":", number);
    SKEIN_ASSIGN(const std::string of, json_string(line, "filter", "none", where));
    if (number == 1) filter = of;
    if (of != filter) return {};
    SKEIN_ASSIGN(Example example, read_sample(line, task, where));
    examples.push_back(std::move(example));
    return {};
  }));
  if (examples.empty()) return Error{concat(path, ": no example in it; an empty file?")};
  return examples;
}

// Whether the first line is one of lm-eval's. Files that cannot be read are left to their reader's message.
bool is_samples_file(Env& env, const std::string& path) {
  bool is_sample = false;
  const Status read = for_each_json_line(env, path, [&](Json&& line, std::int64_t) -> Status {
    is_sample = line.contains("arguments") && line.contains("doc_id");
    return Error{"one line is enough"};
  });
  return !read.ok() && is_sample;
}

}  // namespace

Result<std::vector<Example>> read_task_files(Env& env, const std::vector<std::string>& paths) {
  std::vector<Example> all;
  for (const std::string& path : paths) {
    const bool is_json = path.ends_with(".json");
    SKEIN_ASSIGN(std::vector<Example> examples, is_json                      ? read_big_bench(env, path)
                                                : is_samples_file(env, path) ? read_samples(env, path)
                                                                             : read_examples(env, {path}));
    std::move(examples.begin(), examples.end(), std::back_inserter(all));
  }
  return all;
}

}  // namespace skein
