// Base64 (RFC 4648, section 4), as JSON files carry bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace skein {

std::optional<std::string> decode_base64(std::string_view text);  // nothing if it is not base64

}  // namespace skein
