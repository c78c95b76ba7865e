#include "control/cli/command_line.hpp"
#include "control/server/serve.hpp"

int main(int argc, char** argv) {
    return tailrace::run_command_line(argc, argv, tailrace::serve);
}
