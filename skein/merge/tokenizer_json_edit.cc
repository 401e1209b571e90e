#include "skein/merge/tokenizer_json_edit.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "skein/base/concat.h"

namespace skein::merge {
namespace {

using Pair = std::pair<std::string, std::string>;

Json* member(Json& json, const std::string& key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  return found == json.end() ? nullptr : &*found;
}
const Json* member(const Json& json, const std::string& key) { return member(const_cast<Json&>(json), key); }

// ordered_json's own operator[] searches the whole object: a vocabulary would take quadratic time.
void push(Json& object, std::string key, Json value) {
  object.get_ref<Json::object_t&>().emplace_back(std::move(key), std::move(value));
}

// "a b", or since tokenizers 0.20 ["a", "b"].
std::optional<Pair> merge_pair(const Json& merge) {
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) return std::nullopt;
    return Pair(text.substr(0, space), text.substr(space + 1));
  }
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return Pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  }
  return std::nullopt;
}

std::string model_type(const Json& tokenizer) {
  const Json* model = member(tokenizer, "model");
  const Json* type = model == nullptr ? nullptr : member(*model, "type");
  if (type != nullptr && type->is_string()) return type->get<std::string>();
  return model != nullptr && member(*model, "merges") != nullptr ? "BPE" : "Unigram";  // files of old versions
}

// The merges that make new tokens, from their owners: the base's own merges stay first, so its texts keep their ids
// wherever no new token applies.
void add_merges(const std::vector<NewToken>& new_tokens, const std::unordered_set<std::string>& known, Json& model) {
  Json* merges = member(model, "merges");
  if (merges == nullptr || !merges->is_array()) return;
  std::vector<const ModelVocabulary*> owners;
  std::unordered_map<const ModelVocabulary*, std::unordered_set<std::string>> of_owner;
  for (const NewToken& token : new_tokens) {
    if (token.is_added || token.owner == nullptr) continue;
    if (!of_owner.contains(token.owner)) owners.push_back(token.owner);
    of_owner[token.owner].insert(token.token);
  }
  const bool as_pairs = merges->empty() || merges->front().is_array();
  for (const ModelVocabulary* owner : owners) {
    const Json* theirs = member(*member(owner->tokenizer, "model"), "merges");
    if (theirs == nullptr || !theirs->is_array()) continue;
    for (const Json& merge : *theirs) {
      const std::optional<Pair> pair = merge_pair(merge);
      if (!pair || !of_owner[owner].contains(pair->first + pair->second)) continue;
      if (!known.contains(pair->first) || !known.contains(pair->second)) continue;
      merges->push_back(as_pairs ? Json::array({pair->first, pair->second}) : Json(pair->first + " " + pair->second));
    }
  }
}

void add_bpe(const std::vector<NewToken>& new_tokens, const ModelVocabulary& target, Json& model) {
  Json& vocab = *member(model, "vocab");
  std::unordered_set<std::string> known(target.tokens.begin(), target.tokens.end());
  // The tokenizers library gives an added token that the table lacks the next free id, which the ordinary tokens after
  // it would move: those before the last ordinary new token stand in the table too.
  std::int64_t last_ordinary = -1;
  for (const NewToken& token : new_tokens) {
    if (!token.is_added) last_ordinary = std::max(last_ordinary, token.id);
  }
  std::unordered_set<std::string> in_table;
  for (const auto& [token, id] : vocab.items()) in_table.insert(token);
  for (std::size_t id = 0; id < target.tokens.size(); ++id) {
    if (target.is_added[id] && !in_table.contains(target.tokens[id])) {
      push(vocab, target.tokens[id], static_cast<std::int64_t>(id));
    }
  }
  for (const NewToken& token : new_tokens) {
    if (token.id >= static_cast<std::int64_t>(target.tokens.size()) && token.id <= last_ordinary) {
      push(vocab, token.token, token.id);
      known.insert(token.token);
    }
  }
  add_merges(new_tokens, known, model);
}

// Score of a token in an owner's Unigram table.
std::unordered_map<std::string, double> scores_of(const ModelVocabulary& owner) {
  std::unordered_map<std::string, double> scores;
  for (const Json& entry : *member(*member(owner.tokenizer, "model"), "vocab")) {
    if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_number()) {
      scores.emplace(entry[0].get<std::string>(), entry[1].get<double>());
    }
  }
  return scores;
}

// The place in the list is the id, so that added tokens before the last ordinary one stand in it too. Theirs is the
// lowest score there is; they are cut out of the text before the model could use it.
Status add_unigram(const std::vector<NewToken>& new_tokens, const ModelVocabulary& target, Json& model,
                   const std::string& where) {
  Json& vocab = *member(model, "vocab");
  double lowest = 0;
  for (const Json& entry : vocab) lowest = std::min(lowest, entry[1].get<double>());
  std::int64_t last_ordinary = -1;
  for (const NewToken& token : new_tokens) {
    if (!token.is_added) last_ordinary = std::max(last_ordinary, token.id);
  }
  std::unordered_map<std::int64_t, const NewToken*> by_id;
  for (const NewToken& token : new_tokens) by_id.emplace(token.id, &token);
  std::unordered_map<const ModelVocabulary*, std::unordered_map<std::string, double>> scores;
  for (auto id = static_cast<std::int64_t>(vocab.size()); id <= last_ordinary; ++id) {
    const auto found = by_id.find(id);
    if (found == by_id.end()) {
      const bool has_token = id < static_cast<std::int64_t>(target.tokens.size()) && !target.tokens[id].empty();
      if (!has_token) return Error{concat(where, ": a Unigram tokenizer cannot be extended over the unused id ", id)};
      vocab.push_back(Json::array({target.tokens[id], lowest}));
      continue;
    }
    const NewToken& token = *found->second;
    double score = lowest;
    if (!token.is_added && token.owner != nullptr) {
      if (!scores.contains(token.owner)) scores.emplace(token.owner, scores_of(*token.owner));
      const auto theirs = scores[token.owner].find(token.token);
      if (theirs != scores[token.owner].end()) score = theirs->second;
    }
    vocab.push_back(Json::array({token.token, score}));
  }
  return {};
}

Json added_entry(const NewToken& token) {
  Json entry = {{"id", token.id},  {"content", token.token}, {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", true},     {"special", false}};
  if (token.owner == nullptr) return entry;
  const Json* theirs = member(token.owner->tokenizer, "added_tokens");
  if (theirs == nullptr) return entry;
  for (const Json& other : *theirs) {
    if (other.is_object() && other.value("content", std::string()) == token.token) {
      entry = other;
      entry["id"] = token.id;
      break;
    }
  }
  return entry;
}

void add_added(const std::vector<NewToken>& new_tokens, Json& tokenizer) {
  if (member(tokenizer, "added_tokens") == nullptr) push(tokenizer, "added_tokens", Json::array());
  Json& added = *member(tokenizer, "added_tokens");
  for (const NewToken& token : new_tokens) {
    if (token.is_added) added.push_back(added_entry(token));
  }
  // In the order of ids: the tokenizers library hands out ids as it reads them.
  std::stable_sort(added.begin(), added.end(), [](const Json& a, const Json& b) {
    return a.value("id", std::int64_t{0}) < b.value("id", std::int64_t{0});
  });
}

template <typename Keep>
bool keep_items(Json& list, const Keep& keep) {
  auto& items = list.get_ref<Json::array_t&>();
  const std::size_t before = items.size();
  items.erase(std::remove_if(items.begin(), items.end(), [&](const Json& item) { return !keep(item); }), items.end());
  return items.size() != before;
}

}  // namespace

bool strip_tokens(Json& tokenizer, std::int64_t num_rows) {
  bool changed = false;
  std::unordered_set<std::string> dropped;
  Json& model = *member(tokenizer, "model");
  Json& vocab = *member(model, "vocab");
  if (vocab.is_object()) {
    Json kept = Json::object();
    for (const auto& [token, id] : vocab.items()) {
      if (id.get<std::int64_t>() < num_rows) {
        push(kept, token, id);
      } else {
        dropped.insert(token);
      }
    }
    if (!dropped.empty()) vocab = std::move(kept);
    if (Json* merges = member(model, "merges"); merges != nullptr && !dropped.empty()) {
      keep_items(*merges, [&](const Json& merge) {
        const std::optional<Pair> pair = merge_pair(merge);
        return !pair || !(dropped.contains(pair->first) || dropped.contains(pair->second) ||
                          dropped.contains(pair->first + pair->second));
      });
    }
    changed = !dropped.empty();
  } else if (static_cast<std::int64_t>(vocab.size()) > num_rows) {
    auto& entries = vocab.get_ref<Json::array_t&>();
    entries.resize(num_rows);
    changed = true;
  }
  if (Json* added = member(tokenizer, "added_tokens"); added != nullptr) {
    changed =
        keep_items(*added, [&](const Json& entry) { return entry.value("id", std::int64_t{0}) < num_rows; }) || changed;
  }
  return changed;
}

Status add_tokens(const std::vector<NewToken>& new_tokens, const ModelVocabulary& target, Json& tokenizer,
                  const std::string& where) {
  const std::string type = model_type(tokenizer);
  bool has_ordinary = false;
  for (const NewToken& token : new_tokens) {
    if (token.is_added || token.owner == nullptr) continue;
    has_ordinary = true;
    const std::string theirs = model_type(token.owner->tokenizer);
    if (theirs != type) {
      return Error{concat(where, ": the tokenizer of ", token.owner->model, " is a ", printable(theirs),
                          " model, that of ", target.model, " a ", printable(type),
                          " model; they have no union: set tokenizer_source to base or to one of the models")};
    }
  }
  if (has_ordinary) {
    Json& model = *member(tokenizer, "model");
    if (type == "Unigram" ? !member(model, "vocab")->is_array() : !member(model, "vocab")->is_object()) {
      return Error{
          concat(where, ": the vocabulary of ", target.model, " is not what a ", printable(type), " model has")};
    }
    if (type == "Unigram") {
      SKEIN_TRY(add_unigram(new_tokens, target, model, where));
    } else {
      add_bpe(new_tokens, target, model);
    }
  }
  add_added(new_tokens, tokenizer);
  return {};
}

void extend_added_tokens_decoder(const std::vector<NewToken>& new_tokens, const Json& tokenizer, Json& config) {
  Json* decoder = member(config, "added_tokens_decoder");
  if (decoder == nullptr || !decoder->is_object()) return;
  std::set<std::int64_t> ids;
  for (const NewToken& token : new_tokens) {
    if (token.is_added) ids.insert(token.id);
  }
  for (const Json& entry : *member(tokenizer, "added_tokens")) {
    const std::int64_t id = entry.value("id", std::int64_t{-1});
    if (!ids.contains(id)) continue;
    Json flags = entry;
    flags.erase("id");
    const std::string key = std::to_string(id);
    if (decoder->contains(key)) {
      (*decoder)[key] = std::move(flags);
    } else {
      push(*decoder, key, std::move(flags));
    }
  }
}

}  // namespace skein::merge
