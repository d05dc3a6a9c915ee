# One library per room, and the direction of dependencies between rooms.
#
# The table is that of docs/architecture.md. A room sees the headers of the rooms it names in USES
# and no others: each room's headers are reached through a directory of its own in the build tree,
# so that `#include "server/http.h"` does not compile in a room that does not use `server`.

include_guard(GLOBAL)
find_package(GTest REQUIRED)

set(FLEXLLM_MAY_USE_formats "")
set(FLEXLLM_MAY_USE_tokenizer formats)
set(FLEXLLM_MAY_USE_kernels "")
set(FLEXLLM_MAY_USE_host kernels formats)
set(FLEXLLM_MAY_USE_quantizer kernels formats tokenizer)
set(FLEXLLM_MAY_USE_server host tokenizer formats)
set(FLEXLLM_MAY_USE_cli formats tokenizer kernels host quantizer server)

# The same table as one string, 'ROOM:USED,USED ROOM:', for tests/house.
set(FLEXLLM_ROOM_TABLE "")
foreach(room formats tokenizer kernels host quantizer server cli)
  string(JOIN "," used ${FLEXLLM_MAY_USE_${room}})
  string(APPEND FLEXLLM_ROOM_TABLE "${room}:${used} ")
endforeach()

# flexllm_room(NAME SOURCES ... [USES rooms...] [LIBRARIES targets...])
# Creates the static library `flexllm_NAME`. USES and LIBRARIES are private: a room's public
# headers speak only of its own types and of those of the rooms its callers use themselves.
function(flexllm_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;USES;LIBRARIES" ${ARGN})
  set(target flexllm_${name})
  add_library(${target} STATIC ${ARG_SOURCES})
  set(root ${CMAKE_BINARY_DIR}/include/${name})
  file(MAKE_DIRECTORY ${root})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${name} ${root}/${name} SYMBOLIC)
  target_include_directories(${target} PUBLIC ${root})
  foreach(used ${ARG_USES})
    if(NOT used IN_LIST FLEXLLM_MAY_USE_${name})
      message(FATAL_ERROR "room '${name}' may not use room '${used}' (scripts/cmake/Rooms.cmake)")
    endif()
    target_link_libraries(${target} PRIVATE flexllm_${used})
  endforeach()
  target_link_libraries(${target} PRIVATE ${ARG_LIBRARIES})
  set_target_properties(${target} PROPERTIES FLEXLLM_USES "${ARG_USES}")
endfunction()

# The tests labelled `sanitize`: what a change is checked with under both sanitizers (.ci/run).
add_custom_target(sanitized)

# flexllm_test(ROOM NAME SOURCES ... [LIBRARIES targets...] [LABELS labels...] [ARGS args...])
# A GoogleTest program of one room, registered as one ctest test `ROOM.NAME`. It may use its room
# and what its room uses. TIMEOUT is generous: a test never fails because the machine was slow.
# Two labels mean something to scripts/test: `sanitize` (short; also runs under both sanitizers for
# every change) and `long` (runs with --long only).
function(flexllm_test room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES;LABELS;ARGS" ${ARGN})
  set(target ${room}_${name}_test)
  add_executable(${target} ${ARG_SOURCES})
  get_target_property(uses flexllm_${room} FLEXLLM_USES)
  target_link_libraries(${target} PRIVATE flexllm_${room} GTest::gtest_main ${ARG_LIBRARIES})
  foreach(used ${uses})
    target_link_libraries(${target} PRIVATE flexllm_${used})
  endforeach()
  add_test(NAME ${room}.${name} COMMAND ${target} ${ARG_ARGS})
  set_tests_properties(${room}.${name} PROPERTIES LABELS "${room};${ARG_LABELS}" TIMEOUT 1200)
  if("sanitize" IN_LIST ARG_LABELS)
    add_dependencies(sanitized ${target})
  endif()
endfunction()
