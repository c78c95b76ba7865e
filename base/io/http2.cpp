#include "base/io/http2.hpp"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <map>

namespace tailrace {
namespace detail {

/// One stream of a session, shared by the session and whoever uses the stream.
struct Http2StreamState {
    explicit Http2StreamState(Reactor& reactor) : changed(reactor), sent(reactor) {}

    std::weak_ptr<Http2Session> session;
    std::int32_t id = 0;
    bool closed = false; // by either side, or with the connection

    // What arrives: a request on a server, an answer on a client.
    HttpRequest request;
    int status = 0;
    HttpHeaders headers;
    std::size_t header_bytes = 0;
    std::string received; // body not yet taken (client)
    bool head_complete = false;
    bool remote_ended = false;
    bool refused = false; // the request was too large and has been answered
    Event changed;

    // What leaves.
    bool started = false;
    std::shared_ptr<const std::string> piece;
    std::size_t piece_at = 0;
    bool in_flight = false; // until the socket has taken the piece
    bool ended = false;     // nothing follows `piece`
    bool deferred = false;  // nghttp2 waits for resume_data
    Event sent;
    std::vector<std::function<void()>> on_closed;
};

class Http2Session : public std::enable_shared_from_this<Http2Session> {
public:
    enum class Side { Client, Server };

    Http2Session(std::unique_ptr<Stream> stream, Side side, Http2Handler handler, Http2Options options);
    ~Http2Session() { nghttp2_session_del(session_); }

    Task<Result<void>> read_loop();
    Task<void> write_loop();
    void close();
    bool closed() const { return closed_; }
    void wake_writer() { wake_.notify(); }
    Reactor& reactor() { return stream_->reactor(); }
    nghttp2_session* raw() { return session_; }

    std::shared_ptr<Http2StreamState> open_request(const HttpRequest& request);
    Result<void> submit_head(Http2StreamState& state, int status, const HttpHeaders& headers, bool with_body);
    void resume(Http2StreamState& state);
    void reset(Http2StreamState& state);
    void consumed(const Http2StreamState& state, std::size_t count);

private:
    static Http2Session& self(void* user) { return *static_cast<Http2Session*>(user); }
    std::shared_ptr<Http2StreamState> find(std::int32_t id);
    void close_stream(Http2StreamState& state);
    void request_complete(const std::shared_ptr<Http2StreamState>& state);
    void refuse_large(Http2StreamState& state);

    static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user);
    static int on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                         std::size_t name_length, const std::uint8_t* value, std::size_t value_length, std::uint8_t,
                         void* user);
    static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user);
    static int on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t length,
                       void* user);
    static int on_close(nghttp2_session*, std::int32_t id, std::uint32_t, void* user);
    static ssize_t read_piece(nghttp2_session*, std::int32_t id, std::uint8_t* buffer, std::size_t length,
                              std::uint32_t* flags, nghttp2_data_source*, void* user);

    std::unique_ptr<Stream> stream_;
    Side side_;
    Http2Handler handler_;
    Http2Options options_;
    nghttp2_session* session_ = nullptr;
    std::map<std::int32_t, std::shared_ptr<Http2StreamState>> streams_;
    std::vector<std::shared_ptr<Http2StreamState>> just_copied_; // their piece is in the output buffer
    Event wake_;
    bool closed_ = false;
};

namespace {

constexpr std::size_t kHeaderLimitBytes = 64 * 1024;

nghttp2_nv pair_of(std::string_view name, std::string_view value) {
    auto* n = reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data()));  // NOLINT: nghttp2 copies, never writes
    auto* v = reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())); // NOLINT
    return {n, v, name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

} // namespace

Http2Session::Http2Session(std::unique_ptr<Stream> stream, Side side, Http2Handler handler, Http2Options options)
    : stream_(std::move(stream)), side_(side), handler_(std::move(handler)), options_(options),
      wake_(stream_->reactor()) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_option* option = nullptr;
    nghttp2_option_new(&option);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_http_messaging(option, 1); // GET with a body and odd authorities are welcome
    nghttp2_option_set_no_closed_streams(option, 1);
    if (side == Side::Server)
        nghttp2_session_server_new2(&session_, callbacks, this, option);
    else
        nghttp2_session_client_new2(&session_, callbacks, this, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);

    std::vector<nghttp2_settings_entry> settings{{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.window_bytes}};
    if (side == Side::Server)
        settings.push_back({NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.concurrent_streams});
    else
        settings.push_back({NGHTTP2_SETTINGS_ENABLE_PUSH, 0});
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                          static_cast<std::int32_t>(options.window_bytes));
}

std::shared_ptr<Http2StreamState> Http2Session::find(std::int32_t id) {
    auto at = streams_.find(id);
    return at == streams_.end() ? nullptr : at->second;
}

int Http2Session::on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    Http2Session& me = self(user);
    if (me.side_ != Side::Server || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    auto state = std::make_shared<Http2StreamState>(me.reactor());
    state->session = me.weak_from_this();
    state->id = frame->hd.stream_id;
    me.streams_[state->id] = std::move(state);
    return 0;
}

int Http2Session::on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                            std::size_t name_length, const std::uint8_t* value, std::size_t value_length, std::uint8_t,
                            void* user) {
    Http2Session& me = self(user);
    auto state = me.find(frame->hd.stream_id);
    if (!state) return 0;
    state->header_bytes += name_length + value_length + 32;
    if (state->header_bytes > kHeaderLimitBytes) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; // resets the stream
    std::string key{reinterpret_cast<const char*>(name), name_length};
    std::string text{reinterpret_cast<const char*>(value), value_length};
    if (me.side_ == Side::Client) {
        if (key == ":status")
            state->status = std::atoi(text.c_str());
        else
            state->headers.add(std::move(key), std::move(text));
    } else if (key == ":method") {
        state->request.method = std::move(text);
    } else if (key == ":path") {
        state->request.target = std::move(text);
    } else if (key == ":authority") {
        state->request.authority = std::move(text);
    } else if (key == ":scheme") {
        state->request.scheme = std::move(text);
    } else if (key.empty() || key.front() != ':') {
        state->request.headers.add(std::move(key), std::move(text));
    }
    return 0;
}

int Http2Session::on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    Http2Session& me = self(user);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    auto state = me.find(frame->hd.stream_id);
    if (!state) return 0;
    bool informational = me.side_ == Side::Client && state->status >= 100 && state->status < 200;
    if (frame->hd.type == NGHTTP2_HEADERS && !informational) state->head_complete = true;
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) state->remote_ended = true;
    if (me.side_ == Side::Client)
        state->changed.notify();
    else if (state->remote_ended && !state->refused)
        me.request_complete(state);
    return 0;
}

void Http2Session::request_complete(const std::shared_ptr<Http2StreamState>& state) {
    state->request.peer = stream_->peer();
    auto exchange = std::make_shared<Http2Exchange>(state);
    auto task = handler_(std::move(exchange));
    spawn(reactor(), "HTTP/2 request", std::move(task));
}

void Http2Session::refuse_large(Http2StreamState& state) {
    state.refused = true;
    state.request.body = {};
    (void)submit_head(state, 413, {}, false); // a failure here ends the connection at its next write
}

int Http2Session::on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t length,
                          void* user) {
    Http2Session& me = self(user);
    auto state = me.find(id);
    if (!state || state->refused) {
        nghttp2_session_consume(me.session_, id, length);
        return 0;
    }
    if (me.side_ == Side::Client) {
        state->received.append(reinterpret_cast<const char*>(data), length);
        return 0; // consumed when it is read
    }
    nghttp2_session_consume(me.session_, id, length);
    if (state->request.body.size() + length > me.options_.body_limit_bytes)
        me.refuse_large(*state);
    else
        state->request.body.append(reinterpret_cast<const char*>(data), length);
    return 0;
}

int Http2Session::on_close(nghttp2_session*, std::int32_t id, std::uint32_t, void* user) {
    Http2Session& me = self(user);
    if (auto state = me.find(id)) {
        me.streams_.erase(id);
        me.close_stream(*state);
    }
    return 0;
}

void Http2Session::close_stream(Http2StreamState& state) {
    state.closed = true;
    state.piece.reset();
    state.changed.notify();
    state.sent.notify();
    for (auto& callback : state.on_closed) reactor().post(std::move(callback));
    state.on_closed.clear();
}

ssize_t Http2Session::read_piece(nghttp2_session*, std::int32_t id, std::uint8_t* buffer, std::size_t length,
                                 std::uint32_t* flags, nghttp2_data_source*, void* user) {
    Http2Session& me = self(user);
    auto state = me.find(id);
    if (!state) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    std::size_t count = 0;
    if (state->piece) {
        count = std::min(length, state->piece->size() - state->piece_at);
        std::copy_n(state->piece->data() + state->piece_at, count, buffer);
        state->piece_at += count;
        if (state->piece_at == state->piece->size()) {
            state->piece.reset();
            state->piece_at = 0;
            me.just_copied_.push_back(state);
        }
    }
    if (!state->piece && state->ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (count == 0) {
        state->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    return static_cast<ssize_t>(count);
}

Result<void> Http2Session::submit_head(Http2StreamState& state, int status, const HttpHeaders& headers,
                                       bool with_body) {
    if (state.closed) return Error::from_errno(EPIPE, "answer a request");
    std::string status_text = std::to_string(status);
    std::vector<nghttp2_nv> fields{pair_of(":status", status_text)};
    for (const auto& [name, value] : headers.all()) fields.push_back(pair_of(name, value));
    nghttp2_data_provider provider{};
    provider.read_callback = read_piece;
    state.started = true;
    int done =
        nghttp2_submit_response(session_, state.id, fields.data(), fields.size(), with_body ? &provider : nullptr);
    if (done != 0) return Error::make("answer a request: {}", nghttp2_strerror(done));
    wake_writer();
    return {};
}

std::shared_ptr<Http2StreamState> Http2Session::open_request(const HttpRequest& request) {
    auto state = std::make_shared<Http2StreamState>(reactor());
    state->session = weak_from_this();
    std::string scheme = request.scheme.empty() ? "https" : request.scheme;
    std::vector<nghttp2_nv> fields{pair_of(":method", request.method), pair_of(":scheme", scheme),
                                   pair_of(":authority", request.authority), pair_of(":path", request.target)};
    for (const auto& [name, value] : request.headers.all()) fields.push_back(pair_of(name, value));
    std::string length = std::to_string(request.body.size());
    if (!request.body.empty()) {
        fields.push_back(pair_of("content-length", length));
        state->piece = std::make_shared<const std::string>(request.body);
    }
    state->ended = true;
    nghttp2_data_provider provider{};
    provider.read_callback = read_piece;
    state->id = nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(),
                                       request.body.empty() ? nullptr : &provider, nullptr);
    if (state->id < 0) return nullptr;
    streams_[state->id] = state;
    wake_writer();
    return state;
}

void Http2Session::resume(Http2StreamState& state) {
    if (std::exchange(state.deferred, false)) nghttp2_session_resume_data(session_, state.id);
    wake_writer();
}

void Http2Session::reset(Http2StreamState& state) {
    if (state.closed || closed_) return;
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, state.id, NGHTTP2_CANCEL);
    wake_writer();
}

void Http2Session::consumed(const Http2StreamState& state, std::size_t count) {
    if (closed_) return;
    if (state.closed)
        nghttp2_session_consume_connection(session_, count);
    else
        nghttp2_session_consume(session_, state.id, count);
    wake_writer();
}

Task<Result<void>> Http2Session::read_loop() {
    auto keep = shared_from_this();
    static thread_local std::array<std::byte, 65536> scratch; // empty again before anybody else runs
    Result<void> outcome;
    while (!closed_) {
        auto ready = co_await stream_->wait_readable();
        if (!ready) {
            outcome = ready.error();
            break;
        }
        auto count = stream_->try_read(scratch);
        if (!count && count.error().code() == EAGAIN) {
            auto waited = co_await stream_->descriptor().readable(); // part of a record: nothing readable yet
            if (waited) continue;
            outcome = waited.error();
            break;
        }
        if (!count || *count == 0) {
            if (!count) outcome = count.error();
            break;
        }
        ssize_t used = nghttp2_session_mem_recv(session_, as_uchars(scratch), *count);
        if (used < 0) {
            outcome = Error::make("HTTP/2: {}", nghttp2_strerror(static_cast<int>(used)));
            break;
        }
        if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0) break;
        wake_writer();
    }
    close();
    co_return outcome;
}

Task<void> Http2Session::write_loop() {
    auto keep = shared_from_this();
    constexpr std::size_t kAtOnce = 64 * 1024;
    while (!closed_) {
        Bytes out;
        while (out.size() < kAtOnce) {
            const std::uint8_t* data = nullptr;
            ssize_t length = nghttp2_session_mem_send(session_, &data);
            if (length < 0) {
                close();
                co_return;
            }
            if (length == 0) break;
            auto* bytes = reinterpret_cast<const std::byte*>(data);
            out.insert(out.end(), bytes, bytes + length);
        }
        if (out.empty()) {
            if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0)
                close();
            else
                co_await wake_.wait();
            continue;
        }
        auto copied = std::move(just_copied_);
        just_copied_.clear();
        auto done = co_await stream_->write_all(out);
        for (const auto& state : copied) {
            state->in_flight = false;
            state->sent.notify();
        }
        if (!done) close();
    }
}

void Http2Session::close() {
    if (std::exchange(closed_, true)) return;
    stream_->close();
    wake_.notify();
    auto streams = std::move(streams_);
    streams_.clear();
    for (const auto& [id, state] : streams) close_stream(*state);
}

} // namespace detail

// ---- server

Http2Exchange::Http2Exchange(std::shared_ptr<detail::Http2StreamState> state) : state_(std::move(state)) {}

Http2Exchange::~Http2Exchange() {
    auto session = state_->session.lock();
    if (session && !state_->ended) session->reset(*state_);
}

const HttpRequest& Http2Exchange::request() const {
    return state_->request;
}
bool Http2Exchange::closed() const {
    return state_->closed;
}

void Http2Exchange::on_closed(std::function<void()> callback) {
    auto session = state_->session.lock();
    if (state_->closed || !session)
        callback();
    else
        state_->on_closed.push_back(std::move(callback));
}

Task<Result<void>> Http2Exchange::respond(HttpResponse response) {
    auto session = state_->session.lock();
    if (!session || state_->closed) co_return Error::from_errno(EPIPE, "answer a request");
    bool with_body = !response.body.empty();
    state_->ended = true;
    if (with_body) state_->piece = std::make_shared<const std::string>(std::move(response.body));
    auto done = session->submit_head(*state_, response.status, response.headers, with_body);
    if (!done || !with_body) co_return done;
    state_->in_flight = true;
    while (state_->in_flight && !state_->closed) co_await state_->sent.wait();
    co_return Result<void>{};
}

Result<void> Http2Exchange::start(int status, HttpHeaders headers) {
    auto session = state_->session.lock();
    if (!session || state_->closed) return Error::from_errno(EPIPE, "answer a request");
    return session->submit_head(*state_, status, headers, true);
}

Task<Result<void>> Http2Exchange::write(std::shared_ptr<const std::string> piece) {
    if (piece->empty()) co_return Result<void>{};
    {
        auto session = state_->session.lock();
        if (!session || state_->closed) co_return Error::from_errno(EPIPE, "write to a request's answer");
        state_->piece = std::move(piece);
        state_->piece_at = 0;
        state_->in_flight = true;
        session->resume(*state_);
    }
    while (state_->in_flight && !state_->closed) co_await state_->sent.wait();
    if (state_->closed) co_return Error::from_errno(EPIPE, "write to a request's answer");
    co_return Result<void>{};
}

void Http2Exchange::end() {
    state_->ended = true;
    if (auto session = state_->session.lock(); session && !state_->closed) session->resume(*state_);
}

Task<Result<void>> serve_http2(std::unique_ptr<Stream> stream, Http2Handler handler, Http2Options options) {
    Reactor& reactor = stream->reactor();
    auto session = std::make_shared<detail::Http2Session>(std::move(stream), detail::Http2Session::Side::Server,
                                                          std::move(handler), options);
    spawn(reactor, "HTTP/2 writer", session->write_loop());
    auto done = co_await session->read_loop();
    co_return done;
}

// ---- client

Http2Answer::Http2Answer(std::shared_ptr<detail::Http2StreamState> state) : state_(std::move(state)) {}

Http2Answer::~Http2Answer() {
    auto session = state_->session.lock();
    if (!session) return;
    if (!state_->received.empty()) session->consumed(*state_, state_->received.size());
    if (!state_->remote_ended) session->reset(*state_);
}

int Http2Answer::status() const {
    return state_->status;
}
const HttpHeaders& Http2Answer::headers() const {
    return state_->headers;
}

Task<Result<std::string>> Http2Answer::read_some() {
    for (;;) {
        if (!state_->received.empty()) {
            std::string out = std::move(state_->received);
            state_->received.clear();
            if (auto session = state_->session.lock()) session->consumed(*state_, out.size());
            co_return out;
        }
        if (state_->remote_ended) co_return std::string{};
        if (state_->closed) co_return Error::from_errno(ECONNRESET, "read an answer");
        co_await state_->changed.wait();
    }
}

Task<Result<std::string>> Http2Answer::read_all(std::size_t limit_bytes) {
    std::string out;
    for (;;) {
        auto piece = co_await read_some();
        if (!piece) co_return piece.error();
        if (piece->empty()) co_return out;
        out += *piece;
        if (out.size() > limit_bytes) co_return Error::make("the answer is longer than {} bytes", limit_bytes);
    }
}

Http2Client::Http2Client(std::shared_ptr<detail::Http2Session> session) : session_(std::move(session)) {}
Http2Client::~Http2Client() {
    session_->close();
}
bool Http2Client::closed() const {
    return session_->closed();
}
void Http2Client::close() {
    session_->close();
}

std::shared_ptr<Http2Client> Http2Client::start(std::unique_ptr<Stream> stream, Http2Options options) {
    Reactor& reactor = stream->reactor();
    auto session = std::make_shared<detail::Http2Session>(std::move(stream), detail::Http2Session::Side::Client,
                                                          Http2Handler{}, options);
    auto read = [](std::shared_ptr<detail::Http2Session> s) -> Task<void> {
        (void)co_await s->read_loop(); // how it ended shows in the requests
    };
    spawn(reactor, "HTTP/2 writer", session->write_loop());
    spawn(reactor, "HTTP/2 reader", read(session));
    return std::shared_ptr<Http2Client>{new Http2Client{session}};
}

Task<Result<std::shared_ptr<Http2Answer>>> Http2Client::request(HttpRequest request) {
    if (session_->closed()) co_return Error::from_errno(EPIPE, "{} {}", request.method, request.target);
    auto state = session_->open_request(request);
    if (!state) co_return Error::make("{} {}: no stream left on this connection", request.method, request.target);
    auto answer = std::make_shared<Http2Answer>(state);
    while (!state->head_complete) {
        if (state->closed) co_return Error::from_errno(ECONNRESET, "{} {}", request.method, request.target);
        co_await state->changed.wait();
    }
    co_return answer;
}

} // namespace tailrace
