// control/store/store.hpp - where a tailnet survives its server. Domain operations only; no SQL leaves this folder.
#pragma once
#include "base/result.hpp"
#include "control/model/model.hpp"

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace tailrace {

/// One thing that happened. A group of them is written as one: all or none.
struct PutUser {
    UserPtr user;
};
struct DeleteUser {
    UserId id;
};
struct PutAuthKey {
    AuthKeyPtr key;
};
struct DeleteAuthKey {
    AuthKeyId id;
};
struct PutOAuthClient {
    OAuthClientPtr client;
};
/// A node was registered or its record changed. Writes the record only.
struct PutNode {
    NodePtr node;
};
struct DeleteNode {
    NodeId id;
};
/// A node reported something. Writes the report only; of a node that is gone, nothing.
struct PutReport {
    NodePtr node;
};
struct PutService {
    ServicePtr service;
};
struct DeleteService {
    std::string name;
};
struct PutPolicy {
    std::string text;
};
using StoreOperation = std::variant<PutUser, DeleteUser, PutAuthKey, DeleteAuthKey, PutOAuthClient, PutNode, DeleteNode,
                                    PutReport, PutService, DeleteService, PutPolicy>;
using StoreOperations = std::vector<StoreOperation>;

/// Everything there is, as read at the start.
struct StoredTailnet {
    std::vector<User> users;
    std::vector<AuthKey> auth_keys;
    std::vector<OAuthClient> oauth_clients;
    std::vector<Node> nodes;
    std::vector<Service> services;
    std::optional<std::string> policy;
    UserId last_user = 0; ///< the highest ids ever given out
    AuthKeyId last_auth_key = 0;
    OAuthClientId last_oauth_client = 0;
    NodeId last_node = 0;
};

class Store {
public:
    virtual ~Store() = default;
    virtual Result<StoredTailnet> load() = 0;
    /// All groups in one transaction, durable when this returns.
    virtual Result<void> commit(const std::vector<StoreOperations>& groups) = 0;
};

} // namespace tailrace
