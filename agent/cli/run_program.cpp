#include "agent/cli/run_program.hpp"

#include "base/fd.hpp"
#include "base/text.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace tailrace::cli {

std::string find_program(const std::string& name) {
    const char* path = std::getenv("PATH");
    std::string all = std::string{path != nullptr ? path : ""} + ":/usr/sbin:/sbin:/usr/bin:/bin";
    for (std::string_view directory : split(all, ':')) {
        if (directory.empty()) continue;
        std::string full = std::string{directory} + "/" + name;
        if (::access(full.c_str(), X_OK) == 0) return full;
    }
    return "";
}

Result<ProgramOutput> run_program(const std::vector<std::string>& arguments, Stderr other, std::size_t limit_bytes,
                                  Duration patience) {
    std::string program = find_program(arguments.front());
    if (program.empty()) return Error::make("{} is not installed", arguments.front());
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return Error::from_errno(errno, "make a pipe");
    Fd read_end{ends[0]}, write_end{ends[1]};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, write_end.get(), 1);
    if (other == Stderr::Merge)
        posix_spawn_file_actions_adddup2(&actions, write_end.get(), 2);
    else
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    std::vector<char*> words;
    for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
    words.push_back(nullptr);
    pid_t child = 0;
    int problem = ::posix_spawn(&child, program.c_str(), &actions, nullptr, words.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (problem != 0) return Error::from_errno(problem, "start {}", program);
    write_end.reset();

    ProgramOutput out;
    auto end = std::chrono::steady_clock::now() + patience;
    bool killed = false;
    for (;;) {
        auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
        pollfd wait{read_end.get(), POLLIN, 0};
        int ready = left.count() > 0 ? ::poll(&wait, 1, static_cast<int>(left.count())) : 0;
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0 || out.text.size() >= limit_bytes) {
            ::kill(child, SIGKILL);
            killed = true;
            break;
        }
        char buffer[16384];
        ssize_t count = ::read(read_end.get(), buffer, std::min(sizeof buffer, limit_bytes - out.text.size()));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) break;
        out.text.append(buffer, static_cast<std::size_t>(count));
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    out.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (killed) out.text += out.text.size() >= limit_bytes ? "\n(cut off here)\n" : "\n(took too long and was ended)\n";
    return out;
}

} // namespace tailrace::cli
