#include "skein/serve/access.h"

#include <algorithm>

#include "skein/base/concat.h"

namespace skein {
namespace {

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.substr(0, 4) == "127.";
}

// "example.org:8000" -> "example.org"; "[::1]:8000" -> "[::1]".
std::string_view without_port(std::string_view host) {
  const std::size_t colon = host.rfind(':');
  if (colon == std::string_view::npos || (!host.empty() && host.back() == ']')) return host;
  if (host.find(':') != colon && host.front() != '[') return host;  // an IPv6 address without brackets
  return host.substr(0, colon);
}

}  // namespace

std::string ApiKeys::padded(std::string_view key) {
  std::string padded(key.substr(0, kMaxBytes));
  padded.resize(kMaxBytes, '\0');
  padded.push_back(static_cast<char>(std::min(key.size(), kMaxBytes + 1) & 0xff));
  padded.push_back(static_cast<char>(std::min(key.size(), kMaxBytes + 1) >> 8));
  return padded;
}

Result<ApiKeys> ApiKeys::read(Env& env, const std::string& path) {
  SKEIN_ASSIGN(const std::string text, read_text_file(env, path, 1 << 20));
  ApiKeys keys;
  int line_number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    const bool is_visible = std::all_of(line.begin(), line.end(), [](char c) { return c > ' ' && c < 0x7f; });
    if (!is_visible || line.size() < 8 || line.size() > kMaxBytes) {
      // The key itself is not shown: messages end up in logs.
      return Error{concat(path, ", line ", line_number, " holds ", line.size(),
                          " bytes that are no key; expected 8 to 256 visible ASCII characters without blanks")};
    }
    keys.keys_.push_back(padded(line));
  }
  if (keys.keys_.empty()) return Error{concat(path, " holds no key; expected one a line")};
  return keys;
}

std::optional<int> ApiKeys::key_of(std::optional<std::string_view> authorization) const {
  if (is_open()) return 0;
  constexpr std::string_view kScheme = "bearer ";
  std::string_view given = authorization.value_or("");
  bool is_bearer = given.size() > kScheme.size();
  for (std::size_t i = 0; is_bearer && i < kScheme.size(); ++i) is_bearer = (given[i] | 0x20) == kScheme[i];
  const std::string candidate = padded(is_bearer ? given.substr(kScheme.size()) : std::string_view());
  int found = 0;  // one more than the index
  for (int k = 0; k < static_cast<int>(keys_.size()); ++k) {
    const std::string& key = keys_[static_cast<std::size_t>(k)];
    unsigned difference = 0;
    for (std::size_t i = 0; i < key.size(); ++i) {
      difference |= static_cast<unsigned char>(key[i]) ^ static_cast<unsigned char>(candidate[i]);
    }
    found |= -static_cast<int>(difference == 0) & (k + 1);
  }
  if (found == 0) return std::nullopt;
  return found - 1;
}

bool is_expected_host(std::string_view host, const std::string& bound, const std::vector<std::string>& allowed) {
  if (!is_loopback(bound)) return true;
  const std::string_view name = without_port(host);
  return is_loopback(name) || std::find(allowed.begin(), allowed.end(), name) != allowed.end();
}

}  // namespace skein
