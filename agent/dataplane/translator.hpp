// agent/dataplane/translator.hpp - carries flows of peers to the IPv4 networks of a 4via6 router, in the kernel.
#pragma once
#include "agent/dataplane/attachment.hpp"
#include "agent/dataplane/bpffs.hpp"
#include "agent/router/via6.hpp"
#include "base/result.hpp"
#include "bpf/shared/reasons.h"
#include "bpf/shared/via_map.h"

#include <string>
#include <vector>

namespace tailrace {

struct TranslatorOptions {
    std::string bpffs = "/sys/fs/bpf";
    AttachMethod attach = AttachMethod::Automatic;
    unsigned schema = TR_SCHEMA_VERSION; ///< another one only in tests of upgrades
};

struct TranslatorCount {
    std::string name; ///< as in bpf/shared/via_map.h
    bool passes = false;
    tr_counter counter{};
};

/// The two programs of bpf/via6.bpf.c with their maps; pinned, and adopted from an earlier agent with the flows that it
/// translates. Destroying it changes nothing in the kernel.
///
/// Order on the device: policy, translator on the way in; translator, egress on the way out. Whoever attaches the
/// egress program anew puts it first, so it calls step_aside() before, and keep_attached() after it. An agent that is
/// killed in between leaves no translator, not one in the wrong place.
class Translator {
public:
    /// Loads or adopts, without attaching.
    static Result<Translator> open(const std::string& device, const TranslatorOptions& options = {});
    /// Detaches and forgets everything, loaded by whomever. The device may be gone already.
    static Result<void> remove(const std::string& device, const TranslatorOptions& options = {});
    static Result<void> step_aside(const std::string& device, const TranslatorOptions& options = {});

    /// From the next packet on. Flows that are known stay known.
    Result<void> set(const ViaTable& table);
    Result<void> keep_attached();
    bool is_attached() const;
    Result<std::vector<TranslatorCount>> counts() const;

private:
    Translator(std::string device, PinDirectory pins) : device_(std::move(device)), pins_(std::move(pins)) {}

    std::string device_;
    PinDirectory pins_;
    std::vector<PinDirectory> others_; ///< of other schemas, until ours have taken their place
    AttachMethod method_ = AttachMethod::Automatic;
    Fd in_, out_, nets_, peers_, self_, counts_;
};

} // namespace tailrace
