#include "relay/net/transport.hpp"

#include "base/net.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
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
    if (done != 1) return explain(done);
    records_ = TlsRecords::from_handshake(ssl_.get());
    if (records_) ssl_.reset();
    return {Outcome::Ok, 0};
}

// Reads what is there, at most what surely fits once it is open.
Attempt Transport::read_records(std::span<std::byte> into) {
    thread_local Bytes ciphertext(128 * 1024);
    std::size_t filled = 0;
    if (cut_ && !cut_->arrived.empty()) {
        filled = cut_->arrived.size();
        std::memcpy(ciphertext.data(), cut_->arrived.data(), filled);
    }
    std::size_t limit = std::min(ciphertext.size(), std::max(into.size(), TlsRecords::kMaxRecord));
    ssize_t count = ::recv(socket_.get(), ciphertext.data() + filled, limit - filled, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return {Outcome::WantRead, 0};
    if (count <= 0) return {Outcome::Closed, 0};
    filled += static_cast<std::size_t>(count);
    auto opened = records_->open(BytesView{ciphertext}.first(filled), into);
    if (!opened) return {Outcome::Closed, 0};
    BytesView rest = BytesView{ciphertext}.subspan(opened->taken, filled - opened->taken);
    if (!rest.empty())
        cut().arrived.assign(rest.begin(), rest.end());
    else if (cut_)
        cut_->arrived = Bytes{};
    if (cut_ && cut_->arrived.empty() && cut_->unsent.empty()) cut_.reset();
    if (opened->plaintext > 0)
        return {Outcome::Ok, opened->plaintext}; // a goodbye behind it shows as the end of the stream
    return {opened->closed ? Outcome::Closed : Outcome::WantRead, 0};
}

Attempt Transport::write_rest(BytesView sealed, std::size_t plaintext) {
    ssize_t count = ::send(socket_.get(), sealed.data(), sealed.size(), MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return {Outcome::Closed, 0};
    std::size_t sent = count < 0 ? 0 : static_cast<std::size_t>(count);
    if (sent == sealed.size()) return {Outcome::Ok, plaintext};
    if (cut_ && !cut_->unsent.empty()) {
        cut_->unsent_at += sent;
    } else {
        BytesView rest = sealed.subspan(sent);
        cut().unsent.assign(rest.begin(), rest.end());
        cut_->unsent_at = 0;
        cut_->unsent_plaintext = plaintext;
    }
    return {Outcome::WantWrite, 0};
}

// A record that was begun is finished first: its plaintext is the front of `data`, as with OpenSSL.
Attempt Transport::write_record(BytesView data) {
    if (cut_ && !cut_->unsent.empty()) {
        Attempt attempt = write_rest(BytesView{cut_->unsent}.subspan(cut_->unsent_at), cut_->unsent_plaintext);
        if (attempt.outcome == Outcome::Ok) {
            cut_->unsent = Bytes{};
            if (cut_->arrived.empty()) cut_.reset();
        }
        return attempt;
    }
    thread_local Bytes sealed;
    sealed.clear();
    BytesView piece = data.first(std::min(data.size(), TlsRecords::kMaxPlaintext));
    if (!records_->seal(piece, sealed)) return {Outcome::Closed, 0};
    return write_rest(sealed, piece.size());
}

Attempt Transport::read(std::span<std::byte> into) {
    if (records_) return read_records(into);
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
    if (records_) return write_record(data);
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
    if (records_ && !(cut_ && !cut_->unsent.empty())) {
        Bytes goodbye;
        records_->seal_goodbye(goodbye);
        (void)::send(socket_.get(), goodbye.data(), goodbye.size(), MSG_NOSIGNAL | MSG_DONTWAIT); // as above
    }
    ::shutdown(socket_.get(), SHUT_WR);
}

} // namespace tailrace::relay
