#include "relay/net/transport.hpp"

#include "base/net.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <cerrno>

namespace tailrace::relay {

using Outcome = Attempt::Outcome;

void Transport::SslFree::operator()(ssl_st* ssl) const {
    SSL_free(ssl);
}

bool Transport::start_tls_server(ssl_ctx_st* context) {
    ssl_.reset(SSL_new(context));
    if (!ssl_) return false;
    SSL_set_accept_state(ssl_.get());
    return SSL_set_fd(ssl_.get(), socket_.get()) == 1;
}

bool Transport::start_tls_client(ssl_ctx_st* context, const std::string& host) {
    ssl_.reset(SSL_new(context));
    if (!ssl_) return false;
    SSL_set_connect_state(ssl_.get());
    auto literal = IpAddress::parse(host);
    if (!literal && SSL_set_tlsext_host_name(ssl_.get(), host.c_str()) != 1) return false;
    return SSL_set_fd(ssl_.get(), socket_.get()) == 1;
}

Attempt Transport::explain(int done) const {
    int why = SSL_get_error(ssl_.get(), done);
    ERR_clear_error();
    if (why == SSL_ERROR_WANT_READ) return {Outcome::WantRead, 0};
    if (why == SSL_ERROR_WANT_WRITE) return {Outcome::WantWrite, 0};
    return {Outcome::Closed, 0};
}

Attempt Transport::handshake() {
    if (!ssl_) return {Outcome::Ok, 0};
    ERR_clear_error();
    int done = SSL_do_handshake(ssl_.get());
    if (done == 1) return {Outcome::Ok, 0};
    return explain(done);
}

Attempt Transport::read(std::span<std::byte> into) {
    if (ssl_) {
        ERR_clear_error();
        std::size_t count = 0;
        int done = SSL_read_ex(ssl_.get(), into.data(), into.size(), &count);
        if (done == 1) return {Outcome::Ok, count};
        return explain(done);
    }
    ssize_t count = ::recv(socket_.get(), into.data(), into.size(), 0);
    if (count > 0) return {Outcome::Ok, static_cast<std::size_t>(count)};
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return {Outcome::WantRead, 0};
    return {Outcome::Closed, 0};
}

Attempt Transport::write(BytesView data) {
    if (ssl_) {
        ERR_clear_error();
        std::size_t count = 0;
        int done = SSL_write_ex(ssl_.get(), data.data(), data.size(), &count);
        if (done == 1) return {Outcome::Ok, count};
        return explain(done);
    }
    ssize_t count = ::send(socket_.get(), data.data(), data.size(), MSG_NOSIGNAL);
    if (count >= 0) return {Outcome::Ok, static_cast<std::size_t>(count)};
    if (errno == EAGAIN || errno == EINTR) return {Outcome::WantWrite, 0};
    return {Outcome::Closed, 0};
}

bool Transport::has_buffered() const {
    return ssl_ && SSL_has_pending(ssl_.get()) == 1;
}

void Transport::finish_writing() {
    if (ssl_ && SSL_is_init_finished(ssl_.get()) == 1)
        (void)SSL_shutdown(ssl_.get()); // best effort: the FIN says it too
    ERR_clear_error();
    ::shutdown(socket_.get(), SHUT_WR);
}

} // namespace tailrace::relay
