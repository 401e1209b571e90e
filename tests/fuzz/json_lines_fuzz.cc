// JSON lines from strangers, and as a task's examples.
#include "skein/io/json.h"
#include "skein/spec/example.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  const auto env = env_with_input(data, size);
  // What was accepted must be written as text that is accepted again, and means the same.
  (void)for_each_json_line(*env, "input", [](Json&& object, std::int64_t) -> Status {
    SKEIN_CHECK(or_throw(parse_json(object.dump(), "again")) == object);
    return {};
  });
  (void)read_examples(*env, {"input"});
  return 0;
}
