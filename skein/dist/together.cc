#include "skein/dist/together.h"

#include <new>

namespace skein {

Status attempt(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::bad_alloc&) {
    return Error{"out of memory; use less: a smaller batch, --micro-batch, --max-input, --dtype bf16 or --recompute"};
  } catch (const std::exception& error) {
    const std::string text = error.what();
    return Error{text.substr(0, text.find('\n'))};  // libtorch appends a stack trace
  }
}

void together(Comm& comm, const std::function<void()>& work) {
  if (comm.size() == 1) return work();
  or_throw(agree(comm, attempt(work)));
}

void on_root(Comm& comm, const std::function<void()>& work) {
  together(comm, [&] {
    if (is_root(comm)) work();
  });
}

}  // namespace skein
