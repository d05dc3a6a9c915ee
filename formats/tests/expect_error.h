// Expects an Error whose message says what it must: file, place, expectation.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "formats/error.h"

namespace flexllm::formats::testing {

inline void expect_error(const std::function<void()>& action,
                         const std::vector<std::string>& parts) {
  try {
    action();
  } catch (const Error& error) {
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "'" << part << "' is not in: " << error.what();
    }
    return;
  }
  ADD_FAILURE() << "no Error was thrown; expected one about " << ::testing::PrintToString(parts);
}

}  // namespace flexllm::formats::testing
