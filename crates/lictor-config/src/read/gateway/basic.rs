//! `basic:`, clients that show a name and a password.

use lictor_core::Secret;
use lictor_core::gateway::basic::Users;
use lictor_core::gateway::password::PasswordHash;
use serde_json::json;

use super::keys::words;
use crate::tree::Node;

/// Names, and the hashes of their passwords.
pub(super) fn users(node: &Node<'_>) -> Option<Users> {
    let section = node.section(&[]);
    let users_node = section.field(
        "users",
        "Names, and the hash of each one's password: argon2id's, as `lictor hash-key --password` prints it, or bcrypt's, as `htpasswd -nB NAME` prints it after the colon.",
    );
    let mut users = Vec::new();
    for entry in users_node.entries() {
        let section = entry.section_or_short("password", &[json!({ "type": "string" })]);
        let password = section.field("password", "The hash.");
        let scopes = words(&section.field("scopes", "What he may do: his claim `scope`."));
        let roles = words(&section.field("roles", "What he is: his claim `role`."));
        section.finish();
        let name = entry.name();
        if name.contains(':') || name.chars().any(char::is_control) {
            entry.key_error("a name has no colon and no control characters (RFC 7617, section 2)", None);
        }
        match password.secret().map(|text| PasswordHash::parse(Secret::reveal(&text))) {
            Some(Ok(hash)) => users.push((name, hash, scopes, roles)),
            Some(Err(why)) => password.error(why, None),
            None if entry.is_set() && !password.is_set() => entry.error("needs the hash of a `password`", None),
            None => (),
        }
    }
    section.finish();
    if node.is_map() && !users_node.is_set() {
        users_node.error("there is no user", Some("write `users: {ada: '$2y$10$..'}`".to_owned()));
    }
    Users::new(users)
}
