#include "skein/serve/answers.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "skein/base/concat.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

// JSON has no infinity; OpenAI's API writes this for probability 0.
double finite(float logprob) { return std::isfinite(logprob) ? logprob : -9999.0; }

bool is_utf8(const std::string& text) { return valid_utf8_prefix(text) == text.size(); }

// A token as completions show it: bytes that are no text are spelled out.
std::string shown(const std::string& piece) {
  if (is_utf8(piece)) return piece;
  std::string text = "bytes:";
  constexpr char kDigits[] = "0123456789abcdef";
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    text += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return text;
}

std::int64_t num_characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

Json bytes_of(const std::string& piece) {
  Json bytes = Json::array();
  for (const char c : piece) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

Json chat_token(const Tokenizer& tokenizer, TokenId id, float logprob) {
  const std::string piece = tokenizer.piece(id);
  return {{"token", piece}, {"logprob", finite(logprob)}, {"bytes", bytes_of(piece)}};
}

}  // namespace

Json chat_logprobs(const Tokenizer& tokenizer, const std::vector<ScoredToken>& tokens) {
  Json content = Json::array();
  for (const ScoredToken& scored : tokens) {
    if (!scored.logprobs) continue;
    Json token = chat_token(tokenizer, scored.token, scored.logprobs->logprob);
    Json top = Json::array();
    for (const auto& [id, logprob] : scored.logprobs->top) top.push_back(chat_token(tokenizer, id, logprob));
    token["top_logprobs"] = std::move(top);
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json completion_logprobs(const Tokenizer& tokenizer, const std::vector<ScoredToken>& tokens, int num_top,
                         std::int64_t& offset) {
  Json texts = Json::array(), logprobs = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const ScoredToken& scored : tokens) {
    const std::string piece = tokenizer.piece(scored.token);
    texts.push_back(shown(piece));
    offsets.push_back(offset);
    offset += num_characters(piece);
    logprobs.push_back(scored.logprobs ? Json(finite(scored.logprobs->logprob)) : Json());
    if (!scored.logprobs) {
      tops.push_back(nullptr);
      continue;
    }
    // A map in the API: tokens that are shown alike are one entry, the likeliest.
    Json top = Json::object();
    const auto add = [&](TokenId id, float logprob) {
      const std::string text = shown(tokenizer.piece(id));
      if (!top.contains(text)) top[text] = finite(logprob);
    };
    for (const auto& [id, logprob] : scored.logprobs->top) add(id, logprob);
    add(scored.token, scored.logprobs->logprob);
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", num_top > 0 ? std::move(tops) : Json()},
          {"text_offset", std::move(offsets)}};
}

TraceWriter::TraceWriter(const Engine& engine, std::vector<std::string> experts)
    : engine_(engine),
      experts_(std::move(experts)),
      source_text_(engine.tokenizer(), /*skip_special=*/false),
      stream_text_(engine.tokenizer(), /*skip_special=*/false) {}

int TraceWriter::set_of(const std::vector<std::int32_t>& slots) {
  const auto found = std::find(sets_.begin(), sets_.end(), slots);
  if (found != sets_.end()) return static_cast<int>(found - sets_.begin());
  sets_.push_back(slots);
  return static_cast<int>(sets_.size()) - 1;
}

void TraceWriter::add(std::int64_t position, TokenId token, const char* part, std::string text,
                      const TokenTrace& trace) {
  Json weights = Json::array();
  for (const float weight : trace.weights) weights.push_back(std::round(weight * 10000.0) / 10000.0);
  tokens_.push_back({{"position", position},
                     {"id", token},
                     {"text", std::move(text)},
                     {"part", part},
                     {"slot_set", set_of(trace.slots)},
                     {"k", trace.k},
                     {"experts", trace.ids},
                     {"weights", std::move(weights)}});
}

void TraceWriter::add_prompt(const PromptToken& token) {
  if (!token.in_source) next_position_ = token.position + 1;
  std::string text = (token.in_source ? source_text_ : stream_text_).push(token.token);
  if (!token.trace) return;
  add(token.position, token.token, token.in_source ? "source" : "prompt", std::move(text), *token.trace);
}

void TraceWriter::add_answer_token(TokenId token) { untraced_.push_back(token); }

void TraceWriter::add_answer_trace(const TokenTrace& trace) {
  if (num_traced_ >= untraced_.size()) return;
  const TokenId token = untraced_[num_traced_++];
  add(next_position_++, token, "answer", stream_text_.push(token), trace);
}

Json TraceWriter::take() {
  Json news = Json::object();
  if (!told_experts_) news["experts"] = experts_;
  told_experts_ = true;
  if (told_sets_ < sets_.size()) {
    Json sets = Json::array();
    for (; told_sets_ < sets_.size(); ++told_sets_) {
      Json set = Json::array();
      for (const std::int32_t slot_idx : sets_[told_sets_]) {
        const SlotName& slot = engine_.backbone_slots()[static_cast<std::size_t>(slot_idx)];
        set.push_back(
            {{"module", slot.module}, {"layer", slot.layer}, {"kind", slot.kind}, {"encoder", slot.in_encoder}});
      }
      sets.push_back(std::move(set));
    }
    news["slot_sets"] = std::move(sets);
  }
  news["tokens"] = std::move(tokens_);
  tokens_ = Json::array();
  return news;
}

std::string api_name(const ModelChoice& choice, const std::string& base_name) {
  switch (choice.kind) {
    case ModelChoice::Kind::kBase:
      return base_name;
    case ModelChoice::Kind::kRouter:
      return "skein/" + choice.router.kind;
    case ModelChoice::Kind::kExpert:
    case ModelChoice::Kind::kMixture:
      break;
  }
  return choice.name;
}

Json usage_json(std::int64_t prompt_tokens, std::int64_t generated_tokens, std::int64_t reused_tokens) {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", generated_tokens},
          {"total_tokens", prompt_tokens + generated_tokens},
          {"prompt_tokens_details", {{"cached_tokens", reused_tokens}}}};
}

Json finish_reason(const Finish& finish) { return finish.reason == Finish::Reason::kLength ? "length" : "stop"; }

std::string base64_of(const std::vector<float>& values) {
  static constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes(values.size() * sizeof(float), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    unsigned group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      group = group << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      text += i + j > bytes.size() ? '=' : kAlphabet[group >> (18 - 6 * j) & 63];
    }
  }
  return text;
}

}  // namespace skein
