// control/store/sqlite_store.hpp - the store of one machine: SQLite in WAL mode, through SOCI.
#pragma once
#include "control/store/store.hpp"

#include <memory>

namespace tailrace {

/// Not for several threads at a time: load() first, then commit() from one thread.
class SqliteStore final : public Store {
public:
    /// Makes the file (mode 0600) and brings its schema up to date. A damaged file is left as it is, with a copy
    /// beside it, and is an error.
    static Result<std::unique_ptr<SqliteStore>> open(const std::string& path);
    ~SqliteStore() override;

    Result<StoredTailnet> load() override;
    Result<void> commit(const std::vector<StoreOperations>& groups) override;

private:
    struct Impl;
    explicit SqliteStore(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

} // namespace tailrace
