#include "skein/merge/vocabulary_merge.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "skein/base/concat.h"
#include "skein/merge/tokenizer_json_edit.h"

namespace skein::merge {
namespace {

// Those that say nothing of single tokens' ids beside the special ones: what a changed vocabulary keeps.
constexpr const char* kFilesBesideVocabulary[] = {"tokenizer_config.json", "special_tokens_map.json",
                                                  "chat_template.jinja", "chat_template.json"};

class VocabularyMerger {
 public:
  VocabularyMerger(Env& env, const TokenizerRecipe& recipe, const std::vector<VocabularyInput>& inputs,
                   std::optional<int> base_idx, const std::string& where)
      : env_(env), recipe_(recipe), inputs_(inputs), base_idx_(base_idx), where_(where) {}

  Result<MergedVocabulary> run() {
    SKEIN_TRY(find_donor());
    SKEIN_TRY(read_vocabularies());
    SKEIN_TRY(choose_tokens());
    set_num_rows();
    for (std::size_t model = 0; model < inputs_.size(); ++model) SKEIN_TRY(map_rows(static_cast<int>(model)));
    SKEIN_TRY(write_files());
    count_dropped();
    return std::move(out_);
  }

 private:
  // The input whose tokenizer the output's begins as.
  Status find_donor() {
    donor_ = base_idx_.value_or(0);
    if (recipe_.from != TokenizerRecipe::From::kModel) return {};
    SKEIN_ASSIGN(donor_, index_of(recipe_.model, "the tokenizer's source"));
    return {};
  }

  Result<int> index_of(const ModelRef& ref, const std::string& what) const {
    for (std::size_t at = 0; at < inputs_.size(); ++at) {
      if (inputs_[at].ref.path == ref.path && inputs_[at].ref.revision == ref.revision) return static_cast<int>(at);
    }
    return Error{concat(where_, ", line ", ref.line, ": ", what, " \"", printable(ref.text()),
                        "\" is not one of the recipe's models")};
  }

  Status read_vocabularies() {
    const int base = base_idx_.value_or(0);
    for (const VocabularyInput& input : inputs_) {
      const bool has_own = has_tokenizer(env_, input.folder);
      const std::string& folder = has_own ? input.folder : inputs_[base].folder;
      if (!has_own) {
        out_.report.notes.push_back(concat(input.ref.text(), " has no tokenizer; that of ", inputs_[base].ref.text(),
                                           " is taken to be its own"));
      }
      SKEIN_ASSIGN(ModelVocabulary vocabulary, read_model_vocabulary(env_, folder, input.ref.text(), input.num_rows));
      if (vocabulary.num_beyond > 0) {
        out_.report.notes.push_back(concat(vocabulary.num_beyond, " tokens of ", vocabulary.model,
                                           " have no row in its embedding of ", vocabulary.num_rows,
                                           " rows and are left out"));
      }
      vocabularies_.push_back(std::move(vocabulary));
    }
    return {};
  }

  void take(const std::string& token, bool is_added, const ModelVocabulary* owner) {
    new_tokens_.push_back(
        {.token = token, .id = static_cast<std::int64_t>(tokens_.size()), .is_added = is_added, .owner = owner});
    ids_.emplace(token, tokens_.size());
    tokens_.push_back(token);
    ++out_.report.added;
  }

  Status choose_tokens() {
    const ModelVocabulary& donor = vocabularies_[donor_];
    tokens_ = donor.tokens;
    ids_ = donor.ids;
    out_.report.kept = static_cast<std::int64_t>(ids_.size());
    if (recipe_.from == TokenizerRecipe::From::kUnion) {
      for (const ModelVocabulary& vocabulary : vocabularies_) {
        if (vocabulary.tokenizer.is_null()) {
          return Error{
              concat(where_, ": ", vocabulary.folder,
                     " has a SentencePiece model only, which has no union with others; give it a tokenizer.json "
                     "(save it with transformers), or set tokenizer_source to base or to one of the models")};
        }
      }
      for (const bool added : {false, true}) {
        for (const ModelVocabulary& vocabulary : vocabularies_) take_from(vocabulary, added);
      }
    }
    for (const auto& [token, rule] : recipe_.tokens) {
      if (!ids_.contains(token)) take(token, true, owner_of(token));
    }
    if (!new_tokens_.empty() && donor.tokenizer.is_null()) {
      return Error{concat(where_, ": ", donor.folder, " has a SentencePiece model only, to which the token \"",
                          printable(new_tokens_[0].token), "\" cannot be added; give it a tokenizer.json")};
    }
    out_.num_tokens = static_cast<std::int64_t>(tokens_.size());
    return {};
  }

  // The tokens of one kind that the output lacks so far. A token that is ordinary in the output and added here becomes
  // an added one under its id.
  void take_from(const ModelVocabulary& vocabulary, bool added) {
    const ModelVocabulary& donor = vocabularies_[donor_];
    for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      const std::string& token = vocabulary.tokens[id];
      if (token.empty() || vocabulary.is_added[id] != added) continue;
      const auto found = ids_.find(token);
      if (found == ids_.end()) {
        if (!added && added_somewhere(token)) continue;
        take(token, added, &vocabulary);
      } else if (added && found->second < static_cast<std::int64_t>(donor.tokens.size()) &&
                 !donor.is_added[found->second] && made_added_.insert(token).second) {
        new_tokens_.push_back({.token = token, .id = found->second, .is_added = true, .owner = &vocabulary});
      }
    }
  }

  bool added_somewhere(const std::string& token) const {
    return std::any_of(vocabularies_.begin(), vocabularies_.end(), [&](const ModelVocabulary& vocabulary) {
      const std::int64_t id = vocabulary.id(token);
      return id >= 0 && vocabulary.is_added[id];
    });
  }

  const ModelVocabulary* owner_of(const std::string& token) const {
    for (const ModelVocabulary& vocabulary : vocabularies_) {
      if (vocabulary.id(token) >= 0) return &vocabulary;
    }
    return nullptr;
  }

  void set_num_rows() {
    out_.num_rows = std::max(out_.num_tokens, inputs_[donor_].num_rows);
    if (const std::int64_t multiple = recipe_.pad_to_multiple_of; multiple > 1) {
      out_.num_rows = (out_.num_rows + multiple - 1) / multiple * multiple;
    }
    out_.report.padding = out_.num_rows - out_.num_tokens;
    if (out_.report.padding > 0) {
      out_.report.notes.push_back(concat("the output has ", out_.num_tokens, " tokens in ", out_.num_rows,
                                         " rows: ", out_.report.padding, " rows of padding"));
    }
  }

  // Where a token's row comes from in models that do not have it (or are forced): decided once for all models.
  struct Fill {
    RowRun::Kind kind = RowRun::Kind::kZero;
    RowAt from;
    std::vector<RowAt> owners;  // kMean
    bool force = false;
  };

  Result<Fill> fill_of(const std::string& token, const TokenRow* rule) const {
    if (rule != nullptr && rule->kind != TokenRow::Kind::kDefault) return fill_by_rule(token, *rule);
    if (rule != nullptr && rule->force) {
      return Error{
          concat(where_, ": the token \"", printable(token), "\" is forced but has no source to take its row from")};
    }
    Fill fill;
    for (std::size_t model = 0; model < vocabularies_.size(); ++model) {
      const std::int64_t row = vocabularies_[model].id(token);
      if (row >= 0) fill.owners.push_back({static_cast<int>(model), row});
    }
    if (fill.owners.empty()) return fill;
    fill.kind = RowRun::Kind::kCopy;
    fill.from = fill.owners[0];
    if (fill.owners.size() == 1) return fill;
    for (const RowAt& owner : fill.owners) {
      if (base_idx_ && owner.model == *base_idx_) {
        fill.from = owner;
        return fill;
      }
    }
    fill.kind = RowRun::Kind::kMean;
    return fill;
  }

  Result<Fill> fill_by_rule(const std::string& token, const TokenRow& rule) const {
    Fill fill{.force = rule.force};
    if (rule.kind == TokenRow::Kind::kZero) return fill;
    SKEIN_ASSIGN(const int model, index_of(rule.model, concat("the source of the token \"", printable(token), "\"")));
    const ModelVocabulary& vocabulary = vocabularies_[model];
    fill.kind = RowRun::Kind::kCopy;
    fill.from.model = model;
    if (rule.kind == TokenRow::Kind::kTokenId) {
      fill.from.row = rule.token_id;
      if (rule.token_id < 0 || rule.token_id >= vocabulary.num_rows) {
        return Error{concat(where_, ": the row of the token \"", printable(token), "\" is to be ", rule.token_id,
                            " of ", vocabulary.model, ", whose embedding has ", vocabulary.num_rows, " rows")};
      }
      return fill;
    }
    const std::string& source = rule.kind == TokenRow::Kind::kToken ? rule.token : token;
    fill.from.row = vocabulary.id(source);
    if (fill.from.row < 0) {
      return Error{concat(where_, ": the row of the token \"", printable(token), "\" is to come from \"",
                          printable(source), "\" of ", vocabulary.model, ", which has no such token")};
    }
    return fill;
  }

  // Only the tokens that some model lacks, or that a rule names, need a fill.
  Status find_fills() {
    std::unordered_map<std::string, const TokenRow*> rules;
    for (const auto& [token, rule] : recipe_.tokens) rules.emplace(token, &rule);
    fills_.resize(tokens_.size());
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].empty()) continue;
      const auto rule = rules.find(tokens_[id]);
      const bool everywhere = std::all_of(vocabularies_.begin(), vocabularies_.end(),
                                          [&](const ModelVocabulary& v) { return v.id(tokens_[id]) >= 0; });
      if (everywhere && rule == rules.end()) continue;
      if (everywhere && !rule->second->force) continue;
      SKEIN_ASSIGN(fills_[id], fill_of(tokens_[id], rule == rules.end() ? nullptr : rule->second));
      const bool used = !everywhere || fills_[id]->force;
      if (!used) continue;
      out_.report.averaged += fills_[id]->kind == RowRun::Kind::kMean;
      out_.report.donated += fills_[id]->kind == RowRun::Kind::kCopy;
      out_.report.zero += fills_[id]->kind == RowRun::Kind::kZero;
    }
    return {};
  }

  Status map_rows(int model) {
    if (fills_.empty()) SKEIN_TRY(find_fills());
    const ModelVocabulary& vocabulary = vocabularies_[model];
    RowMap map{.num_tokens = out_.num_tokens};
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      const auto row = static_cast<std::int64_t>(id);
      if (tokens_[id].empty()) {  // an id without a token
        const bool own = row < vocabulary.num_rows && token_at(vocabulary, row).empty();
        own ? map.append(RowRun::Kind::kCopy, model, row) : map.append(RowRun::Kind::kZero);
        continue;
      }
      const std::int64_t own = vocabulary.id(tokens_[id]);
      const std::optional<Fill>& fill = fills_[id];
      if (own >= 0 && !(fill && fill->force)) {
        map.append(RowRun::Kind::kCopy, model, own);
      } else if (fill->kind == RowRun::Kind::kMean) {
        map.append_mean(fill->owners);
      } else {
        map.append(fill->kind, fill->from.model, fill->from.row);
      }
    }
    for (std::int64_t row = out_.num_tokens; row < out_.num_rows; ++row) {
      const bool own = row < vocabulary.num_rows && token_at(vocabulary, row).empty();
      own ? map.append(RowRun::Kind::kCopy, model, row) : map.append(RowRun::Kind::kMeanOfAll);
    }
    out_.maps.push_back(std::move(map));
    return {};
  }

  static const std::string& token_at(const ModelVocabulary& vocabulary, std::int64_t id) {
    static const std::string kNone;
    return id < static_cast<std::int64_t>(vocabulary.tokens.size()) ? vocabulary.tokens[id] : kNone;
  }

  Status write_files() {
    const ModelVocabulary& donor = vocabularies_[donor_];
    const bool unchanged = new_tokens_.empty() && donor.num_beyond == 0;
    if (unchanged || donor.tokenizer.is_null()) {
      for (const char* name : kTokenizerFiles) SKEIN_TRY(copy_file(donor.folder, name));
      return {};
    }
    Json tokenizer = donor.tokenizer;
    if (donor.num_beyond > 0) strip_tokens(tokenizer, donor.num_rows);
    SKEIN_TRY(add_tokens(new_tokens_, donor, tokenizer, where_));
    out_.files.push_back({"tokenizer.json", tokenizer.dump() + "\n"});
    for (const char* name : kFilesBesideVocabulary) SKEIN_TRY(copy_file(donor.folder, name));
    for (SideFile& file : out_.files) {
      if (file.name != "tokenizer_config.json") continue;
      SKEIN_ASSIGN(Json config, parse_json(file.text, join_path(donor.folder, file.name)));
      extend_added_tokens_decoder(new_tokens_, tokenizer, config);
      file.text = config.dump(2) + "\n";
    }
    return {};
  }

  Status copy_file(const std::string& folder, const char* name) {
    const std::string path = join_path(folder, name);
    if (!env_.exists(path)) return {};
    SKEIN_ASSIGN(std::string text, read_text_file(env_, path));
    out_.files.push_back({name, std::move(text)});
    return {};
  }

  void count_dropped() {
    std::unordered_set<std::string> dropped;
    for (const ModelVocabulary& vocabulary : vocabularies_) {
      for (const std::string& token : vocabulary.tokens) {
        if (!token.empty() && !ids_.contains(token)) dropped.insert(token);
      }
    }
    out_.report.dropped = static_cast<std::int64_t>(dropped.size());
  }

  Env& env_;
  const TokenizerRecipe& recipe_;
  const std::vector<VocabularyInput>& inputs_;
  std::optional<int> base_idx_;
  const std::string& where_;

  int donor_ = 0;
  std::vector<ModelVocabulary> vocabularies_;          // by input
  std::vector<std::string> tokens_;                    // the output's, by id
  std::unordered_map<std::string, std::int64_t> ids_;  // of tokens_
  std::vector<NewToken> new_tokens_;                   // that the donor lacks
  std::unordered_set<std::string> made_added_;         // ordinary in the donor, added in the output
  std::vector<std::optional<Fill>> fills_;             // by output id
  MergedVocabulary out_;
};

}  // namespace

Result<MergedVocabulary> merge_vocabularies(Env& env, const TokenizerRecipe& recipe,
                                            const std::vector<VocabularyInput>& inputs, std::optional<int> base_idx,
                                            const std::string& where) {
  SKEIN_CHECK(!inputs.empty());
  return VocabularyMerger(env, recipe, inputs, base_idx, where).run();
}

}  // namespace skein::merge
