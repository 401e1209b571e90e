#include "skein/text/vocabulary.h"

#include <functional>

namespace skein {
namespace {
std::uint32_t hash_of(std::string_view token) {
  const std::uint64_t hash = std::hash<std::string_view>{}(token);
  return static_cast<std::uint32_t>(hash ^ hash >> 32);
}
}  // namespace

Vocabulary::Vocabulary(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {
  std::size_t num_slots = 16;
  while (num_slots < tokens_.size() * 2) num_slots *= 2;
  slots_.resize(num_slots);
  for (TokenId id = 0; id < size(); ++id) {
    if (tokens_[id].empty()) continue;
    const std::uint32_t hash = hash_of(tokens_[id]);
    slots_[slot_of(tokens_[id], hash)] = Slot{hash, id};
  }
}

std::optional<TokenId> Vocabulary::find(std::string_view token) const {
  const Slot& slot = slots_[slot_of(token, hash_of(token))];
  return slot.id < 0 ? std::nullopt : std::optional<TokenId>(slot.id);
}

std::size_t Vocabulary::slot_of(std::string_view token, std::uint32_t hash) const {
  std::size_t at = hash & (slots_.size() - 1);
  while (slots_[at].id >= 0 && (slots_[at].hash != hash || tokens_[slots_[at].id] != token)) {
    at = (at + 1) & (slots_.size() - 1);
  }
  return at;
}

}  // namespace skein
