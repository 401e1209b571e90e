#include "skein/io/digest.h"

#include <xxhash.h>

#include <algorithm>
#include <cstdio>

#include "skein/base/check.h"

namespace skein {

struct Digest::State {
  XXH3_state_t* hash = XXH3_createState();
  State() {
    SKEIN_CHECK(hash != nullptr);
    XXH3_128bits_reset(hash);
  }
  ~State() { XXH3_freeState(hash); }
};

Digest::Digest() : state_(std::make_unique<State>()) {}
Digest::~Digest() = default;

void Digest::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_128bits_update(state_->hash, bytes.data(), bytes.size());
}

void Digest::update(const std::string& text) {
  std::byte length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<std::byte>(static_cast<std::uint64_t>(text.size()) >> (8 * i));
  update(std::span<const std::byte>(length));
  update(std::as_bytes(std::span(text)));
}

std::string Digest::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->hash);
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text;
}

Result<std::string> digest_of_file(Env& env, const std::string& path) {
  SKEIN_ASSIGN(const auto file, env.open(path));
  Digest digest;
  std::vector<std::byte> chunk(1 << 20);
  for (std::uint64_t offset = 0; offset < file->size();) {
    const auto part = std::span(chunk).first(std::min<std::uint64_t>(chunk.size(), file->size() - offset));
    SKEIN_TRY(file->read_at(offset, part));
    digest.update(part);
    offset += part.size();
  }
  return digest.hex();
}

}  // namespace skein
