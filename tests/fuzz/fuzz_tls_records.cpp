// What a stranger sends behind a TLS handshake: foreign bytes never open, our own come back whole.
#include "relay/net/tls_records.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

using namespace tailrace;
using namespace tailrace::relay;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    BytesView data{reinterpret_cast<const std::byte*>(bytes), size};
    if (size == 0) return 0;
    auto suite = static_cast<TlsRecords::Suite>(std::to_integer<int>(data[0]) % 3);
    std::size_t secret_size = suite == TlsRecords::Suite::Aes256 ? 48 : 32;
    Bytes up(secret_size, std::byte{1}), down(secret_size, std::byte{2}), into(64 * 1024);
    auto server = TlsRecords::create(suite, up, down);
    auto opened = (*server)->open(data, into);
    if (opened && (opened->plaintext > 0 || opened->taken > 0)) std::abort();

    server = TlsRecords::create(suite, up, down);
    auto client = TlsRecords::create(suite, down, up);
    BytesView plain = data.first(std::min(size, TlsRecords::kMaxPlaintext));
    Bytes wire;
    if (!(*client)->seal(plain, wire)) std::abort();
    opened = (*server)->open(wire, into);
    if (!opened || opened->taken != wire.size() || !std::equal(plain.begin(), plain.end(), into.begin())) std::abort();
    return 0;
}
