# SPDX-License-Identifier: MIT
# What `cmake --install` puts where. One Lua per prefix.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

if(TIDEMILL_LUA STREQUAL luajit)
  set(lua_version 5.1)
else()
  set(lua_version ${TIDEMILL_LUA})
endif()
set(lua_modules_dir ${CMAKE_INSTALL_DATADIR}/lua/${lua_version})
set(lua_cmodules_dir lib/lua/${lua_version})
set(lua_share ${CMAKE_INSTALL_PREFIX}/${lua_modules_dir})
set(installed_path "${lua_share}/?.lua;${lua_share}/?/init.lua")
set(lua_lib ${CMAKE_INSTALL_PREFIX}/${lua_cmodules_dir})
set(installed_cpath "${lua_lib}/?.so")
set_source_files_properties(${CMAKE_SOURCE_DIR}/bindings/embed.c PROPERTIES COMPILE_DEFINITIONS
  "LUA_SHARE=\"${lua_share}\";LUA_LIB=\"${lua_lib}\"")

# The libraries, as tidemill::tidemill, ::lua, and their _static forms.
set_target_properties(engine PROPERTIES EXPORT_NAME tidemill_static)
install(TARGETS tidemill engine lua lua_static EXPORT tidemill-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES engine/include/tidemill.h bindings/tidemill_lua.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# find_package(tidemill)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tidemill)
configure_file(tools/tidemill-config.cmake.in tidemill-config.cmake @ONLY)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/tidemill-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(EXPORT tidemill-targets NAMESPACE tidemill:: DESTINATION ${package_dir})
install(FILES ${CMAKE_BINARY_DIR}/tidemill-config.cmake
  ${CMAKE_BINARY_DIR}/tidemill-config-version.cmake DESTINATION ${package_dir})

# pkg-config
foreach(name tidemill tidemill-lua)
  configure_file(tools/${name}.pc.in ${name}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

# For Lua programs: the modules, and the command with the Lua and the paths it was built for.
install(TARGETS core LIBRARY DESTINATION ${lua_cmodules_dir}/tidemill)
foreach(module IN LISTS lua_modules)
  string(REGEX REPLACE "^(bindings/tidemill|bin)/" "" name ${module})
  get_filename_component(directory tidemill/${name} DIRECTORY)
  install(FILES ${module} DESTINATION ${lua_modules_dir}/${directory})
endforeach()
file(READ bin/tidemill command)
string(REGEX REPLACE "^#![^\n]*\n" "" command "${command}")
file(WRITE ${CMAKE_BINARY_DIR}/tidemill.command "#!${LUA_PROGRAM}
package.path = \"${installed_path};\" .. package.path
package.cpath = \"${installed_cpath};\" .. package.cpath
${command}")
install(PROGRAMS ${CMAKE_BINARY_DIR}/tidemill.command DESTINATION ${CMAKE_INSTALL_BINDIR}
  RENAME tidemill)
