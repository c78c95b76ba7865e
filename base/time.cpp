#include "base/time.hpp"

#include "base/text.hpp"

#include <ctime>
#include <limits>

namespace tailrace {
namespace {

constexpr std::int64_t kBillion = 1'000'000'000;

// Days since 1970-01-01 of a proleptic Gregorian date. Source: H. Hinnant, "chrono-Compatible Low-Level Date
// Algorithms".
std::int64_t days_from_civil(std::int64_t year, unsigned month, unsigned day) {
    year -= month <= 2;
    std::int64_t era = (year >= 0 ? year : year - 399) / 400;
    auto year_of_era = static_cast<unsigned>(year - era * 400);
    unsigned day_of_year = (153 * (month + (month > 2 ? -3U : 9U)) + 2) / 5 + day - 1;
    unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + static_cast<std::int64_t>(day_of_era) - 719468;
}

struct Civil {
    std::int64_t year;
    unsigned month, day;
};

Civil civil_from_days(std::int64_t days) {
    days += 719468;
    std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    auto day_of_era = static_cast<unsigned>(days - era * 146097);
    unsigned year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned shifted = (5 * day_of_year + 2) / 153;
    unsigned month = shifted < 10 ? shifted + 3 : shifted - 9;
    return {static_cast<std::int64_t>(year_of_era) + era * 400 + (month <= 2), month,
            day_of_year - (153 * shifted + 2) / 5 + 1};
}

} // namespace

WallTime WallTime::now() {
    timespec ts{};
    ::clock_gettime(CLOCK_REALTIME, &ts);
    return {ts.tv_sec, static_cast<std::int32_t>(ts.tv_nsec)};
}

Result<WallTime> WallTime::parse(std::string_view text) {
    auto bad = [&] { return Error::make("\"{}\" is not an RFC 3339 time", text); };
    auto number = [&](std::size_t at, std::size_t count) { return parse_number<unsigned>(text.substr(at, count)); };
    if (text.size() < 20 || text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != 't') ||
        text[13] != ':' || text[16] != ':')
        return bad();
    auto year = number(0, 4), month = number(5, 2), day = number(8, 2);
    auto hour = number(11, 2), minute = number(14, 2), second = number(17, 2);
    if (!year || !month || !day || !hour || !minute || !second) return bad();
    if (*month < 1 || *month > 12 || *day < 1 || *day > 31 || *hour > 23 || *minute > 59 || *second > 60) return bad();
    std::size_t at = 19;
    std::int32_t nanos = 0;
    if (text[at] == '.') {
        std::int32_t scale = 100'000'000;
        for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, scale /= 10)
            nanos += (text[at] - '0') * scale;
    }
    std::int64_t offset = 0;
    std::string_view zone = text.substr(at);
    if (zone.size() == 6 && (zone[0] == '+' || zone[0] == '-') && zone[3] == ':') {
        auto hours = parse_number<unsigned>(zone.substr(1, 2)), minutes = parse_number<unsigned>(zone.substr(4, 2));
        if (!hours || !minutes || *hours > 24 || *minutes > 59) return bad();
        offset = static_cast<std::int64_t>(*hours) * 3600 + *minutes * 60;
        if (zone[0] == '-') offset = -offset;
    } else if (zone != "Z" && zone != "z") {
        return bad();
    }
    std::int64_t seconds =
        days_from_civil(*year, *month, *day) * 86400 + *hour * 3600 + *minute * 60 + *second - offset;
    return WallTime{seconds, nanos};
}

WallTime WallTime::plus(Duration duration) const {
    std::int64_t total = nanos + duration.count() % kBillion;
    std::int64_t carry = total < 0 ? -1 : total / kBillion;
    return {seconds + duration.count() / kBillion + carry, static_cast<std::int32_t>(total - carry * kBillion)};
}

Duration WallTime::minus(const WallTime& other) const {
    std::int64_t difference = seconds - other.seconds;
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / kBillion - 1;
    if (difference > kMost) return Duration::max();
    if (difference < -kMost) return Duration::min();
    return Duration{difference * kBillion + nanos - other.nanos};
}

std::string WallTime::text() const {
    std::int64_t days = seconds >= 0 ? seconds / 86400 : (seconds - 86399) / 86400;
    std::int64_t rest = seconds - days * 86400;
    Civil date = civil_from_days(days);
    auto out = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", date.year, date.month, date.day, rest / 3600,
                           rest / 60 % 60, rest % 60);
    if (nanos != 0) {
        out += fmt::format(".{:09}", nanos);
        while (out.back() == '0') out.pop_back();
    }
    return out + "Z";
}

Result<Duration> parse_duration(std::string_view text) {
    auto bad = [&] { return Error::make("\"{}\" is not a duration (examples: 90s, 1h30m, 7d)", text); };
    if (text == "0") return Duration{0};
    std::string_view rest = text;
    bool negative = !rest.empty() && rest.front() == '-';
    if (negative) rest.remove_prefix(1);
    if (rest.empty()) return bad();
    long double total = 0;
    while (!rest.empty()) {
        std::size_t digits = rest.find_first_not_of("0123456789.");
        if (digits == 0 || digits == std::string_view::npos) return bad();
        double value = 0;
        auto [end, problem] = std::from_chars(rest.data(), rest.data() + digits, value);
        if (problem != std::errc{} || end != rest.data() + digits) return bad();
        rest.remove_prefix(digits);
        std::size_t letters = rest.find_first_of("0123456789.");
        std::string_view unit = rest.substr(0, letters);
        rest.remove_prefix(unit.size());
        long double scale = 0;
        if (unit == "ns")
            scale = 1;
        else if (unit == "us" || unit == "µs")
            scale = 1e3L;
        else if (unit == "ms")
            scale = 1e6L;
        else if (unit == "s")
            scale = 1e9L;
        else if (unit == "m")
            scale = 60e9L;
        else if (unit == "h")
            scale = 3600e9L;
        else if (unit == "d")
            scale = 86400e9L;
        else if (unit == "w")
            scale = 7 * 86400e9L;
        else
            return bad();
        total += value * scale;
    }
    if (total > 9.2e18L) return Error::make("\"{}\" is too long a duration", text);
    return Duration{static_cast<std::int64_t>(negative ? -total : total)};
}

} // namespace tailrace
