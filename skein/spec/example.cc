#include "skein/spec/example.h"

#include <algorithm>

#include "skein/base/concat.h"

namespace skein {
namespace {

// "data/agnews.jsonl.gz" -> "agnews".
std::string task_of_file(const std::string& path) {
  std::string name = base_name(path);
  for (const std::string_view ending : {".gz", ".jsonl"}) {
    if (name.size() > ending.size() && name.ends_with(ending)) name.resize(name.size() - ending.size());
  }
  return name;
}

Result<std::vector<std::string>> read_texts(const Json& line, const char* key, const std::string& where) {
  std::vector<std::string> texts;
  const auto it = line.find(key);
  if (it == line.end() || it->is_null()) return texts;
  const Error wrong{concat(where, ": \"", key, "\" is ", printable(it->dump(-1, ' ', true)),
                           "; expected a list of texts, not empty")};
  if (!it->is_array() || it->empty()) return wrong;
  for (const Json& text : *it) {
    if (!text.is_string()) return wrong;
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

// Chat form: every turn but the last is the input, the last is the target.
Status read_messages(const Json& messages, const std::string& where, Example& example) {
  if (!messages.is_array() || messages.size() < 2) {
    return Error{concat(where, ": \"messages\" is not a list of two turns or more")};
  }
  for (const Json& message : messages) {
    if (!message.is_object())
      return Error{concat(where, ": a turn of \"messages\" is not an object with role and content")};
    Turn turn;
    SKEIN_ASSIGN(turn.role, json_string(message, "role", std::nullopt, where));
    SKEIN_ASSIGN(turn.content, json_string(message, "content", std::nullopt, where));
    if (turn.role != "system" && turn.role != "user" && turn.role != "assistant") {
      return Error{concat(where, ": role \"", printable(turn.role), "\"; expected system, user or assistant")};
    }
    example.messages.push_back(std::move(turn));
  }
  if (example.messages.back().role != "assistant") {
    return Error{concat(where, ": the last turn is of role ", example.messages.back().role,
                        "; it is the target, the assistant's")};
  }
  example.target = std::move(example.messages.back().content);
  example.messages.pop_back();
  for (const Turn& turn : example.messages) example.input += concat(example.input.empty() ? "" : "\n", turn.content);
  return {};
}

Status check_choices(const Example& example, const std::string& where) {
  if (example.metric == "rank_accuracy" && example.choices.empty()) {
    return Error{concat(where, ": metric rank_accuracy without \"choices\"; there is nothing to rank")};
  }
  if (example.choices.empty()) return {};
  if (std::find(example.choices.begin(), example.choices.end(), example.target) == example.choices.end()) {
    return Error{concat(where, ": the target \"", printable(example.target, 60), "\" is none of the ",
                        example.choices.size(), " choices; it must be one of them, letter for letter")};
  }
  return {};
}

Result<Example> read_example(const Json& line, const std::string& where) {
  Example example;
  const auto messages = line.find("messages");
  if (messages != line.end() && !messages->is_null()) {
    if (line.contains("input") || line.contains("target")) {
      return Error{concat(where, ": both \"messages\" and \"input\" or \"target\"; expected one form")};
    }
    SKEIN_TRY(read_messages(*messages, where, example));
  } else {
    for (const char* key : {"input", "target"}) {
      if (!line.contains(key) || line[key].is_null()) {
        return Error{concat(where, ": no \"", key, "\"; every line needs \"input\" and \"target\", or \"messages\"")};
      }
    }
    SKEIN_ASSIGN(example.input, json_string(line, "input", std::nullopt, where));
    SKEIN_ASSIGN(example.target, json_string(line, "target", std::nullopt, where));
  }
  SKEIN_ASSIGN(example.choices, read_texts(line, "choices", where));
  SKEIN_ASSIGN(example.references, read_texts(line, "references", where));
  SKEIN_ASSIGN(example.template_name, json_string(line, "template", "", where));
  SKEIN_ASSIGN(example.task, json_string(line, "task", "", where));
  SKEIN_ASSIGN(example.metric, json_string(line, "metric", "", where));
  const auto id = line.find("id");
  if (id != line.end() && id->is_number_integer()) {
    example.id = id->dump();
  } else {
    SKEIN_ASSIGN(example.id, json_string(line, "id", "", where));
  }
  SKEIN_TRY(check_choices(example, where));
  return example;
}

}  // namespace

Result<std::vector<Example>> read_examples(Env& env, const std::vector<std::string>& paths) {
  std::vector<Example> examples;
  for (const std::string& path : paths) {
    const std::string task = task_of_file(path);
    const std::size_t before = examples.size();
    SKEIN_TRY(for_each_json_line(env, path, [&](Json&& line, std::int64_t number) -> Status {
      const std::string where = concat(path, ":", number);
      SKEIN_ASSIGN(Example example, read_example(line, where));
      if (example.id.empty()) example.id = concat(base_name(path), ":", number);
      if (example.task.empty()) example.task = task;
      examples.push_back(std::move(example));
      return {};
    }));
    if (examples.size() == before) return Error{concat(path, ": no example in it; an empty file?")};
  }
  return examples;
}

}  // namespace skein
