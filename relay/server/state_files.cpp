#include "relay/server/state_files.hpp"

#include "base/file.hpp"
#include "base/json/json.hpp"
#include "relay/net/certificate.hpp"

#include <sys/stat.h>

#include <cerrno>

namespace tailrace::relay {

struct StoredKey {
    std::string private_key;
};

} // namespace tailrace::relay

template <>
struct tailrace::JsonFields<tailrace::relay::StoredKey> {
    static constexpr auto fields = field_table(field("PrivateKey", &tailrace::relay::StoredKey::private_key));
};

namespace tailrace::relay {

Result<NodePrivateKey> load_relay_key(const std::string& state_dir) {
    std::string path = state_dir + "/relay.key";
    auto text = read_file(path, 4096);
    if (!text && text.error().code() != ENOENT) return text.error();
    if (!text) {
        auto key = NodePrivateKey::generate();
        auto written = write_file_atomically(path, json::write(StoredKey{key.text_for_storing()}) + "\n", 0600);
        if (!written) return written.error();
        return key;
    }
    auto stored = json::parse<StoredKey>(*text);
    if (!stored) return stored.error().with("{}", path);
    auto key = NodePrivateKey::parse(stored->private_key);
    sodium_memzero(stored->private_key.data(), stored->private_key.size());
    sodium_memzero(text->data(), text->size());
    if (!key) return key.error().with("{}", path);
    return key;
}

Result<TlsIdentity> load_identity(const RelayConfig& config) {
    bool ours = config.cert_mode == CertMode::SelfSigned;
    std::string certificate_path = ours ? config.state_dir + "/certificate.pem" : config.tls_certificate;
    std::string key_path = ours ? config.state_dir + "/certificate.key" : config.tls_key;
    auto certificate = read_file(certificate_path, 1 << 20);
    auto key = read_file(key_path, 1 << 20);
    if (certificate && key) return TlsIdentity{*certificate, *key};
    if (!ours) return certificate ? key.error() : certificate.error();
    for (const auto* file : {&certificate, &key})
        if (!*file && file->error().code() != ENOENT) return file->error();
    auto made = make_self_signed({config.hostname});
    if (!made) return made.error();
    if (auto written = write_file_atomically(key_path, made->key, 0600); !written) return written.error();
    if (auto written = write_file_atomically(certificate_path, made->certificate, 0644); !written)
        return written.error();
    return made;
}

Result<derp::MeshKey> load_mesh_key(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0 && (info.st_mode & 0077) != 0)
        return Error::make("{}: others may read this secret; run: chmod 600 {}", path, path);
    auto text = read_file(path, 4096);
    if (!text) return text.error();
    auto key = derp::parse_mesh_key(trim(*text));
    sodium_memzero(text->data(), text->size());
    if (!key) return key.error().with("{}", path);
    return key;
}

Result<KeyList> parse_key_list(std::string_view text, const std::string& name) {
    KeyList list;
    int number = 0;
    for (std::string_view line : split(text, '\n')) {
        ++number;
        line = trim(line.substr(0, line.find('#')));
        if (line.empty()) continue;
        auto key = NodeKey::parse(line);
        if (!key) return Error::make("{}:{}: {}", name, number, key.error().message());
        list.insert(*key);
    }
    return list;
}

Result<KeyList> load_key_list(const std::string& path) {
    auto text = read_file(path);
    if (!text) return text.error();
    return parse_key_list(*text, path);
}

} // namespace tailrace::relay
