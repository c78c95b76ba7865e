#include "agent/local/pretty_json.hpp"

namespace tailrace {

std::string pretty_json(std::string_view json, std::string_view indent) {
    std::string out;
    int depth = 0;
    bool in_string = false;
    auto new_line = [&] {
        out += '\n';
        for (int i = 0; i < depth; ++i) out += indent;
    };
    for (std::size_t i = 0; i < json.size(); ++i) {
        char c = json[i];
        if (in_string) {
            out += c;
            if (c == '\\' && i + 1 < json.size())
                out += json[++i];
            else if (c == '"')
                in_string = false;
            continue;
        }
        switch (c) {
        case ' ':
        case '\t':
        case '\r':
        case '\n':
            break;
        case '"':
            in_string = true;
            out += c;
            break;
        case '{':
        case '[': {
            out += c;
            std::size_t next = json.find_first_not_of(" \t\r\n", i + 1);
            if (next != std::string_view::npos && (json[next] == '}' || json[next] == ']')) {
                out += json[next];
                i = next;
            } else {
                ++depth;
                new_line();
            }
            break;
        }
        case '}':
        case ']':
            --depth;
            new_line();
            out += c;
            break;
        case ',':
            out += c;
            new_line();
            break;
        case ':':
            out += ": ";
            break;
        default:
            out += c;
        }
    }
    return out;
}

} // namespace tailrace
