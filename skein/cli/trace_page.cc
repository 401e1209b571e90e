#include "skein/cli/trace_page.h"

#include <cmath>

#include "skein/base/check.h"
#include "skein/cli/embedded_page.h"

namespace skein {

// Generated from trace_page.html.
extern const unsigned char kTracePageTemplate[];
extern const std::size_t kTracePageTemplateSize;

namespace {

std::string base64(const std::vector<unsigned char>& bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](std::size_t at) { return at < bytes.size() ? static_cast<unsigned>(bytes[at]) : 0U; };
    const unsigned bits = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    out += kDigits[bits >> 18 & 63];
    out += kDigits[bits >> 12 & 63];
    out += i + 1 < bytes.size() ? kDigits[bits >> 6 & 63] : '=';
    out += i + 2 < bytes.size() ? kDigits[bits & 63] : '=';
  }
  return out;
}

// Little-endian 16-bit numbers, as the page's DataView reads them.
void push_u16(std::vector<unsigned char>& bytes, unsigned value) {
  bytes.push_back(value & 0xff);
  bytes.push_back(value >> 8 & 0xff);
}

// ids (0xffff: none) and weights (in units of 1/10000) of one trace, (slots, tokens, k) each.
Json choices_of(const Trace& trace) {
  std::vector<unsigned char> ids, weights;
  for (const std::int32_t id : trace.ids) push_u16(ids, id < 0 ? 0xffff : static_cast<unsigned>(id));
  for (const float weight : trace.weights) push_u16(weights, static_cast<unsigned>(std::lround(weight * 10000)));
  return {{"router", trace.router}, {"k", trace.top_k}, {"ids", base64(ids)}, {"weights", base64(weights)}};
}

}  // namespace

std::string trace_page(const std::vector<Trace>& traces) {
  SKEIN_CHECK(!traces.empty());
  const Trace& first = traces.front();
  Json slots = Json::array(), tokens = Json::array(), choices = Json::array();
  for (const TraceSlot& slot : first.slots)
    slots.push_back({slot.module, slot.layer, slot_group(slot), slot.reads_source});
  for (const TraceToken& token : first.tokens) {
    tokens.push_back({token.position, token.text, token.in_source ? "source" : token.in_answer ? "answer" : "prompt"});
  }
  for (const Trace& trace : traces) {
    SKEIN_CHECK(trace.tokens.size() == first.tokens.size() && trace.slots.size() == first.slots.size());
    choices.push_back(choices_of(trace));
  }
  const std::string data = Json{{"model", first.model}, {"experts", first.experts}, {"groups", slot_groups(first)},
                                {"slots", slots},       {"tokens", tokens},         {"traces", choices}}
                               .dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string page = open_page(kTracePageTemplate, kTracePageTemplateSize);
  put_in_page(page, "\"SKEIN_TRACE_DATA\"", for_script(data));
  return page;
}

}  // namespace skein
