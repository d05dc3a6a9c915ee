// Private to this room: JSON from files that nobody vouches for. Parsing is limited in bytes and
// depth and refuses a key that stands twice; the accessors name the file and the key when a value
// is of another kind than expected. Pure functions; any thread may call them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace flexllm::formats {

using Json = nlohmann::json;

inline constexpr int kMaxJsonDepth = 32;

// `place` says which part of the file the text is, for messages. Throws Error.
Json parse_json(const std::filesystem::path& file, std::string_view place, std::string_view text,
                uint64_t max_bytes);

// A JSON object of a file, with what messages need. Refers to `json`, which must outlive it.
// Members that are null count as absent.
class JsonObject {
 public:
  // Throws Error unless `json` is an object.
  JsonObject(const std::filesystem::path& file, std::string key, const Json& json);

  const std::filesystem::path& file() const { return file_; }
  const Json& json() const { return json_; }

  // The full name of a member: its key after those of the objects around it.
  std::string path_of(std::string_view key) const { return prefix_ + std::string(key); }

  const Json* find(std::string_view key) const;
  std::optional<uint32_t> find_u32(std::string_view key) const;
  std::optional<double> find_number(std::string_view key) const;  // finite
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string> find_string(std::string_view key) const;
  std::optional<JsonObject> find_object(std::string_view key) const;
  const Json* find_array(std::string_view key) const;

  // The same, and Error when absent.
  uint32_t u32(std::string_view key) const;
  double number(std::string_view key) const;
  std::string string(std::string_view key) const;
  JsonObject object(std::string_view key) const;

  // Throws Error with the full name of `key`.
  [[noreturn]] void fail(std::string_view key, std::string_view what) const;

 private:
  std::filesystem::path file_;
  std::string prefix_;  // "model." for the members of "model"
  const Json& json_;
};

// A number of `json` as an unsigned 32-bit integer, or nullopt.
std::optional<uint32_t> as_u32(const Json& json);

}  // namespace flexllm::formats
