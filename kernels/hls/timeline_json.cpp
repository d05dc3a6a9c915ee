#include <string>

#include "kernels/hls/timeline.h"

namespace flexllm::kernels::simulation {
namespace {

// An object or array, whose members are appended one after the other.
class Json {
 public:
  explicit Json(char open) : close_(open == '{' ? '}' : ']'), text_(1, open) {}

  Json& add(const std::string& value) {
    if (text_.size() > 1) text_ += ',';
    text_ += value;
    return *this;
  }
  Json& add(const char* key, const std::string& value) { return add(quoted(key) + ':' + value); }
  Json& name(const char* key, const std::string& value) { return add(key, quoted(value)); }
  Json& count(const char* key, uint64_t value) { return add(key, std::to_string(value)); }
  std::string text() const { return text_ + close_; }

 private:
  static std::string quoted(const std::string& value) {
    std::string text(1, '"');
    for (const char c : value) {
      if (c == '"' || c == '\\') text += '\\';
      text += c;
    }
    return text + '"';
  }

  const char close_;
  std::string text_;
};

std::string json_of(const RegionRun& run) {
  return Json('{')
      .name("region", run.region)
      .name("opener", run.opener)
      .count("level", run.level)
      .count("begin", run.begin)
      .count("end", run.end)
      .text();
}

std::string json_of(const TaskTime& task) {
  return Json('{')
      .name("region", task.region)
      .name("task", task.task)
      .count("calls", task.calls)
      .count("cycles", task.cycles)
      .count("busy", task.busy())
      .count("waited_to_read", task.waited_to_read)
      .count("waited_to_write", task.waited_to_write)
      .count("waited_for_memory", task.waited_for_memory)
      .count("in_regions", task.in_regions)
      .text();
}

std::string json_of(const StreamUse& use) {
  return Json('{')
      .name("region", use.region)
      .name("stream", use.stream)
      .name("writer", use.writer)
      .name("reader", use.reader)
      .count("depth", use.depth)
      .count("most_held", use.most_held)
      .count("elements", use.elements)
      .count("reader_waited", use.reader_waited)
      .count("writer_waited", use.writer_waited)
      .text();
}

std::string json_of(const ChannelUse& use) {
  return Json('{')
      .count("words", use.words)
      .count("bursts", use.bursts)
      .count("busy", use.busy)
      .count("waited", use.waited)
      .text();
}

std::string json_of(const PortUse& port) {
  return Json('{')
      .name("port", port.name)
      .add("read", json_of(port.read))
      .add("write", json_of(port.write))
      .text();
}

template <typename T>
std::string json_of(const std::vector<T>& items) {
  Json array('[');
  for (const T& item : items) array.add(json_of(item));
  return array.text();
}

}  // namespace

std::string to_json(const Report& report) {
  return Json('{')
      .count("cycles", report.cycles)
      .add("regions", json_of(report.regions))
      .add("tasks", json_of(report.tasks))
      .add("streams", json_of(report.streams))
      .add("ports", json_of(report.ports))
      .text();
}

}  // namespace flexllm::kernels::simulation
