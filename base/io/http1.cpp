#include "base/io/http1.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace tailrace {

namespace http = boost::beast::http;
using ErrorCode = boost::system::error_code;

namespace {

std::string_view chars(boost::beast::string_view text) {
    return {text.data(), text.size()};
}

HttpHeaders headers_of(const http::fields& fields) {
    HttpHeaders out;
    for (const auto& field : fields)
        out.add(std::string{chars(field.name_string())}, std::string{chars(field.value())});
    return out;
}

// Reads more of a connection into `arrived`; false at the end of the stream.
Task<Result<bool>> read_more(Stream& stream, Bytes& arrived) {
    auto ready = co_await stream.wait_readable();
    if (!ready) co_return ready.error();
    std::size_t before = arrived.size();
    arrived.resize(before + 16 * 1024);
    auto count = co_await stream.read_some(std::span{arrived}.subspan(before));
    arrived.resize(before + (count ? *count : 0));
    if (!count) co_return count.error();
    co_return *count > 0;
}

void drop_front(Bytes& bytes, std::size_t count) {
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
}

std::string head_of(const HttpResponse& response, bool keep_alive) {
    std::string out = fmt::format("HTTP/1.1 {} {}\r\n", response.status, status_reason(response.status));
    for (const auto& [name, value] : response.headers.all()) out += fmt::format("{}: {}\r\n", name, value);
    bool bodyless = response.status == 101 || response.status == 204 || response.status == 304;
    if (response.stream)
        out += "Transfer-Encoding: chunked\r\n";
    else if (!bodyless && !response.headers.has("content-length"))
        out += fmt::format("Content-Length: {}\r\n", response.body.size());
    if (!keep_alive && response.status != 101) out += "Connection: close\r\n";
    return out + "\r\n";
}

class ChunkWriter final : public BodyWriter {
public:
    explicit ChunkWriter(Stream& stream) : stream_(stream) {}
    Task<Result<void>> write(std::string data) override {
        if (data.empty()) co_return Result<void>{};
        std::string chunk = fmt::format("{:x}\r\n{}\r\n", data.size(), data);
        auto done = co_await stream_.write_all(as_bytes(chunk));
        co_return done;
    }

private:
    Stream& stream_;
};

int status_for(const ErrorCode& problem) {
    if (problem == http::error::body_limit) return 413;
    if (problem == http::error::header_limit || problem == http::error::buffer_overflow) return 431;
    return 400;
}

} // namespace

Task<void> serve_http1(std::unique_ptr<Stream> stream, HttpHandler handler, Http1ServerOptions options) {
    Bytes arrived;
    Endpoint peer = stream->peer();
    for (;;) {
        http::request_parser<http::string_body> parser;
        parser.header_limit(static_cast<std::uint32_t>(options.header_limit_bytes));
        parser.body_limit(options.body_limit_bytes);
        parser.eager(true);
        Timer timer{stream->reactor()};
        timer.after(arrived.empty() ? options.idle_timeout : options.request_timeout, [&] { stream->close(); });
        ErrorCode problem;
        bool begun = !arrived.empty();
        while (!parser.is_done()) {
            if (!arrived.empty()) {
                std::size_t used = parser.put(boost::asio::buffer(arrived.data(), arrived.size()), problem);
                drop_front(arrived, used);
                if (problem && problem != http::error::need_more) break;
                if (parser.is_done()) break;
            }
            auto more = co_await read_more(*stream, arrived);
            if (!more || !*more) co_return;
            if (!begun) timer.after(options.request_timeout, [&] { stream->close(); });
            begun = true;
        }
        timer.cancel();
        if (problem && problem != http::error::need_more) {
            auto refusal = HttpResponse::text(status_for(problem), fmt::format("{}\n", problem.message()));
            std::string out = head_of(refusal, false) + refusal.body;
            (void)co_await stream->write_all(as_bytes(out)); // the connection closes anyway
            co_return;
        }
        auto& message = parser.get();
        HttpRequest request;
        request.method = std::string{chars(message.method_string())};
        request.target = std::string{chars(message.target())};
        request.headers = headers_of(message);
        request.authority = std::string{request.headers.get("host")};
        request.body = std::move(message.body());
        request.peer = peer;
        bool keep_alive = message.keep_alive();
        bool head_only = request.method == "HEAD";
        auto response = co_await handler(std::move(request));
        if (response.upgrade) {
            std::string head = response.status == 0 ? "" : head_of(response, true);
            auto written = co_await stream->write_all(as_bytes(head));
            if (!written) co_return;
            auto upgraded = response.upgrade(replay(std::move(stream), std::move(arrived)));
            co_await std::move(upgraded);
            co_return;
        }
        std::string out = head_of(response, keep_alive);
        if (!response.stream && !head_only) out += response.body;
        auto written = co_await stream->write_all(as_bytes(out));
        if (!written) co_return;
        if (response.stream && !head_only) {
            ChunkWriter writer{*stream};
            auto streaming = response.stream(writer);
            co_await std::move(streaming);
            std::string last = "0\r\n\r\n";
            written = co_await stream->write_all(as_bytes(last));
            if (!written) co_return;
        }
        if (!keep_alive) co_return;
    }
}

// ---- client

Result<HttpResponse> parse_http1_response(std::string_view text) {
    http::response_parser<http::string_body> parser;
    parser.header_limit(64 * 1024);
    parser.body_limit(text.size());
    parser.eager(true);
    ErrorCode problem;
    std::size_t used = 0;
    while (used < text.size() && !parser.is_done() && !problem) {
        std::size_t taken = parser.put(boost::asio::buffer(text.data() + used, text.size() - used), problem);
        if (taken == 0) break;
        used += taken;
    }
    if (problem == http::error::need_more) problem = {};
    if (!problem && !parser.is_done() && parser.got_some()) parser.put_eof(problem);
    if (problem) return Error::make("the answer is not HTTP: {}", problem.message());
    if (!parser.is_done()) return Error::make("the answer is not whole");
    HttpResponse response;
    response.status = static_cast<int>(parser.get().result_int());
    response.headers = headers_of(parser.get());
    response.body = std::move(parser.get().body());
    return response;
}

struct Http1Client::Parser {
    http::response_parser<http::buffer_body> parser;
};
void Http1Client::ParserDeleter::operator()(Parser* parser) const {
    delete parser;
}

Task<Result<HttpResponse>> Http1Client::start(HttpRequest request) {
    std::string out = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.target, request.authority);
    for (const auto& [name, value] : request.headers.all()) out += fmt::format("{}: {}\r\n", name, value);
    bool wants_length =
        !request.body.empty() || request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
    if (wants_length) out += fmt::format("Content-Length: {}\r\n", request.body.size());
    out += "\r\n" + request.body;
    auto written = co_await stream_->write_all(as_bytes(out));
    if (!written) co_return written.error();

    parser_.reset(new Parser);
    auto& parser = parser_->parser;
    parser.header_limit(64 * 1024);
    parser.body_limit(boost::none);
    if (request.method == "HEAD") parser.skip(true);
    while (!parser.is_header_done()) {
        if (!arrived_.empty()) {
            ErrorCode problem;
            std::size_t used = parser.put(boost::asio::buffer(arrived_.data(), arrived_.size()), problem);
            drop_front(arrived_, used);
            if (problem && problem != http::error::need_more)
                co_return Error::make("the answer is not HTTP: {}", problem.message());
            if (parser.is_header_done()) break;
        }
        auto more = co_await read_more(*stream_, arrived_);
        if (!more) co_return more.error();
        if (!*more) co_return Error::make("the server closed the connection without an answer");
    }
    HttpResponse response;
    response.status = static_cast<int>(parser.get().result_int());
    response.headers = headers_of(parser.get());
    co_return response;
}

Task<Result<std::string>> Http1Client::read_body_some() {
    auto& parser = parser_->parser;
    std::string out;
    while (!parser.is_done()) {
        char piece[16 * 1024];
        ErrorCode problem;
        if (!arrived_.empty()) {
            auto& body = parser.get().body();
            body.data = piece;
            body.size = sizeof piece;
            body.more = true;
            std::size_t used = parser.put(boost::asio::buffer(arrived_.data(), arrived_.size()), problem);
            drop_front(arrived_, used);
            out.append(piece, sizeof piece - body.size);
            if (problem && problem != http::error::need_more && problem != http::error::need_buffer)
                co_return Error::make("the answer is not HTTP: {}", problem.message());
            if (!out.empty() || parser.is_done()) co_return out;
            if (used > 0 || problem == http::error::need_buffer) continue; // the parser stops between parts of a chunk
        }
        auto more = co_await read_more(*stream_, arrived_);
        if (!more) co_return more.error();
        if (!*more) {
            parser.put_eof(problem);
            if (problem) co_return Error::make("the connection ended inside an answer");
        }
    }
    co_return out;
}

Task<Result<HttpResponse>> Http1Client::request(HttpRequest request, std::size_t body_limit_bytes) {
    auto response = co_await start(std::move(request));
    if (!response || response->status == 101) co_return response;
    for (;;) {
        auto piece = co_await read_body_some();
        if (!piece) co_return piece.error();
        if (piece->empty()) co_return response;
        response->body += *piece;
        if (response->body.size() > body_limit_bytes)
            co_return Error::make("the answer is longer than {} bytes", body_limit_bytes);
    }
}

std::unique_ptr<Stream> Http1Client::take_stream() {
    return replay(std::move(stream_), std::move(arrived_));
}

} // namespace tailrace
