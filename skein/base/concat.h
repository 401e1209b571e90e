// concat("found ", 3, " rows"): one string out of strings and numbers. (fmt stays out: torch ships another version.)
#pragma once

#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>

namespace skein {

template <typename... Parts>
std::string concat(const Parts&... parts) {
  if constexpr ((std::is_convertible_v<const Parts&, std::string_view> && ...)) {
    std::string joined;
    joined.reserve((std::string_view(parts).size() + ... + 0));
    (joined.append(std::string_view(parts)), ...);
    return joined;
  } else {
    std::ostringstream stream;
    (stream << ... << parts);
    return std::move(stream).str();
  }
}

// A string from a file made safe to print in an error: control characters escaped, at most max_bytes bytes.
std::string printable(std::string_view untrusted, std::size_t max_bytes = 120);

}  // namespace skein
