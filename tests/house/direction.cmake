# Configures and builds the little project in direction/ anew for one CASE; see CMakeLists.txt.
file(REMOVE_RECURSE ${BINARY})
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BINARY} -G Ninja -DROOMS=${ROOMS} -DCASE=${CASE}
  RESULT_VARIABLE configured OUTPUT_VARIABLE said ERROR_VARIABLE said)

if(CASE STREQUAL "forbidden_use")
  if(configured EQUAL 0)
    message(FATAL_ERROR "a room that names a forbidden room in USES was configured")
  elseif(NOT said MATCHES "room 'formats' may not use room 'server'")
    message(FATAL_ERROR "configuring failed for another reason:\n${said}")
  endif()
  return()
endif()
if(NOT configured EQUAL 0)
  message(FATAL_ERROR "the little project cannot be configured:\n${said}")
endif()

execute_process(COMMAND ${CMAKE_COMMAND} --build ${BINARY} -- -k 0
  RESULT_VARIABLE built OUTPUT_VARIABLE said ERROR_VARIABLE said)
if(CASE STREQUAL "forbidden_include")
  if(built EQUAL 0)
    message(FATAL_ERROR "a room that includes a header of a room it may not use was compiled")
  elseif(NOT said MATCHES "server/server\\.h: No such file")
    message(FATAL_ERROR "the build failed for another reason:\n${said}")
  endif()
elseif(NOT built EQUAL 0)
  message(FATAL_ERROR "what is allowed does not build:\n${said}")
endif()
